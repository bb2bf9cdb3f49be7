/* The run time, against models written by hand. Arguments: the folder with weight files, the fingerprints of tiny.weights
 * and of empty.weights. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "moec.h"
#include "tiny_model.h"

static const char *folder;
static moec_description tiny = TINY_DESCRIPTION("tiny", 0);

static const char *path_of(const char *file) {
    static _Thread_local char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return path;
}

static moec_open_model *open_tiny(int threads, int level) {
    moec_options options = {.struct_size = sizeof options, .threads = threads, .level = level};
    moec_open_model *model;
    moec_error *error;
    int code = moec_open(&tiny, path_of("tiny.weights"), &options, &model, &error);
    if (code) fprintf(stderr, "%s\n", moec_error_message(error));
    CHECK(code == MOEC_OK && !error);
    return model;
}

static moec_session *new_session(moec_open_model *model, size_t max_tokens) {
    moec_session *session;
    CHECK(moec_session_new(model, max_tokens, &session, NULL) == MOEC_OK);
    return session;
}

/* The error has this code and says this; it is freed. By its address, for it may be made by an argument before it. */
static void expect(int code, int wanted, moec_error **made, const char *says) {
    moec_error *error = *made;
    if (code != wanted || moec_error_code(error) != wanted || !strstr(moec_error_message(error), says)) {
        fprintf(stderr, "code %d: %s\nwanted code %d: %s\n", code, moec_error_message(error), wanted, says);
        exit(1);
    }
    moec_error_free(error);
}

static float table_at(int32_t id, int at) { return (float)(id * TINY_VOCAB + at) * 0.5f - 8.0f; }

static void expected_logits(const int32_t *ids, size_t n, float *logits) {
    float sums[TINY_VOCAB] = {0};
    for (size_t row = 0; row < n; row++)
        for (int at = 0; at < TINY_VOCAB; at++)
            logits[row * TINY_VOCAB + (size_t)at] = sums[at] += table_at(ids[row], at) * (float)(row + 1);
}

enum { LONG = 1300 };
static int32_t ids[LONG];
static float wanted[LONG * TINY_VOCAB];

static void make_ids(void) {
    for (int at = 0; at < LONG; at++) ids[at] = (at * 7 + at / 3) % TINY_LIMIT;
    expected_logits(ids, LONG, wanted);
}

static void test_weight_files(void) {
    static const struct {
        const char *file;
        int code;
        const char *says;
    } cases[] = {
        {"not-there", MOEC_IO, "No such file"},
        {".", MOEC_IO, "not a file"},
        {"zero-bytes", MOEC_BAD_WEIGHTS, "empty"},
        {"half-header", MOEC_BAD_WEIGHTS, "truncated"},
        {"text", MOEC_BAD_WEIGHTS, "not a weight file"},
        {"version", MOEC_BAD_WEIGHTS, "version 2"},
        {"header", MOEC_BAD_WEIGHTS, "header does not fit"},
        {"absurd-offset", MOEC_BAD_WEIGHTS, "make no sense"},
        {"huge-offset", MOEC_BAD_WEIGHTS, "truncated"},
        {"truncated", MOEC_BAD_WEIGHTS, "truncated"},
        {"truncated-in-table", MOEC_BAD_WEIGHTS, "truncated"},
        {"longer", MOEC_BAD_WEIGHTS, "should have"},
        {"flipped-bit", MOEC_BAD_WEIGHTS, "checksum"},
        {"empty.weights", MOEC_BAD_WEIGHTS, "another model"},
    };
    for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
        moec_open_model *model = (moec_open_model *)&tiny;
        moec_error *error;
        int code = moec_open(&tiny, path_of(cases[at].file), NULL, &model, &error);
        expect(code, cases[at].code, &error, cases[at].says);
        CHECK(!model);
        CHECK(moec_open(&tiny, path_of(cases[at].file), NULL, &model, NULL) == cases[at].code);
    }
    moec_options trusting = {.struct_size = sizeof trusting, .verify_checksums = 2};
    moec_open_model *model;
    CHECK(moec_open(&tiny, path_of("flipped-bit"), &trusting, &model, NULL) == MOEC_OK);
    moec_close(model);
}

