/* Launches a model's kernels by the driver alone. (contract: cuda.h)
 *
 * A pass lies in device memory: kernels are given its address and the layer's rank, so that a launch does not change from pass
 * to pass. All of a session's work is on one stream. */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cuda.h"
#include "driver.h"

/* ---- the image: 64-bit words, then names and code (crates/moec-cuda/src/image.rs) */

enum { HEADER_WORDS = 8, LAUNCH_WORDS = 14, IMAGE_VERSION = 1 };

static const char MAGIC[8] = "MOECCUDA";

/* What a number of rows is; the numbers are those of the image. */
enum { ROWS_FIXED = 0, ROWS_TOKENS = 1, ROWS_OUTPUTS = 2, ROWS_SHARE = 3 };
/* Where what an observer is told lies. */
enum { PLACE_WORKSPACE = 0, PLACE_STATE = 1, PLACE_INPUT = 2, PLACE_OUTPUT = 3 };

typedef struct place {
    int64_t kind, number, more; /* workspace: bytes for each token of the chunk, and more; state: from, and to the next instance */
} place;

typedef struct launch_words {
    int64_t name;                         /* where it stands in the image */
    int64_t kind, times, per, up, each;   /* what blocks are counted from */
    int64_t route, choices;               /* of a bin; else -1 */
    place indices, weights;
} launch_words;

typedef struct execution {
    int64_t launch, rank;
} execution;

typedef struct image_header {
    char magic[8];
    int64_t version, launches, sequences, scratch_bytes, machine_code, portable_code, bytes;
} image_header;

typedef struct run_list {
    int64_t first, count; /* executions, by their number among all */
} run_list;

/* As kernels/cuda/pass.cuh has it. */
typedef struct device_pass {
    int64_t tokens, past, first_output, chunk, capacity;
    moec_cu_address workspace, cache, states, weights, inputs, outputs, scratch, pasts;
} device_pass;

enum { SHAPE_THREADS, SHAPE_ROWS, SHAPE_MORE, SHAPE_TIMES, SHAPE_SHARED_BYTES, SHAPE_MOST, SHAPE_WORDS };

typedef struct kernel {
    moec_cu_function function;
    int32_t shape[SHAPE_WORDS];
} kernel;

struct moec_cuda {
    moec_cu driver;
    const moec_description *description;
    const launch_words *launches;
    const run_list *lists;
    const execution *executions;
    const image_header *image;
    moec_cu_device device;
    moec_cu_context context;
    moec_cu_module module;
    kernel *kernels;
    moec_cu_address weights;
    bool retained;
};

struct moec_cuda_session {
    moec_cuda *device;
    int64_t chunk, capacity;
    moec_cu_stream stream;
    moec_cu_address workspace, cache, states, scratch, pass;
    moec_cu_address *ports; /* inputs, then outputs */
    char *staged;           /* the pass, the ports' addresses and the positions, as they are copied */
    size_t staged_bytes;
};

static int failed(const moec_cu *driver, moec_cu_result result, const char *doing, moec_error **error) {
    const char *text = NULL;
    if (driver->error_string(result, &text) || !text) text = "an error without a text";
    int code = result == MOEC_CU_OUT_OF_MEMORY ? MOEC_OUT_OF_MEMORY : MOEC_DEVICE_FAILED;
    return moec_fail(error, code, "the GPU could not %s: %s (%d)", doing, text, result);
}

/* ---- opening */

static int load_driver(moec_cu *driver, moec_error **error) {
    driver->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver->library)
        return moec_fail(error, MOEC_NO_DEVICE, "there is no CUDA driver (%s): install NVIDIA's",
            dlerror());
    struct {
        void *at;
        const char *symbol;
        size_t bytes;
    } calls[] = {
#define FOUND(name, symbol, parameters) {&driver->name, symbol, sizeof driver->name},
        MOEC_CU_CALLS(FOUND)
#undef FOUND
    };
    for (size_t at = 0; at < sizeof calls / sizeof *calls; at++) {
        void *found = dlsym(driver->library, calls[at].symbol);
        if (!found)
            return moec_fail(error, MOEC_NO_DEVICE, "the CUDA driver is too old: it has no %s", calls[at].symbol);
        memcpy(calls[at].at, &found, calls[at].bytes);
    }
    return MOEC_OK;
}

static int corrupt(moec_error **error) {
    return moec_fail(error, MOEC_DEVICE_FAILED, "the library is corrupt: its part for the GPU makes no sense");
}

