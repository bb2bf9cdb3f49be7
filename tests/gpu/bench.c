/* Times passes. (contract: bench.h)
 *
 * A line of workloads.txt is a case's name, then the experts, the choices of each token, the width, the inner width, the tokens,
 * and how tokens choose: `uniform`, `skewed` (all choose expert 0 first), `gate` (one of the model does; what it reads is counted
 * as for `uniform`) or `dense`: a single product of width by experts, whose inner width is 0, and whose rate is a bound. Weights and rows are
 * random, the same ones in every run. What is timed is what the device does from inputs to outputs that both lie on it.
 *
 * Where one call is short, CALLS of them run in turn, each with choices of its own, so that weights come from memory and not from
 * a cache; in a captured graph where the driver captures, as a program that steps in a loop would. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "between.h"
#include "session.h"

/* WARM: after so many passes of a shape the run time has its graphs, if it makes any. */
enum { CALLS = 16, WARM = 4, SHORT_TOKENS = 64, ROUNDS = 7, COPY_ROUNDS = 20, MOST_NAME = 64, CAPTURE_OF_THIS_THREAD = 1 };

/* What a round should take. */
static const double ROUND_SECONDS = 0.05;
static const size_t COPY_BYTES = (size_t)1 << 30;
static const size_t REPEATED_BYTES = (size_t)60 << 20;

typedef struct workload {
    char of[MOST_NAME], routing[16];
    long experts, choices, width, inner, tokens;
} workload;

static uint64_t mixed(uint64_t at) {
    at += 0x9e3779b97f4a7c15u;
    at = (at ^ at >> 30) * 0xbf58476d1ce4e5b9u;
    at = (at ^ at >> 27) * 0x94d049bb133111ebu;
    return at ^ at >> 31;
}

/* peers.py has the same. Distinct within a token: the step is odd, and the experts are a power of two. */
static int32_t chosen(const workload *of, int call, long token, long choice) {
    uint64_t hash = mixed((uint64_t)call << 32 | (uint64_t)token);
    uint64_t experts = (uint64_t)of->experts, first = hash % experts, step = 1 + 2 * ((hash >> 32) % (experts / 2));
    if (strcmp(of->routing, "skewed")) return (int32_t)((first + (uint64_t)choice * step) % experts);
    return choice == 0 ? 0 : (int32_t)(1 + (first + (uint64_t)choice) % (experts - 1));
}

static void fill_numbers(char *to, size_t bytes, int64_t dtype, double reach) {
    size_t each = dtype == MOEC_F32 ? 4 : 2, count = bytes / each;
    for (size_t at = 0; at < count; at++) {
        float value = (float)(reach * ((double)(mixed(at) >> 40) / (double)(1 << 23) - 1.0));
        uint32_t bits;
        memcpy(&bits, &value, 4);
        uint16_t half = (uint16_t)(bits >> 16);
        if (dtype == MOEC_F32) memcpy(to + at * 4, &value, 4);
        else memcpy(to + at * 2, &half, 2);
    }
}

/* Numbers again and again: there are gigabytes of them, and nobody looks at more than their size. */
static void fill_part(char *to, const fill *part) {
    size_t bytes = (size_t)part->bytes, once = bytes < REPEATED_BYTES ? bytes : REPEATED_BYTES;
    fill_numbers(to, once, part->dtype, part->reach);
    for (size_t at = once; at < bytes; at += once) memcpy(to + at, to, bytes - at < once ? bytes - at : once);
}

static char *filled_weights(const gpu_case *of) {
    char *weights = aligned_alloc(64, ((size_t)of->description.weight_bytes + 127) / 64 * 64);
    if (!weights) return NULL;
    for (int64_t at = 0; at < of->fill_count; at++) fill_part(weights + of->fills[at].offset, &of->fills[at]);
    return weights;
}

/* A call's session and what it is given. */
typedef struct call {
    gpu_session session;
    long tokens;
    void *inputs[MOST_PORTS], *outputs[MOST_PORTS];
} call;

static size_t port_bytes(const moec_port *port, long tokens) {
    return (size_t)(port->rows == MOEC_ROWS_ONE ? 1 : tokens) * (size_t)port->row_bytes;
}

