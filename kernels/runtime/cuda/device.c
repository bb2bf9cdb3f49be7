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

static char *take(void *device, size_t bytes) { return moec_cuda_take(device, bytes); }

static void give(void *device, char *at) { moec_cuda_give(device, at); }

static int copy(void *device, char *to, const char *from, size_t bytes, moec_error **error) {
    return moec_cuda_copy(device, to, from, bytes, error);
}

static int new_room(void *device, int64_t chunk, void **room, moec_error **error) {
    moec_cuda_room *made = NULL;
    int code = moec_cuda_room_new(device, chunk, &made, error);
    *room = made;
    return code;
}

static void free_room(void *room) { moec_cuda_room_free(room); }

static int run_pass(void *room, int32_t sequence, const moec_pass *pass, moec_error **error) {
    return moec_cuda_run(room, sequence, pass, error);
}

/* Named by the description (crates/moec-cpu/src/entry.rs). */
extern const moec_device_calls moec_cuda_calls;
const moec_device_calls moec_cuda_calls = {"cuda", MOEC_DEVICE_CUDA, open_device, close_device, take, give, copy, new_room,
    free_room, run_pass};
