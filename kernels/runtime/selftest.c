/* The self-test: does this machine compute what the plainest code computes? Inputs that are hard on routing (all rows
 * alike, ties, extremes) at the model's own level, against the plainest one, with one thread and several, whole and
 * position by position. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "choices.h"
#include "internal.h"

/* Of a row's largest value: levels sum in different orders. Where rows are rounded to a few bits, a sum near the middle of
 * two such numbers goes one way here and the other way there: a whole step of one element, which in a narrow model is a
 * good part of the next sum. */
static float tolerance(const moec_description *description) {
    return fmaxf(1e-3f, ldexpf(2.0f, -description->row_bits));
}

enum pattern { RANDOM, ALIKE, EXTREME, EMPTY, PATTERNS };

static const struct {
    enum pattern pattern;
    int64_t tokens;
} CASES[] = {{RANDOM, 1}, {RANDOM, 11}, {ALIKE, 6}, {EXTREME, 5}, {EMPTY, 3}};

/* One sequence's inputs and what came of them. */
typedef struct moec_trial {
    const moec_description *description;
    int64_t tokens;
    moec_block *inputs;
    moec_block *outputs;
    void **input_at;
    void **output_at;
    moec_choices choices;
} moec_trial;

/* How a trial is run. */
typedef struct moec_way {
    const moec_level_entry *level;
    int threads;
    bool stepwise;
} moec_way;

static int64_t rows_of(const moec_port *port, int64_t tokens) { return port->rows == MOEC_ROWS_ONE ? 1 : tokens; }

/* splitmix64 */
static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static int32_t index_value(enum pattern pattern, uint64_t random, int64_t limit) {
    int64_t most = limit < 0 ? 2 : limit;
    switch (pattern) {
    case EXTREME: return random & 1 ? (int32_t)(most - 1) : 0;
    case EMPTY: return 0;
    default: return (int32_t)(random % (uint64_t)most);
    }
}

static float float_value(enum pattern pattern, uint64_t random) {
    switch (pattern) {
    case EXTREME: return random & 1 ? 4.0f : -4.0f;
    case EMPTY: return 0.0f;
    default: return (float)(random >> 40) / (float)(1 << 23) - 1.0f;
    }
}

static void put_value(char *at, const moec_port *port, enum pattern pattern, uint64_t random) {
    float value = float_value(pattern, random);
    int32_t index = index_value(pattern, random, port->index_limit);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t upper = (uint16_t)(bits >> 16);
    /* Halves of the f16 format: 1 or -1, whatever the value. */
    uint16_t half = value == 0.0f ? 0 : value > 0.0f ? 0x3C00 : 0xBC00;
    switch (port->dtype) {
    case MOEC_F32: memcpy(at, &value, sizeof value); break;
    case MOEC_I32: memcpy(at, &index, sizeof index); break;
    case MOEC_BF16: memcpy(at, &upper, sizeof upper); break;
    case MOEC_F16: memcpy(at, &half, sizeof half); break;
    default: *at = (char)(random & 1); break;
    }
}

static void fill(char *at, const moec_port *port, enum pattern pattern, int64_t rows, uint64_t *state) {
    int64_t bytes = port->row_elements ? port->row_bytes / port->row_elements : 0;
    for (int64_t row = 0; row < rows; row++) {
        if (pattern == ALIKE && row > 0) {
            memcpy(at + row * port->row_bytes, at, (size_t)port->row_bytes);
            continue;
        }
        for (int64_t element = 0; element < port->row_elements; element++)
            put_value(at + row * port->row_bytes + element * bytes, port, pattern, next_random(state));
    }
}

static void trial_free(moec_trial *trial) {
    for (int32_t at = 0; trial->inputs && at < trial->description->input_count; at++) moec_block_free(&trial->inputs[at]);
    for (int32_t at = 0; trial->outputs && at < trial->description->output_count; at++)
        moec_block_free(&trial->outputs[at]);
    free(trial->inputs);
    free(trial->outputs);
    free(trial->input_at);
    free(trial->output_at);
    moec_choices_free(&trial->choices);
}

