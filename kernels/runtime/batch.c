/* Several sessions step together: their rows share every GEMM and every expert's weights; attention, caches and states stay
 * each session's own. Everything is checked, and every page taken, before anything is computed. */
#include <inttypes.h>
#include <string.h>

#include "internal.h"

/* Says of which turn something is wrong. */
static int of_turn(size_t turn, int code, moec_error **inner, moec_error **error) {
    if (code) moec_fail(error, code, "turn %zu: %s", turn, moec_error_message(*inner));
    moec_error_free(*inner);
    return code;
}

static int check_turn(const moec_open_model *model, const moec_turn *turn, moec_error **error) {
    const moec_description *description = model->description;
    if (!turn->session) return moec_fail(error, MOEC_BAD_ARGUMENT, "`session` is NULL");
    if (turn->session->model != model) return moec_fail(error, MOEC_BAD_ARGUMENT, "its session is of another model");
    for (size_t at = 0; at < sizeof turn->reserved / sizeof *turn->reserved; at++)
        if (turn->reserved[at]) return moec_fail(error, MOEC_BAD_ARGUMENT, "its reserved fields must be 0");
    if (turn->n == 0) return moec_fail(error, MOEC_BAD_ARGUMENT, "it has no tokens");
    if (!turn->ids) return moec_fail(error, MOEC_BAD_ARGUMENT, "`ids` is NULL");
    if (turn->n > INT32_MAX)
        return moec_fail(error, MOEC_CONTEXT_OVERRUN, "%zu tokens are more than any session has room for", turn->n);
    return moec_check_values(&description->inputs[moec_input_along(description, 0)], turn->ids, (int64_t)turn->n, error);
}

/* With the session held. */
static int check_session(const moec_turn *turn, moec_error **error) {
    const moec_session *session = turn->session;
    if (session->model->description->sequence_count > 1 && !atomic_load(&session->positions[1]))
        return moec_fail(error, MOEC_BAD_ARGUMENT, "there is nothing to decode from yet: call `encode` first");
    return moec_check_room(session, 0, (int64_t)turn->n, error);
}

static void leave_all(const moec_turn *turns, size_t count) {
    for (size_t at = 0; at < count; at++) moec_session_leave(turns[at].session);
}

/* Holds all sessions, or none. */
static int enter_all(const moec_turn *turns, size_t count, moec_error **error) {
    for (size_t at = 0; at < count; at++) {
        moec_error *inner = NULL;
        int code = moec_session_enter(turns[at].session, &inner);
        if (!code) continue;
        size_t same = 0;
        while (same < at && turns[same].session != turns[at].session) same++;
        leave_all(turns, at);
        if (same == at) return of_turn(at, code, &inner, error);
        moec_error_free(inner);
        return moec_fail(error, code, "turns %zu and %zu have the same session: give all its tokens in one", same, at);
    }
    return MOEC_OK;
}

static int64_t past_of(const moec_turn *turn) { return atomic_load(&turn->session->positions[0]); }

/* Pages for all positions of all turns, or for none. */
static int take_pages(moec_open_model *model, const moec_turn *turns, size_t count, moec_error **error) {
    int64_t reserved = 0;
    for (size_t at = 0; at < count; at++) {
        int64_t past = past_of(&turns[at]);
        reserved += moec_pages_missing(turns[at].session, past, past + (int64_t)turns[at].n);
    }
    int code = moec_pages_reserve(model, reserved, error);
    if (code) return code;
    for (size_t at = 0; !code && at < count; at++) {
        int64_t past = past_of(&turns[at]);
        code = moec_pages_take(turns[at].session, past, past + (int64_t)turns[at].n, &reserved, error);
    }
    moec_pages_give_back(model, reserved);
    return code;
}

/* How far the batch is: turns of several tokens come first, then those of one, so that rows whose logits are wanted stand
 * together at the end of a pass. */
typedef struct moec_progress {
    bool singles;
    size_t turn;
    int64_t done; /* tokens of that turn */
} moec_progress;

/* The tokens of a turn that a pass takes: segment by segment. */
typedef struct moec_batch {
    moec_open_model *model;
    moec_room *room;
    const moec_turn *turns;
    size_t count;
} moec_batch;

static bool next_turn(const moec_batch *batch, moec_progress *progress) {
    for (; progress->turn < batch->count || !progress->singles; progress->turn++) {
        if (progress->turn == batch->count) *progress = (moec_progress){.singles = true};
        if ((batch->turns[progress->turn].n == 1) == progress->singles) return true;
    }
    return false;
}

/* Calls the observers of all sessions, each with its own rows; of a route with a fixed number of rows, with all. */
static void trace_each(void *user, int32_t route, int32_t rank, const int32_t *indices, const float *weights, int64_t tokens,
    int64_t choices) {
    const moec_pass *pass = user;
    for (int64_t at = 0; at < pass->segment_count; at++) {
        const moec_segment *segment = &pass->segments[at];
        const moec_session *session = segment->session;
        bool own = tokens == pass->tokens;
        int64_t before = own ? segment->first * choices : 0;
        if (session->trace)
            session->trace(session->trace_user, route, rank, indices + before, weights + before,
                own ? segment->tokens : tokens, choices);
    }
}

