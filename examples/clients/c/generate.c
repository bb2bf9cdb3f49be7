/* Text from a model compiled by moec, in plain C: no framework, nothing to install.
 *
 *   moec build examples/bard/... -o build            (see ./dev demo)
 *   cc -std=c11 -O2 generate.c -Ibuild -Lbuild -lbard -lm -Wl,-rpath,$PWD/build -o generate
 *   ./generate build/bard.weights "JULIET." 200
 *
 * The model's vocabulary is bytes, so its tokens need no tokenizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bard.h"

static int fail(const char *what, bard_error *error) {
    fprintf(stderr, "%s: %s\n", what, bard_error_message(error));
    bard_error_free(error);
    return 1;
}

static int32_t likeliest(const float *logits) {
    int32_t best = 0;
    for (int32_t token = 1; token < BARD_VOCAB; token++) {
        if (logits[token] > logits[best]) best = token;
    }
    return best;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s WEIGHTS PROMPT TOKENS\n", argv[0]);
        return 2;
    }
    const char *prompt = argv[2];
    const size_t length = strlen(prompt), wanted = strtoul(argv[3], NULL, 10);
    if (length == 0) {
        fprintf(stderr, "the prompt is empty\n");
        return 2;
    }

    bard *model = NULL;
    bard_session *session = NULL;
    bard_error *error = NULL;
    if (bard_open(argv[1], NULL, &model, &error)) return fail("opening the model", error);
    if (bard_session_new(model, length + wanted, &session, &error)) return fail("a session", error);

    int32_t *ids = malloc(length * sizeof *ids);
    if (ids == NULL) return 1;
    for (size_t at = 0; at < length; at++) ids[at] = (unsigned char)prompt[at];

    /* The prompt at once, then token by token: the session remembers what was before. */
    float logits[BARD_VOCAB];
    if (bard_step(session, ids, length, logits, &error)) return fail("the prompt", error);
    fputs(prompt, stdout);
    for (size_t count = 0; count < wanted; count++) {
        const int32_t next = likeliest(logits);
        putchar((char)next);
        if (count + 1 < wanted && bard_step(session, &next, 1, logits, &error)) return fail("a token", error);
    }
    putchar('\n');

    free(ids);
    bard_session_free(session);
    bard_close(model);
    return 0;
}