static bool trial_blocks(moec_block **blocks, void ***addresses, const moec_port *ports, int32_t count, int64_t tokens) {
    *blocks = calloc((size_t)count + 1, sizeof **blocks);
    *addresses = calloc((size_t)count + 1, sizeof **addresses);
    if (!*blocks || !*addresses) return false;
    for (int32_t at = 0; at < count; at++) {
        int64_t rows = rows_of(&ports[at], tokens);
        if (!moec_block_new(&(*blocks)[at], (size_t)rows, (size_t)ports[at].row_bytes)) return false;
        (*addresses)[at] = (*blocks)[at].at;
    }
    return true;
}

static bool trial_new(moec_trial *trial, const moec_description *description, enum pattern pattern, int64_t tokens) {
    *trial = (moec_trial){.description = description, .tokens = tokens};
    bool made = trial_blocks(&trial->inputs, &trial->input_at, description->inputs, description->input_count, tokens) &&
                trial_blocks(&trial->outputs, &trial->output_at, description->outputs, description->output_count, tokens);
    uint64_t state = (uint64_t)pattern * 1000 + (uint64_t)tokens;
    for (int32_t at = 0; made && at < description->input_count; at++) {
        const moec_port *port = &description->inputs[at];
        fill(trial->inputs[at].at, port, pattern, rows_of(port, tokens), &state);
    }
    if (!made) trial_free(trial);
    return made;
}

/* Appends one position of the trial. */
static int append_one(moec_trial *trial, moec_session *session, int64_t position, moec_error **error) {
    const moec_description *description = trial->description;
    for (int32_t at = 0; at < description->input_count; at++) {
        const moec_port *port = &description->inputs[at];
        trial->input_at[at] = trial->inputs[at].at + (port->rows == MOEC_ROWS_ONE ? 0 : position * port->row_bytes);
    }
    for (int32_t at = 0; at < description->output_count; at++) {
        const moec_port *port = &description->outputs[at];
        trial->output_at[at] = trial->outputs[at].at + (port->rows == MOEC_ROWS_ONE ? 0 : position * port->row_bytes);
    }
    return moec_append(session, 0, trial->input_at, trial->output_at, 1, 0, error);
}

static int trial_run(moec_trial *trial, moec_open_model *model, moec_way way, moec_error **error) {
    moec_session *session;
    int code = moec_session_make(model, way.level, way.threads, (size_t)trial->tokens, &session, error);
    if (code) return code;
    session->all_threads = true;
    trial->choices = (moec_choices){.session = session, .tokens = trial->tokens, .position = -1};
    moec_session_trace(session, moec_choices_record, &trial->choices);
    for (int32_t at = trial->description->sequence_count - 1; !code && at > 0; at--)
        code = moec_append(session, at, trial->input_at, trial->output_at, trial->tokens, 0, error);
    if (!way.stepwise && !code) code = moec_append(session, 0, trial->input_at, trial->output_at, trial->tokens, 0, error);
    for (int64_t position = 0; way.stepwise && !code && position < trial->tokens; position++)
        code = append_one(trial, session, position, error);
    moec_session_free(session);
    if (code || !trial->choices.failed) return code;
    return moec_fail(error, MOEC_OUT_OF_MEMORY, "self-test: no memory to record choices");
}

static bool row_is_close(const float *expected, const float *found, int64_t elements, float tolerance) {
    float largest = 0.0f;
    for (int64_t at = 0; at < elements; at++)
        if (isfinite(expected[at])) largest = fmaxf(largest, fabsf(expected[at]));
    for (int64_t at = 0; at < elements; at++) {
        bool same = expected[at] == found[at] || (isnan(expected[at]) && isnan(found[at]));
        if (!same && !(fabsf(expected[at] - found[at]) <= tolerance * largest)) return false;
    }
    return true;
}

