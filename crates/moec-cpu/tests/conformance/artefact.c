/* Arguments: a level's number and name, and token ids. Prints the logits of each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

static int failed(const char *what, test_error *error) {
    fprintf(stderr, "%s: %s\n", what, test_error_message(error));
    test_error_free(error);
    return 1;
}

int main(int count, char **arguments) {
    static float logits[256 * TEST_VOCAB], last[TEST_VOCAB];
    int32_t ids[256];
    size_t n = (size_t)count - 3;
    test_options options = TEST_OPTIONS_INIT;
    test *model;
    test_session *session;
    test_error *error;
    options.level = atoi(arguments[1]);
    options.threads = 3;
    for (size_t at = 0; at < n; at++) ids[at] = atoi(arguments[at + 3]);
    if (test_open("test.weights", &options, &model, &error)) return failed("open", error);
    if (strcmp(test_level(model), arguments[2]) || test_threads(model) != 3) return 2;
    if (!strstr(test_version(), "model test")) return 3;
    if (test_selftest(model, &error)) return failed("selftest", error);
    if (test_session_new(model, n, &session, &error)) return failed("session_new", error);
    if (test_forward(session, ids, n, logits, &error)) return failed("forward", error);
    if (test_forward(session, ids, 1, logits, &error) != TEST_CONTEXT_OVERRUN) return 4;
    test_error_free(error);
    if (test_session_reset(session) || test_session_position(session) != 0) return 5;
    if (test_step(session, ids, n, last, &error)) return failed("step", error);
    if (memcmp(last, logits + (n - 1) * TEST_VOCAB, sizeof last)) return 6;
    int32_t beyond = TEST_TOKEN_LIMIT;
    test_session_reset(session);
    if (test_step(session, &beyond, 1, last, NULL) != TEST_OUT_OF_RANGE) return 7;
    static float again[256 * TEST_VOCAB];
    test_tensor in = {"p0", ids, TEST_I32, 2, {(int64_t)n, 1}, {0}};
    test_tensor out = {"p3", again, TEST_F32, 2, {(int64_t)n, TEST_VOCAB}, {0}};
    if (test_run(model, &in, 1, &out, 1, &error)) return failed("run", error);
    if (memcmp(again, logits, n * sizeof last)) return 8;
    for (size_t at = 0; at < n * TEST_VOCAB; at++) printf("%.9g\n", logits[at]);
    test_session_free(session);
    test_close(model);
    return 0;
}
