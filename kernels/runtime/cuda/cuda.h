/* A model on a GPU: kernels and weights once, memory of sessions, rooms, and passes. Every failure of the driver is an error with
 * its text; after one that the device does not survive, every later call fails likewise, and the process lives.
 *
 * A library that has an image asks for the device when it is opened; sessions, their pages and their budget are the run time's, as on a
 * CPU, but for the memory, which is the device's. device.c puts this behind the calls of the run time. */
#ifndef MOEC_CUDA_H
#define MOEC_CUDA_H

#include "../internal.h"

typedef struct moec_cuda moec_cuda;
typedef struct moec_cuda_room moec_cuda_room;

/* `image` (crates/moec-cuda/src/image.rs, aligned to 8 bytes) and the description outlive the device; the weights need not. */
int moec_cuda_open(const moec_description *description, const void *image, size_t image_bytes, const void *weights,
    moec_cuda **device, moec_error **error);
void moec_cuda_close(moec_cuda *device);

/* Memory of the device, for a page of caches or a session's states: not zeroed; NULL where there is none. */
char *moec_cuda_take(moec_cuda *device, size_t bytes);
void moec_cuda_give(moec_cuda *device, char *at);
/* From memory of the device to such. Done when it returns. */
int moec_cuda_copy(moec_cuda *device, char *to, const char *from, size_t bytes, moec_error **error);

/* What passes of up to `chunk` rows need besides weights and sessions. One call at a time uses it. */
int moec_cuda_room_new(moec_cuda *device, int64_t chunk, moec_cuda_room **room, moec_error **error);
void moec_cuda_room_free(moec_cuda_room *room);

/* One pass along a sequence, of one session or of several. Of `pass` are read: tokens, first_output, inputs and outputs (host
 * addresses, as a pass on a CPU has them; NULL where there is none), trace, positions, and of its segments all but the session:
 * tables of pages lie in the host's memory, the pages that they name and states in the device's. When it returns, outputs are
 * there, and nothing runs. */
int moec_cuda_run(moec_cuda_room *room, int32_t sequence, const moec_pass *pass, moec_error **error);

#endif
