/* A stand-in for NVIDIA's driver that executes: device memory is this process's, with guarded ends and poisoned, and a module's
 * code is the path of a library in which the kernels were compiled with kernels/cuda/tests/shim.h. It ends the program where the
 * run time does what a driver would not forgive, and fails where a test asks it to. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../../kernels/runtime/cuda/driver.h"

enum { GUARD = 64, MOST_BLOCKS = 4096, USUAL_SHARED = 48 << 10, MOST_SHARED = 227 << 10 };

struct moec_cu_context {
    int unused;
};
/* A launch that was captured: of a kernel, of so many blocks, upon the pass and the rank. */
struct captured {
    moec_cu_function function;
    unsigned blocks, threads, shared_bytes;
    moec_cu_address pass;
    int rank;
};
struct moec_cu_graph {
    struct captured *launches;
    int count;
};
struct moec_cu_ready_graph {
    struct moec_cu_graph graph;
};
struct moec_cu_stream {
    int is_capturing;
    struct moec_cu_graph captured;
};
struct moec_cu_module {
    void *library;
    int (*launch)(void (*)(const void *, int), unsigned, unsigned, unsigned, const void *, int);
};
struct moec_cu_function {
    void (*kernel)(const void *, int);
    struct moec_cu_module *module;
    int most_shared;
    char name[64];
};

static struct moec_cu_context context;
static struct {
    char *raw;
    size_t bytes;
} blocks[MOST_BLOCKS];
static int pushed;

/* What was copied to the host since the context was pushed: spoiled when it is popped, for no pass may count on it. */
static struct {
    char *at;
    size_t bytes;
} taken[64];
static int taken_count;

static struct {
    char call[64];
    int after, result, major;
} asked = {.major = 9};

/* From its n-th time on, the call gives this result. */
void double_fail(const char *call, int after, int result) {
    snprintf(asked.call, sizeof asked.call, "%s", call);
    asked.after = after;
    asked.result = result;
}

/* The part's compute capability. */
void double_is(int major) { asked.major = major; }

int double_live_blocks(void) {
    int count = 0;
    for (int at = 0; at < MOST_BLOCKS; at++) count += blocks[at].raw != NULL;
    return count;
}

/* Graphs that are ready to be launched, and launches of such, since the program began. */
static int live_graphs, launched_graphs;
int double_live_graphs(void) { return live_graphs; }
int double_launched_graphs(void) { return launched_graphs; }

static int comes(const char *call) {
    if (strcmp(asked.call, call)) return 0;
    return asked.after-- > 0 ? 0 : asked.result;
}

#define COMES                                  \
    do {                                       \
        int result_ = comes(__func__);         \
        if (result_) return result_;           \
    } while (0)

static void insist(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "the driver's double: %s\n", what);
    abort();
}

static void check_guards(int at) {
    for (size_t byte = 0; byte < GUARD; byte++) {
        insist(blocks[at].raw[byte] == (char)0xff, "written before the start of a block");
        insist(blocks[at].raw[GUARD + blocks[at].bytes + byte] == (char)0xff, "written after the end of a block");
    }
}

static void check_range(moec_cu_address from, size_t bytes) {
    for (int at = 0; at < MOST_BLOCKS; at++) {
        if (!blocks[at].raw) continue;
        moec_cu_address start = (moec_cu_address)(size_t)blocks[at].raw + GUARD;
        if (from >= start && from + bytes <= start + blocks[at].bytes) return;
    }
    insist(0, "a copy to or from what is no device memory");
}

int cuInit(unsigned flags) {
    COMES;
    insist(flags == 0, "cuInit wants 0");
    return 0;
}
int cuGetErrorString(int result, const char **text) {
    *text = result == 2 ? "out of memory" : result == 200 ? "device kernel image is invalid" : "as the test asked";
    return 0;
}
int cuDeviceGetCount(int *count) {
    COMES;
    *count = 1;
    return 0;
}
int cuDeviceGet(int *device, int number) {
    COMES;
    *device = number;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    COMES;
    (void)device;
    *value = attribute == MOEC_CU_COMPUTE_MAJOR ? asked.major : 0;
    return 0;
}
int cuDevicePrimaryCtxRetain(moec_cu_context *of, int device) {
    COMES;
    (void)device;
    *of = &context;
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device;
    return 0;
}
int cuCtxPushCurrent_v2(moec_cu_context given) {
    COMES;
    insist(given == &context, "no context");
    pushed++;
    return 0;
}
int cuCtxPopCurrent_v2(moec_cu_context *given) {
    insist(pushed > 0, "a context is popped that was not pushed");
    *given = &context;
    pushed--;
    while (taken_count > 0) {
        taken_count--;
        memset(taken[taken_count].at, 0xff, taken[taken_count].bytes);
    }
    return 0;
}
/* The kernel that was launched last. */
static char last_launched[64];
const char *double_last_launched(void) { return last_launched; }