/* Values within tolerance, as far as the same experts were chosen. */
static int compare_closely(const moec_trial *expected, const moec_trial *found, const char *what, moec_error **error) {
    const moec_description *description = expected->description;
    int64_t comparable;
    int code = moec_choices_compare(&expected->choices, &found->choices, description->whole_pass, &comparable, what, error);
    for (int32_t at = 0; !code && at < description->output_count; at++) {
        const moec_port *port = &description->outputs[at];
        int64_t rows = port->rows == MOEC_ROWS_ONE ? comparable == expected->tokens : comparable;
        for (int64_t row = 0; !code && port->dtype == MOEC_F32 && row < rows; row++) {
            const float *a = (const float *)(const void *)(expected->outputs[at].at + row * port->row_bytes);
            const float *b = (const float *)(const void *)(found->outputs[at].at + row * port->row_bytes);
            if (!row_is_close(a, b, port->row_elements, tolerance(description)))
                code = moec_fail(error, MOEC_SELFTEST_FAILED, "self-test: %s: output `%s` differs at position %" PRId64, what,
                    port->name, row);
        }
    }
    return code;
}

static int compare_exactly(const moec_trial *expected, const moec_trial *found, const char *what, moec_error **error) {
    const moec_description *description = expected->description;
    for (int32_t at = 0; at < description->output_count; at++) {
        const moec_port *port = &description->outputs[at];
        size_t bytes = (size_t)(rows_of(port, expected->tokens) * port->row_bytes);
        if (memcmp(expected->outputs[at].at, found->outputs[at].at, bytes))
            return moec_fail(error, MOEC_SELFTEST_FAILED, "self-test: %s: output `%s` is not the same to the last bit", what,
                port->name);
    }
    return MOEC_OK;
}

typedef int comparison(const moec_trial *expected, const moec_trial *found, const char *what, moec_error **error);

/* The trial once more, another way. */
static int try_again(const moec_trial *expected, moec_open_model *model, enum pattern pattern, moec_way way,
    comparison *compare, const char *what, moec_error **error) {
    moec_trial again;
    if (!trial_new(&again, model->description, pattern, expected->tokens))
        return moec_fail(error, MOEC_OUT_OF_MEMORY, "self-test: no memory for its tensors");
    int code = trial_run(&again, model, way, error);
    if (!code) code = compare(expected, &again, what, error);
    trial_free(&again);
    return code;
}

static int run_case(moec_open_model *model, enum pattern pattern, int64_t tokens, moec_error **error) {
    const moec_description *description = model->description;
    const moec_level_entry *plainest = description->level_count ? &description->levels[0] : NULL;
    moec_way usual = {model->level, model->threads, false}, alone = {model->level, 1, false};
    moec_way stepwise = {model->level, model->threads, true}, plain = {plainest, 1, false};
    moec_trial trial;
    if (!trial_new(&trial, description, pattern, tokens))
        return moec_fail(error, MOEC_OUT_OF_MEMORY, "self-test: no memory for its tensors");
    int code = trial_run(&trial, model, usual, error);
    if (!code && model->threads > 1)
        code = try_again(&trial, model, pattern, alone, compare_exactly, "one thread against several", error);
    if (!code && model->level != plainest)
        code = try_again(&trial, model, pattern, plain, compare_closely, "this level against the plainest", error);
    if (!code && !description->whole_pass && tokens > 1)
        code = try_again(&trial, model, pattern, stepwise, compare_closely, "position by position against all at once", error);
    trial_free(&trial);
    return code;
}

int moec_selftest(moec_open_model *model, moec_error **error) {
    moec_no_error(error);
    if (!model) return moec_fail(error, MOEC_BAD_ARGUMENT, "selftest: `model` is NULL");
    int code = MOEC_OK;
    for (size_t at = 0; !code && at < sizeof CASES / sizeof *CASES; at++) {
        int64_t tokens = CASES[at].tokens;
        for (int32_t along = 0; along < MOEC_MOST_SEQUENCES; along++) {
            int64_t least = model->description->least_tokens[along];
            tokens = tokens < least ? least : tokens;
        }
        code = run_case(model, CASES[at].pattern, tokens, error);
    }
    return code;
}
