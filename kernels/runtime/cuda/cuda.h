/* A model on a GPU: kernels and weights once, a session's memory, and passes. Every failure of the driver is an error with its
 * text; after one that the device does not survive, every later call fails likewise, and the process lives. device.c puts it
 * behind the calls of the run time, for libraries that have an image. */
#ifndef MOEC_CUDA_H
#define MOEC_CUDA_H

#include "../internal.h"

typedef struct moec_cuda moec_cuda;
typedef struct moec_cuda_session moec_cuda_session;

/* `image` (crates/moec-cuda/src/image.rs, aligned to 8 bytes) and the description outlive the device; the weights need not. */
int moec_cuda_open(const moec_description *description, const void *image, size_t image_bytes, const void *weights,
    moec_cuda **device, moec_error **error);
void moec_cuda_close(moec_cuda *device);

/* Passes of up to `chunk` positions, caches of `capacity`. */
int moec_cuda_session_new(moec_cuda *device, int64_t chunk, int64_t capacity, moec_cuda_session **session,
    moec_error **error);
void moec_cuda_session_free(moec_cuda_session *session);

/* One pass along a sequence, of one session. Of `pass` are read tokens, first_output, inputs and outputs (host addresses, as a
 * pass on a CPU has them; NULL where there is none), trace, and of its segment past and pasts. Caches lie in one piece. */
int moec_cuda_run(moec_cuda_session *session, int32_t sequence, const moec_pass *pass, moec_error **error);

#endif