static void test_options(void) {
    struct {
        moec_options options;
        int32_t more;
    } longer = {{.struct_size = sizeof longer}, 0};
    moec_open_model *model;
    moec_error *error;
    CHECK(moec_open(&tiny, path_of("tiny.weights"), &longer.options, &model, NULL) == MOEC_OK);
    CHECK(!strcmp(moec_level(model), "wrong"));
    CHECK(moec_threads(model) >= 1);
    moec_close(model);
    longer.more = 1;
    expect(moec_open(&tiny, path_of("tiny.weights"), &longer.options, &model, &error), MOEC_BAD_ARGUMENT, &error, "reserved");
    static const struct {
        moec_options options;
        int code;
        const char *says;
    } cases[] = {
        {{.struct_size = 8}, MOEC_BAD_ARGUMENT, "struct_size"},
        {{.struct_size = sizeof(moec_options), .threads = -1}, MOEC_BAD_ARGUMENT, "threads"},
        {{.struct_size = sizeof(moec_options), .threads = 1 << 20}, MOEC_BAD_ARGUMENT, "threads"},
        {{.struct_size = sizeof(moec_options), .level = 9}, MOEC_BAD_ARGUMENT, "no such level"},
        {{.struct_size = sizeof(moec_options), .level = 3}, MOEC_UNSUPPORTED_CPU, "avx512"},
        {{.struct_size = sizeof(moec_options), .verify_checksums = 3}, MOEC_BAD_ARGUMENT, "verify_checksums"},
        {{.struct_size = sizeof(moec_options), .reserved = {0, 1}}, MOEC_BAD_ARGUMENT, "reserved"},
    };
    for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
        int code = moec_open(&tiny, path_of("tiny.weights"), &cases[at].options, &model, &error);
        expect(code, cases[at].code, &error, cases[at].says);
    }
}

static void test_nulls(void) {
    moec_open_model *model = open_tiny(1, 1), *none = model;
    moec_session *session = new_session(model, 8), *nothing = session;
    float logits[TINY_VOCAB];
    moec_error *error;
    expect(moec_open(&tiny, NULL, NULL, &none, &error), MOEC_BAD_ARGUMENT, &error, "weights");
    CHECK(!none);
    expect(moec_open(&tiny, "x", NULL, NULL, &error), MOEC_BAD_ARGUMENT, &error, "model");
    expect(moec_session_new(NULL, 8, &nothing, &error), MOEC_BAD_ARGUMENT, &error, "model");
    CHECK(!nothing);
    expect(moec_session_new(model, 8, NULL, &error), MOEC_BAD_ARGUMENT, &error, "session");
    expect(moec_forward(NULL, ids, 1, logits, &error), MOEC_BAD_ARGUMENT, &error, "session");
    expect(moec_forward(session, NULL, 1, logits, &error), MOEC_BAD_ARGUMENT, &error, "ids");
    expect(moec_forward(session, ids, 1, NULL, &error), MOEC_BAD_ARGUMENT, &error, "logits");
    expect(moec_step(session, NULL, 1, logits, &error), MOEC_BAD_ARGUMENT, &error, "ids");
    expect(moec_session_run(session, NULL, 1, NULL, 0, &error), MOEC_BAD_ARGUMENT, &error, "NULL");
    expect(moec_run(NULL, NULL, 0, NULL, 0, &error), MOEC_BAD_ARGUMENT, &error, "model");
    expect(moec_selftest(NULL, &error), MOEC_BAD_ARGUMENT, &error, "model");
    CHECK(moec_session_reset(NULL) == MOEC_BAD_ARGUMENT && moec_session_trace(NULL, NULL, NULL) == MOEC_BAD_ARGUMENT);
    CHECK(moec_session_position(NULL) == 0 && moec_threads(NULL) == 0 && !*moec_level(NULL));
    CHECK(moec_error_code(NULL) == MOEC_OK && !*moec_error_message(NULL));
    moec_error_free(NULL);
    moec_session_free(NULL);
    moec_close(NULL);
    /* Sessions outlive the handle of their model. */
    moec_close(model);
    CHECK(moec_step(session, ids, 1, logits, NULL) == MOEC_OK);
    moec_session_free(session);
}

