/* Sessions: a sequence's position, caches and states. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Positions are 32-bit in the model's own arithmetic. */
static const size_t MOST_TOKENS = INT32_MAX - MOEC_PANEL;

static void session_free(moec_session *session) {
    moec_pages_release(session);
    if (!session->passes) session->model->calls->give(session->model->device, session->states.at);
    free(session->pages);
    free(session->page_at);
    moec_block_free(&session->states);
    free(session->bound);
    moec_model_release(session->model);
    free(session);
}

static bool session_allocate(moec_session *session, const moec_description *description) {
    session->bound = calloc((size_t)(description->input_count + description->output_count) + 1, sizeof *session->bound);
    if (!session->bound || !moec_pages_new(session)) return false;
    size_t bytes = (size_t)description->state_bytes;
    if (session->passes) return moec_block_new(&session->states, 1, bytes);
    if (bytes) session->states.at = session->model->calls->take(session->model->device, bytes);
    return !bytes || session->states.at;
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
    made->passes = level ? level->passes : NULL;
    made->threads = threads;
    made->max_tokens = (int64_t)max_tokens;
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

/* With the session held. */
static int fork_at(const moec_session *session, int64_t position, moec_session **fork, moec_error **error) {
    const moec_description *description = session->model->description;
    int64_t here = atomic_load(&session->positions[0]), most = position;
    if (position > here)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "session_fork: position %" PRId64 " of a session that has %" PRId64, position,
            here);
    if (description->state_bytes && position != here)
        return moec_fail(error, MOEC_BAD_ARGUMENT,
            "session_fork: %s keeps states, which are those of position %" PRId64 ": it can be forked there only, not at "
            "position %" PRId64, description->name, here, position);
    const moec_level_entry level = {.passes = session->passes};
    int code = moec_session_make(session->model, session->passes ? &level : NULL, session->threads,
        (size_t)session->max_tokens, fork, error);
    if (code) return code;
    moec_session *made = *fork;
    atomic_store(&made->positions[0], position);
    for (int32_t at = 1; at < MOEC_MOST_SEQUENCES; at++) {
        int64_t of = atomic_load(&session->positions[at]);
        atomic_store(&made->positions[at], of);
        most = of > most ? of : most;
    }
    moec_pages_share(made, session, most);
    size_t bytes = (size_t)description->state_bytes;
    if (session->passes) memcpy(made->states.at, session->states.at, bytes);
    else if (bytes)
        code = session->model->calls->copy(session->model->device, made->states.at, session->states.at, bytes, error);
    if (code) {
        session_free(made);
        *fork = NULL;
    }
    return code;
}

int moec_session_fork(moec_session *session, size_t position, moec_session **fork, moec_error **error) {
    moec_no_error(error);
    if (!fork) return moec_fail(error, MOEC_BAD_ARGUMENT, "session_fork: `fork` is NULL");
    *fork = NULL;
    int code = moec_session_enter(session, error);
    if (code) return code;
    code = fork_at(session, position > INT64_MAX ? INT64_MAX : (int64_t)position, fork, error);
    moec_session_leave(session);
    return code;
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
    moec_pages_release(session);
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
