/* M03: beam search. Each text that is kept is a session; one that goes on in several ways is forked, and all of them share what
 * came before. Prints the likeliest text. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "translation.h"

enum { WIDTH = 4, NEW = 12, ROOM = 64, SOURCE = TRANSLATION_INPUT_SOURCE_WORD, VOCAB = TRANSLATION_OUTPUT_LOGITS_V };

typedef struct {
    translation_session *session;
    int32_t ids[ROOM];
    size_t length;
    double score;
} text;

/* A kept text and a token behind it. */
typedef struct {
    const text *from;
    int32_t token;
    double score;
} longer;

static int32_t source[SOURCE];

static int fail(translation_error *error) {
    fprintf(stderr, "%s\n", translation_error_message(error));
    translation_error_free(error);
    return 1;
}

static translation_tensor tensor(const char *name, void *data, int32_t dtype, int64_t rows, int64_t columns) {
    translation_tensor made = {.name = name, .data = data, .dtype = dtype, .rank = columns ? 2 : 1, .shape = {rows, columns}};
    return made;
}

/* The logarithms of the probabilities of what follows the last of `n` new tokens. */
static int follow(translation_session *session, int32_t *ids, size_t n, double *likely) {
    static float logits[ROOM * VOCAB];
    translation_tensor inputs[] = {tensor("source", source, TRANSLATION_I32, SOURCE, 0),
        tensor("ids", ids, TRANSLATION_I32, (int64_t)n, 0)};
    translation_tensor output = tensor("logits", logits, TRANSLATION_F32, (int64_t)n, VOCAB);
    translation_error *error;
    if (translation_session_run(session, inputs, 2, &output, 1, &error)) return fail(error);
    const float *last = logits + (n - 1) * VOCAB;
    double most = -DBL_MAX, sum = 0;
    for (int token = 0; token < VOCAB; token++) most = fmax(most, last[token]);
    for (int token = 0; token < VOCAB; token++) sum += exp(last[token] - most);
    for (int token = 0; token < VOCAB; token++) likely[token] = last[token] - most - log(sum);
    return 0;
}

static int likelier(const void *a, const void *b) {
    double one = ((const longer *)a)->score, other = ((const longer *)b)->score;
    return (one < other) - (one > other);
}

int main(int argc, char **argv) {
    static text kept[WIDTH], next[WIDTH];
    static longer all[WIDTH * VOCAB];
    translation *model;
    translation_error *error;
    if (argc < 3 + SOURCE || argc - 2 - SOURCE > ROOM - NEW) return 2;
    for (int at = 0; at < SOURCE; at++) source[at] = atoi(argv[2 + at]);
    if (translation_open(argv[1], NULL, &model, &error)) return fail(error);
    if (translation_session_new(model, ROOM, &kept[0].session, &error)) return fail(error);
    for (int at = 2 + SOURCE; at < argc; at++) kept[0].ids[kept[0].length++] = atoi(argv[at]);
    size_t done = 0, texts = 1;
    for (int step = 0; step < NEW; step++) {
        size_t count = 0;
        for (size_t at = 0; at < texts; at++) {
            double likely[VOCAB];
            size_t length = kept[at].length;
            if (follow(kept[at].session, kept[at].ids + done, length - done, likely)) return 1;
            for (int32_t token = 0; token < VOCAB; token++)
                if (token != kept[at].ids[length - 1]) all[count++] = (longer){&kept[at], token, kept[at].score + likely[token]};
        }
        done = kept[0].length;
        qsort(all, count, sizeof *all, likelier);
        for (int at = 0; at < WIDTH; at++) {
            next[at] = *all[at].from;
            next[at].ids[next[at].length++] = all[at].token;
            next[at].score = all[at].score;
            if (translation_session_fork(all[at].from->session, done, &next[at].session, &error)) return fail(error);
        }
        for (size_t at = 0; at < texts; at++) translation_session_free(kept[at].session);
        memcpy(kept, next, sizeof kept);
        texts = WIDTH;
    }
    for (int at = 0; at < WIDTH; at++) translation_session_free(kept[at].session);
    translation_close(model);
    for (size_t at = kept[0].length - NEW; at < kept[0].length; at++) printf("%d ", (int)kept[0].ids[at]);
    return 0;
}
