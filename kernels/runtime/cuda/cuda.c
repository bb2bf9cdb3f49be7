/* A model on a GPU: its image is read, the driver found, kernels and weights brought there. (contract: cuda.h) */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_internal.h"

enum { IMAGE_VERSION = 2 };

static const char MAGIC[8] = "MOECCUDA";

int moec_cuda_failed(const moec_cu *driver, moec_cu_result result, const char *doing, moec_error **error) {
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

/* The tables of the image, one behind the other: `count` entries of `entry` words each. */
static const void *next_table(const int64_t **at, uint64_t *words, int64_t count, uint64_t entry) {
    if (!*at || count < 0 || (uint64_t)count > *words / entry) return *at = NULL;
    const int64_t *table = *at;
    *words -= (uint64_t)count * entry;
    *at += (uint64_t)count * entry;
    return table;
}

#define WORDS(type) (sizeof(type) / sizeof(int64_t))

/* `count` entries from `first` on are among `all`. */
static bool is_within(int64_t first, int64_t count, uint64_t all) {
    return first >= 0 && count >= 0 && (uint64_t)first <= all && (uint64_t)count <= all - (uint64_t)first;
}

static bool is_launch_sound(const moec_cuda *device, const launch_words *launch) {
    if (launch->per < 1 || launch->times < 0 || launch->each < 0) return false;
    if (launch->ways < 1 || !is_within(launch->way, launch->ways, (uint64_t)device->image->ways)) return false;
    /* The last is for every part. */
    const way_words *last = &device->ways[launch->way + launch->ways - 1];
    for (int64_t at = last->kernel; at < last->kernel + last->kernels; at++)
        if (device->names[at].hopper) return false;
    return true;
}

/* Every number of the image that is used as a place or a count. */
static int read_image(moec_cuda *device, const void *image, size_t bytes, moec_error **error) {
    const image_header *header = image;
    if (bytes < sizeof *header || (uintptr_t)image % 8 || memcmp(header->magic, MAGIC, sizeof MAGIC) ||
        header->version != IMAGE_VERSION || (uint64_t)header->bytes != bytes)
        return corrupt(error);
    const int64_t *at = (const int64_t *)(header + 1);
    uint64_t words = bytes / 8 - WORDS(image_header);
    device->image = header;
    device->names = next_table(&at, &words, header->kernels, WORDS(kernel_words));
    device->ways = next_table(&at, &words, header->ways, WORDS(way_words));
    device->launches = next_table(&at, &words, header->launches, WORDS(launch_words));
    device->lists = next_table(&at, &words, header->sequences, WORDS(run_list));
    device->executions = (const execution *)at;
    if (!at || header->sequences != device->description->sequence_count) return corrupt(error);
    if (header->scratch_bytes < 0 || header->machine_code <= 0 || (uint64_t)header->machine_code >= bytes ||
        header->portable_code < 0 || (uint64_t)header->portable_code >= bytes)
        return corrupt(error);
    const char *text = image;
    for (int64_t kernel = 0; kernel < header->kernels; kernel++) {
        int64_t name = device->names[kernel].name;
        if (name <= 0 || (uint64_t)name >= bytes || !memchr(text + name, 0, bytes - (size_t)name)) return corrupt(error);
    }
    for (int64_t way = 0; way < header->ways; way++)
        if (!is_within(device->ways[way].kernel, device->ways[way].kernels, (uint64_t)header->kernels)) return corrupt(error);
    for (int64_t launch = 0; launch < header->launches; launch++)
        if (!is_launch_sound(device, &device->launches[launch])) return corrupt(error);
    for (int64_t list = 0; list < header->sequences; list++) {
        const run_list *runs = &device->lists[list];
        if (!is_within(runs->first, runs->count, words / WORDS(execution))) return corrupt(error);
        for (int64_t run = runs->first; run < runs->first + runs->count; run++)
            if ((uint64_t)device->executions[run].launch >= (uint64_t)header->launches) return corrupt(error);
    }
    return MOEC_OK;
}

static int find_device(moec_cuda *device, const void **code, bool *is_hopper, moec_error **error) {
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
    *is_hopper = machine;
    *code = (const char *)device->image + (machine ? device->image->machine_code : device->image->portable_code);
    result = driver->context_retain(&device->context, device->device);
    if (result) return moec_cuda_failed(driver, result, "be opened", error);
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

static int load_all(moec_cuda *device, const void *code, bool is_hopper, const void *weights, moec_error **error) {
    const moec_cu *driver = &device->driver;
    moec_cu_result result = driver->module_load(&device->module, code);
    if (result) return moec_cuda_failed(driver, result, "load the model's kernels", error);
    device->kernels = calloc((size_t)device->image->kernels + 1, sizeof *device->kernels);
    if (!device->kernels) return moec_fail(error, MOEC_OUT_OF_MEMORY, "open: no memory for the kernels' shapes");
    for (int64_t at = 0; at < device->image->kernels; at++) {
        if (device->names[at].hopper && !is_hopper) continue;
        result = load_kernel(device, (const char *)device->image + device->names[at].name, &device->kernels[at]);
        if (result) return moec_cuda_failed(driver, result, "prepare the model's kernels", error);
    }
    size_t bytes = (size_t)device->description->weight_bytes;
    result = driver->alloc(&device->weights, bytes ? bytes : 64);
    if (!result && bytes) result = driver->to_device(device->weights, weights, bytes, NULL);
    if (!result) result = driver->stream_wait(NULL);
    return result ? moec_cuda_failed(driver, result, "take the model's weights", error) : MOEC_OK;
}

int moec_cuda_open(const moec_description *description, const void *image, size_t image_bytes, const void *weights,
    moec_cuda **device, moec_error **error) {
    *device = NULL;
    moec_cuda *made = calloc(1, sizeof *made);
    if (!made) return moec_fail(error, MOEC_OUT_OF_MEMORY, "open: no memory for the device");
    made->description = description;
    const void *code = NULL;
    bool is_hopper = false;
    int failure = read_image(made, image, image_bytes, error);
    if (!failure) failure = load_driver(&made->driver, error);
    if (!failure) failure = find_device(made, &code, &is_hopper, error);
    if (!failure) {
        moec_cu_result result = made->driver.context_push(made->context);
        moec_cu_context popped;
        failure = result ? moec_cuda_failed(&made->driver, result, "be used", error) : load_all(made, code, is_hopper, weights, error);
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

/* ---- memory */

moec_cu_result moec_cuda_allocate(const moec_cu *driver, moec_cu_address *at, int64_t count, int64_t each, int64_t more) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, (size_t)each, &bytes) || __builtin_add_overflow(bytes, (size_t)more, &bytes))
        return MOEC_CU_OUT_OF_MEMORY;
    return driver->alloc(at, bytes ? bytes : 64);
}

char *moec_cuda_take(moec_cuda *device, size_t bytes) {
    const moec_cu *driver = &device->driver;
    moec_cu_context popped;
    moec_cu_address at = 0;
    if (driver->context_push(device->context)) return NULL;
    if (driver->alloc(&at, bytes ? bytes : 64)) at = 0;
    driver->context_pop(&popped);
    return (char *)(uintptr_t)at;
}

void moec_cuda_give(moec_cuda *device, char *at) {
    const moec_cu *driver = &device->driver;
    moec_cu_context popped;
    if (!at || driver->context_push(device->context)) return;
    driver->release((moec_cu_address)(uintptr_t)at);
    driver->context_pop(&popped);
}

int moec_cuda_copy(moec_cuda *device, char *to, const char *from, size_t bytes, moec_error **error) {
    const moec_cu *driver = &device->driver;
    moec_cu_context popped;
    if (!bytes) return MOEC_OK;
    moec_cu_result result = driver->context_push(device->context);
    if (!result) {
        result = driver->within(
            (moec_cu_address)(uintptr_t)to, (moec_cu_address)(uintptr_t)from, bytes, NULL);
        if (!result) result = driver->stream_wait(NULL);
        driver->context_pop(&popped);
    }
    return result ? moec_cuda_failed(driver, result, "copy a session's memory", error) : MOEC_OK;
}
