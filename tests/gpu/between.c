/* Between the run time and the driver. (contract: between.h) */
#include "between.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

bool between_quiet, between_one_stream;
moec_cu_stream between_stream;
long between_launches;

static struct {
    moec_cu_result (*alloc)(moec_cu_address *, size_t);
    moec_cu_result (*fill)(moec_cu_address, unsigned char, size_t);
    moec_cu_result (*context_wait)(void);
    moec_cu_result (*to_device)(moec_cu_address, const void *, size_t, moec_cu_stream);
    moec_cu_result (*to_host)(void *, moec_cu_address, size_t, moec_cu_stream);
    moec_cu_result (*stream_new)(moec_cu_stream *, unsigned);
    moec_cu_result (*stream_free)(moec_cu_stream);
    moec_cu_result (*stream_wait)(moec_cu_stream);
    moec_cu_result (*launch)(moec_cu_function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
        moec_cu_stream, void **, void **);
} real;

static moec_cu_result alloc(moec_cu_address *at, size_t bytes) {
    moec_cu_result result = real.alloc(at, bytes);
    if (!result) result = real.fill(*at, 0xff, bytes);
    /* Streams of others do not wait for it. */
    return result ? result : real.context_wait();
}

static moec_cu_result to_device(moec_cu_address to, const void *from, size_t bytes, moec_cu_stream stream) {
    return between_quiet ? 0 : real.to_device(to, from, bytes, stream);
}

static moec_cu_result to_host(void *to, moec_cu_address from, size_t bytes, moec_cu_stream stream) {
    return between_quiet ? 0 : real.to_host(to, from, bytes, stream);
}

static moec_cu_result stream_new(moec_cu_stream *stream, unsigned flags) {
    if (between_one_stream && between_stream) {
        *stream = between_stream;
        return 0;
    }
    moec_cu_result result = real.stream_new(stream, flags);
    if (!result) between_stream = *stream;
    return result;
}

static moec_cu_result stream_free(moec_cu_stream stream) { return between_one_stream ? 0 : real.stream_free(stream); }

static moec_cu_result stream_wait(moec_cu_stream stream) { return between_quiet ? 0 : real.stream_wait(stream); }

static moec_cu_result launch(moec_cu_function function, unsigned blocks, unsigned y, unsigned z, unsigned threads,
    unsigned threads_y, unsigned threads_z, unsigned shared_bytes, moec_cu_stream stream, void **parameters, void **extra) {
    between_launches++;
    return real.launch(function, blocks, y, z, threads, threads_y, threads_z, shared_bytes, stream, parameters, extra);
}

void *__real_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name);

void *__wrap_dlsym(void *library, const char *name) {
    void *found = __real_dlsym(library, name);
    if (!found) return NULL;
    if (!real.fill) {
        void *fill = __real_dlsym(library, "cuMemsetD8_v2"), *wait = __real_dlsym(library, "cuCtxSynchronize");
        memcpy(&real.fill, &fill, sizeof fill);
        memcpy(&real.context_wait, &wait, sizeof wait);
    }
    void *ours = NULL;
#define STANDS(symbol, function)                                                           \
    if (!strcmp(name, symbol)) {                                                           \
        memcpy(&real.function, &found, sizeof found);                                      \
        __typeof__(&function) ours_ = function;                                            \
        memcpy(&ours, &ours_, sizeof ours);                                                \
    }
    if (real.fill && real.context_wait) STANDS("cuMemAlloc_v2", alloc)
    STANDS("cuMemcpyHtoDAsync_v2", to_device)
    STANDS("cuMemcpyDtoHAsync_v2", to_host)
    STANDS("cuStreamCreate", stream_new)
    STANDS("cuStreamDestroy_v2", stream_free)
    STANDS("cuStreamSynchronize", stream_wait)
    STANDS("cuLaunchKernel", launch)
#undef STANDS
    return ours ? ours : found;
}

bool more_driver_load(more_driver *to) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "there is no CUDA driver: %s\n", dlerror());
        return false;
    }
    struct {
        void *at;
        const char *symbol;
        bool needed;
    } calls[] = {
        {&to->error_string, "cuGetErrorString", true},
        {&to->driver_version, "cuDriverGetVersion", true},
        {&to->device_name, "cuDeviceGetName", true},
        {&to->device_attribute, "cuDeviceGetAttribute", true},
        {&to->memory, "cuMemGetInfo_v2", true},
        {&to->fill, "cuMemsetD8_v2", true},
        {&to->alloc, "cuMemAlloc_v2", true},
        {&to->release, "cuMemFree_v2", true},
        {&to->copy, "cuMemcpyDtoDAsync_v2", true},
        {&to->event_new, "cuEventCreate", true},
        {&to->event_free, "cuEventDestroy_v2", true},
        {&to->event_record, "cuEventRecord", true},
        {&to->event_wait, "cuEventSynchronize", true},
        {&to->event_elapsed, "cuEventElapsedTime", true},
        {&to->context_retain, "cuDevicePrimaryCtxRetain", true},
        {&to->context_push, "cuCtxPushCurrent_v2", true},
        {&to->context_wait, "cuCtxSynchronize", true},
        {&to->capture_begin, "cuStreamBeginCapture_v2", false},
        {&to->capture_end, "cuStreamEndCapture", false},
        {&to->graph_new, "cuGraphInstantiateWithFlags", false},
        {&to->graph_launch, "cuGraphLaunch", false},
        {&to->graph_free, "cuGraphExecDestroy", false},
    };
    for (size_t at = 0; at < sizeof calls / sizeof *calls; at++) {
        void *found = __real_dlsym(library, calls[at].symbol);
        if (!found && calls[at].needed) {
            fprintf(stderr, "the CUDA driver is too old: it has no %s\n", calls[at].symbol);
            return false;
        }
        memcpy(calls[at].at, &found, sizeof found);
    }
    return true;
}