/* Every number of the image that is used as a place or a count. */
static int read_image(moec_cuda *device, const void *image, size_t bytes, moec_error **error) {
    const image_header *header = image;
    if (bytes < sizeof *header || (uintptr_t)image % 8 || memcmp(header->magic, MAGIC, sizeof MAGIC) ||
        header->version != IMAGE_VERSION || (uint64_t)header->bytes != bytes)
        return corrupt(error);
    uint64_t words = bytes / 8 - HEADER_WORDS, launches = (uint64_t)header->launches, lists = (uint64_t)header->sequences;
    if (launches > words / LAUNCH_WORDS) return corrupt(error);
    words -= launches * LAUNCH_WORDS;
    if (lists > words / 2 || lists != (uint64_t)device->description->sequence_count) return corrupt(error);
    words -= lists * 2;
    device->image = header;
    device->launches = (const launch_words *)(header + 1);
    device->lists = (const run_list *)(device->launches + launches);
    device->executions = (const execution *)(device->lists + lists);
    if (header->scratch_bytes < 0 || header->machine_code <= 0 || (uint64_t)header->machine_code >= bytes ||
        header->portable_code < 0 || (uint64_t)header->portable_code >= bytes)
        return corrupt(error);
    for (uint64_t at = 0; at < lists; at++) {
        const run_list *list = &device->lists[at];
        if (list->first < 0 || list->count < 0 || (uint64_t)list->first > words / 2 ||
            (uint64_t)list->count > words / 2 - (uint64_t)list->first)
            return corrupt(error);
        for (int64_t run = list->first; run < list->first + list->count; run++)
            if ((uint64_t)device->executions[run].launch >= launches) return corrupt(error);
    }
    const char *text = image;
    for (uint64_t at = 0; at < launches; at++) {
        const launch_words *launch = &device->launches[at];
        bool named = launch->name > 0 && (uint64_t)launch->name < bytes &&
                     memchr(text + launch->name, 0, bytes - (size_t)launch->name);
        if (!named || launch->per < 1 || launch->times < 0 || launch->each < 0) return corrupt(error);
    }
    return MOEC_OK;
}

static int find_device(moec_cuda *device, const void **code, moec_error **error) {
    const moec_cu *driver = &device->driver;
    int count = 0, major = 0, minor = 0;
    moec_cu_result result = driver->init(0);
    if (!result) result = driver->device_count(&count);
    if (!result && !count) return moec_fail(error, MOEC_NO_DEVICE, "there is no GPU that the CUDA driver may use");
    if (!result) result = driver->device(&device->device, 0);
    if (!result) result = driver->device_attribute(&major, MOEC_CU_COMPUTE_MAJOR, device->device);
    if (!result) result = driver->device_attribute(&minor, MOEC_CU_COMPUTE_MINOR, device->device);
    /* The driver is there, and what it is for is not: as good as no GPU. */
    if (result) {
        const char *text = NULL;
        if (driver->error_string(result, &text) || !text) text = "an error without a text";
        return moec_fail(error, MOEC_NO_DEVICE, "there is no GPU that the CUDA driver may use: %s (%d)", text, result);
    }
    /* Machine code is that of sm_90a, which no other part runs. */
    bool machine = major == 9 && minor == 0, portable = major >= 8 && device->image->portable_code;
    if (!machine && !portable)
        return moec_fail(error, MOEC_NO_DEVICE,
            "the GPU is of compute capability %d.%d, for which this library has no kernels", major, minor);
    *code = (const char *)device->image + (machine ? device->image->machine_code : device->image->portable_code);
    result = driver->context_retain(&device->context, device->device);
    if (result) return failed(driver, result, "be opened", error);
    device->retained = true;
    return MOEC_OK;
}

static moec_cu_result load_kernel(moec_cuda *device, const char *name, kernel *made) {
    const moec_cu *driver = &device->driver;
    char shape_name[128];
    size_t length = strlen(name), bytes = 0;
    if (length + sizeof "_shape" > sizeof shape_name) return 500; /* as of a symbol that is not found */
    memcpy(shape_name, name, length);
    memcpy(shape_name + length, "_shape", sizeof "_shape");
    moec_cu_address shape;
    moec_cu_result result = driver->module_function(&made->function, device->module, name);
    if (!result) result = driver->module_global(&shape, &bytes, device->module, shape_name);
    if (!result && bytes != sizeof made->shape) result = 500;
    if (!result) result = driver->to_host(made->shape, shape, sizeof made->shape, NULL);
    if (!result) result = driver->stream_wait(NULL);
    int shared = made->shape[SHAPE_SHARED_BYTES];
    if (!result && shared > 48 << 10)
        result = driver->function_attribute(made->function, MOEC_CU_MAX_DYNAMIC_SHARED_BYTES, shared);
    return result;
}

