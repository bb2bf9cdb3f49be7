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

static void run_pass(moec_session *session, int32_t sequence, moec_pass *pass) {
    moec_pass_function *function = session->passes[sequence];
    moec_open_model *model = session->model;
    moec_pool *pool = session->threads > 1 ? take_pool(model) : NULL;
    if (!pool) {
        moec_run_alone(function, pass);
        return;
    }
    bool alone = !session->all_threads && pass->tokens <= SHORT_PASS && moec_tempo_alone(&model->tempo);
    int64_t start = moec_now_ns();
    if (alone)
        moec_run_alone(function, pass);
    else
        moec_pool_run(pool, function, pass, session->threads);
    if (pass->tokens == 1 && sequence == 0) moec_tempo_note(&model->tempo, alone, moec_now_ns() - start);
    atomic_flag_clear_explicit(&model->pool_busy, memory_order_release);
}

/* One call of moec_append. */
typedef struct moec_call {
    moec_session *session;
    const moec_description *description;
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

static bool make_staging(const moec_call *call) {
    for (int32_t at = 0; call->sequence == 0 && at < call->description->output_count; at++) {
        const moec_port *port = &call->description->outputs[at];
        moec_block *block = &call->session->staging[at];
        if (block->at || !needs_staging(call, port, call->outputs[at])) continue;
        int64_t rows = port->rows == MOEC_ROWS_ONE ? 1 : call->session->chunk;
        if (!moec_block_new(block, (size_t)rows, (size_t)port->row_bytes)) return false;
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
        call->session->inputs[at] = has ? (char *)call->inputs[at] + rows_before * port->row_bytes : NULL;
    }
}

/* Where row 0 of each output is, or would be: no pass touches rows before `first`. */
static void address_outputs(const moec_call *call, moec_part part) {
    for (int32_t at = 0; call->sequence == 0 && at < call->description->output_count; at++) {
        const moec_port *port = &call->description->outputs[at];
        int64_t rows_before = port->rows == MOEC_ROWS_ONE ? 0 : part.done - call->first_output;
        bool staged = !call->outputs[at] || is_partly_wanted(port, part);
        uintptr_t given = (uintptr_t)call->outputs[at] + (uintptr_t)(rows_before * port->row_bytes);
        call->session->outputs[at] = staged ? call->session->staging[at].at : (void *)given;
    }
}

/* What was wanted of outputs that were staged. */
static void keep_wanted(const moec_call *call, moec_part part) {
    for (int32_t at = 0; call->sequence == 0 && at < call->description->output_count; at++) {
        const moec_port *port = &call->description->outputs[at];
        if (!call->outputs[at] || !is_partly_wanted(port, part) || part.first == part.tokens) continue;
        int64_t row = part.done + part.first - call->first_output;
        memcpy((char *)call->outputs[at] + row * port->row_bytes,
            call->session->staging[at].at + part.first * port->row_bytes,
            (size_t)((part.tokens - part.first) * port->row_bytes));
    }
}

static moec_pass pass_of(const moec_session *session, moec_part part, int64_t past, const int64_t *pasts) {
    return (moec_pass){
        .tokens = part.tokens,
        .past = past,
        .first_output = part.first,
        .chunk = session->chunk,
        .capacity = session->capacity,
        .workspace = session->workspace.at,
        .cache = session->cache.at,
        .states = session->states.at,
        .weights = session->model->weights.data,
        .inputs = session->inputs,
        .outputs = session->outputs,
        .scratch = session->scratch.at,
        .scratch_bytes = session->model->description->scratch_bytes,
        .trace = session->trace,
        .trace_user = session->trace_user,
        .pasts = pasts,
    };
}

int moec_append(moec_session *session, int32_t sequence, void *const *inputs, void *const *outputs, int64_t tokens,
    int64_t first_output, moec_error **error) {
    moec_call call = {session, session->model->description, sequence, inputs, outputs, tokens, first_output};
    int64_t pasts[MOEC_MOST_SEQUENCES];
    for (int32_t at = 0; at < MOEC_MOST_SEQUENCES; at++) pasts[at] = atomic_load(&session->positions[at]);
    int64_t past = pasts[sequence];
    if (tokens > session->max_tokens - past)
        return moec_fail(error, MOEC_CONTEXT_OVERRUN,
            "the session has room for %" PRId64 " positions and is at position %" PRId64 ": %" PRId64 " more do not fit",
            session->max_tokens, past, tokens);
    if (sequence == 0 && tokens > 0 && tokens < call.description->least_tokens)
        return moec_fail(error, MOEC_BAD_ARGUMENT,
            "a pass has at least %" PRId64 " positions, of which this model chooses as many: %" PRId64 " are given",
            call.description->least_tokens, tokens);
    if (!make_staging(&call))
        return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for outputs that were not given");
    for (int64_t done = 0; done < tokens;) {
        moec_part part = next_part(&call, done);
        address_inputs(&call, part);
        address_outputs(&call, part);
        pasts[sequence] = past + done;
        moec_pass pass = pass_of(session, part, past + done, pasts);
        run_pass(session, sequence, &pass);
        keep_wanted(&call, part);
        done += part.tokens;
        atomic_store(&session->positions[sequence], past + done);
    }
    return MOEC_OK;
}
