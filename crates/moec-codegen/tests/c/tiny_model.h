/* A model written by hand in the place of generated code: logits[t] = sum over positions p up to t of (p + 1) * table[id[p]].
 * It uses everything that a pass may: the cache, the workspace (through which threads meet), scratch, barriers, the trace. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include "moec_model.h"

enum { TINY_LIMIT = 10, TINY_VOCAB = 7, TINY_EXPERTS = 3, TINY_ROW = 16, TINY_MOST = 512 };

/* A position's row of the cache. */
static float *tiny_cache(char *const *pages, int64_t position) {
    return (float *)(void *)pages[position / MOEC_PAGE] + position % MOEC_PAGE * TINY_ROW;
}

static int64_t tiny_share(int64_t count, int32_t thread, int32_t threads) { return count * thread / threads; }

/* As if every token chose the experts `id` and `id + 1`. */
static void tiny_trace(const moec_pass *pass, const int32_t *ids) {
    int32_t chosen[2 * TINY_MOST];
    float weights[2 * TINY_MOST];
    for (int64_t row = 0; row < pass->tokens; row++)
        for (int choice = 0; choice < 2; choice++) {
            chosen[row * 2 + choice] = (ids[row] + choice) % TINY_EXPERTS;
            weights[row * 2 + choice] = choice ? 0.25f : 0.75f;
        }
    pass->trace(pass->trace_user, 0, 0, chosen, weights, pass->tokens, 2);
}

static void tiny_pass_with(const moec_pass *pass, int32_t thread, int32_t threads, float error) {
    const float *table = (const float *)(const void *)pass->weights;
    const int32_t *ids = pass->inputs[0];
    float *logits = pass->outputs[0];
    float *moved = (float *)(void *)pass->workspace;
    float *scratch = (float *)(void *)(pass->scratch + thread * pass->scratch_bytes);
    int64_t from = tiny_share(pass->tokens, thread, threads), to = tiny_share(pass->tokens, thread + 1, threads);
    for (int64_t row = from; row < to; row++)
        for (int at = 0; at < TINY_VOCAB; at++) moved[row * TINY_ROW + at] = table[ids[row] * TINY_VOCAB + at];
    moec_barrier(pass->team);
    /* Each thread moves rows that another one made. */
    int32_t other = (thread + 1) % threads;
    from = tiny_share(pass->tokens, other, threads), to = tiny_share(pass->tokens, other + 1, threads);
    for (int64_t row = from; row < to; row++)
        for (int at = 0; at < TINY_VOCAB; at++)
            tiny_cache(pass->pages[row], pass->positions[row])[at] =
                moved[row * TINY_ROW + at] * (float)(pass->positions[row] + 1);
    if (thread == 0 && pass->trace) tiny_trace(pass, ids);
    moec_barrier(pass->team);
    int64_t wanted = pass->tokens - pass->first_output;
    from = pass->first_output + tiny_share(wanted, thread, threads);
    to = pass->first_output + tiny_share(wanted, thread + 1, threads);
    for (int64_t row = from; row < to; row++) {
        for (int at = 0; at < TINY_VOCAB; at++) scratch[at] = error;
        for (int64_t position = 0; position <= pass->positions[row]; position++)
            for (int at = 0; at < TINY_VOCAB; at++) scratch[at] += tiny_cache(pass->pages[row], position)[at];
        for (int at = 0; at < TINY_VOCAB; at++) logits[row * TINY_VOCAB + at] = scratch[at];
    }
}

static void tiny_pass(const moec_pass *pass, int32_t thread, int32_t threads) {
    tiny_pass_with(pass, thread, threads, 0.0f);
}

/* Wrong wherever the sequence is longer than one position. */
static void tiny_wrong_pass(const moec_pass *pass, int32_t thread, int32_t threads) {
    tiny_pass_with(pass, thread, threads, pass->tokens > 1 ? 1.0f : 0.0f);
}

/* Wrong on several threads only. */
static void tiny_racy_pass(const moec_pass *pass, int32_t thread, int32_t threads) {
    tiny_pass_with(pass, thread, threads, threads > 1 ? 1e-3f : 0.0f);
}

static const moec_axis tiny_axes[] = {{"V", TINY_VOCAB}};
static const moec_port tiny_inputs[] = {{"ids", 0, 1, 4, TINY_LIMIT, 0, 3, MOEC_ROWS_TOKENS, 0}};
static const moec_port tiny_outputs[] = {{"logits", tiny_axes, TINY_VOCAB, 4 * TINY_VOCAB, -1, 1, 0, MOEC_ROWS_OUTPUTS, 0}};

/* The levels are all the same code but for the errors built in; that for AVX-512 needs what no CPU has. */
static moec_pass_function *const tiny_passes[] = {tiny_pass};
static moec_pass_function *const tiny_racy_passes[] = {tiny_racy_pass};
static moec_pass_function *const tiny_wrong_passes[] = {tiny_wrong_pass};
static const moec_level_entry tiny_levels[] = {
    {"scalar", tiny_passes, 1, 0},
    {"racy", tiny_racy_passes, 4, 0},
    {"wrong", tiny_wrong_passes, 2, 0},
    {"avx512", tiny_passes, 3, 1 << 20},
};

/* `fingerprint` is a macro or a number: what the weight file has. */
#define TINY_DESCRIPTION(its_name, fingerprint)                                                                       \
    {                                                                                                                 \
        its_name, "moec test, model " its_name, fingerprint, 320, 4 * TINY_ROW, 0, 4 * TINY_ROW, 0, 64, {1},           \
            tiny_levels, tiny_inputs, tiny_outputs, 4, 1, 1, 0, 1, 24, 0                                              \
    }

#endif
