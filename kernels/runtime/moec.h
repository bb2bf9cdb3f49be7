/* The functions behind a model's C interface: `NAME_xxx` of the generated header forwards to `moec_xxx` here, and
 * `NAME_open` and `NAME_version` add the model's description.
 *
 * What these do is said where users read it, in header.h.in. The types are the same ones under another name; a test
 * compares their sizes, offsets and values. */
#ifndef MOEC_H
#define MOEC_H

#include <stddef.h>
#include <stdint.h>

#include "moec_model.h"

/* NAME_ABI */
#define MOEC_ABI 1

enum {
    MOEC_OK = 0,
    MOEC_BAD_ARGUMENT = 1,
    MOEC_IO = 2,
    MOEC_BAD_WEIGHTS = 3,
    MOEC_OUT_OF_RANGE = 4,
    MOEC_CONTEXT_OVERRUN = 5,
    MOEC_OUT_OF_MEMORY = 6,
    MOEC_UNSUPPORTED_CPU = 7,
    MOEC_SELFTEST_FAILED = 8,
    MOEC_CACHE_FULL = 9,
    MOEC_NO_DEVICE = 10,
    MOEC_DEVICE_FAILED = 11
};

enum { MOEC_LEVEL_BEST = 0, MOEC_LEVEL_SCALAR = 1, MOEC_LEVEL_AVX2 = 2, MOEC_LEVEL_AVX512 = 3, MOEC_LEVEL_AVX512_DOT = 4,
       MOEC_LEVEL_AMX = 5 };

enum { MOEC_DEVICE_AUTO = 0, MOEC_DEVICE_CPU = 1, MOEC_DEVICE_CUDA = 2 };

enum { MOEC_F32 = 0, MOEC_BF16 = 1, MOEC_F16 = 2, MOEC_I32 = 3, MOEC_BOOL = 4 };

enum { MOEC_MAX_RANK = 8, MOEC_PANEL = 16, MOEC_PASS_TOKENS = 512, MOEC_MAX_THREADS = 1024 };

typedef struct moec_options {
    size_t struct_size;
    int32_t threads;
    int32_t level;
    int32_t verify_checksums;
    int32_t cache_mib;
    int32_t device;
    int32_t reserved[3];
} moec_options;

typedef struct moec_tensor {
    const char *name;
    void *data;
    int32_t dtype;
    int32_t rank;
    int64_t shape[MOEC_MAX_RANK];
    uint64_t reserved[5];
} moec_tensor;

typedef struct moec_open_model moec_open_model;
typedef struct moec_session moec_session;
typedef struct moec_error moec_error;

typedef struct moec_turn {
    moec_session *session;
    const int32_t *ids;
    size_t n;
    float *logits;
    uint64_t reserved[4];
} moec_turn;

typedef void (*moec_trace_function)(void *user, int32_t route, int32_t rank, const int32_t *indices,
    const float *weights, int64_t tokens, int64_t choices);

int moec_open(const moec_description *description, const char *weights, const moec_options *options,
    moec_open_model **model, moec_error **error);
void moec_close(moec_open_model *model);

int moec_session_new(moec_open_model *model, size_t max_tokens, moec_session **session, moec_error **error);
int moec_session_fork(moec_session *session, size_t position, moec_session **fork, moec_error **error);
void moec_session_free(moec_session *session);
int moec_session_reset(moec_session *session);
size_t moec_session_position(const moec_session *session);
int moec_session_trace(moec_session *session, moec_trace_function trace, void *user);

int moec_forward(moec_session *session, const int32_t *ids, size_t n, float *logits, moec_error **error);
int moec_encode(moec_session *session, const int32_t *ids, size_t n, moec_error **error);
int moec_step(moec_session *session, const int32_t *ids, size_t n, float *logits, moec_error **error);
int moec_step_batch(moec_open_model *model, const moec_turn *turns, size_t count, moec_error **error);
int moec_session_run(moec_session *session, const moec_tensor *inputs, size_t input_count, moec_tensor *outputs,
    size_t output_count, moec_error **error);
int moec_run(moec_open_model *model, const moec_tensor *inputs, size_t input_count, moec_tensor *outputs,
    size_t output_count, moec_error **error);
int moec_selftest(moec_open_model *model, moec_error **error);

size_t moec_cache_bytes(const moec_open_model *model);
const char *moec_level(const moec_open_model *model);
int moec_threads(const moec_open_model *model);
int moec_error_code(const moec_error *error);
const char *moec_error_message(const moec_error *error);
void moec_error_free(moec_error *error);
int moec_abi(void);
const char *moec_version(const moec_description *description);

#endif
