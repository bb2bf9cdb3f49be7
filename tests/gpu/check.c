/* Runs cases and compares what they give with what they must give.
 *
 *   check RESULTS FILE…     appends a line for each case to RESULTS; 1 where one is wrong
 *
 * A process of its own runs the cases, and is followed by another where one of them takes it down or does not come back: after an
 * error of the device nothing else in the process would run. Every case runs twice, in sessions of their own, and must give the
 * same bits. */
#include "check.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session.h"

/* Seconds that a case may take, where MOEC_GPU_PATIENCE does not say. */
enum { PATIENCE = 120, WRONG = 1, LOST = 3 };

typedef struct finding {
    char text[512]; /* empty: all is well */
    const pass_case *pass;
    int64_t routes;
    double tolerance;
    int64_t pass_number;
} finding;

static void say(finding *to, const char *format, ...) {
    if (to->text[0]) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(to->text, sizeof to->text, format, arguments);
    va_end(arguments);
}

static double element(const void *data, int32_t dtype, size_t at) {
    if (dtype == MOEC_F32) return ((const float *)data)[at];
    if (dtype == MOEC_I32) return ((const int32_t *)data)[at];
    if (dtype == MOEC_BOOL) return ((const uint8_t *)data)[at];
    uint16_t half = ((const uint16_t *)data)[at];
    if (dtype == MOEC_BF16) {
        uint32_t bits = (uint32_t)half << 16;
        float value;
        memcpy(&value, &bits, 4);
        return value;
    }
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double sign = half >> 15 ? -1.0 : 1.0;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static size_t size_of(int32_t dtype) {
    if (dtype == MOEC_BOOL) return 1;
    return dtype == MOEC_BF16 || dtype == MOEC_F16 ? 2 : 4;
}

/* What nobody wrote is all ones, whatever its type. */
static bool untouched(double found) { return isnan(found) || found == -1.0 || found == 255.0; }

static bool near(double found, double wanted, double tolerance) {
    if (isnan(wanted)) return untouched(found);
    return found == wanted || fabs(found - wanted) <= tolerance * fmax(1.0, fabs(wanted));
}

static void on_route(void *user, int32_t number, int32_t rank, const int32_t *indices, const float *weights, int64_t tokens,
    int64_t choices) {
    finding *to = user;
    const pass_case *pass = to->pass;
    int64_t at = to->routes++;
    (void)rank;
    if (at >= pass->route_count) return;
    const route *wanted = &pass->routes[at];
    size_t count = (size_t)(tokens * choices);
    if (wanted->route >= 0 && wanted->route != number)
        say(to, "pass %lld, route %lld: number %d, not %lld", (long long)to->pass_number, (long long)at, number,
            (long long)wanted->route);
    if (wanted->indices.bytes != count * 4 || wanted->weights.bytes != count * 4) {
        say(to, "pass %lld, route %lld: %zu choices, not %zu", (long long)to->pass_number, (long long)at, count,
            wanted->indices.bytes / 4);
        return;
    }
    const int32_t *chosen = wanted->indices.at;
    const float *factors = wanted->weights.at;
    for (size_t choice = 0; choice < count; choice++) {
        if (indices[choice] != chosen[choice])
            say(to, "pass %lld, route %lld, choice %zu: expert %d, not %d", (long long)to->pass_number, (long long)at, choice,
                indices[choice], chosen[choice]);
        if (!near(weights[choice], factors[choice], to->tolerance))
            say(to, "pass %lld, route %lld, weight %zu: %g, not %g", (long long)to->pass_number, (long long)at, choice,
                weights[choice], factors[choice]);
    }
}

static void compare(const gpu_case *of, const pass_case *pass, void *const *outputs, finding *to) {
    for (int32_t at = 0; at < of->description.output_count; at++) {
        const double *wanted = pass->expected[at].at;
        for (size_t place = 0; place < pass->expected[at].bytes / 8; place++) {
            double found = element(outputs[at], of->outputs[at].dtype, place);
            if (!near(found, wanted[place], of->tolerance))
                say(to, "pass %lld, output %d, element %zu: %.9g, not %.9g", (long long)to->pass_number, at, place, found,
                    wanted[place]);
        }
    }
    if (to->routes != pass->route_count)
        say(to, "pass %lld: %lld routes, not %lld", (long long)to->pass_number, (long long)to->routes,
            (long long)pass->route_count);
}

/* All passes in a session of their own. Outputs lie one behind the other in `given`, room for all. -> a code of the run time's */
static int run_passes(const gpu_case *of, moec_cuda *device, char *given, finding *to) {
    gpu_session session;
    moec_error *error = NULL;
    int failure = session_new(of, device, of->chunk, of->capacity, &session, &error);
    for (int64_t at = 0; !failure && !to->text[0] && at < of->pass_count; at++) {
        const pass_case *pass = &of->passes[at];
        void *inputs[MOST_PORTS] = {0}, *outputs[MOST_PORTS] = {0};
        for (int32_t port = 0; port < of->description.input_count; port++)
            if (pass->inputs[port].bytes) inputs[port] = (void *)pass->inputs[port].at;
        for (int32_t port = 0; pass->sequence == 0 && port < of->description.output_count; port++) {
            outputs[port] = given;
            given += (pass->expected[port].bytes / 8 * size_of(of->outputs[port].dtype) + 63) / 64 * 64;
        }
        *to = (finding){.pass = pass, .tolerance = of->tolerance, .pass_number = at};
        moec_pass run = {.first_output = pass->first_output, .inputs = inputs, .outputs = outputs, .trace = on_route,
            .trace_user = to};
        failure = session_run(&session, (int32_t)pass->sequence, pass->tokens, &run, &error);
        if (!failure) compare(of, pass, outputs, to);
    }
    if (failure) say(to, "%s", moec_error_message(error));
    moec_error_free(error);
    session_free(&session);
    return failure;
}

static size_t given_bytes(const gpu_case *of) {
    size_t bytes = 64;
    for (int64_t at = 0; at < of->pass_count; at++)
        for (int32_t port = 0; port < of->description.output_count; port++)
            bytes += (of->passes[at].expected[port].bytes / 8 * size_of(of->outputs[port].dtype) + 63) / 64 * 64;
    return bytes;
}

/* -> a code of the run time's; `to` says what is wrong. */
static int run_case(const gpu_case *of, finding *to) {
    moec_cuda *device = NULL;
    moec_error *error = NULL;
    int failure = moec_cuda_open(&of->description, of->image.at, of->image.bytes, of->weights.at, &device, &error);
    if (failure) {
        say(to, "%s", moec_error_message(error));
        moec_error_free(error);
        return failure;
    }
    size_t bytes = given_bytes(of);
    char *given[2] = {malloc(bytes), malloc(bytes)};
    for (int again = 0; again < 2 && !to->text[0] && given[0] && given[1]; again++) {
        memset(given[again], 0xff, bytes);
        failure = run_passes(of, device, given[again], to);
    }
    if (!given[0] || !given[1]) say(to, "no memory for what it gives");
    if (!to->text[0] && memcmp(given[0], given[1], bytes)) say(to, "the second run gives other bits than the first");
    free(given[0]);
    free(given[1]);
    moec_cuda_close(device);
    return failure;
}

static void tell(const char *results, const char *name, const char *verdict, const char *what) {
    FILE *file = fopen(results, "a");
    if (!file) return;
    fprintf(file, "case\t%s\t%s\t%s\n", name, verdict, what);
    fclose(file);
}

/* Cases from number `first` on, in this process; how many came to an end is written into the pipe, a byte each. */
static int worker(const char *results, char **paths, int first, int count, int done) {
    const char *asked = getenv("MOEC_GPU_PATIENCE");
    unsigned patience = asked ? (unsigned)atoi(asked) : PATIENCE;
    int wrong = 0;
    for (int at = first; at < count; at++) {
        gpu_case of;
        finding found = {0};
        alarm(patience);
        if (!case_read(paths[at], &of)) {
            tell(results, paths[at], "wrong", "it cannot be read");
            wrong = WRONG;
            if (write(done, "w", 1) != 1) return LOST;
            continue;
        }
        int failure = run_case(&of, &found);
        tell(results, of.name, found.text[0] ? "wrong" : "right", found.text);
        if (found.text[0]) fprintf(stderr, "%s: %s\n", of.name, found.text);
        case_free(&of);
        if (write(done, found.text[0] ? "w" : "r", 1) != 1) return LOST;
        if (found.text[0]) wrong = WRONG;
        /* The next process starts afresh. */
        if (failure) return LOST;
    }
    return wrong;
}

int check(const char *results, char **paths, int count) {
    int wrong = 0, at = 0;
    while (at < count) {
        int ends[2], status = 0;
        if (pipe(ends)) return WRONG;
        fflush(NULL);
        pid_t child = fork();
        if (child < 0) return WRONG;
        if (child == 0) {
            close(ends[0]);
            _exit(worker(results, paths, at, count, ends[1]));
        }
        close(ends[1]);
        char verdict;
        int before = at;
        while (read(ends[0], &verdict, 1) == 1) {
            at++;
            wrong += verdict != 'r';
        }
        close(ends[0]);
        waitpid(child, &status, 0);
        if (at >= count) break;
        if (WIFSIGNALED(status)) {
            char what[64];
            snprintf(what, sizeof what, "the process ended by signal %d", WTERMSIG(status));
            tell(results, paths[at], "wrong", WTERMSIG(status) == SIGALRM ? "it does not come back" : what);
            fprintf(stderr, "%s: %s\n", paths[at], what);
            at++;
            wrong++;
        } else if (at == before) {
            tell(results, paths[at], "wrong", "the process ended");
            at++;
            wrong++;
        }
    }
    printf("%d of %d cases are right\n", count - wrong, count);
    return wrong ? WRONG : 0;
}