int cuModuleLoadData(moec_cu_module *module, const void *image) {
    COMES;
    insist(pushed > 0, "no context is current");
    if (*(const char *)image != '/') return 200;
    struct moec_cu_module *made = calloc(1, sizeof *made);
    made->library = dlopen(image, RTLD_NOW | RTLD_LOCAL);
    insist(made->library != NULL, "the kernels' library does not load");
    void *launch = dlsym(made->library, "moec_shim_launch");
    memcpy(&made->launch, &launch, sizeof launch);
    *module = made;
    return 0;
}
int cuModuleUnload(moec_cu_module module) {
    dlclose(module->library);
    free(module);
    return 0;
}
int cuModuleGetFunction(moec_cu_function *function, moec_cu_module module, const char *name) {
    COMES;
    void *found = dlsym(module->library, name);
    if (!found) return 500;
    struct moec_cu_function *made = calloc(1, sizeof *made);
    memcpy(&made->kernel, &found, sizeof found);
    made->module = module;
    made->most_shared = USUAL_SHARED;
    snprintf(made->name, sizeof made->name, "%s", name);
    *function = made;
    return 0;
}
static const void *shape;
int cuModuleGetGlobal_v2(moec_cu_address *at, size_t *bytes, moec_cu_module module, const char *name) {
    COMES;
    shape = dlsym(module->library, name);
    if (!shape) return 500;
    *at = (moec_cu_address)(size_t)shape;
    *bytes = 24;
    return 0;
}
int cuFuncSetAttribute(moec_cu_function function, int attribute, int value) {
    COMES;
    insist(attribute == MOEC_CU_MAX_DYNAMIC_SHARED_BYTES, "another attribute");
    if (value > MOST_SHARED) return 1;
    function->most_shared = value;
    return 0;
}
int cuMemAlloc_v2(moec_cu_address *to, size_t bytes) {
    COMES;
    insist(pushed > 0, "no context is current");
    insist(bytes > 0, "nothing is asked for");
    int at = 0;
    while (at < MOST_BLOCKS && blocks[at].raw) at++;
    insist(at < MOST_BLOCKS, "too many blocks");
    char *raw = aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64);
    if (!raw) return 2;
    memset(raw, 0xff, bytes + 2 * GUARD);
    blocks[at].raw = raw;
    blocks[at].bytes = bytes;
    *to = (moec_cu_address)(size_t)(raw + GUARD);
    return 0;
}
int cuMemFree_v2(moec_cu_address given) {
    for (int at = 0; at < MOST_BLOCKS; at++) {
        if (!blocks[at].raw || (moec_cu_address)(size_t)(blocks[at].raw + GUARD) != given) continue;
        check_guards(at);
        free(blocks[at].raw);
        blocks[at].raw = NULL;
        return 0;
    }
    insist(0, "freed what is no block");
    return 1;
}
/* Only launches can be captured. */
static void not_captured(moec_cu_stream stream) { insist(!stream || !stream->is_capturing, "a copy or a wait in a capture"); }

