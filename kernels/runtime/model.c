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
    return MOEC_OK;
}

static bool runs(const moec_level_entry *level, int32_t features) {
    return (level->needs & ~features) == 0 && moec_cpu_allows(level->needs);
}

static const moec_level_entry *best_level(const moec_description *description, int32_t features) {
    for (int32_t at = description->level_count; at-- > 0;)
        if (runs(&description->levels[at], features)) return &description->levels[at];
    return NULL;
}

static int choose_level(const moec_description *description, int32_t wanted, const moec_level_entry **level,
    moec_error **error) {
    int32_t features = moec_cpu_features();
    if (wanted == MOEC_LEVEL_BEST) {
        *level = best_level(description, features);
        if (*level) return MOEC_OK;
        return moec_fail(error, MOEC_UNSUPPORTED_CPU, "%s was built for other CPUs than this one: its plainest level is %s",
            description->name, description->levels[0].name);
    }
    for (int32_t at = 0; at < description->level_count; at++) {
        const moec_level_entry *entry = &description->levels[at];
        if (entry->number != wanted) continue;
        *level = entry;
        if (runs(entry, features)) return MOEC_OK;
        return moec_fail(error, MOEC_UNSUPPORTED_CPU, "this CPU cannot run level %s of %s", entry->name, description->name);
    }
    return moec_fail(error, MOEC_BAD_ARGUMENT, "options.level is %d: this build of %s has no such level", (int)wanted,
        description->name);
}

int moec_open(const moec_description *description, const char *weights, const moec_options *given,
    moec_open_model **model, moec_error **error) {
    moec_no_error(error);
    if (!model) return moec_fail(error, MOEC_BAD_ARGUMENT, "open: `model` is NULL");
    *model = NULL;
    if (!weights) return moec_fail(error, MOEC_BAD_ARGUMENT, "open: `weights` is NULL");
    moec_options options;
    const moec_level_entry *level = NULL;
    int code = read_options(given, &options, error);
    if (!code) code = choose_level(description, options.level, &level, error);
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
    opened->threads = options.threads ? options.threads : moec_cpu_count();
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
    moec_weights_close(&model->weights);
    free(model);
}

void moec_close(moec_open_model *model) {
    if (model) moec_model_release(model);
}

const char *moec_level(const moec_open_model *model) { return model ? model->level->name : ""; }

int moec_threads(const moec_open_model *model) { return model ? model->threads : 0; }

const char *moec_version(const moec_description *description) { return description->version; }
