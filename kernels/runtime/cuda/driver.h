/* The CUDA driver, of which nothing is needed to build: the types and the calls that the run time uses, found when it is asked
 * for a device. Names and numbers are those of the driver's interface, unchanged since CUDA 11.4. */
#ifndef MOEC_CUDA_DRIVER_H
#define MOEC_CUDA_DRIVER_H

#include <stddef.h>

typedef int moec_cu_result;
typedef int moec_cu_device;
typedef struct moec_cu_context *moec_cu_context;
typedef struct moec_cu_module *moec_cu_module;
typedef struct moec_cu_function *moec_cu_function;
typedef struct moec_cu_stream *moec_cu_stream;
typedef struct moec_cu_graph *moec_cu_graph;
typedef struct moec_cu_ready_graph *moec_cu_ready_graph;
typedef unsigned long long moec_cu_address;

enum {
    MOEC_CU_OUT_OF_MEMORY = 2,
    MOEC_CU_COMPUTE_MAJOR = 75,
    MOEC_CU_COMPUTE_MINOR = 76,
    MOEC_CU_MOST_SHARED_BYTES = 97,       /* of a block that asks for more than usual */
    MOEC_CU_MAX_DYNAMIC_SHARED_BYTES = 8, /* a function's attribute */
    MOEC_CU_NON_BLOCKING = 1,
    MOEC_CU_CAPTURE_OF_THREAD = 1 /* other threads may do as they like */
};

/* result-less name, symbol, parameters */
#define MOEC_CU_CALLS(CALL)                                                                                                  \
    CALL(init, "cuInit", (unsigned flags))                                                                                   \
    CALL(error_string, "cuGetErrorString", (moec_cu_result result, const char **text))                                       \
    CALL(device_count, "cuDeviceGetCount", (int *count))                                                                     \
    CALL(device, "cuDeviceGet", (moec_cu_device * device, int number))                                                       \
    CALL(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, moec_cu_device device))                       \
    CALL(context_retain, "cuDevicePrimaryCtxRetain", (moec_cu_context * context, moec_cu_device device))                     \
    CALL(context_release, "cuDevicePrimaryCtxRelease_v2", (moec_cu_device device))                                           \
    CALL(context_push, "cuCtxPushCurrent_v2", (moec_cu_context context))                                                     \
    CALL(context_pop, "cuCtxPopCurrent_v2", (moec_cu_context * context))                                                     \
    CALL(module_load, "cuModuleLoadData", (moec_cu_module * module, const void *image))                                      \
    CALL(module_unload, "cuModuleUnload", (moec_cu_module module))                                                           \
    CALL(module_function, "cuModuleGetFunction", (moec_cu_function * function, moec_cu_module module, const char *name))     \
    CALL(module_global, "cuModuleGetGlobal_v2",                                                                              \
        (moec_cu_address * at, size_t *bytes, moec_cu_module module, const char *name))                                      \
    CALL(function_attribute, "cuFuncSetAttribute", (moec_cu_function function, int attribute, int value))                    \
    CALL(alloc, "cuMemAlloc_v2", (moec_cu_address * at, size_t bytes))                                                       \
    CALL(release, "cuMemFree_v2", (moec_cu_address at))                                                                      \
    CALL(to_device, "cuMemcpyHtoDAsync_v2",                                                                                  \
        (moec_cu_address to, const void *from, size_t bytes, moec_cu_stream stream))                                         \
    CALL(to_host, "cuMemcpyDtoHAsync_v2", (void *to, moec_cu_address from, size_t bytes, moec_cu_stream stream))             \
    CALL(within, "cuMemcpyDtoDAsync_v2",                                                                                     \
        (moec_cu_address to, moec_cu_address from, size_t bytes, moec_cu_stream stream))                                     \
    CALL(stream_new, "cuStreamCreate", (moec_cu_stream * stream, unsigned flags))                                            \
    CALL(stream_free, "cuStreamDestroy_v2", (moec_cu_stream stream))                                                         \
    CALL(stream_wait, "cuStreamSynchronize", (moec_cu_stream stream))                                                        \
    CALL(launch, "cuLaunchKernel",                                                                                           \
        (moec_cu_function function, unsigned blocks, unsigned blocks_y, unsigned blocks_z, unsigned threads,                 \
            unsigned threads_y, unsigned threads_z, unsigned shared_bytes, moec_cu_stream stream, void **parameters,         \
            void **extra))                                                                                                   \
    CALL(capture_begin, "cuStreamBeginCapture_v2", (moec_cu_stream stream, int mode))                                        \
    CALL(capture_end, "cuStreamEndCapture", (moec_cu_stream stream, moec_cu_graph * graph))                                  \
    CALL(graph_ready, "cuGraphInstantiateWithFlags",                                                                         \
        (moec_cu_ready_graph * ready, moec_cu_graph graph, unsigned long long flags))                                        \
    CALL(graph_launch, "cuGraphLaunch", (moec_cu_ready_graph ready, moec_cu_stream stream))                                  \
    CALL(graph_free, "cuGraphDestroy", (moec_cu_graph graph))                                                                \
    CALL(graph_ready_free, "cuGraphExecDestroy", (moec_cu_ready_graph ready))

typedef struct moec_cu {
    void *library;
#define MOEC_CU_MEMBER(name, symbol, parameters) moec_cu_result(*name) parameters;
    MOEC_CU_CALLS(MOEC_CU_MEMBER)
#undef MOEC_CU_MEMBER
} moec_cu;

#endif
