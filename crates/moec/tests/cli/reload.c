/* Loads and unloads a library again and again, with all that it has in between, and sees that the process does not grow.
 * Arguments: the library, its weights, rounds, and the first round from which memory is to stay as it is. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "bard.h"

#define NEED(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)
#define TAKE(name) __typeof__(&bard_##name) name; *(void **)(&name) = dlsym(library, "bard_" #name); NEED(name)

static long resident_pages(void) {
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    NEED(file && fscanf(file, "%ld %ld", &size, &resident) == 2);
    fclose(file);
    return resident;
}

static void once(const char *path, const char *weights) {
    static float logits[3][BARD_VOCAB];
    int32_t ids[12] = {74, 85, 76, 73, 69, 84, 46, 10, 65, 121, 32, 109};
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    NEED(library);
    TAKE(abi);
    TAKE(open);
    TAKE(close);
    TAKE(session_new);
    TAKE(session_fork);
    TAKE(session_free);
    TAKE(step);
    TAKE(step_batch);
    TAKE(cache_bytes);
    TAKE(error_code);
    TAKE(error_free);
    NEED(abi() == BARD_ABI);
    bard_options options = BARD_OPTIONS_INIT;
    options.threads = 2;
    options.cache_mib = 1;
    bard *model;
    bard_session *a, *b, *fork;
    bard_error *error;
    NEED(!open(weights, &options, &model, NULL));
    NEED(!session_new(model, 64, &a, NULL) && !session_new(model, 64, &b, NULL));
    NEED(!step(a, ids, 12, logits[0], NULL));
    NEED(!session_fork(a, 8, &fork, NULL));
    bard_turn turns[3] = {{a, ids, 1, logits[0], {0}}, {b, ids, 12, logits[1], {0}}, {fork, ids + 8, 4, logits[2], {0}}};
    NEED(!step_batch(model, turns, 3, NULL));
    NEED(cache_bytes(model) > 0 && cache_bytes(model) <= 1 << 20);
    /* An error, and one for want of room in the caches. */
    bard_session *many[256];
    int count = 0, code = 0;
    while (count < 256 && !code) {
        NEED(!session_new(model, 64, &many[count], NULL));
        code = step(many[count++], ids, 1, NULL, &error);
    }
    NEED(code == BARD_CACHE_FULL && error_code(error) == code);
    error_free(error);
    while (count) session_free(many[--count]);
    session_free(a);
    close(model);
    session_free(b);
    session_free(fork);
    NEED(!dlclose(library));
}

int main(int count, char **arguments) {
    NEED(count == 5);
    long rounds = atol(arguments[3]), steady = atol(arguments[4]), before = 0;
    for (long round = 0; round < rounds; round++) {
        once(arguments[1], arguments[2]);
        if (round == steady) before = resident_pages();
    }
    printf("%ld rounds, %ld pages more\n", rounds, resident_pages() - before);
    NEED(steady >= rounds || resident_pages() - before < 128);
    return 0;
}