static int load_all(moec_cuda *device, const void *code, const void *weights, moec_error **error) {
    const moec_cu *driver = &device->driver;
    moec_cu_result result = driver->module_load(&device->module, code);
    if (result) return failed(driver, result, "load the model's kernels", error);
    device->kernels = calloc((size_t)device->image->launches + 1, sizeof *device->kernels);
    if (!device->kernels) return moec_fail(error, MOEC_OUT_OF_MEMORY, "open: no memory for the kernels' shapes");
    for (int64_t at = 0; at < device->image->launches; at++) {
        const char *name = (const char *)device->image + device->launches[at].name;
        result = load_kernel(device, name, &device->kernels[at]);
        if (result) return failed(driver, result, "prepare the model's kernels", error);
    }
    size_t bytes = (size_t)device->description->weight_bytes;
    result = driver->alloc(&device->weights, bytes ? bytes : 64);
    if (!result && bytes) result = driver->to_device(device->weights, weights, bytes, NULL);
    if (!result) result = driver->stream_wait(NULL);
    return result ? failed(driver, result, "take the model's weights", error) : MOEC_OK;
}

int moec_cuda_open(const moec_description *description, const void *image, size_t image_bytes, const void *weights,
    moec_cuda **device, moec_error **error) {
    *device = NULL;
    moec_cuda *made = calloc(1, sizeof *made);
    if (!made) return moec_fail(error, MOEC_OUT_OF_MEMORY, "open: no memory for the device");
    made->description = description;
    const void *code = NULL;
    int failure = read_image(made, image, image_bytes, error);
    if (!failure) failure = load_driver(&made->driver, error);
    if (!failure) failure = find_device(made, &code, error);
    if (!failure) {
        moec_cu_result result = made->driver.context_push(made->context);
        moec_cu_context popped;
        failure = result ? failed(&made->driver, result, "be used", error) : load_all(made, code, weights, error);
        if (!result) made->driver.context_pop(&popped);
    }
    if (failure) {
        moec_cuda_close(made);
        return failure;
    }
    *device = made;
    return MOEC_OK;
}

void moec_cuda_close(moec_cuda *device) {
    if (!device) return;
    const moec_cu *driver = &device->driver;
    moec_cu_context popped;
    if (device->retained && !driver->context_push(device->context)) {
        if (device->weights) driver->release(device->weights);
        if (device->module) driver->module_unload(device->module);
        driver->context_pop(&popped);
    }
    if (device->retained) driver->context_release(device->device);
    /* The driver stays loaded: others may use it. */
    free(device->kernels);
    free(device);
}

/* ---- sessions */

static int64_t port_rows(const moec_port *port, int64_t chunk) { return port->rows == MOEC_ROWS_ONE ? 1 : chunk; }

static moec_cu_result allocate(const moec_cu *driver, moec_cu_address *at, int64_t count, int64_t each, int64_t more) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, (size_t)each, &bytes) || __builtin_add_overflow(bytes, (size_t)more, &bytes))
        return MOEC_CU_OUT_OF_MEMORY;
    return driver->alloc(at, bytes ? bytes : 64);
}

static moec_cu_result session_allocate(moec_cuda_session *session) {
    moec_cuda *device = session->device;
    const moec_cu *driver = &device->driver;
    const moec_description *description = device->description;
    moec_cu_result result = driver->stream_new(&session->stream, MOEC_CU_NON_BLOCKING);
    if (!result)
        result = allocate(driver, &session->workspace, session->chunk, description->workspace_bytes_per_token,
            description->workspace_bytes_fixed);
    if (!result) result = allocate(driver, &session->cache, session->capacity, description->cache_bytes_per_position, 0);
    if (!result) result = allocate(driver, &session->states, 1, description->state_bytes, 0);
    if (!result) result = allocate(driver, &session->scratch, 1, device->image->scratch_bytes, 0);
    if (!result) result = allocate(driver, &session->pass, 1, (int64_t)session->staged_bytes, 0);
    for (int32_t at = 0; !result && at < description->input_count + description->output_count; at++) {
        bool input = at < description->input_count;
        const moec_port *port = input ? &description->inputs[at] : &description->outputs[at - description->input_count];
        result = allocate(driver, &session->ports[at], port_rows(port, session->chunk), port->row_bytes, 0);
    }
    return result;
}

