/* Opening and closing a model. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Options of a later version may be longer; what this library does not know must be 0. */
static int read_options(const moec_options *given, moec_options *options, moec_error **error) {
    *options = (moec_options){.struct_size = sizeof *options};
    if (!given) return MOEC_OK;
    if (given->struct_size < sizeof *options)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "options.struct_size is %zu: it must be the size of the struct (%zu)",
            given->struct_size, sizeof *options);
    bool more = false;
    for (size_t at = sizeof *options; at < given->struct_size; at++) more |= ((const char *)given)[at] != 0;
    memcpy(options, given, sizeof *options);
    for (size_t at = 0; at < sizeof options->reserved / sizeof *options->reserved; at++) more |= options->reserved[at] != 0;
    if (more)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "options has something set that this library does not know: reserved "
            "fields must be 0");
    if (options->threads < 0 || options->threads > MOEC_MAX_THREADS)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "options.threads is %d: it must be 0 (as many as CPUs) or 1 to %d",
            (int)options->threads, MOEC_MAX_THREADS);
    if (options->verify_checksums < 0 || options->verify_checksums > 2)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "options.verify_checksums is %d: it must be 0, 1 or 2",
            (int)options->verify_checksums);
    if (options->cache_mib < 0)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "options.cache_mib is %d: it must be 0 (no limit) or more",
            (int)options->cache_mib);
    if (options->device < MOEC_DEVICE_AUTO || options->device > MOEC_DEVICE_CUDA)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "options.device is %d: it must be 0 (as the library was built), 1 (CPU) or 2 "
            "(CUDA)", (int)options->device);
    return MOEC_OK;
}

/* The model on a device. Where that is the library's own choice and there is none, on the CPU. */
static int open_device(moec_open_model *model, int32_t device, moec_error **error) {
    moec_error *inner = NULL;
    int code = moec_open_device(model, &inner);
    if (code == MOEC_NO_DEVICE && device == MOEC_DEVICE_AUTO && model->description->level_count) {
        moec_error_free(inner);
        return moec_choose_level(model->description, MOEC_LEVEL_BEST, &model->level, error);
    }
    if (error) *error = inner;
    else moec_error_free(inner);
    return code;
}

int moec_open(const moec_description *description, const char *weights, const moec_options *given,
    moec_open_model **model, moec_error **error) {
    moec_no_error(error);
    if (!model) return moec_fail(error, MOEC_BAD_ARGUMENT, "open: `model` is NULL");
    *model = NULL;
    if (!weights) return moec_fail(error, MOEC_BAD_ARGUMENT, "open: `weights` is NULL");
    moec_options options;
    int32_t device = MOEC_DEVICE_CPU;
    int code = read_options(given, &options, error);
    if (!code) code = moec_choose_device(description, &options, &device, error);
    /* Before the weights: what this machine cannot run it is told of at once. */
    const moec_level_entry *level = NULL;
    if (!code && device == MOEC_DEVICE_CPU) code = moec_choose_level(description, options.level, &level, error);
    if (code) return code;
    moec_open_model *opened = calloc(1, sizeof *opened);
    if (!opened) return moec_fail(error, MOEC_OUT_OF_MEMORY, "open: no memory for the model");
    code = moec_weights_open(&opened->weights, description, weights, options.verify_checksums, error);
    if (code) {
        free(opened);
        return code;
    }
    opened->description = description;
    opened->level = level;
    if (!level) code = open_device(opened, device, error);
    if (code) {
        moec_weights_close(&opened->weights);
        free(opened);
        return code;
    }
    opened->threads = opened->calls ? 1 : options.threads ? options.threads : moec_cpu_count();
    atomic_init(&opened->references, 1);
    atomic_flag_clear(&opened->pool_busy);
    for (int at = 0; at < MOEC_ROOMS; at++) atomic_init(&opened->rooms[at], NULL);
    opened->most_pages = moec_most_pages(description, options.cache_mib);
    atomic_init(&opened->pages, 0);
    *model = opened;
    return MOEC_OK;
}

void moec_model_release(moec_open_model *model) {
    if (atomic_fetch_sub(&model->references, 1) > 1) return;
    moec_pool_free(model->pool);
    moec_rooms_free(model);
    if (model->calls) model->calls->close(model->device);
    moec_weights_close(&model->weights);
    free(model);
}

void moec_close(moec_open_model *model) {
    if (model) moec_model_release(model);
}

const char *moec_level(const moec_open_model *model) {
    if (!model) return "";
    return model->calls ? model->calls->name : model->level->name;
}

int moec_threads(const moec_open_model *model) { return model ? model->threads : 0; }

int moec_abi(void) { return MOEC_ABI; }

const char *moec_version(const moec_description *description) { return description->version; }
