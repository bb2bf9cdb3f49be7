/* How much the peak of this process's memory grows when a model is opened and a context is filled, on one thread: bytes. */
#include <stdio.h>
#include <stdlib.h>

#include "bard.h"

enum { TOKENS = 2048 };

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

int main(int count, char **arguments) {
    static int32_t ids[TOKENS];
    static float logits[BARD_VOCAB];
    if (count != 2) return 2;
    for (int at = 0; at < TOKENS; at++) ids[at] = (int32_t)((at * 71 + at / 7) % BARD_VOCAB);
    long before = peak();
    bard_options options = BARD_OPTIONS_INIT;
    options.threads = 1;
    bard *model;
    bard_session *session;
    if (bard_open(arguments[1], &options, &model, NULL)) return 1;
    if (bard_session_new(model, TOKENS, &session, NULL)) return 1;
    if (bard_step(session, ids, TOKENS, logits, NULL)) return 1;
    printf("%ld\n", (peak() - before) * 1024);
    bard_session_free(session);
    bard_close(model);
    return 0;
}
