/* A library for CPUs and GPUs, on a stand-in for the driver: a session on the GPU gives what one on the CPU gives, and what goes
 * wrong there is an error that says what and how to do without. Says what it finds, one line each. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bard.h"

enum { TOKENS = 40, PROMPT = 24, LOST = 719, OUT_OF_MEMORY = 2 };

static const char *weights;
static int32_t ids[TOKENS];

static bard *opened(int device) {
    bard_options options = BARD_OPTIONS_INIT;
    options.device = device;
    bard *model = NULL;
    bard_error *error = NULL;
    int code = bard_open(weights, &options, &model, &error);
    if (code) printf("%d %s\n", code, bard_error_message(error));
    bard_error_free(error);
    return model;
}

/* The prompt at once, the rest one by one; the code of what failed. */
static int run(bard *model, float *logits, size_t *position) {
    bard_session *session = NULL;
    bard_error *error = NULL;
    int code = bard_session_new(model, TOKENS, &session, &error);
    if (!code) code = bard_forward(session, ids, PROMPT, logits, &error);
    for (size_t at = PROMPT; !code && at < TOKENS; at++)
        code = bard_step(session, ids + at, 1, logits + at * BARD_VOCAB, &error);
    if (code) printf("%d %s\n", code, bard_error_message(error));
    bard_error_free(error);
    *position = bard_session_position(session);
    bard_session_free(session);
    return code;
}

/* Of the largest value of all. */
static double distance(const float *a, const float *b, size_t count) {
    double largest = 0, most = 0;
    for (size_t at = 0; at < count; at++) {
        largest = fmax(largest, fabs(a[at]));
        most = fmax(most, isfinite(b[at]) ? fabs((double)a[at] - b[at]) : INFINITY);
    }
    return most / largest;
}

/* Sessions at different positions, stepped together, against each alone. */
static double together(bard *model) {
    static float alone[2 * BARD_VOCAB], both[2 * BARD_VOCAB];
    bard_session *sessions[2];
    for (int batch = 0; batch < 2; batch++) {
        float *to = batch ? both : alone;
        bard_turn turns[2] = {{0}};
        for (int at = 0; at < 2; at++) {
            if (bard_session_new(model, TOKENS, &sessions[at], NULL)) return INFINITY;
            if (bard_step(sessions[at], ids, (size_t)(3 + 2 * at), NULL, NULL)) return INFINITY;
            turns[at] = (bard_turn){sessions[at], ids + 7, (size_t)(1 + at), to + at * BARD_VOCAB, {0}};
            if (!batch && bard_step(sessions[at], turns[at].ids, turns[at].n, turns[at].logits, NULL)) return INFINITY;
        }
        if (batch && bard_step_batch(model, turns, 2, NULL)) return INFINITY;
        if (bard_session_position(sessions[1]) != 7) return INFINITY;
        for (int at = 0; at < 2; at++) bard_session_free(sessions[at]);
    }
    return distance(alone, both, 2 * BARD_VOCAB);
}

/* A fork at an earlier position, which shares a page until both write into it, against a session alone; and then the first goes on
 * as if there had been no fork. */
static double forked(bard *model) {
    static float alone[BARD_VOCAB], twice[BARD_VOCAB], fork_s[BARD_VOCAB];
    bard_session *session, *fork;
    if (bard_session_new(model, TOKENS, &session, NULL)) return INFINITY;
    if (bard_step(session, ids, 9, alone, NULL) || bard_session_fork(session, 5, &fork, NULL)) return INFINITY;
    if (bard_step(fork, ids + 5, 4, fork_s, NULL)) return INFINITY;
    double most = distance(alone, fork_s, BARD_VOCAB);
    if (bard_step(fork, ids + 20, 1, NULL, NULL) || bard_step(session, ids + 9, 1, alone, NULL)) return INFINITY;
    if (bard_session_reset(fork) || bard_step(fork, ids, 10, twice, NULL)) return INFINITY;
    most = fmax(most, distance(alone, twice, BARD_VOCAB));
    bard_session_free(fork);
    bard_session_free(session);
    return most;
}

int main(int count, char **arguments) {
    static float on_cpu[TOKENS * BARD_VOCAB], on_gpu[TOKENS * BARD_VOCAB];
    if (count != 2) return 2;
    weights = arguments[1];
    for (int at = 0; at < TOKENS; at++) ids[at] = (at * 71 + at / 7) % BARD_VOCAB;
    size_t position;
    bard *cpu = opened(BARD_DEVICE_CPU);
    if (!cpu || run(cpu, on_cpu, &position)) return 1;
    if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD)) printf("the driver was loaded for the CPU\n");
    bard *gpu = opened(BARD_DEVICE_AUTO);
    if (!gpu) return 1;
    printf("on %s and %s, %d\n", strcmp(bard_level(cpu), "cuda") ? "a CPU" : "a GPU", bard_level(gpu), bard_threads(gpu));
    if (run(gpu, on_gpu, &position)) return 1;
    printf("logits %s\n", distance(on_cpu, on_gpu, TOKENS * BARD_VOCAB) < 1e-3 ? "agree" : "differ");
    printf("batches %s\n", together(gpu) < 1e-4 ? "agree" : "differ");
    printf("forks %s, %zu bytes left\n", forked(gpu) < 1e-4 ? "agree" : "differ", bard_cache_bytes(gpu));
    bard_error *error = NULL;
    if (bard_selftest(gpu, &error)) printf("%s\n", bard_error_message(error));
    bard_error_free(error);

    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    void (*fail)(const char *, int, int);
    void (*is)(int);
    int (*live)(void);
    void *found[] = {dlsym(driver, "double_fail"), dlsym(driver, "double_is"), dlsym(driver, "double_live_blocks")};
    memcpy(&fail, &found[0], sizeof fail), memcpy(&is, &found[1], sizeof is), memcpy(&live, &found[2], sizeof live);
    /* The device is lost in the third pass: the session stands where it stood, and the CPU goes on. */
    fail("cuStreamSynchronize", 2, LOST);
    int code = run(gpu, on_gpu, &position);
    printf("lost: %d at %zu\n", code, position);
    fail("", 0, 0);
    bard_close(gpu);
    printf("blocks %d\n", live());
    fail("cuMemAlloc_v2", 0, OUT_OF_MEMORY);
    opened(BARD_DEVICE_AUTO);
    fail("cuInit", 0, 100);
    opened(BARD_DEVICE_CUDA);
    fail("", 0, 0);
    is(7);
    opened(BARD_DEVICE_CUDA);
    bard *other = opened(BARD_DEVICE_AUTO);
    printf("another part: on %s\n", other && strcmp(bard_level(other), "cuda") ? "a CPU" : "a GPU");
    bard_close(other);
    bard_options both = BARD_OPTIONS_INIT;
    both.device = BARD_DEVICE_CUDA, both.level = BARD_LEVEL_SCALAR;
    printf("%d\n", bard_open(weights, &both, &other, NULL));
    if (run(cpu, on_gpu, &position)) return 1;
    printf("blocks %d\n", live());
    bard_close(cpu);
    return 0;
}
