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
#include "internal.h"
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
        {"version", MOEC_BAD_WEIGHTS, "version 2, but this library reads version 1"},
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
        {{.struct_size = sizeof(moec_options), .cache_mib = -1}, MOEC_BAD_ARGUMENT, "cache_mib"},
        {{.struct_size = sizeof(moec_options), .reserved = {0, 1}}, MOEC_BAD_ARGUMENT, "reserved"},
        {{.struct_size = sizeof(moec_options), .device = 3}, MOEC_BAD_ARGUMENT, "options.device is 3"},
        {{.struct_size = sizeof(moec_options), .device = MOEC_DEVICE_CUDA}, MOEC_BAD_ARGUMENT, "--target cpu,cuda"},
    };
    for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
        int code = moec_open(&tiny, path_of("tiny.weights"), &cases[at].options, &model, &error);
        expect(code, cases[at].code, &error, cases[at].says);
    }
}

/* What the run time finds is what the system says in /proc/cpuinfo; tiles are only had where the system gives them. */
static void test_cpu(void) {
    static char flags[1 << 14];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(flags, sizeof flags, file) && strncmp(flags, "flags", 5)) {}
    if (file) fclose(file);
    static const struct {
        int32_t feature;
        const char *flag;
    } known[] = {{MOEC_CPU_X86_64_V3, " avx2 "}, {MOEC_CPU_X86_64_V4, " avx512vl "}, {MOEC_CPU_AVX512_DOT, " avx512_bf16 "},
        {MOEC_CPU_AMX, " amx_bf16 "}};
    int32_t features = moec_cpu_features();
    for (size_t at = 0; at < sizeof known / sizeof *known; at++)
        CHECK(!(features & known[at].feature) || strstr(flags, known[at].flag));
    CHECK(moec_cpu_allows(0) && moec_cpu_allows(features & ~MOEC_CPU_AMX));
    CHECK(strstr(flags, " amx_bf16 ") || !moec_cpu_allows(MOEC_CPU_AMX));
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
static moec_description sum = {"sum", "moec test, model sum", 0, 0, 0, 0, 0, 0, 0, {1}, sum_levels, sum_inputs, sum_outputs, 1, 3, 2, 1,
    1, 24, NULL};

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

/* As many sessions as turns; session `at` has the ids from `at` on. */
enum { TURNS = 9 };

/* Logits after `n` tokens of session `at`. */
static void expected_last(int at, size_t n, float *logits) {
    static float all[LONG * TINY_VOCAB];
    expected_logits(ids + at, n, all);
    memcpy(logits, all + (n - 1) * TINY_VOCAB, TINY_VOCAB * sizeof *logits);
}

static moec_turn turn_of(moec_session *session, int at, size_t n, float *logits) {
    return (moec_turn){.session = session, .ids = ids + at + moec_session_position(session), .n = n, .logits = logits};
}

/* Sessions at different positions, prompts of several passes among single tokens, some logits not asked for: each as alone. */
static void test_batches(int threads) {
    static const size_t steps[][TURNS] = {
        {1, 600, 5, 1, 130, 700, 1, 2, 513}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 3, 1, 200, 1, 1, 128, 1, 1}, {512, 1, 0, 0, 0, 0, 0, 0, 0}};
    moec_open_model *model = open_tiny(threads, 1);
    moec_session *sessions[TURNS];
    for (int at = 0; at < TURNS; at++) sessions[at] = new_session(model, 1200);
    for (size_t step = 0; step < sizeof steps / sizeof *steps; step++) {
        float logits[TURNS][TINY_VOCAB], alone[TINY_VOCAB];
        moec_turn turns[TURNS];
        size_t count = 0;
        memset(logits, 0, sizeof logits);
        for (int at = 0; at < TURNS; at++)
            if (steps[step][at]) turns[count++] = turn_of(sessions[at], at, steps[step][at], at == 4 ? NULL : logits[at]);
        CHECK(moec_step_batch(model, turns, count, NULL) == MOEC_OK);
        for (int at = 0; at < TURNS; at++) {
            size_t position = moec_session_position(sessions[at]);
            if (!steps[step][at] || at == 4) continue;
            expected_last(at, position, alone);
            CHECK(!memcmp(logits[at], alone, sizeof alone));
        }
    }
    for (int at = 0; at < TURNS; at++) moec_session_free(sessions[at]);
    moec_close(model);
}