static bool prepare(call *to, int number, const gpu_case *of, const workload *work, moec_cuda *device, moec_error **error) {
    *to = (call){.tokens = work->tokens};
    if (session_new(of, device, work->tokens, 16, &to->session, error)) return false;
    for (int32_t at = 0; at < of->description.input_count; at++) {
        const moec_port *port = &of->inputs[at];
        size_t bytes = port_bytes(port, work->tokens);
        char *made = to->inputs[at] = malloc(bytes + 1);
        if (!made) return false;
        if (port->dtype == MOEC_I32) {
            for (long token = 0; token < work->tokens; token++)
                for (long choice = 0; choice < work->choices; choice++)
                    ((int32_t *)made)[token * work->choices + choice] = chosen(work, number, token, choice);
        } else if (port->row_elements == work->choices) {
            for (size_t place = 0; place < bytes / 4; place++) ((float *)made)[place] = 1.0f / (float)work->choices;
        } else {
            fill_numbers(made, bytes, port->dtype, sqrt(3.0));
        }
    }
    for (int32_t at = 0; at < of->description.output_count; at++) {
        size_t bytes = port_bytes(&of->outputs[at], work->tokens);
        to->outputs[at] = malloc(bytes + 1);
        if (!to->outputs[at]) return false;
        memset(to->outputs[at], 0xff, bytes);
    }
    return true;
}

static void forget(call *of) {
    if (of->session.device) session_free(&of->session);
    for (int at = 0; at < MOST_PORTS; at++) {
        free(of->inputs[at]);
        free(of->outputs[at]);
    }
}

static bool all_numbers(const gpu_case *of, const call *ran, long tokens) {
    for (int32_t at = 0; at < of->description.output_count; at++) {
        const float *values = ran->outputs[at];
        size_t count = port_bytes(&of->outputs[at], tokens) / 4;
        for (size_t place = 0; of->outputs[at].dtype == MOEC_F32 && place < count; place++)
            if (!isfinite(values[place])) return false;
    }
    return true;
}

static int sweep(call *calls, int count, moec_error **error) {
    int failure = 0;
    for (int at = 0; !failure && at < count; at++) {
        call *one = &calls[at];
        moec_pass pass = {.inputs = one->inputs, .outputs = one->outputs};
        failure = session_run(&one->session, 0, one->tokens, &pass, error);
        /* The same positions again. */
        one->session.pasts[0] = 0;
    }
    return failure;
}

static moec_cu_graph_run captured(const more_driver *driver, call *calls, int count) {
    if (!driver->capture_begin || !driver->capture_end || !driver->graph_new || !driver->graph_launch) return NULL;
    moec_error *error = NULL;
    moec_cu_graph graph = NULL;
    moec_cu_graph_run run = NULL;
    if (driver->capture_begin(between_stream, CAPTURE_OF_THIS_THREAD)) return NULL;
    int failure = sweep(calls, count, &error);
    moec_error_free(error);
    if (driver->capture_end(between_stream, &graph) || failure || !graph) return NULL;
    return driver->graph_new(&run, graph, 0) ? NULL : run;
}

static int by_size(const void *one, const void *other) {
    double left = *(const double *)one, right = *(const double *)other;
    return (left > right) - (left < right);
}

typedef struct timing {
    double best, median; /* seconds of one call */
    long launches;
    bool graph;
} timing;

