/* Errors: a code and a sentence, made where the problem is found and owned by the caller. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

struct moec_error {
    int code;
    const char *message;
    char text[]; /* what `message` points to */
};

/* For when there is no memory for an error either; never freed. */
static moec_error no_memory = {.code = MOEC_OUT_OF_MEMORY, .message = "out of memory"};

static moec_error *error_new(int code, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0) return &no_memory;
    moec_error *error = malloc(sizeof *error + (size_t)length + 1);
    if (!error) return &no_memory;
    error->code = code;
    error->message = error->text;
    vsnprintf(error->text, (size_t)length + 1, format, arguments);
    return error;
}

int moec_fail(moec_error **error, int code, const char *format, ...) {
    if (!error) return code;
    va_list arguments;
    va_start(arguments, format);
    *error = error_new(code, format, arguments);
    va_end(arguments);
    return code;
}

void moec_no_error(moec_error **error) {
    if (error) *error = NULL;
}

int moec_error_code(const moec_error *error) { return error ? error->code : MOEC_OK; }

const char *moec_error_message(const moec_error *error) { return error ? error->message : ""; }

void moec_error_free(moec_error *error) {
    if (error != &no_memory) free(error);
}
