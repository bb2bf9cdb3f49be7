/* Where an opened model runs: on this CPU, by the best level or the one asked for, or on a device. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Wins over a library's own choice, not over a program's; read by libraries that have code for a GPU only. */
static const char VARIABLE[] = "MOEC_DEVICE";

static bool runs(const moec_level_entry *level, int32_t features) {
    return (level->needs & ~features) == 0 && moec_cpu_allows(level->needs);
}

static const moec_level_entry *best_level(const moec_description *description, int32_t features) {
    for (int32_t at = description->level_count; at-- > 0;)
        if (runs(&description->levels[at], features)) return &description->levels[at];
    return NULL;
}

int moec_choose_level(const moec_description *description, int32_t wanted, const moec_level_entry **level,
    moec_error **error) {
    int32_t features = moec_cpu_features();
    if (!description->level_count)
        return moec_fail(error, MOEC_BAD_ARGUMENT,
            "%s was built for GPUs alone, and has no code for a CPU: build it with --target cpu,cuda", description->name);
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

static int of_environment(int32_t *device, moec_error **error) {
    static const char *const NAMES[] = {"auto", "cpu", "cuda"};
    const char *value = getenv(VARIABLE);
    *device = MOEC_DEVICE_AUTO;
    if (!value || !*value) return MOEC_OK;
    for (int32_t at = 0; at < 3; at++)
        if (!strcmp(value, NAMES[at])) {
            *device = at;
            return MOEC_OK;
        }
    return moec_fail(error, MOEC_BAD_ARGUMENT, "the environment has %s=%s: it must be auto, cpu or cuda", VARIABLE, value);
}

int moec_choose_device(const moec_description *description, const moec_options *options, int32_t *device,
    moec_error **error) {
    bool of_cpu = options->level != MOEC_LEVEL_BEST;
    if (of_cpu && options->device == MOEC_DEVICE_CUDA)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "options.level is %d and options.device a GPU: levels are of CPUs",
            (int)options->level);
    const moec_device_entry *entry = description->device;
    if (!entry && options->device == MOEC_DEVICE_CUDA)
        return moec_fail(error, MOEC_BAD_ARGUMENT,
            "options.device asks for a GPU, and %s was built without code for one: build it with --target cpu,cuda",
            description->name);
    *device = options->device;
    if (*device == MOEC_DEVICE_AUTO && (of_cpu || !entry)) *device = MOEC_DEVICE_CPU;
    if (*device != MOEC_DEVICE_AUTO) return MOEC_OK;
    int code = of_environment(device, error);
    if (!code && *device == MOEC_DEVICE_AUTO && !description->level_count) *device = entry->calls->number;
    return code;
}

int moec_open_device(moec_open_model *model, moec_error **error) {
    const moec_description *description = model->description;
    const moec_device_entry *entry = description->device;
    moec_error *inner = NULL;
    int code = entry->calls->open(description, entry->image, entry->image_bytes, model->weights.data, &model->device, &inner);
    if (code)
        moec_fail(error, code, "%s; %s", moec_error_message(inner), description->level_count
            ? "to run on the CPU, set options.device, or MOEC_DEVICE=cpu in the environment"
            : "a library that also runs on a CPU is built with --target cpu,cuda");
    else
        model->calls = entry->calls;
    moec_error_free(inner);
    return code;
}
