/* Eight threads, each with sessions of its own on one model, against one thread alone: the same bits. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bard.h"

enum { THREADS = 8, ROUNDS = 4, TOKENS = 40 };

static bard *model;
static float expected[THREADS][TOKENS * BARD_VOCAB];
static float found[THREADS][TOKENS * BARD_VOCAB];

static int32_t token(int sequence, int at) { return (int32_t)((sequence * 131 + at * 71 + 17) % BARD_VOCAB); }

/* The prompt at once, then the rest one by one. */
static int generate(int sequence, float *logits) {
    bard_session *session;
    if (bard_session_new(model, TOKENS, &session, NULL)) return 1;
    int32_t ids[TOKENS];
    for (int at = 0; at < TOKENS; at++) ids[at] = token(sequence, at);
    const int prompt = TOKENS / 2;
    int failed = bard_forward(session, ids, (size_t)prompt, logits, NULL);
    for (int at = prompt; at < TOKENS && !failed; at++) {
        failed = bard_forward(session, ids + at, 1, logits + (size_t)at * BARD_VOCAB, NULL);
    }
    bard_session_free(session);
    return failed;
}

static void *work(void *argument) {
    const int sequence = *(const int *)argument;
    for (int round = 0; round < ROUNDS; round++) {
        if (generate(sequence, found[sequence])) return "failed";
        if (memcmp(found[sequence], expected[sequence], sizeof expected[sequence]) != 0) return "differs";
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    bard_options options = BARD_OPTIONS_INIT;
    options.threads = 1;
    if (bard_open(argv[1], &options, &model, NULL)) return 1;
    for (int at = 0; at < THREADS; at++) {
        if (generate(at, expected[at])) return 1;
    }
    bard_close(model);

    options.threads = 3;
    if (bard_open(argv[1], &options, &model, NULL)) return 1;
    pthread_t threads[THREADS];
    int numbers[THREADS];
    for (int at = 0; at < THREADS; at++) {
        numbers[at] = at;
        if (pthread_create(&threads[at], NULL, work, &numbers[at])) return 1;
    }
    const char *worst = "equal";
    for (int at = 0; at < THREADS; at++) {
        void *result;
        pthread_join(threads[at], &result);
        if (result != NULL) worst = result;
    }
    bard_close(model);
    puts(worst);
    return strcmp(worst, "equal") != 0;
}