/* False where the device fails. */
static bool measure(const more_driver *driver, call *calls, int count, timing *to) {
    moec_error *error = NULL;
    moec_cu_event start, end;
    if (driver->event_new(&start, 0) || driver->event_new(&end, 0)) return false;
    between_quiet = true;
    between_launches = 0;
    bool fine = !sweep(calls, count, &error) && !driver->context_wait();
    to->launches = between_launches / count;
    /* Without launches, the run time has graphs of its own, which no other can take in. */
    moec_cu_graph_run graph = fine && to->launches > 0 ? captured(driver, calls, count) : NULL;
    to->graph = graph != NULL;
    double seconds[ROUNDS];
    long sweeps = 1;
    for (int round = -1; fine && round < ROUNDS; round++) {
        fine = !driver->event_record(start, between_stream);
        for (long at = 0; fine && at < sweeps; at++)
            fine = graph ? !driver->graph_launch(graph, between_stream) : !sweep(calls, count, &error);
        float milliseconds = 0;
        fine = fine && !driver->event_record(end, between_stream) && !driver->event_wait(end) &&
               !driver->event_elapsed(&milliseconds, start, end);
        double each = milliseconds / 1e3 / (double)(sweeps * count);
        if (round >= 0) seconds[round] = each;
        else if (each > 0 && each * count < ROUND_SECONDS) sweeps = (long)(ROUND_SECONDS / (each * count)) + 1;
    }
    between_quiet = false;
    if (graph && driver->graph_free) driver->graph_free(graph);
    driver->event_free(start);
    driver->event_free(end);
    moec_error_free(error);
    if (!fine) return false;
    qsort(seconds, ROUNDS, sizeof *seconds, by_size);
    to->best = seconds[0];
    to->median = seconds[ROUNDS / 2];
    return true;
}

/* Bytes of the experts that a mean call reads, and its operations. */
static void tell_work(FILE *results, const workload *work, int calls) {
    double active = 0, expert_weights = 3.0 * (double)work->width * (double)work->inner;
    char *seen = calloc((size_t)work->experts + 1, 1);
    for (int call = 0; seen && call < calls; call++) {
        memset(seen, 0, (size_t)work->experts);
        for (long token = 0; token < work->tokens; token++)
            for (long choice = 0; choice < work->choices; choice++) seen[chosen(work, call, token, choice)] = 1;
        for (long expert = 0; expert < work->experts; expert++) active += seen[expert] / (double)calls;
    }
    free(seen);
    double flops = 2.0 * (double)work->tokens * (double)work->choices * expert_weights;
    fprintf(results, "work\t%s\t%ld\t%s\t%.0f\t%.0f\n", work->of, work->tokens, work->routing, active * expert_weights * 2,
        flops);
}

static void tell_dense(FILE *results, const workload *work, const timing *found) {
    double flops = 2.0 * (double)work->tokens * (double)work->width * (double)work->experts;
    fprintf(results, "bound\tgemm\tmoec's own\t%.1f\n", flops / found->best / 1e12);
    fflush(results);
}

static void tell(FILE *results, const workload *work, const timing *found) {
    bool graph = found->graph || found->launches == 0;
    fprintf(results, "time\tmoec\t%s\t%ld\t%s\t%.3f\t%.3f\t%s\n", work->of, work->tokens, work->routing,
        found->best * 1e6, found->median * 1e6, graph ? "graph" : "no graph");
    fflush(results);
    printf("  %-40s %6ld tokens, %-8s %12.1f us\n", work->of, work->tokens, work->routing, found->best * 1e6);
    fflush(stdout);
}

static void tell_failure(FILE *results, const workload *work, const char *why) {
    fprintf(results, "failed\tmoec\t%s\t%ld\t%s\t%s\n", work->of, work->tokens, work->routing, why);
    fflush(results);
    fprintf(stderr, "%s, %ld tokens, %s: %s\n", work->of, work->tokens, work->routing, why);
}

static int run_workload(FILE *results, const more_driver *driver, const gpu_case *of, moec_cuda *device, const workload *work) {
    int count = work->tokens <= SHORT_TOKENS ? CALLS : 1;
    call *calls = calloc((size_t)count, sizeof *calls);
    moec_error *error = NULL;
    const char *why = calls ? NULL : "no memory";
    for (int at = 0; !why && at < count; at++)
        if (!prepare(&calls[at], at, of, work, device, &error)) why = error ? moec_error_message(error) : "no memory";
    timing found = {0};
    for (int again = 0; !why && again < WARM; again++)
        if (sweep(calls, count, &error)) why = moec_error_message(error);
    for (int at = 0; !why && at < count; at++)
        if (!all_numbers(of, &calls[at], work->tokens)) why = "results are no numbers";
    if (!why && !measure(driver, calls, count, &found)) why = "the device failed while it was timed";
    bool dense = !strcmp(work->routing, "dense");
    if (!dense) tell_work(results, work, count);
    if (why) tell_failure(results, work, why);
    else if (dense) tell_dense(results, work, &found);
    else tell(results, work, &found);
    for (int at = 0; calls && at < count; at++) forget(&calls[at]);
    free(calls);
    moec_error_free(error);
    return why != NULL;
}

