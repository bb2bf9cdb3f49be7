/* M01: a prompt goes on by the likeliest token each time: with what the session keeps, without it, and beside three other
 * sequences in one step. Prints the tokens; any difference, were it of one bit, is the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "byte_decoder.h"

enum { NEW = 32, ROOM = 128, SEQUENCES = 4, VOCAB = BYTE_DECODER_VOCAB };

/* A sequence that grows, and the logits behind each of its new tokens. */
typedef struct {
    int32_t ids[ROOM];
    size_t length;
    float logits[NEW][VOCAB];
} text;

static int fail(byte_decoder_error *error) {
    fprintf(stderr, "%s\n", byte_decoder_error_message(error));
    byte_decoder_error_free(error);
    return 1;
}

static void append(text *text, const float *logits) {
    int32_t best = 0;
    for (int32_t token = 1; token < VOCAB; token++)
        if (logits[token] > logits[best]) best = token;
    text->ids[text->length++] = best;
}

static int with_cache(byte_decoder *model, text *text) {
    byte_decoder_session *session;
    byte_decoder_error *error;
    if (byte_decoder_session_new(model, ROOM, &session, &error)) return fail(error);
    size_t done = 0;
    for (int at = 0; at < NEW; at++) {
        if (byte_decoder_step(session, text->ids + done, text->length - done, text->logits[at], &error)) return fail(error);
        done = text->length;
        append(text, text->logits[at]);
    }
    byte_decoder_session_free(session);
    return 0;
}

static int without_cache(byte_decoder *model, text *text) {
    byte_decoder_session *session;
    byte_decoder_error *error;
    if (byte_decoder_session_new(model, ROOM, &session, &error)) return fail(error);
    for (int at = 0; at < NEW; at++) {
        byte_decoder_session_reset(session);
        if (byte_decoder_step(session, text->ids, text->length, text->logits[at], &error)) return fail(error);
        append(text, text->logits[at]);
    }
    byte_decoder_session_free(session);
    return 0;
}

static int all_together(byte_decoder *model, text *texts) {
    byte_decoder_turn turns[SEQUENCES];
    byte_decoder_error *error;
    size_t done[SEQUENCES] = {0};
    memset(turns, 0, sizeof turns);
    for (int one = 0; one < SEQUENCES; one++)
        if (byte_decoder_session_new(model, ROOM, &turns[one].session, &error)) return fail(error);
    for (int at = 0; at < NEW; at++) {
        for (int one = 0; one < SEQUENCES; one++) {
            turns[one].ids = texts[one].ids + done[one];
            turns[one].n = texts[one].length - done[one];
            turns[one].logits = texts[one].logits[at];
            done[one] = texts[one].length;
        }
        if (byte_decoder_step_batch(model, turns, SEQUENCES, &error)) return fail(error);
        for (int one = 0; one < SEQUENCES; one++) append(&texts[one], texts[one].logits[at]);
    }
    for (int one = 0; one < SEQUENCES; one++) byte_decoder_session_free(turns[one].session);
    return 0;
}

int main(int argc, char **argv) {
    static text cached[SEQUENCES], whole[SEQUENCES], joined[SEQUENCES];
    byte_decoder *model;
    byte_decoder_error *error;
    if (argc < SEQUENCES + 2 || argc - 2 > ROOM - NEW) return 2;
    if (byte_decoder_open(argv[1], NULL, &model, &error)) return fail(error);
    /* The prompt, and parts of it. */
    for (int one = 0; one < SEQUENCES; one++) {
        for (int at = 2 + one; at < argc; at++) cached[one].ids[cached[one].length++] = atoi(argv[at]);
        whole[one] = joined[one] = cached[one];
        if (with_cache(model, &cached[one]) || without_cache(model, &whole[one])) return 1;
    }
    if (all_together(model, joined)) return 1;
    byte_decoder_close(model);
    if (memcmp(cached, whole, sizeof cached)) return fputs("differs without a cache\n", stderr), 1;
    if (memcmp(cached, joined, sizeof cached)) return fputs("differs beside others\n", stderr), 1;
    for (int at = 0; at < NEW; at++) printf("%d ", (int)cached[0].ids[cached[0].length - NEW + at]);
    return 0;
}