/* One pass: as many tokens as fit; the logits of turns that end in it. */
static int run_some(const moec_batch *batch, moec_progress *progress, moec_error **error) {
    moec_room *room = batch->room;
    moec_progress from = *progress;
    int64_t segments = 0, rows = 0, first_output = -1;
    bool traced = false;
    while (rows < room->chunk && next_turn(batch, progress)) {
        const moec_turn *turn = &batch->turns[progress->turn];
        int64_t left = (int64_t)turn->n - progress->done, free = room->chunk - rows, tokens = left < free ? left : free;
        memcpy(room->ids + rows, turn->ids + progress->done, (size_t)tokens * sizeof *room->ids);
        moec_add_segment(room, &segments, turn->session, 0, tokens);
        rows += tokens;
        traced |= turn->session->trace != NULL;
        if (tokens == left && turn->logits && first_output < 0) first_output = rows - 1;
        progress->done += tokens;
        if (tokens < left) break;
        *progress = (moec_progress){progress->singles, progress->turn + 1, 0};
    }
    const moec_description *description = batch->model->description;
    for (int32_t at = 0; at < description->input_count; at++) room->inputs[at] = NULL;
    room->inputs[moec_input_along(description, 0)] = room->ids;
    room->outputs[0] = room->staging[0].at;
    moec_pass pass = moec_pass_of(batch->model, room, segments, first_output < 0 ? rows : first_output);
    if (traced) {
        pass.trace = trace_each;
        pass.trace_user = &pass;
    }
    const moec_open_model *model = batch->model;
    moec_pass_function *function = model->calls ? NULL : model->level->passes[0];
    moec_run_by by = {batch->model, room, 0, function, model->threads, false, true};
    int code = moec_run_pass(by, &pass, error);
    if (code) return code;
    for (int64_t at = 0; at < segments && next_turn(batch, &from); at++) {
        const moec_segment *segment = &room->segments[at];
        const moec_turn *turn = &batch->turns[from.turn];
        size_t row_bytes = (size_t)description->outputs[0].row_bytes;
        size_t last = (size_t)(segment->first + segment->tokens - 1);
        atomic_fetch_add(&turn->session->positions[0], segment->tokens);
        if (from.done + segment->tokens == (int64_t)turn->n && turn->logits)
            memcpy(turn->logits, room->staging[0].at + last * row_bytes, row_bytes);
        from = (moec_progress){from.singles, from.turn + 1, 0};
    }
    return MOEC_OK;
}

/* Takes back what passes before the one at `until` appended. */
static void undo(const moec_batch *batch, moec_progress until) {
    moec_progress at = {0};
    for (; next_turn(batch, &at) && (at.singles != until.singles || at.turn != until.turn); at.turn++)
        atomic_fetch_sub(&batch->turns[at.turn].session->positions[0], (int64_t)batch->turns[at.turn].n);
    atomic_fetch_sub(&batch->turns[until.turn].session->positions[0], until.done);
}

static int run_all(moec_open_model *model, const moec_turn *turns, size_t count, moec_error **error) {
    moec_batch batch = {model, moec_room_take(model, MOEC_PASS_TOKENS), turns, count};
    if (!batch.room) return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for a pass of %d positions", MOEC_PASS_TOKENS);
    int code = MOEC_OK;
    if (!moec_stage(batch.room, model->description, 0)) code = moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for logits");
    if (!code) code = take_pages(model, turns, count, error);
    moec_progress progress = {0};
    while (!code && next_turn(&batch, &progress)) {
        moec_progress from = progress;
        code = run_some(&batch, &progress, error);
        if (code) undo(&batch, from);
    }
    moec_room_give(model, batch.room);
    return code;
}

int moec_step_batch(moec_open_model *model, const moec_turn *turns, size_t count, moec_error **error) {
    moec_no_error(error);
    if (!model) return moec_fail(error, MOEC_BAD_ARGUMENT, "step_batch: `model` is NULL");
    if (!count) return MOEC_OK;
    if (!turns) return moec_fail(error, MOEC_BAD_ARGUMENT, "step_batch: `turns` is NULL");
    if (model->description->whole_pass)
        return moec_fail(error, MOEC_BAD_ARGUMENT,
            "positions of %s see others of the same pass: its sessions cannot step together, step them one by one",
            model->description->name);
    int code = MOEC_OK;
    moec_error *inner = NULL;
    for (size_t at = 0; !code && at < count; at++) code = of_turn(at, check_turn(model, &turns[at], &inner), &inner, error);
    if (!code) code = enter_all(turns, count, error);
    if (code) return code;
    for (size_t at = 0; !code && at < count; at++) code = of_turn(at, check_session(&turns[at], &inner), &inner, error);
    if (!code) code = run_all(model, turns, count, error);
    leave_all(turns, count);
    return code;
}
