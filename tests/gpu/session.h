/* A session of a case's model on the device: what the run time asks of whoever keeps sessions. */
#ifndef GPU_SESSION_H
#define GPU_SESSION_H

#include "case.h"

typedef struct gpu_session {
    moec_cuda *device;
    moec_cuda_room *room;
    char *states, **pages;
    int64_t page_count, *positions;
    int64_t pasts[MOEC_MOST_SEQUENCES];
} gpu_session;

/* Passes of up to `chunk` positions, `capacity` in all. A code of the run time's. */
int session_new(const gpu_case *of, moec_cuda *device, int64_t chunk, int64_t capacity, gpu_session *to, moec_error **error);
void session_free(gpu_session *of);

/* A pass of `tokens` positions. Of `pass` are first_output, inputs, outputs and trace said; the rest is filled in. */
int session_run(gpu_session *of, int32_t sequence, int64_t tokens, moec_pass *pass, moec_error **error);

#endif
