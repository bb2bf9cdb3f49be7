/* Positions to passes: long inputs are cut, threads are found, and every output gets an address for its row 0. */
#include <inttypes.h>
#include <string.h>

#include "internal.h"

/* The model's pool, if no other session is using it; it must be given back. NULL: run alone. */
static moec_pool *take_pool(moec_open_model *model) {
    if (atomic_flag_test_and_set_explicit(&model->pool_busy, memory_order_acquire)) return NULL;
    /* After a fork, the parent's workers do not exist here; what is left of their pool is small. */
    if (!model->pool || !moec_pool_is_ours(model->pool)) model->pool = moec_pool_new(model->threads);
    if (!model->pool) atomic_flag_clear_explicit(&model->pool_busy, memory_order_release);
    return model->pool;
}

/* Passes of so few positions are short ones. */
enum { SHORT_PASS = 4 };

moec_pass_function *moec_pass_function_of(const moec_session *session, int32_t sequence) {
    return session->passes ? session->passes[sequence] : NULL;
}

static int run_on_device(moec_run_by by, const moec_pass *pass, moec_error **error) {
    const moec_device_calls *calls = by.model->calls;
    moec_error *inner = NULL;
    int code = MOEC_OK;
    if (!by.room->on_device) code = calls->room_new(by.model->device, by.room->chunk, &by.room->on_device, &inner);
    if (!code) code = calls->run(by.room->on_device, by.sequence, pass, &inner);
    if (code)
        moec_fail(error, code, "%s%s", moec_error_message(inner),
            code == MOEC_DEVICE_FAILED ? "; close the model, and open it again or on the CPU" : "");
    moec_error_free(inner);
    return code;
}

int moec_run_pass(moec_run_by by, moec_pass *pass, moec_error **error) {
    if (!by.function) return run_on_device(by, pass, error);
    moec_open_model *model = by.model;
    moec_pool *pool = by.threads > 1 ? take_pool(model) : NULL;
    if (!pool) {
        moec_run_alone(by.function, pass);
        return MOEC_OK;
    }
    bool alone = !by.all_threads && pass->tokens <= SHORT_PASS && moec_tempo_alone(&model->tempo);
    int64_t start = moec_now_ns();
    if (alone)
        moec_run_alone(by.function, pass);
    else
        moec_pool_run(pool, by.function, pass, by.threads);
    if (pass->tokens == 1 && by.is_usual) moec_tempo_note(&model->tempo, alone, moec_now_ns() - start);
    atomic_flag_clear_explicit(&model->pool_busy, memory_order_release);
    return MOEC_OK;
}

/* One call of moec_append. */
typedef struct moec_call {
    moec_session *session;
    const moec_description *description;
    moec_room *room;
    int32_t sequence;
    void *const *inputs;
    void *const *outputs;
    int64_t tokens;
    int64_t first_output;
} moec_call;

/* One pass of it: positions done .. done + tokens of the call; outputs from row `first` of the pass on. */
typedef struct moec_part {
    int64_t done;
    int64_t tokens;
    int64_t first;
} moec_part;

static moec_part next_part(const moec_call *call, int64_t done) {
    int64_t left = call->tokens - done;
    int64_t tokens = left < call->session->chunk ? left : call->session->chunk;
    int64_t first = call->first_output - done;
    return (moec_part){done, tokens, first < 0 ? 0 : first > tokens ? tokens : first};
}

/* Whether some pass writes rows of this output for which the caller gave no place. */
static bool needs_staging(const moec_call *call, const moec_port *port, const void *output) {
    if (port->rows == MOEC_ROWS_ONE) return !output;
    if (port->rows == MOEC_ROWS_OUTPUTS) return !output && call->first_output < call->tokens;
    return !output || call->first_output > 0;
}

char *moec_stage(moec_room *room, const moec_description *description, int32_t output) {
    const moec_port *port = &description->outputs[output];
    moec_block *block = &room->staging[output];
    int64_t rows = port->rows == MOEC_ROWS_ONE ? 1 : room->chunk;
    if (!block->at && !moec_block_new(block, (size_t)rows, (size_t)port->row_bytes)) return NULL;
    return block->at;
}

static bool make_staging(const moec_call *call) {
    for (int32_t at = 0; call->sequence == 0 && at < call->description->output_count; at++) {
        const moec_port *port = &call->description->outputs[at];
        if (needs_staging(call, port, call->outputs[at]) && !moec_stage(call->room, call->description, at)) return false;
    }
    return true;
}

/* Whether this pass writes rows of the output that are not wanted, so that it must not write into the caller's memory. */
static bool is_partly_wanted(const moec_port *port, moec_part part) {
    return port->rows == MOEC_ROWS_TOKENS && part.first > 0;
}

static void address_inputs(const moec_call *call, moec_part part) {
    for (int32_t at = 0; at < call->description->input_count; at++) {
        const moec_port *port = &call->description->inputs[at];
        int64_t rows_before = port->rows == MOEC_ROWS_ONE ? 0 : part.done;
        bool has = call->inputs[at] && (port->rows == MOEC_ROWS_ONE || port->sequence == call->sequence);
        call->room->inputs[at] = has ? (char *)call->inputs[at] + rows_before * port->row_bytes : NULL;
    }
}

/* Where row 0 of each output is, or would be: no pass touches rows before `first`. */
static void address_outputs(const moec_call *call, moec_part part) {
    for (int32_t at = 0; call->sequence == 0 && at < call->description->output_count; at++) {
        const moec_port *port = &call->description->outputs[at];
        int64_t rows_before = port->rows == MOEC_ROWS_ONE ? 0 : part.done - call->first_output;
        bool staged = !call->outputs[at] || is_partly_wanted(port, part);
        uintptr_t given = (uintptr_t)call->outputs[at] + (uintptr_t)(rows_before * port->row_bytes);
        call->room->outputs[at] = staged ? call->room->staging[at].at : (void *)given;
    }
}

