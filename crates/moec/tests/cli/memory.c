/* How much the peak of this process's memory grows, in bytes, when a model is opened and, on one thread, one context is filled;
 * or, with a second argument, those of several sessions that step together, their prompts first. */
#include <stdio.h>
#include <stdlib.h>

#include "bard.h"

enum { TOKENS = 2048, SESSIONS = 8, EACH = TOKENS / SESSIONS };

static int32_t ids[TOKENS];
static float logits[SESSIONS][BARD_VOCAB];

/* The most memory that was ever resident, in kB. */
static long peak(void) {
    char line[256];
    long kilobytes = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %ld", &kilobytes) == 1) break;
    if (file) fclose(file);
    return kilobytes;
}

static int fill_one(bard *model) {
    bard_session *session;
    if (bard_session_new(model, TOKENS, &session, NULL)) return 1;
    return bard_step(session, ids, TOKENS, logits[0], NULL);
}

/* All but the last position of each, then that. */
static int fill_several(bard *model) {
    bard_turn turns[SESSIONS] = {{0}};
    for (int at = 0; at < SESSIONS; at++) {
        turns[at] = (bard_turn){.ids = ids + at * EACH, .n = EACH - 1, .logits = logits[at]};
        if (bard_session_new(model, EACH, &turns[at].session, NULL)) return 1;
    }
    if (bard_step_batch(model, turns, SESSIONS, NULL)) return 1;
    for (int at = 0; at < SESSIONS; at++) turns[at].n = 1;
    return bard_step_batch(model, turns, SESSIONS, NULL);
}

/* Sessions are left to the end of the process: what counts is the peak. */
int main(int count, char **arguments) {
    if (count < 2) return 2;
    for (int at = 0; at < TOKENS; at++) ids[at] = (int32_t)((at * 71 + at / 7) % BARD_VOCAB);
    long before = peak();
    bard_options options = BARD_OPTIONS_INIT;
    options.threads = 1;
    bard *model;
    if (bard_open(arguments[1], &options, &model, NULL)) return 1;
    if (count == 2 ? fill_one(model) : fill_several(model)) return 1;
    printf("%ld\n", (peak() - before) * 1024);
    return 0;
}
