/* Sessions: a sequence's position, caches and workspace. */
#include <stdlib.h>

#include "internal.h"

/* Positions are 32-bit in the model's own arithmetic. */
static const size_t MOST_TOKENS = INT32_MAX - MOEC_PANEL;

static void session_free(moec_session *session) {
    const moec_description *description = session->model->description;
    moec_block_free(&session->workspace);
    moec_block_free(&session->cache);
    moec_block_free(&session->states);
    moec_block_free(&session->scratch);
    for (int32_t at = 0; session->staging && at < description->output_count; at++) moec_block_free(&session->staging[at]);
    free(session->staging);
    free(session->bound);
    free(session->inputs);
    free(session->outputs);
    moec_model_release(session->model);
    free(session);
}

/* count * each + more, or SIZE_MAX, which no allocation can satisfy. */
static size_t bytes_of(int64_t count, int64_t each, int64_t more) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, (size_t)each, &bytes)) return SIZE_MAX;
    if (__builtin_add_overflow(bytes, (size_t)more, &bytes)) return SIZE_MAX;
    return bytes;
}

static bool session_allocate(moec_session *session, const moec_description *description) {
    size_t workspace = bytes_of(session->chunk, description->workspace_bytes_per_token, description->workspace_bytes_fixed);
    session->bound = calloc((size_t)(description->input_count + description->output_count) + 1, sizeof *session->bound);
    session->inputs = calloc((size_t)description->input_count + 1, sizeof *session->inputs);
    session->outputs = calloc((size_t)description->output_count + 1, sizeof *session->outputs);
    session->staging = calloc((size_t)description->output_count + 1, sizeof *session->staging);
    return session->bound && session->inputs && session->outputs && session->staging &&
           moec_block_new(&session->workspace, 1, workspace) &&
           moec_block_new(&session->cache, (size_t)session->capacity, (size_t)description->cache_bytes_per_position) &&
           moec_block_new(&session->states, 1, (size_t)description->state_bytes) &&
           moec_block_new(&session->scratch, (size_t)session->threads, (size_t)description->scratch_bytes);
}

int moec_session_make(moec_open_model *model, const moec_level_entry *level, int threads, size_t max_tokens,
    moec_session **session, moec_error **error) {
    if (max_tokens == 0 || max_tokens > MOST_TOKENS)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "a session of %zu positions: it must have 1 to %zu", max_tokens,
            MOST_TOKENS);
    moec_session *made = calloc(1, sizeof *made);
    if (!made) return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for a session");
    atomic_fetch_add(&model->references, 1);
    made->model = model;
    made->passes = level->passes;
    made->threads = threads;
    made->max_tokens = (int64_t)max_tokens;
    made->capacity = (made->max_tokens + MOEC_PANEL - 1) / MOEC_PANEL * MOEC_PANEL;
    bool whole = model->description->whole_pass || made->max_tokens < MOEC_PASS_TOKENS;
    made->chunk = whole ? made->max_tokens : MOEC_PASS_TOKENS;
    for (int32_t at = 0; at < MOEC_MOST_SEQUENCES; at++) atomic_init(&made->positions[at], 0);
    atomic_flag_clear(&made->busy);
    if (session_allocate(made, model->description)) {
        *session = made;
        return MOEC_OK;
    }
    session_free(made);
    return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for a session of %zu positions", max_tokens);
}

int moec_session_new(moec_open_model *model, size_t max_tokens, moec_session **session, moec_error **error) {
    moec_no_error(error);
    if (!session) return moec_fail(error, MOEC_BAD_ARGUMENT, "session_new: `session` is NULL");
    *session = NULL;
    if (!model) return moec_fail(error, MOEC_BAD_ARGUMENT, "session_new: `model` is NULL");
    return moec_session_make(model, model->level, model->threads, max_tokens, session, error);
}

void moec_session_free(moec_session *session) {
    if (session) session_free(session);
}

int moec_session_enter(moec_session *session, moec_error **error) {
    moec_no_error(error);
    if (!session) return moec_fail(error, MOEC_BAD_ARGUMENT, "`session` is NULL");
    if (atomic_flag_test_and_set_explicit(&session->busy, memory_order_acquire))
        return moec_fail(error, MOEC_BAD_ARGUMENT, "the session is in use by another call: a session is for one at a time");
    return MOEC_OK;
}

void moec_session_leave(moec_session *session) { atomic_flag_clear_explicit(&session->busy, memory_order_release); }

int moec_session_reset(moec_session *session) {
    int code = moec_session_enter(session, NULL);
    if (code) return code;
    for (int32_t at = 0; at < MOEC_MOST_SEQUENCES; at++) atomic_store(&session->positions[at], 0);
    moec_session_leave(session);
    return MOEC_OK;
}

size_t moec_session_position(const moec_session *session) {
    return session ? (size_t)atomic_load(&session->positions[0]) : 0;
}

int moec_session_trace(moec_session *session, moec_trace_function trace, void *user) {
    int code = moec_session_enter(session, NULL);
    if (code) return code;
    session->trace = trace;
    session->trace_user = user;
    moec_session_leave(session);
    return MOEC_OK;
}