/* A call that is refused has changed nothing: neither positions nor memory. */
static void test_batches_refused(void) {
    float logits[TINY_VOCAB];
    moec_open_model *model = open_tiny(2, 1), *other = open_tiny(1, 1);
    moec_session *a = new_session(model, 20), *b = new_session(model, 9), *strange = new_session(other, 9);
    moec_error *error;
    int32_t bad[] = {1, TINY_LIMIT};
    CHECK(moec_step(a, ids, 3, NULL, NULL) == MOEC_OK && moec_step(b, ids, 5, NULL, NULL) == MOEC_OK);
    size_t bytes = moec_cache_bytes(model);
    const moec_turn good = {.session = a, .ids = ids, .n = 2, .logits = logits};
#define BAD(change, code, says)                                                                                        \
    {                                                                                                                  \
        moec_turn turns[] = {good, {.session = b, .ids = ids, .n = 1, .logits = logits}};                              \
        change;                                                                                                        \
        expect(moec_step_batch(model, turns, 2, &error), code, &error, says);                                          \
        CHECK(moec_step_batch(model, turns, 2, NULL) == code);                                                         \
        CHECK(moec_session_position(a) == 3 && moec_session_position(b) == 5 && moec_cache_bytes(model) == bytes);     \
    }
    BAD(turns[1].session = NULL, MOEC_BAD_ARGUMENT, "turn 1: `session` is NULL");
    BAD(turns[1].session = strange, MOEC_BAD_ARGUMENT, "turn 1: its session is of another model");
    BAD(turns[1].session = a, MOEC_BAD_ARGUMENT, "turns 0 and 1 have the same session");
    BAD(turns[1].n = 0, MOEC_BAD_ARGUMENT, "turn 1: it has no tokens");
    BAD(turns[1].ids = NULL, MOEC_BAD_ARGUMENT, "turn 1: `ids` is NULL");
    BAD((turns[1].ids = bad, turns[1].n = 2), MOEC_OUT_OF_RANGE, "turn 1: input `ids`: position 1 has value 10");
    BAD(turns[1].n = 5, MOEC_CONTEXT_OVERRUN, "turn 1: the session has room for 9 positions and is at position 5");
    BAD(turns[1].n = (size_t)1 << 40, MOEC_CONTEXT_OVERRUN, "more than any");
    BAD(turns[1].reserved[3] = 1, MOEC_BAD_ARGUMENT, "reserved");
    expect(moec_step_batch(NULL, &good, 1, &error), MOEC_BAD_ARGUMENT, &error, "`model` is NULL");
    expect(moec_step_batch(model, NULL, 1, &error), MOEC_BAD_ARGUMENT, &error, "`turns` is NULL");
    CHECK(moec_step_batch(model, NULL, 0, NULL) == MOEC_OK);
    moec_session_free(a);
    moec_session_free(b);
    moec_session_free(strange);
    moec_close(model);
    moec_close(other);
    moec_description whole = tiny;
    whole.whole_pass = 1;
    CHECK(moec_open(&whole, path_of("tiny.weights"), NULL, &model, NULL) == MOEC_OK);
    a = new_session(model, 4);
    moec_turn turn = {.session = a, .ids = ids, .n = 1};
    expect(moec_step_batch(model, &turn, 1, &error), MOEC_BAD_ARGUMENT, &error, "cannot step together");
    moec_session_free(a);
    moec_close(model);
}

