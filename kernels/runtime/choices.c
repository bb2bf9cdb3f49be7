/* Recording and comparing choices of experts. */
#include "choices.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Weights closer than this, relative to the larger, are as good as equal. */
static const float NEAR_TIE = 1e-3f;

static moec_chosen *next_chosen(moec_choices *all, int32_t route, int32_t rank, int64_t choices) {
    if (all->next < all->count) return &all->chosen[all->next];
    moec_chosen *more = realloc(all->chosen, (size_t)(all->count + 1) * sizeof *more);
    if (!more) return NULL;
    all->chosen = more;
    size_t elements = (size_t)(all->tokens * choices) + 1;
    int32_t *indices = calloc(elements, sizeof *indices);
    float *weights = calloc(elements, sizeof *weights);
    if (!indices || !weights) {
        free(indices);
        free(weights);
        return NULL;
    }
    all->chosen[all->count] = (moec_chosen){route, rank, choices, indices, weights};
    return &all->chosen[all->count++];
}

void moec_choices_record(void *user, int32_t route, int32_t rank, const int32_t *indices, const float *weights,
    int64_t tokens, int64_t choices) {
    moec_choices *all = user;
    int64_t position = (int64_t)moec_session_position(all->session);
    if (position != all->position) {
        all->position = position;
        all->next = 0;
    }
    moec_chosen *chosen = all->failed ? NULL : next_chosen(all, route, rank, choices);
    all->failed |= !chosen || chosen->choices != choices || position + tokens > all->tokens;
    if (all->failed) return;
    all->next++;
    memcpy(chosen->indices + position * choices, indices, (size_t)(tokens * choices) * sizeof *indices);
    memcpy(chosen->weights + position * choices, weights, (size_t)(tokens * choices) * sizeof *weights);
}

void moec_choices_free(moec_choices *choices) {
    for (int32_t at = 0; at < choices->count; at++) {
        free(choices->chosen[at].indices);
        free(choices->chosen[at].weights);
    }
    free(choices->chosen);
}

/* The weight of the first choice in `a` that is not in `b`; NaN where all are. */
static float weight_of_other(const moec_chosen *a, const moec_chosen *b, int64_t row) {
    for (int64_t i = 0; i < a->choices; i++) {
        bool in_both = false;
        for (int64_t j = 0; j < b->choices; j++)
            in_both |= a->indices[row * a->choices + i] == b->indices[row * b->choices + j];
        if (!in_both) return a->weights[row * a->choices + i];
    }
    return NAN;
}

int moec_choices_compare(const moec_choices *expected, const moec_choices *found, bool whole_pass, int64_t *comparable,
    const char *what, moec_error **error) {
    *comparable = expected->tokens;
    if (expected->count != found->count)
        return moec_fail(error, MOEC_SELFTEST_FAILED, "self-test: %s: %d routes were run, not %d", what, (int)found->count,
            (int)expected->count);
    for (int32_t at = 0; at < expected->count; at++) {
        const moec_chosen *a = &expected->chosen[at], *b = &found->chosen[at];
        for (int64_t row = 0; row < *comparable; row++) {
            float x = weight_of_other(a, b, row), y = weight_of_other(b, a, row);
            if (isnan(x) && isnan(y)) continue;
            if (fabsf(x - y) > NEAR_TIE * fmaxf(fabsf(x), fabsf(y)))
                return moec_fail(error, MOEC_SELFTEST_FAILED,
                    "self-test: %s: route %d, layer %d, position %" PRId64 ": other experts were chosen", what,
                    (int)a->route, (int)a->rank, row);
            *comparable = whole_pass ? 0 : row;
        }
    }
    return MOEC_OK;
}