int moec_cuda_session_new(moec_cuda *device, int64_t chunk, int64_t capacity, moec_cuda_session **session,
    moec_error **error) {
    *session = NULL;
    moec_cuda_session *made = calloc(1, sizeof *made);
    if (!made) return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for a session");
    size_t ports = (size_t)(device->description->input_count + device->description->output_count);
    *made = (moec_cuda_session){.device = device, .chunk = chunk, .capacity = capacity};
    made->staged_bytes = sizeof(device_pass) + ports * sizeof(moec_cu_address) + MOEC_MOST_SEQUENCES * sizeof(int64_t);
    made->ports = calloc(ports + 1, sizeof *made->ports);
    made->staged = calloc(1, made->staged_bytes);
    int failure = MOEC_OK;
    moec_cu_context popped;
    moec_cu_result result = MOEC_CU_OUT_OF_MEMORY;
    if (made->ports && made->staged) {
        result = device->driver.context_push(device->context);
        if (!result) {
            result = session_allocate(made);
            device->driver.context_pop(&popped);
        }
    }
    if (result) failure = failed(&device->driver, result, "give a session its memory", error);
    if (failure) {
        moec_cuda_session_free(made);
        return failure;
    }
    *session = made;
    return MOEC_OK;
}

void moec_cuda_session_free(moec_cuda_session *session) {
    if (!session) return;
    const moec_cu *driver = &session->device->driver;
    const moec_description *description = session->device->description;
    moec_cu_context popped;
    if (!driver->context_push(session->device->context)) {
        if (session->stream) {
            driver->stream_wait(session->stream);
            driver->stream_free(session->stream);
        }
        moec_cu_address of_session[] = {session->workspace, session->cache, session->states, session->scratch, session->pass};
        for (size_t at = 0; at < sizeof of_session / sizeof *of_session; at++)
            if (of_session[at]) driver->release(of_session[at]);
        for (int32_t at = 0; session->ports && at < description->input_count + description->output_count; at++)
            if (session->ports[at]) driver->release(session->ports[at]);
        driver->context_pop(&popped);
    }
    free(session->ports);
    free(session->staged);
    free(session);
}

/* ---- passes */

/* The pass, its ports' addresses and the positions of all sequences, in one copy. */
static moec_cu_result send_pass(moec_cuda_session *session, const moec_pass *pass) {
    moec_cuda *device = session->device;
    const moec_description *description = device->description;
    size_t inputs = (size_t)description->input_count, outputs = (size_t)description->output_count;
    moec_cu_address addresses = session->pass + sizeof(device_pass);
    moec_cu_address positions = addresses + (inputs + outputs) * sizeof(moec_cu_address);
    device_pass sent = {
        .tokens = pass->tokens,
        .past = pass->segments[0].past,
        .first_output = pass->first_output,
        .chunk = session->chunk,
        .capacity = session->capacity,
        .workspace = session->workspace,
        .cache = session->cache,
        .states = session->states,
        .weights = device->weights,
        .inputs = addresses,
        .outputs = addresses + inputs * sizeof(moec_cu_address),
        .scratch = session->scratch,
        .pasts = positions,
    };
    char *to = session->staged;
    memcpy(to, &sent, sizeof sent);
    memcpy(to + sizeof sent, session->ports, (inputs + outputs) * sizeof(moec_cu_address));
    memcpy(to + sizeof sent + (inputs + outputs) * sizeof(moec_cu_address), pass->segments[0].pasts,
        (size_t)description->sequence_count * sizeof(int64_t));
    return device->driver.to_device(session->pass, session->staged, session->staged_bytes, session->stream);
}

static moec_cu_result send_inputs(moec_cuda_session *session, const moec_pass *pass) {
    const moec_description *description = session->device->description;
    moec_cu_result result = 0;
    for (int32_t at = 0; !result && at < description->input_count; at++) {
        const moec_port *port = &description->inputs[at];
        size_t bytes = (size_t)(port_rows(port, pass->tokens) * port->row_bytes);
        if (pass->inputs[at] && bytes)
            result = session->device->driver.to_device(session->ports[at], pass->inputs[at], bytes, session->stream);
    }
    return result;
}

static moec_cu_result take_outputs(moec_cuda_session *session, const moec_pass *pass) {
    const moec_description *description = session->device->description;
    moec_cu_result result = 0;
    for (int32_t at = 0; !result && at < description->output_count; at++) {
        const moec_port *port = &description->outputs[at];
        int64_t first = port->rows == MOEC_ROWS_OUTPUTS ? pass->first_output : 0;
        size_t from = (size_t)(first * port->row_bytes), end = (size_t)(port_rows(port, pass->tokens) * port->row_bytes);
        if (!pass->outputs[at] || from >= end) continue;
        moec_cu_address there = session->ports[description->input_count + at];
        result = session->device->driver.to_host((char *)pass->outputs[at] + from, there + from, end - from, session->stream);
    }
    return result;
}

