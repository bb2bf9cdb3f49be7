/* The device of libraries that were built for GPUs: cuda.c behind the run time's calls (../device.h). */
#include "../device.h"
#include "cuda.h"

static int open_device(const moec_description *description, const void *image, int64_t image_bytes, const void *weights,
    void **device, moec_error **error) {
    moec_cuda *opened = NULL;
    int code = moec_cuda_open(description, image, (size_t)image_bytes, weights, &opened, error);
    *device = opened;
    return code;
}

static void close_device(void *device) { moec_cuda_close(device); }

static int new_session(void *device, int64_t chunk, int64_t capacity, void **session, moec_error **error) {
    moec_cuda_session *made = NULL;
    int code = moec_cuda_session_new(device, chunk, capacity, &made, error);
    *session = made;
    return code;
}

static void free_session(void *session) { moec_cuda_session_free(session); }

static int run_pass(void *session, int32_t sequence, const moec_pass *pass, moec_error **error) {
    return moec_cuda_run(session, sequence, pass, error);
}

/* Named by the description (crates/moec-cpu/src/entry.rs). */
extern const moec_device_calls moec_cuda_calls;
const moec_device_calls moec_cuda_calls = {"cuda", MOEC_DEVICE_CUDA, open_device, close_device, new_session, free_session,
    run_pass};