/* All ways of cutting a sequence give the same numbers. */
static void test_cuts(int threads) {
    static float logits[LONG * TINY_VOCAB];
    float last[TINY_VOCAB];
    moec_open_model *model = open_tiny(threads, 1);
    moec_session *session = new_session(model, LONG);
    CHECK(moec_forward(session, ids, LONG, logits, NULL) == MOEC_OK);
    CHECK(moec_session_position(session) == LONG);
    CHECK(!memcmp(logits, wanted, sizeof logits));
    for (int cut = 1; cut < 40; cut += 13) {
        memset(logits, 0, sizeof logits);
        CHECK(moec_session_reset(session) == MOEC_OK && moec_session_position(session) == 0);
        for (int at = 0; at < 200; at += cut)
            CHECK(moec_forward(session, ids + at, (size_t)cut, logits + at * TINY_VOCAB, NULL) == MOEC_OK);
        CHECK(!memcmp(logits, wanted, 200 * TINY_VOCAB * sizeof *logits));
    }
    moec_session_reset(session);
    CHECK(moec_step(session, ids, 1000, last, NULL) == MOEC_OK);
    CHECK(!memcmp(last, wanted + 999 * TINY_VOCAB, sizeof last));
    CHECK(moec_step(session, ids + 1000, 24, NULL, NULL) == MOEC_OK && moec_session_position(session) == 1024);
    CHECK(moec_step(session, ids + 1024, 1, last, NULL) == MOEC_OK);
    CHECK(!memcmp(last, wanted + 1024 * TINY_VOCAB, sizeof last));
    CHECK(moec_step(session, NULL, 0, NULL, NULL) == MOEC_OK && moec_session_position(session) == 1025);
    moec_session_free(session);
    moec_close(model);
}

static void test_limits(void) {
    float logits[20 * TINY_VOCAB];
    moec_open_model *model = open_tiny(2, 1);
    moec_error *error;
    moec_session *session;
    expect(moec_session_new(model, 0, &session, &error), MOEC_BAD_ARGUMENT, &error, "0 positions");
    expect(moec_session_new(model, (size_t)1 << 40, &session, &error), MOEC_BAD_ARGUMENT, &error, "it must have");
    session = new_session(model, 9);
    CHECK(moec_forward(session, ids, 5, logits, NULL) == MOEC_OK);
    expect(moec_forward(session, ids, 5, logits, &error), MOEC_CONTEXT_OVERRUN, &error,
        "room for 9 positions and is at position 5: 5 more");
    expect(moec_forward(session, ids, (size_t)1 << 40, logits, &error), MOEC_CONTEXT_OVERRUN, &error, "more than any");
    CHECK(moec_session_position(session) == 5);
    int32_t bad[] = {1, 2, TINY_LIMIT, -1};
    expect(moec_forward(session, bad, 3, logits, &error), MOEC_OUT_OF_RANGE, &error,
        "`ids`: position 2 has value 10, but it must be at least 0 and less than 10");
    expect(moec_step(session, bad + 3, 1, logits, &error), MOEC_OUT_OF_RANGE, &error, "value -1");
    CHECK(moec_session_position(session) == 5);
    CHECK(moec_forward(session, ids + 5, 4, logits, NULL) == MOEC_OK);
    CHECK(!memcmp(logits, wanted + 5 * TINY_VOCAB, 4 * TINY_VOCAB * sizeof *logits));
    moec_session_free(session);
    moec_close(model);
    moec_description vast = tiny;
    vast.cache_bytes_per_position = INT64_MAX / 8;
    CHECK(moec_open(&vast, path_of("tiny.weights"), NULL, &model, NULL) == MOEC_OK);
    expect(moec_session_new(model, 4096, &session, &error), MOEC_OUT_OF_MEMORY, &error, "4096");
    CHECK(!session);
    moec_close(model);
}

struct traced {
    moec_session *session;
    int calls;
    int busy;
    size_t position;
};