static int64_t counted(const launch_words *launch, const moec_pass *pass) {
    int64_t rows = launch->times;
    if (launch->kind == ROWS_TOKENS) rows = pass->tokens;
    if (launch->kind == ROWS_OUTPUTS) rows = pass->tokens - pass->first_output;
    if (launch->kind == ROWS_SHARE)
        rows = (pass->tokens * launch->times + (launch->up ? launch->per - 1 : 0)) / launch->per;
    return rows * launch->each;
}

static moec_cu_result launch_one(moec_cuda_session *session, const moec_pass *pass, const execution *run) {
    const kernel *kernel = &session->device->kernels[run->launch];
    const int32_t *shape = kernel->shape;
    int64_t count = counted(&session->device->launches[run->launch], pass);
    int64_t of_rows = shape[SHAPE_ROWS] ? (count + shape[SHAPE_ROWS] - 1) / shape[SHAPE_ROWS] : 0;
    int64_t blocks = (of_rows + shape[SHAPE_MORE]) * shape[SHAPE_TIMES];
    if (shape[SHAPE_MOST] && blocks > shape[SHAPE_MOST]) blocks = shape[SHAPE_MOST];
    if (blocks < 1) blocks = 1;
    int rank = (int)run->rank;
    void *parameters[] = {&session->pass, &rank};
    return session->device->driver.launch(kernel->function, (unsigned)blocks, 1, 1, (unsigned)shape[SHAPE_THREADS], 1, 1,
        (unsigned)shape[SHAPE_SHARED_BYTES], session->stream, parameters, NULL);
}

static moec_cu_address placed(const moec_cuda_session *session, const place *place, int64_t rank) {
    switch (place->kind) {
    case PLACE_STATE: return session->states + (moec_cu_address)(place->number + rank * place->more);
    case PLACE_INPUT: return session->ports[place->number];
    case PLACE_OUTPUT: return session->ports[session->device->description->input_count + place->number];
    default: return session->workspace + (moec_cu_address)(place->number * session->chunk + place->more);
    }
}

/* Tells the observer what a bin was given. */
static moec_cu_result tell(moec_cuda_session *session, const moec_pass *pass, const execution *run) {
    const launch_words *launch = &session->device->launches[run->launch];
    const moec_cu *driver = &session->device->driver;
    int64_t tokens = counted(launch, pass);
    size_t bytes = (size_t)(tokens * launch->choices) * 4;
    char *both = malloc(2 * bytes + 1);
    if (!both) return MOEC_CU_OUT_OF_MEMORY;
    moec_cu_result result = driver->to_host(both, placed(session, &launch->indices, run->rank), bytes, session->stream);
    if (!result) result = driver->to_host(both + bytes, placed(session, &launch->weights, run->rank), bytes, session->stream);
    if (!result) result = driver->stream_wait(session->stream);
    if (!result)
        pass->trace(pass->trace_user, (int32_t)launch->route, (int32_t)run->rank, (const int32_t *)both,
            (const float *)(both + bytes), tokens, launch->choices);
    free(both);
    return result;
}

static moec_cu_result run_all(moec_cuda_session *session, int32_t sequence, const moec_pass *pass) {
    moec_cuda *device = session->device;
    moec_cu_result result = send_inputs(session, pass);
    if (!result) result = send_pass(session, pass);
    const run_list *list = &device->lists[sequence];
    for (int64_t at = list->first; !result && at < list->first + list->count; at++) {
        const execution *run = &device->executions[at];
        result = launch_one(session, pass, run);
        if (!result && pass->trace && device->launches[run->launch].route >= 0) result = tell(session, pass, run);
    }
    if (!result && sequence == 0) result = take_outputs(session, pass);
    moec_cu_result end = device->driver.stream_wait(session->stream);
    return result ? result : end;
}

int moec_cuda_run(moec_cuda_session *session, int32_t sequence, const moec_pass *pass, moec_error **error) {
    const moec_cu *driver = &session->device->driver;
    if (pass->segment_count != 1)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "on a GPU, sessions do not step together: step one after the other");
    moec_cu_context popped;
    moec_cu_result result = driver->context_push(session->device->context);
    if (!result) {
        result = run_all(session, sequence, pass);
        driver->context_pop(&popped);
    }
    return result ? failed(driver, result, "run a pass", error) : MOEC_OK;
}
