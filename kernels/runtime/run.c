/* The calls that run a model: arguments are checked here, positions appended in passes.c. */
#include <stdlib.h>

#include "internal.h"

int32_t moec_input_along(const moec_description *description, int32_t sequence) {
    for (int32_t at = 0; at < description->input_count; at++)
        if (description->inputs[at].rows != MOEC_ROWS_ONE && description->inputs[at].sequence == sequence) return at;
    return -1;
}

/* Of a model with one input of token ids along each sequence, and one output of a row of floats for each along the first:
 * only such have forward, step and encode. */
static int run_tokens(moec_session *session, int32_t sequence, const int32_t *ids, size_t n, float *logits, bool last_only,
    moec_error **error) {
    if (n == 0) return MOEC_OK;
    if (!ids) return moec_fail(error, MOEC_BAD_ARGUMENT, "`ids` is NULL");
    if (!logits && !last_only) return moec_fail(error, MOEC_BAD_ARGUMENT, "`logits` is NULL");
    if (n > INT32_MAX)
        return moec_fail(error, MOEC_CONTEXT_OVERRUN, "%zu tokens are more than any session has room for", n);
    const moec_description *description = session->model->description;
    if (sequence == 0 && description->sequence_count > 1 && !atomic_load(&session->positions[1]))
        return moec_fail(error, MOEC_BAD_ARGUMENT, "there is nothing to decode from yet: call `encode` first");
    int32_t input = moec_input_along(description, sequence);
    int64_t tokens = (int64_t)n;
    int code = moec_check_values(&description->inputs[input], ids, tokens, error);
    if (code) return code;
    for (int32_t at = 0; at < description->input_count; at++) session->bound[at] = NULL;
    session->bound[input] = (void *)(uintptr_t)ids;
    void *output = logits;
    int64_t first_output = !logits ? tokens : last_only ? tokens - 1 : 0;
    return moec_append(session, sequence, session->bound, &output, tokens, first_output, error);
}

int moec_encode(moec_session *session, const int32_t *ids, size_t n, moec_error **error) {
    int code = moec_session_enter(session, error);
    if (code) return code;
    code = run_tokens(session, 1, ids, n, NULL, true, error);
    moec_session_leave(session);
    return code;
}

int moec_forward(moec_session *session, const int32_t *ids, size_t n, float *logits, moec_error **error) {
    int code = moec_session_enter(session, error);
    if (code) return code;
    code = run_tokens(session, 0, ids, n, logits, false, error);
    moec_session_leave(session);
    return code;
}

int moec_step(moec_session *session, const int32_t *ids, size_t n, float *logits, moec_error **error) {
    int code = moec_session_enter(session, error);
    if (code) return code;
    code = run_tokens(session, 0, ids, n, logits, true, error);
    moec_session_leave(session);
    return code;
}

/* Binds and checks all tensors, into `bound`: first the inputs' places, then the outputs'. Without an input that has
 * positions, there is one; a sequence of which nothing is given has none. */
static int bind_all(const moec_description *description, const moec_tensor *inputs, size_t input_count,
    const moec_tensor *outputs, size_t output_count, int64_t *tokens, void **bound, moec_error **error) {
    for (int32_t at = 0; at < MOEC_MOST_SEQUENCES; at++) tokens[at] = -1;
    int code = moec_bind(description, false, inputs, input_count, tokens, bound, error);
    if (code) return code;
    if (tokens[0] == -1) tokens[0] = moec_input_along(description, 0) < 0;
    for (int32_t at = 1; at < MOEC_MOST_SEQUENCES; at++)
        if (tokens[at] == -1) tokens[at] = 0;
    code = moec_bind(description, true, outputs, output_count, tokens, bound + description->input_count, error);
    for (int32_t at = 0; !code && at < description->input_count; at++)
        if (bound[at])
            code = moec_check_values(&description->inputs[at], bound[at], tokens[description->inputs[at].sequence], error);
    return code;
}

/* What is read first, then what reads it. */
static int append_all(moec_session *session, void **bound, const int64_t *tokens, moec_error **error) {
    const moec_description *description = session->model->description;
    int code = MOEC_OK;
    for (int32_t at = description->sequence_count - 1; !code && at >= 0; at--)
        if (tokens[at]) code = moec_append(session, at, bound, bound + description->input_count, tokens[at], 0, error);
    return code;
}

int moec_session_run(moec_session *session, const moec_tensor *inputs, size_t input_count, moec_tensor *outputs,
    size_t output_count, moec_error **error) {
    int code = moec_session_enter(session, error);
    if (code) return code;
    int64_t tokens[MOEC_MOST_SEQUENCES];
    void **bound = session->bound;
    code = bind_all(session->model->description, inputs, input_count, outputs, output_count, tokens, bound, error);
    if (!code) code = append_all(session, bound, tokens, error);
    moec_session_leave(session);
    return code;
}

int moec_run(moec_open_model *model, const moec_tensor *inputs, size_t input_count, moec_tensor *outputs,
    size_t output_count, moec_error **error) {
    moec_no_error(error);
    if (!model) return moec_fail(error, MOEC_BAD_ARGUMENT, "run: `model` is NULL");
    const moec_description *description = model->description;
    void **bound = calloc((size_t)(description->input_count + description->output_count) + 1, sizeof *bound);
    if (!bound) return moec_fail(error, MOEC_OUT_OF_MEMORY, "run: no memory for the addresses of the tensors");
    int64_t tokens[MOEC_MOST_SEQUENCES], most = 0;
    moec_session *session = NULL;
    int code = bind_all(description, inputs, input_count, outputs, output_count, tokens, bound, error);
    for (int32_t at = 0; at < MOEC_MOST_SEQUENCES; at++) most = tokens[at] > most ? tokens[at] : most;
    if (!code && most) code = moec_session_make(model, model->level, model->threads, (size_t)most, &session, error);
    if (session) code = append_all(session, bound, tokens, error);
    moec_session_free(session);
    free(bound);
    return code;
}
