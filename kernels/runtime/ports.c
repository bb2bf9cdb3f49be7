/* Checks of what a caller hands in: nothing reaches generated code that it could not bear. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

static const char *dtype_name(int32_t dtype) {
    switch (dtype) {
    case MOEC_F32: return "f32";
    case MOEC_BF16: return "bf16";
    case MOEC_F16: return "f16";
    case MOEC_I32: return "i32";
    case MOEC_BOOL: return "bool";
    default: return "no known type";
    }
}

static uintptr_t dtype_bytes(int32_t dtype) {
    switch (dtype) {
    case MOEC_BF16:
    case MOEC_F16: return 2;
    case MOEC_BOOL: return 1;
    default: return 4;
    }
}

/* A word for messages. */
static const char *role(bool output) { return output ? "output" : "input"; }

static int32_t find_port(const moec_port *ports, int32_t count, const char *name) {
    for (int32_t at = 0; at < count; at++)
        if (!strcmp(ports[at].name, name)) return at;
    return -1;
}

static int no_such_port(const moec_port *ports, int32_t count, const char *name, bool output, moec_error **error) {
    char known[256] = "none";
    size_t length = 0;
    for (int32_t at = 0; at < count && length < sizeof known; at++)
        length += (size_t)snprintf(known + length, sizeof known - length, "%s`%s`", at ? ", " : "", ports[at].name);
    return moec_fail(error, MOEC_BAD_ARGUMENT, "the model has no %s `%s`: its %ss are %s", role(output), name, role(output),
        known);
}

static int check_shape(const moec_port *port, const moec_tensor *tensor, bool output, int64_t *tokens,
    moec_error **error) {
    int32_t leading = port->rows == MOEC_ROWS_ONE ? 0 : 1;
    if (tensor->rank != port->axis_count + leading)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "%s `%s` has %d axes, this tensor %d", role(output), port->name,
            (int)port->axis_count + leading, (int)tensor->rank);
    for (int32_t at = 0; at < port->axis_count; at++) {
        const moec_axis *axis = &port->axes[at];
        if (tensor->shape[at + leading] != axis->size)
            return moec_fail(error, MOEC_BAD_ARGUMENT,
                "%s `%s`: axis %d (`%s`) has size %" PRId64 ", this tensor has %" PRId64 " there", role(output), port->name,
                (int)(at + leading), axis->name, axis->size, tensor->shape[at + leading]);
    }
    if (!leading) return MOEC_OK;
    if (tensor->shape[0] < 0 || tensor->shape[0] > INT32_MAX)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "%s `%s` has %" PRId64 " positions", role(output), port->name,
            tensor->shape[0]);
    if (*tokens == -1) *tokens = tensor->shape[0];
    if (*tokens == tensor->shape[0]) return MOEC_OK;
    return moec_fail(error, MOEC_BAD_ARGUMENT, "%s `%s` has %" PRId64 " positions where others have %" PRId64, role(output),
        port->name, tensor->shape[0], *tokens);
}

static int check_data(const moec_port *port, const moec_tensor *tensor, bool output, moec_error **error) {
    if (tensor->dtype != port->dtype)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "%s `%s` is %s, this tensor %s", role(output), port->name,
            dtype_name(port->dtype), dtype_name(tensor->dtype));
    bool empty = port->rows != MOEC_ROWS_ONE && tensor->shape[0] == 0;
    if (!tensor->data && !empty)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "%s `%s` has no data (NULL)", role(output), port->name);
    if ((uintptr_t)tensor->data % dtype_bytes(port->dtype))
        return moec_fail(error, MOEC_BAD_ARGUMENT, "the data of %s `%s` is not aligned to its type", role(output),
            port->name);
    for (size_t at = 0; at < sizeof tensor->reserved / sizeof *tensor->reserved; at++)
        if (tensor->reserved[at])
            return moec_fail(error, MOEC_BAD_ARGUMENT, "%s `%s`: reserved fields of the tensor must be 0", role(output),
                port->name);
    return MOEC_OK;
}

int moec_bind(const moec_description *description, bool output, const moec_tensor *tensors, size_t count,
    int64_t *tokens, void **bound, moec_error **error) {
    const moec_port *ports = output ? description->outputs : description->inputs;
    int32_t port_count = output ? description->output_count : description->input_count;
    if (!tensors && count)
        return moec_fail(error, MOEC_BAD_ARGUMENT, "%zu %ss, but the pointer to them is NULL", count, role(output));
    for (int32_t at = 0; at < port_count; at++) bound[at] = NULL;
    uint64_t seen[16] = {0}; /* the first 1024 ports, one bit each; no model has more (the code generator sees to it) */
    for (size_t at = 0; at < count; at++) {
        const moec_tensor *tensor = &tensors[at];
        if (!tensor->name)
            return moec_fail(error, MOEC_BAD_ARGUMENT, "%s number %zu has no name (NULL)", role(output), at);
        int32_t found = find_port(ports, port_count, tensor->name);
        if (found < 0) return no_such_port(ports, port_count, tensor->name, output, error);
        if (seen[found / 64] >> found % 64 & 1)
            return moec_fail(error, MOEC_BAD_ARGUMENT, "%s `%s` is given twice", role(output), tensor->name);
        seen[found / 64] |= (uint64_t)1 << found % 64;
        int code = check_shape(&ports[found], tensor, output, &tokens[ports[found].sequence], error);
        if (!code) code = check_data(&ports[found], tensor, output, error);
        if (code) return code;
        bound[found] = tensor->data;
    }
    for (int32_t at = 0; !output && at < port_count; at++) {
        bool spare = description->sequence_count > 1 && ports[at].rows != MOEC_ROWS_ONE && tokens[ports[at].sequence] == -1;
        if (!spare && !(seen[at / 64] >> at % 64 & 1))
            return moec_fail(error, MOEC_BAD_ARGUMENT, "input `%s` is not given", ports[at].name);
    }
    return MOEC_OK;
}

static int check_indices(const moec_port *port, const int32_t *values, int64_t count, moec_error **error) {
    for (int64_t at = 0; at < count; at++) {
        if (values[at] >= 0 && values[at] < port->index_limit) continue;
        return moec_fail(error, MOEC_OUT_OF_RANGE,
            "input `%s`: position %" PRId64 " has value %" PRId32 ", but it must be at least 0 and less than %" PRId64,
            port->name, at / port->row_elements, values[at], port->index_limit);
    }
    return MOEC_OK;
}

static int check_bools(const moec_port *port, const uint8_t *values, int64_t count, moec_error **error) {
    for (int64_t at = 0; at < count; at++)
        if (values[at] > 1)
            return moec_fail(error, MOEC_OUT_OF_RANGE, "input `%s`: position %" PRId64 " has value %d, but a bool is 0 or 1",
                port->name, at / port->row_elements, (int)values[at]);
    return MOEC_OK;
}

int moec_check_values(const moec_port *port, const void *data, int64_t tokens, moec_error **error) {
    int64_t count = (port->rows == MOEC_ROWS_ONE ? 1 : tokens) * port->row_elements;
    if (port->dtype == MOEC_BOOL) return check_bools(port, data, count, error);
    if (port->dtype == MOEC_I32 && port->index_limit >= 0) return check_indices(port, data, count, error);
    return MOEC_OK;
}