/* 1 MiB is 128 pages of 8 KiB. */
static void test_budget(void) {
    enum { PAGES = 128 };
    float logits[TINY_VOCAB], alone[TINY_VOCAB];
    moec_options options = {.struct_size = sizeof options, .threads = 2, .level = 1, .cache_mib = 1};
    moec_open_model *model;
    moec_error *error;
    moec_session *sessions[PAGES], *late;
    CHECK(moec_open(&tiny, path_of("tiny.weights"), &options, &model, NULL) == MOEC_OK && moec_cache_bytes(model) == 0);
    moec_turn turns[PAGES];
    for (int at = 0; at < PAGES; at++) {
        sessions[at] = new_session(model, 1 << 20);
        turns[at] = turn_of(sessions[at], at, at % 2 ? 1 : 128, NULL);
    }
    CHECK(moec_step_batch(model, turns, PAGES, NULL) == MOEC_OK && moec_cache_bytes(model) == 1 << 20);
    late = new_session(model, 8);
    expect(moec_step(late, ids, 1, logits, &error), MOEC_CACHE_FULL, &error,
        "128 of 128 pages of 128 positions are in use, and 1 more are needed");
    /* Those that have room in their pages go on; those that need another do not, nor does anyone with them. */
    for (int at = 0; at < PAGES; at++) turns[at] = turn_of(sessions[at], at, 1, at == 1 ? logits : NULL);
    expect(moec_step_batch(model, turns, PAGES, &error), MOEC_CACHE_FULL, &error, "64 more are needed");
    CHECK(moec_session_position(sessions[0]) == 128 && moec_session_position(sessions[1]) == 1);
    CHECK(moec_step_batch(model, turns + 1, 1, NULL) == MOEC_OK);
    expected_last(1, 2, alone);
    CHECK(!memcmp(logits, alone, sizeof alone));
    moec_session_free(sessions[0]);
    CHECK(moec_session_reset(sessions[3]) == MOEC_OK);
    CHECK(moec_step(late, ids, 1, NULL, NULL) == MOEC_OK && moec_step(sessions[2], ids + 130, 1, logits, NULL) == MOEC_OK);
    expected_last(2, 129, alone);
    CHECK(!memcmp(logits, alone, sizeof alone));
    expect(moec_step(sessions[3], ids, 1, NULL, &error), MOEC_CACHE_FULL, &error, "in use");
    for (int at = 1; at < PAGES; at++) moec_session_free(sessions[at]);
    moec_session_free(late);
    CHECK(moec_cache_bytes(model) == 0);
    moec_close(model);
}

/* What is shared is shared until someone writes; then each has its own. */
static void test_forks(void) {
    float logits[2][TINY_VOCAB], alone[TINY_VOCAB];
    moec_open_model *model = open_tiny(2, 1);
    moec_session *first = new_session(model, 600), *forks[3], *none;
    moec_error *error;
    enum { PAGE_BYTES = MOEC_PAGE * 4 * TINY_ROW };
    CHECK(moec_step(first, ids, 300, NULL, NULL) == MOEC_OK && moec_cache_bytes(model) == 3 * PAGE_BYTES);
    for (int at = 0; at < 3; at++) CHECK(moec_session_fork(first, at == 2 ? 130 : 300, &forks[at], NULL) == MOEC_OK);
    CHECK(moec_cache_bytes(model) == 3 * PAGE_BYTES && moec_session_position(forks[2]) == 130);
    /* One goes on as the first would have, one otherwise, one from before; then the first itself. */
    moec_turn turns[] = {turn_of(forks[0], 0, 1, logits[0]), turn_of(forks[1], 0, 1, NULL), turn_of(forks[2], 0, 200, logits[1])};
    turns[1].ids = &(int32_t){0};
    CHECK(moec_step_batch(model, turns, 3, NULL) == MOEC_OK);
    expected_last(0, 301, alone);
    CHECK(!memcmp(logits[0], alone, sizeof alone));
    expected_last(0, 330, alone);
    CHECK(!memcmp(logits[1], alone, sizeof alone));
    CHECK(moec_cache_bytes(model) == 3 * PAGE_BYTES + (1 + 1 + 2) * PAGE_BYTES);
    CHECK(moec_step(first, ids + 300, 1, logits[0], NULL) == MOEC_OK);
    expected_last(0, 301, alone);
    CHECK(!memcmp(logits[0], alone, sizeof alone));
    moec_session_free(first);
    CHECK(moec_step(forks[0], ids + 301, 99, logits[0], NULL) == MOEC_OK);
    expected_last(0, 400, alone);
    CHECK(!memcmp(logits[0], alone, sizeof alone));
    expect(moec_session_fork(forks[0], 401, &none, &error), MOEC_BAD_ARGUMENT, &error, "position 401 of a session that has 400");
    CHECK(!none);
    expect(moec_session_fork(forks[0], 1, NULL, &error), MOEC_BAD_ARGUMENT, &error, "`fork` is NULL");
    expect(moec_session_fork(NULL, 1, &none, &error), MOEC_BAD_ARGUMENT, &error, "`session` is NULL");
    for (int at = 0; at < 3; at++) moec_session_free(forks[at]);
    CHECK(moec_cache_bytes(model) == 0 && moec_cache_bytes(NULL) == 0);
    moec_close(model);
    moec_description stateful = tiny;
    stateful.state_bytes = 64;
    CHECK(moec_open(&stateful, path_of("tiny.weights"), NULL, &model, NULL) == MOEC_OK);
    first = new_session(model, 9);
    CHECK(moec_step(first, ids, 3, NULL, NULL) == MOEC_OK);
    expect(moec_session_fork(first, 2, &none, &error), MOEC_BAD_ARGUMENT, &error, "it can be forked there only");
    CHECK(moec_session_fork(first, 3, &none, NULL) == MOEC_OK);
    moec_session_free(none);
    moec_session_free(first);
    moec_close(model);
}