/* Bytes read and written in a second by the device's own copies. Wants a context. */
static int copy_rate(FILE *results, const more_driver *driver) {
    moec_cu_address from = 0, to = 0;
    moec_cu_event start, end;
    size_t left = 0, all = 0, bytes = COPY_BYTES;
    if (!driver->memory(&left, &all) && all <= COPY_BYTES) bytes = 1 << 20;
    bool fine = !driver->alloc(&from, bytes) && !driver->alloc(&to, bytes) && !driver->fill(from, 0x3f, bytes) &&
                !driver->event_new(&start, 0) && !driver->event_new(&end, 0);
    double best = 0;
    for (int round = 0; fine && round < COPY_ROUNDS; round++) {
        float milliseconds = 0;
        fine = !driver->event_record(start, between_stream) && !driver->copy(to, from, bytes, between_stream) &&
               !driver->event_record(end, between_stream) && !driver->event_wait(end) &&
               !driver->event_elapsed(&milliseconds, start, end);
        double rate = milliseconds > 0 ? 2.0 * (double)bytes / (milliseconds / 1e3) : 0;
        if (rate > best) best = rate;
    }
    if (from) driver->release(from);
    if (to) driver->release(to);
    if (!fine) return 1;
    fprintf(results, "bound\tcopy\tthe driver's copy\t%.1f\n", best / 1e9);
    fflush(results);
    return 0;
}

static void tell_machine(FILE *results, const more_driver *driver) {
    char name[128] = "";
    int version = 0;
    driver->device_name(name, sizeof name, 0);
    driver->driver_version(&version);
    fprintf(results, "machine\tpart\t%s\n", name);
    fprintf(results, "machine\tCUDA of the driver\t%d.%d\n", version / 1000, version % 1000 / 10);
    fflush(results);
}

int bench(const char *results_path, const char *folder) {
    char path[4096], line[512], opened[MOST_NAME] = "";
    more_driver driver;
    FILE *results = fopen(results_path, "a");
    snprintf(path, sizeof path, "%s/workloads.txt", folder);
    FILE *list = fopen(path, "r");
    bool ready = results && list && more_driver_load(&driver);
    int wrong = !ready;
    if (!list) fprintf(stderr, "%s cannot be read\n", path);
    between_one_stream = true;
    gpu_case of = {0};
    moec_cuda *device = NULL;
    bool machine = false;
    while (ready && fgets(line, sizeof line, list)) {
        workload work;
        if (sscanf(line, "%63s %ld %ld %ld %ld %ld %15s", work.of, &work.experts, &work.choices, &work.width, &work.inner,
                &work.tokens, work.routing) != 7)
            continue;
        if (strcmp(opened, work.of)) {
            moec_cuda_close(device);
            case_free(&of);
            device = NULL;
            snprintf(opened, sizeof opened, "%s", work.of);
            snprintf(path, sizeof path, "%s/%s.case", folder, work.of);
            moec_error *error = NULL;
            char *weights = case_read(path, &of) ? filled_weights(&of) : NULL;
            if (!weights || moec_cuda_open(&of.description, of.image.at, of.image.bytes, weights, &device, &error))
                tell_failure(results, &work, error ? moec_error_message(error) : "it cannot be opened");
            moec_error_free(error);
            free(weights);
        }
        if (!device) {
            wrong = 1;
            continue;
        }
        moec_cu_context context;
        if (!machine && !driver.context_retain(&context, 0) && !driver.context_push(context)) {
            machine = true;
            tell_machine(results, &driver);
            wrong |= copy_rate(results, &driver);
        }
        wrong |= run_workload(results, &driver, &of, device, &work);
    }
    moec_cuda_close(device);
    case_free(&of);
    if (list) fclose(list);
    if (results) fclose(results);
    return wrong;
}