/* What was wanted of outputs that were staged. */
static void keep_wanted(const moec_call *call, moec_part part) {
    for (int32_t at = 0; call->sequence == 0 && at < call->description->output_count; at++) {
        const moec_port *port = &call->description->outputs[at];
        if (!call->outputs[at] || !is_partly_wanted(port, part) || part.first == part.tokens) continue;
        int64_t row = part.done + part.first - call->first_output;
        memcpy((char *)call->outputs[at] + row * port->row_bytes,
            call->room->staging[at].at + part.first * port->row_bytes,
            (size_t)((part.tokens - part.first) * port->row_bytes));
    }
}

const moec_segment *moec_add_segment(moec_room *room, int64_t *segments, moec_session *session, int32_t sequence,
    int64_t tokens) {
    const moec_segment *last = *segments ? &room->segments[*segments - 1] : NULL;
    moec_segment *segment = &room->segments[(*segments)++];
    for (int32_t at = 0; at < MOEC_MOST_SEQUENCES; at++) session->pasts[at] = atomic_load(&session->positions[at]);
    *segment = (moec_segment){
        .first = last ? last->first + last->tokens : 0,
        .tokens = tokens,
        .past = session->pasts[sequence],
        .states = session->states.at,
        .pages = session->page_at,
        .pasts = session->pasts,
        .session = session,
    };
    for (int64_t at = 0; at < tokens; at++) {
        room->positions[segment->first + at] = segment->past + at;
        room->pages[segment->first + at] = session->page_at;
    }
    return segment;
}

moec_pass moec_pass_of(const moec_open_model *model, const moec_room *room, int64_t segments, int64_t first_output) {
    const moec_segment *last = &room->segments[segments - 1];
    return (moec_pass){
        .tokens = last->first + last->tokens,
        .first_output = first_output,
        .chunk = room->chunk,
        .workspace = room->workspace.at,
        .weights = model->weights.data,
        .inputs = room->inputs,
        .outputs = room->outputs,
        .scratch = room->scratch.at,
        .scratch_bytes = model->description->scratch_bytes,
        .positions = room->positions,
        .pages = room->pages,
        .segments = room->segments,
        .segment_count = segments,
    };
}

int moec_check_room(const moec_session *session, int32_t sequence, int64_t tokens, moec_error **error) {
    int64_t past = atomic_load(&session->positions[sequence]), least = session->model->description->least_tokens[sequence];
    if (tokens > session->max_tokens - past)
        return moec_fail(error, MOEC_CONTEXT_OVERRUN,
            "the session has room for %" PRId64 " positions and is at position %" PRId64 ": %" PRId64 " more do not fit",
            session->max_tokens, past, tokens);
    if (tokens > 0 && tokens < least)
        return moec_fail(error, MOEC_BAD_ARGUMENT,
            "a pass has at least %" PRId64 " positions, of which this model chooses as many: %" PRId64 " are given", least,
            tokens);
    return MOEC_OK;
}

/* Pages for all positions of the call. */
static int make_room(const moec_call *call, moec_error **error) {
    moec_session *session = call->session;
    int64_t past = atomic_load(&session->positions[call->sequence]), to = past + call->tokens;
    int64_t reserved = moec_pages_missing(session, past, to);
    int code = moec_pages_reserve(session->model, reserved, error);
    if (code) return code;
    code = moec_pages_take(session, past, to, &reserved, error);
    moec_pages_give_back(session->model, reserved);
    return code;
}

static int run_part(const moec_call *call, moec_part part, moec_error **error) {
    moec_session *session = call->session;
    address_inputs(call, part);
    address_outputs(call, part);
    int64_t segments = 0;
    moec_add_segment(call->room, &segments, session, call->sequence, part.tokens);
    moec_pass pass = moec_pass_of(session->model, call->room, segments, part.first);
    pass.trace = session->trace;
    pass.trace_user = session->trace_user;
    moec_run_by by = {session->model, call->room, call->sequence, moec_pass_function_of(session, call->sequence),
        session->threads, session->all_threads, call->sequence == 0};
    int code = moec_run_pass(by, &pass, error);
    if (code) return code;
    keep_wanted(call, part);
    atomic_fetch_add(&session->positions[call->sequence], part.tokens);
    return MOEC_OK;
}

int moec_append(moec_session *session, int32_t sequence, void *const *inputs, void *const *outputs, int64_t tokens,
    int64_t first_output, moec_error **error) {
    int code = moec_check_room(session, sequence, tokens, error);
    if (code || !tokens) return code;
    moec_room *room = moec_room_take(session->model, session->chunk);
    if (!room) return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for a pass of %" PRId64 " positions", session->chunk);
    moec_call call = {session, session->model->description, room, sequence, inputs, outputs, tokens, first_output};
    if (!make_staging(&call)) code = moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for outputs that were not given");
    if (!code) code = make_room(&call, error);
    int64_t past = atomic_load(&session->positions[sequence]);
    for (int64_t done = 0; !code && done < tokens;) {
        moec_part part = next_part(&call, done);
        code = run_part(&call, part, error);
        done += part.tokens;
    }
    /* Nothing was appended by a call that a device failed. */
    if (code) atomic_store(&session->positions[sequence], past);
    moec_room_give(session->model, room);
    return code;
}