int cuMemcpyHtoDAsync_v2(moec_cu_address to, const void *from, size_t bytes, moec_cu_stream stream) {
    COMES;
    not_captured(stream);
    check_range(to, bytes);
    memcpy((void *)(size_t)to, from, bytes);
    return 0;
}
int cuMemcpyDtoDAsync_v2(moec_cu_address to, moec_cu_address from, size_t bytes, moec_cu_stream stream) {
    COMES;
    not_captured(stream);
    check_range(to, bytes);
    check_range(from, bytes);
    memcpy((void *)(size_t)to, (const void *)(size_t)from, bytes);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, moec_cu_address from, size_t bytes, moec_cu_stream stream) {
    COMES;
    not_captured(stream);
    memcpy(to, (const void *)(size_t)from, bytes);
    if (from == (moec_cu_address)(size_t)shape) return 0;
    check_range(from, bytes);
    if (taken_count < 64) {
        taken[taken_count].at = (char *)(size_t)from;
        taken[taken_count++].bytes = bytes;
    }
    return 0;
}
int cuStreamCreate(moec_cu_stream *stream, unsigned flags) {
    COMES;
    (void)flags;
    *stream = calloc(1, sizeof **stream);
    return 0;
}
int cuStreamDestroy_v2(moec_cu_stream stream) {
    free(stream);
    return 0;
}
int cuStreamSynchronize(moec_cu_stream stream) {
    COMES;
    not_captured(stream);
    return 0;
}

static int launch(const struct captured *one) {
    memcpy(last_launched, one->function->name, sizeof last_launched);
    int failed = one->function->module->launch(one->function->kernel, one->blocks, one->threads, one->shared_bytes,
        (const void *)(size_t)one->pass, one->rank);
    for (int at = 0; at < MOST_BLOCKS; at++)
        if (blocks[at].raw) check_guards(at);
    return failed ? 719 : 0;
}

int cuLaunchKernel(moec_cu_function function, unsigned count, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
    unsigned threads_z, unsigned shared_bytes, moec_cu_stream stream, void **parameters, void **extra) {
    COMES;
    insist(pushed > 0, "no context is current");
    insist(count > 0 && count < 1u << 31 && y == 1 && z == 1, "a grid that there is not");
    insist(threads > 0 && threads <= 1024 && threads % 32 == 0 && threads_y == 1 && threads_z == 1, "a block of odd size");
    insist((int)shared_bytes <= function->most_shared, "more shared memory than was asked for");
    insist(!extra, "extra parameters");
    struct captured one = {function, count, threads, shared_bytes, *(moec_cu_address *)parameters[0], *(int *)parameters[1]};
    if (!stream->is_capturing) return launch(&one);
    struct moec_cu_graph *graph = &stream->captured;
    graph->launches = realloc(graph->launches, sizeof one * (size_t)(graph->count + 1));
    graph->launches[graph->count++] = one;
    return 0;
}

/* ---- graphs: launches that are kept, and nothing else */

int cuStreamBeginCapture_v2(moec_cu_stream stream, int mode) {
    COMES;
    insist(mode == MOEC_CU_CAPTURE_OF_THREAD, "a capture that others can spoil");
    insist(!stream->is_capturing, "a capture within a capture");
    stream->is_capturing = 1;
    stream->captured = (struct moec_cu_graph){NULL, 0};
    return 0;
}
int cuStreamEndCapture(moec_cu_stream stream, moec_cu_graph *graph) {
    insist(stream->is_capturing, "no capture to end");
    stream->is_capturing = 0;
    int result = comes(__func__);
    if (result) {
        free(stream->captured.launches);
        *graph = NULL;
        return result;
    }
    *graph = malloc(sizeof **graph);
    **graph = stream->captured;
    return 0;
}
int cuGraphInstantiateWithFlags(moec_cu_ready_graph *ready, moec_cu_graph graph, unsigned long long flags) {
    COMES;
    insist(flags == 0, "another flag");
    size_t bytes = sizeof(struct captured) * (size_t)graph->count;
    *ready = malloc(sizeof **ready);
    (*ready)->graph.count = graph->count;
    (*ready)->graph.launches = memcpy(malloc(bytes + 1), graph->launches, bytes);
    live_graphs++;
    return 0;
}
int cuGraphLaunch(moec_cu_ready_graph ready, moec_cu_stream stream) {
    COMES;
    not_captured(stream);
    launched_graphs++;
    int failed = 0;
    for (int at = 0; !failed && at < ready->graph.count; at++) failed = launch(&ready->graph.launches[at]);
    return failed;
}
int cuGraphDestroy(moec_cu_graph graph) {
    free(graph->launches);
    free(graph);
    return 0;
}
int cuGraphExecDestroy(moec_cu_ready_graph ready) {
    live_graphs--;
    free(ready->graph.launches);
    free(ready);
    return 0;
}
