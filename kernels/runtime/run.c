/* The calls that run a model: arguments are checked here, positions appended in passes.c. */
#include <stdlib.h>

#include "internal.h"

/* A model with one input of token ids and one output of a row of floats for each: only such have forward and step. */
static int run_tokens(moec_session *session, const int32_t *ids, size_t n, float *logits, bool last_only,
    moec_error **error) {
    if (n == 0) return MOEC_OK;
    if (!ids) return moec_fail(error, MOEC_BAD_ARGUMENT, "`ids` is NULL");
    if (!logits && !last_only) return moec_fail(error, MOEC_BAD_ARGUMENT, "`logits` is NULL");
    if (n > INT32_MAX)
        return moec_fail(error, MOEC_CONTEXT_OVERRUN, "%zu tokens are more than any session has room for", n);
    int64_t tokens = (int64_t)n;
    int code = moec_check_values(&session->model->description->inputs[0], ids, tokens, error);
    if (code) return code;
    void *input = (void *)(uintptr_t)ids;
    void *output = logits;
    int64_t first_output = !logits ? tokens : last_only ? tokens - 1 : 0;
    return moec_append(session, &input, &output, tokens, first_output, error);
}

int moec_forward(moec_session *session, const int32_t *ids, size_t n, float *logits, moec_error **error) {
    int code = moec_session_enter(session, error);
    if (code) return code;
    code = run_tokens(session, ids, n, logits, false, error);
    moec_session_leave(session);
    return code;
}

int moec_step(moec_session *session, const int32_t *ids, size_t n, float *logits, moec_error **error) {
    int code = moec_session_enter(session, error);
    if (code) return code;
    code = run_tokens(session, ids, n, logits, true, error);
    moec_session_leave(session);
    return code;
}

/* Binds and checks all tensors, into `bound`: first the inputs' places, then the outputs'. Without an input that has
 * positions, there is one. */
static int bind_all(const moec_description *description, const moec_tensor *inputs, size_t input_count,
    const moec_tensor *outputs, size_t output_count, int64_t *tokens, void **bound, moec_error **error) {
    *tokens = -1;
    int code = moec_bind(description, false, inputs, input_count, tokens, bound, error);
    if (code) return code;
    if (*tokens == -1) *tokens = 1;
    code = moec_bind(description, true, outputs, output_count, tokens, bound + description->input_count, error);
    for (int32_t at = 0; !code && at < description->input_count; at++)
        code = moec_check_values(&description->inputs[at], bound[at], *tokens, error);
    return code;
}

int moec_session_run(moec_session *session, const moec_tensor *inputs, size_t input_count, moec_tensor *outputs,
    size_t output_count, moec_error **error) {
    int code = moec_session_enter(session, error);
    if (code) return code;
    int64_t tokens;
    void **bound = session->bound;
    code = bind_all(session->model->description, inputs, input_count, outputs, output_count, &tokens, bound, error);
    if (!code && tokens)
        code = moec_append(session, bound, bound + session->model->description->input_count, tokens, 0, error);
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
    int64_t tokens;
    moec_session *session = NULL;
    int code = bind_all(description, inputs, input_count, outputs, output_count, &tokens, bound, error);
    if (!code && tokens)
        code = moec_session_make(model, model->level, model->threads, (size_t)tokens, &session, error);
    if (session) code = moec_append(session, bound, bound + description->input_count, tokens, 0, error);
    moec_session_free(session);
    free(bound);
    return code;
}
