/* What the files of the device's run time share: an opened model on a GPU, and the image that says what it launches. */
#ifndef MOEC_CUDA_INTERNAL_H
#define MOEC_CUDA_INTERNAL_H

#include "cuda.h"
#include "driver.h"

/* ---- the image: 64-bit words, then names and code (crates/moec-cuda/src/image.rs) */

/* What a number of rows is; the numbers are those of the image. */
enum { ROWS_FIXED = 0, ROWS_TOKENS = 1, ROWS_OUTPUTS = 2, ROWS_SHARE = 3 };
/* What several sessions are to a launch: nothing; tiles begin anew with each; the rows are there for each. */
enum { SESSIONS_ALIKE = 0, SESSIONS_APART = 1, SESSIONS_EACH = 2 };
/* Where what an observer is told lies. */
enum { PLACE_WORKSPACE = 0, PLACE_STATE = 1, PLACE_INPUT = 2, PLACE_OUTPUT = 3 };

typedef struct image_header {
    char magic[8];
    int64_t version, kernels, ways, launches, sequences, scratch_bytes, machine_code, portable_code, bytes;
} image_header;

typedef struct kernel_words {
    int64_t name;   /* where it stands in the image */
    int64_t hopper; /* not 0: it is in machine code only */
} kernel_words;

typedef struct way_words {
    int64_t least, most, of_session; /* rows that it is taken for: in all, or of a session on average */
    int64_t kernel, kernels;         /* its first, and how many are launched one behind the other */
} way_words;

typedef struct place {
    int64_t kind, number, more; /* workspace: bytes for each token of the chunk, and more; state: from, and to the next instance */
} place;

typedef struct launch_words {
    int64_t kind, times, per, up, each, sessions; /* what blocks are counted from */
    int64_t way, ways;
    int64_t route, choices; /* of a bin; else -1 */
    place indices, weights;
} launch_words;

typedef struct run_list {
    int64_t first, count; /* executions, by their number among all */
} run_list;

typedef struct execution {
    int64_t launch, rank;
} execution;

/* ---- an opened model */

enum { SHAPE_THREADS, SHAPE_ROWS, SHAPE_MORE, SHAPE_TIMES, SHAPE_SHARED_BYTES, SHAPE_MOST, SHAPE_WORDS };

typedef struct kernel {
    moec_cu_function function; /* NULL: the part does not have it */
    int32_t shape[SHAPE_WORDS];
} kernel;

struct moec_cuda {
    moec_cu driver;
    const moec_description *description;
    const image_header *image;
    const kernel_words *names;
    const way_words *ways;
    const launch_words *launches;
    const run_list *lists;
    const execution *executions;
    moec_cu_device device;
    moec_cu_context context;
    moec_cu_module module;
    kernel *kernels;
    moec_cu_address weights;
    bool retained;
};

/* An error of the driver's, in its own words. */
int moec_cuda_failed(const moec_cu *driver, moec_cu_result result, const char *doing, moec_error **error);

/* count * each + more bytes, and never none. */
moec_cu_result moec_cuda_allocate(const moec_cu *driver, moec_cu_address *at, int64_t count, int64_t each, int64_t more);

#endif
