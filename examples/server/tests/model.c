/* A model written by hand in the place of generated code, for the server's tests: the token behind position p is the sequence's
 * own token at position (2654435761 p >> 7) % (p + 1), found through its cache. */
#include <string.h>

#include "moec.h"

enum { VOCABULARY = 256, ROW = 1024 }; /* a page of the cache has half a MiB */

static int32_t *kept(char *const *pages, int64_t position) {
    return (int32_t *)(void *)(pages[position / MOEC_PAGE] + position % MOEC_PAGE * ROW * 4);
}

static void pass(const moec_pass *pass, int32_t thread, int32_t threads) {
    (void)threads;
    if (thread > 0) return;
    const int32_t *ids = pass->inputs[0];
    float *logits = pass->outputs[0];
    for (int64_t row = 0; row < pass->tokens; row++) *kept(pass->pages[row], pass->positions[row]) = ids[row];
    for (int64_t row = pass->first_output; row < pass->tokens; row++) {
        int64_t position = pass->positions[row];
        int32_t next = *kept(pass->pages[row], (int64_t)((uint64_t)position * 2654435761u >> 7) % (position + 1));
        memset(logits + row * VOCABULARY, 0, VOCABULARY * sizeof *logits);
        logits[row * VOCABULARY + next] = 1.0f;
    }
}

static moec_pass_function *const passes[] = {pass};
static const moec_level_entry levels[] = {{"scalar", passes, MOEC_LEVEL_SCALAR, 0}};
static const moec_axis axes[] = {{"V", VOCABULARY}};
static const moec_port inputs[] = {{"ids", 0, 1, 4, VOCABULARY, 0, MOEC_I32, MOEC_ROWS_TOKENS, 0}};
static const moec_port outputs[] = {{"logits", axes, VOCABULARY, 4 * VOCABULARY, -1, 1, MOEC_F32, MOEC_ROWS_OUTPUTS, 0}};
static const moec_description description = {
    "parrot", "by hand", FINGERPRINT, 0, 0, 0, 4 * ROW, 0, 64, {1}, levels, inputs, outputs, 1, 1, 1, 0, 1, 24, NULL};

int parrot_open(const char *weights, const moec_options *options, moec_open_model **model, moec_error **error);
int parrot_open(const char *weights, const moec_options *options, moec_open_model **model, moec_error **error) {
    return moec_open(&description, weights, options, model, error);
}

int parrot_abi(void);
int parrot_abi(void) { return ABI; }