/* Sessions of one origin that step and end at the same time. */
static void *use_fork(void *session) {
    float logits[TINY_VOCAB];
    for (int at = 100; at < 160; at++) CHECK(moec_step(session, ids + at, 1, logits, NULL) == MOEC_OK);
    CHECK(!memcmp(logits, wanted + 159 * TINY_VOCAB, sizeof logits));
    moec_session_free(session);
    return NULL;
}

static void test_forks_in_threads(void) {
    pthread_t threads[6];
    moec_open_model *model = open_tiny(2, 1);
    moec_session *first = new_session(model, 200), *forks[6];
    CHECK(moec_step(first, ids, 100, NULL, NULL) == MOEC_OK);
    for (int at = 0; at < 6; at++) CHECK(moec_session_fork(first, 100, &forks[at], NULL) == MOEC_OK);
    moec_session_free(first);
    for (int at = 0; at < 6; at++) CHECK(!pthread_create(&threads[at], NULL, use_fork, forks[at]));
    for (int at = 0; at < 6; at++) pthread_join(threads[at], NULL);
    CHECK(moec_cache_bytes(model) == 0);
    moec_close(model);
}

struct traced_rows {
    moec_session *session;
    int64_t tokens;
};

static void trace_rows(void *user, int32_t route, int32_t rank, const int32_t *indices, const float *weights, int64_t tokens,
    int64_t choices) {
    struct traced_rows *traced = user;
    CHECK(route == 0 && rank == 0 && choices == 2 && weights[0] == 0.75f && traced->tokens == 0);
    for (int64_t at = 0; at < tokens; at++) CHECK(indices[2 * at] == ids[2 + at] % TINY_EXPERTS);
    traced->tokens = tokens;
}

/* In a batch an observer sees its own session's rows. */
static void test_traced_batch(void) {
    moec_open_model *model = open_tiny(2, 1);
    struct traced_rows traced = {new_session(model, 9), 0};
    moec_session *other = new_session(model, 9);
    CHECK(moec_session_trace(traced.session, trace_rows, &traced) == MOEC_OK);
    moec_turn turns[] = {turn_of(other, 5, 4, NULL), turn_of(traced.session, 2, 3, NULL)};
    CHECK(moec_step_batch(model, turns, 2, NULL) == MOEC_OK && traced.tokens == 3);
    moec_session_free(traced.session);
    moec_session_free(other);
    moec_close(model);
}

/* Opening, stepping and closing again and again: the memory that is in use does not grow. */
static long resident_pages(void) {
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%ld %ld", &size, &resident) == 2);
    fclose(file);
    return resident;
}

static void test_reloading(void) {
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__ /* which keep what is freed, and report what is not */
    enum { ROUNDS = 50, STEADY = ROUNDS };
#else
    enum { ROUNDS = 1000, STEADY = 200 };
#endif
    long before = 0;
    for (int round = 0; round < ROUNDS; round++) {
        moec_open_model *model = open_tiny(2, 1);
        moec_session *a = new_session(model, 600), *b;
        CHECK(moec_step(a, ids, 200, NULL, NULL) == MOEC_OK && moec_session_fork(a, 150, &b, NULL) == MOEC_OK);
        moec_turn turns[] = {turn_of(a, 0, 1, NULL), turn_of(b, 0, 1, NULL)};
        CHECK(moec_step_batch(model, turns, 2, NULL) == MOEC_OK);
        moec_session_free(a);
        moec_close(model);
        moec_session_free(b);
        if (round == STEADY) before = resident_pages();
    }
    CHECK(STEADY == ROUNDS || resident_pages() - before < 256);
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
    test_cpu();
    for (int threads = 1; threads <= 5; threads++) test_cuts(threads);
    test_limits();
    test_trace();
    test_sessions_in_threads();
    for (int threads = 1; threads <= 3; threads++) test_batches(threads);
    test_batches_refused();
    test_budget();
    test_forks();
    test_forks_in_threads();
    test_traced_batch();
    test_reloading();
#ifndef __SANITIZE_THREAD__ /* which does not support threads after a fork */
    test_fork();
#endif
    test_selftest();
    test_tensors();
    test_last_row_of_full_outputs();
    return 0;
}