static void trace(void *user, int32_t route, int32_t rank, const int32_t *indices, const float *weights, int64_t tokens,
    int64_t choices) {
    struct traced *traced = user;
    float logits[TINY_VOCAB];
    traced->calls++;
    traced->busy += moec_step(traced->session, ids, 1, logits, NULL) == MOEC_BAD_ARGUMENT;
    traced->position = moec_session_position(traced->session);
    CHECK(route == 0 && rank == 0 && tokens == 1 && choices == 2 && weights[0] == 0.75f);
    CHECK(indices[0] == ids[traced->position] % TINY_EXPERTS);
}

static void test_trace(void) {
    float logits[TINY_VOCAB];
    moec_open_model *model = open_tiny(2, 1);
    struct traced traced = {.session = new_session(model, 8)};
    CHECK(moec_session_trace(traced.session, trace, &traced) == MOEC_OK);
    for (int at = 0; at < 3; at++) CHECK(moec_step(traced.session, ids + at, 1, logits, NULL) == MOEC_OK);
    CHECK(traced.calls == 3 && traced.busy == 3 && traced.position == 2);
    moec_session_trace(traced.session, NULL, NULL);
    CHECK(moec_step(traced.session, ids + 3, 1, logits, NULL) == MOEC_OK && traced.calls == 3);
    moec_session_free(traced.session);
    moec_close(model);
}

static void *use_session(void *model) {
    static _Thread_local float logits[600 * TINY_VOCAB];
    for (int round = 0; round < 3; round++) {
        moec_session *session = new_session(model, 600);
        CHECK(moec_forward(session, ids, 550, logits, NULL) == MOEC_OK);
        for (int at = 550; at < 600; at++)
            CHECK(moec_step(session, ids + at, 1, logits + at * TINY_VOCAB, NULL) == MOEC_OK);
        CHECK(!memcmp(logits, wanted, sizeof logits));
        moec_session_free(session);
    }
    return NULL;
}

static void test_sessions_in_threads(void) {
    pthread_t threads[8];
    moec_open_model *model = open_tiny(3, 1);
    for (int at = 0; at < 8; at++) CHECK(!pthread_create(&threads[at], NULL, use_session, model));
    for (int at = 0; at < 8; at++) pthread_join(threads[at], NULL);
    moec_close(model);
}

/* A child has none of its parent's workers, and must neither wait for them nor for locks that they held. */
__attribute__((unused)) static void test_fork(void) {
    float logits[TINY_VOCAB];
    moec_open_model *model = open_tiny(2, 1);
    moec_session *session = new_session(model, 8);
    CHECK(moec_step(session, ids, 1, logits, NULL) == MOEC_OK);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(20);
        bool fine = moec_step(session, ids + 1, 1, logits, NULL) == MOEC_OK &&
                    !memcmp(logits, wanted + TINY_VOCAB, sizeof logits);
        moec_session_free(session);
        moec_close(model);
        _exit(fine ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(moec_step(session, ids + 1, 1, logits, NULL) == MOEC_OK);
    moec_session_free(session);
    moec_close(model);
}

static void test_selftest(void) {
    moec_open_model *model = open_tiny(3, 1);
    CHECK(moec_selftest(model, NULL) == MOEC_OK);
    moec_close(model);
    moec_error *error;
    model = open_tiny(1, 2);
    expect(moec_selftest(model, &error), MOEC_SELFTEST_FAILED, &error, "logits");
    moec_close(model);
    model = open_tiny(2, 4);
    expect(moec_selftest(model, &error), MOEC_SELFTEST_FAILED, &error, "one thread against several");
    moec_close(model);
}

/* y[n, d] = x[n, d] + bias[d] where keep[n]; count = tokens of the last pass; no weights. */
static void sum_pass(const moec_pass *pass, int32_t thread, int32_t threads) {
    const float *x = pass->inputs[0], *bias = pass->inputs[1];
    const uint8_t *keep = pass->inputs[2];
    float *y = pass->outputs[0];
    int32_t *count = pass->outputs[1];
    for (int64_t row = thread; row < pass->tokens; row += threads)
        for (int at = 0; at < 3; at++) y[row * 3 + at] = keep[row] ? x[row * 3 + at] + bias[at] : 0.0f;
    if (thread == 0) *count = (int32_t)pass->tokens;
}

static const moec_axis sum_axes[] = {{"D", 3}};
static const moec_port sum_inputs[] = {
    {"x", sum_axes, 3, 12, -1, 1, MOEC_F32, MOEC_ROWS_TOKENS, 0},
    {"bias", sum_axes, 3, 12, -1, 1, MOEC_F32, MOEC_ROWS_ONE, 0},
    {"keep", NULL, 1, 1, -1, 0, MOEC_BOOL, MOEC_ROWS_TOKENS, 0},
};
static const moec_port sum_outputs[] = {
    {"y", sum_axes, 3, 12, -1, 1, MOEC_F32, MOEC_ROWS_TOKENS, 0},
    {"count", NULL, 1, 4, -1, 0, MOEC_I32, MOEC_ROWS_ONE, 0},
};
static moec_pass_function *const sum_passes[] = {sum_pass};
static const moec_level_entry sum_levels[] = {{"scalar", sum_passes, 1, 0}};
static moec_description sum = {"sum", "moec test, model sum", 0, 0, 0, 0, 0, 0, 0, 1, sum_levels, sum_inputs, sum_outputs, 1, 3, 2, 1,
    1, 24};

enum { ROWS = 700 };

static void test_tensors(void) {
    static float x[ROWS * 3], y[ROWS * 3], bias[3] = {1, 2, 3};
    static uint8_t keep[ROWS];
    int32_t count = 0;
    for (int at = 0; at < ROWS * 3; at++) x[at] = (float)at;
    for (int at = 0; at < ROWS; at++) keep[at] = at % 2;
    const moec_tensor good_inputs[] = {
        {"keep", keep, MOEC_BOOL, 1, {ROWS}, {0}},
        {"x", x, MOEC_F32, 2, {ROWS, 3}, {0}},
        {"bias", bias, MOEC_F32, 1, {3}, {0}},
    };
    const moec_tensor good_outputs[] = {{"y", y, MOEC_F32, 2, {ROWS, 3}, {0}}, {"count", &count, MOEC_I32, 0, {0}, {0}}};
    moec_tensor in[4], out[2];
    moec_open_model *model;
    moec_error *error;
    CHECK(moec_open(&sum, path_of("empty.weights"), NULL, &model, NULL) == MOEC_OK);
    memcpy(in, good_inputs, sizeof good_inputs);
    memcpy(out, good_outputs, sizeof good_outputs);
    CHECK(moec_run(model, in, 3, out, 2, NULL) == MOEC_OK);
    CHECK(count == ROWS && y[0] == 0.0f && y[3] == 4.0f && y[2099] == 2102.0f);
    /* An output that is not given is computed elsewhere; nothing at all is fine, too. */
    count = 0;
    CHECK(moec_run(model, in, 3, out + 1, 1, NULL) == MOEC_OK && count == ROWS);
    CHECK(moec_run(model, in, 3, NULL, 0, NULL) == MOEC_OK);
    moec_session *session = new_session(model, ROWS);
    CHECK(moec_session_run(session, in, 3, out, 2, NULL) == MOEC_OK);
    expect(moec_session_run(session, in, 3, out, 2, &error), MOEC_CONTEXT_OVERRUN, &error, "position 700");
    moec_session_reset(session);

#define REFUSED(change, code, says)                                                                                   \
    do {                                                                                                              \
        size_t inputs = 3, outputs = 2;                                                                               \
        memcpy(in, good_inputs, sizeof good_inputs);                                                                  \
        memcpy(out, good_outputs, sizeof good_outputs);                                                               \
        change;                                                                                                       \
        expect(moec_session_run(session, in, inputs, out, outputs, &error), code, &error, says);                       \
        expect(moec_run(model, in, inputs, out, outputs, &error), code, &error, says);                                 \
        CHECK(moec_session_position(session) == 0);                                                                   \
        (void)inputs, (void)outputs;                                                                                  \
    } while (0)

    REFUSED(in[1].name = "z", MOEC_BAD_ARGUMENT, "no input `z`: its inputs are `x`, `bias`, `keep`");
    REFUSED(in[1].name = NULL, MOEC_BAD_ARGUMENT, "no name");
    REFUSED(in[0] = in[1], MOEC_BAD_ARGUMENT, "given twice");
    REFUSED(inputs = 2, MOEC_BAD_ARGUMENT, "input `bias` is not given");
    REFUSED(out[0].name = "x", MOEC_BAD_ARGUMENT, "no output `x`");
    REFUSED(out[1] = out[0], MOEC_BAD_ARGUMENT, "given twice");
    REFUSED(in[1].dtype = MOEC_I32, MOEC_BAD_ARGUMENT, "`x` is f32, this tensor i32");
    REFUSED(in[1].dtype = 77, MOEC_BAD_ARGUMENT, "no known type");
    REFUSED(in[1].rank = 1, MOEC_BAD_ARGUMENT, "2 axes, this tensor 1");
    REFUSED(in[1].rank = 100000, MOEC_BAD_ARGUMENT, "axes");
    REFUSED(in[1].shape[1] = 4, MOEC_BAD_ARGUMENT, "axis 1 (`D`) has size 3, this tensor has 4");
    REFUSED(in[1].shape[0] = 699, MOEC_BAD_ARGUMENT, "positions where others have 700");
    REFUSED(in[0].shape[0] = -1, MOEC_BAD_ARGUMENT, "-1 positions");
    REFUSED(out[0].shape[0] = 1, MOEC_BAD_ARGUMENT, "output `y` has 1 positions");
    REFUSED(in[1].data = NULL, MOEC_BAD_ARGUMENT, "no data");
    REFUSED(in[1].data = (char *)x + 1, MOEC_BAD_ARGUMENT, "not aligned");
    REFUSED(in[1].reserved[4] = 1, MOEC_BAD_ARGUMENT, "reserved");
    REFUSED(keep[5] = 2, MOEC_OUT_OF_RANGE, "`keep`: position 5 has value 2");
    keep[5] = 1;
    /* No positions: nothing to do. */
    memcpy(in, good_inputs, sizeof good_inputs);
    memcpy(out, good_outputs, sizeof good_outputs);
    in[0].shape[0] = in[1].shape[0] = out[0].shape[0] = 0;
    in[1].data = out[0].data = NULL;
    CHECK(moec_run(model, in, 3, out, 2, NULL) == MOEC_OK);
    CHECK(moec_selftest(model, NULL) == MOEC_OK);
    moec_session_free(session);
    moec_close(model);
}

/* An output of which every row is written: only the wanted ones may reach the caller's memory. */
static void test_last_row_of_full_outputs(void) {
    moec_port full = tiny_outputs[0];
    full.rows = MOEC_ROWS_TOKENS;
    moec_description description = tiny;
    description.outputs = &full;
    float last[TINY_VOCAB];
    moec_open_model *model;
    CHECK(moec_open(&description, path_of("tiny.weights"), &(moec_options){.struct_size = sizeof(moec_options), .level = 1},
              &model, NULL) == MOEC_OK);
    moec_session *session = new_session(model, LONG);
    CHECK(moec_step(session, ids, 1100, last, NULL) == MOEC_OK);
    CHECK(!memcmp(last, wanted + 1099 * TINY_VOCAB, sizeof last));
    CHECK(moec_step(session, ids + 1100, 1, last, NULL) == MOEC_OK);
    CHECK(!memcmp(last, wanted + 1100 * TINY_VOCAB, sizeof last));
    moec_session_free(session);
    moec_close(model);
}

int main(int count, char **arguments) {
    CHECK(count == 4);
    folder = arguments[1];
    tiny.fingerprint = strtoull(arguments[2], NULL, 16);
    sum.fingerprint = strtoull(arguments[3], NULL, 16);
    make_ids();
    test_weight_files();
    test_options();
    test_nulls();
    for (int threads = 1; threads <= 5; threads++) test_cuts(threads);
    test_limits();
    test_trace();
    test_sessions_in_threads();
#ifndef __SANITIZE_THREAD__ /* which does not support threads after a fork */
    test_fork();
#endif
    test_selftest();
    test_tensors();
    test_last_row_of_full_outputs();
    return 0;
}
