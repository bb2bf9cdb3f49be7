/* A case as crates/moec-cuda/tests/conformance/pack.rs writes it: a plan's image, weights and what passes take and must give; or
 * an image alone, with what its weights are filled with. Words of 64 bits, little-endian; a blob is its length in bytes, and its
 * bytes up to a multiple of 8. */
#ifndef GPU_CASE_H
#define GPU_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/runtime/cuda/cuda.h"

enum { CASE_VERSION = 1, MOST_PORTS = 32 };

typedef struct blob {
    const void *at;
    size_t bytes;
} blob;

/* A part of the weights that is filled with numbers: `reach` times what is uniform from -1 to 1. */
typedef struct fill {
    int64_t offset, bytes;
    int64_t dtype; /* MOEC_F32, MOEC_BF16 */
    double reach;
} fill;

typedef struct route {
    int64_t route; /* -1: any */
    blob indices, weights;
} route;

typedef struct pass_case {
    int64_t sequence, tokens, first_output;
    blob inputs[MOST_PORTS];
    blob expected[MOST_PORTS]; /* f64; NaN where nothing may be written */
    int64_t route_count;
    route *routes;
} pass_case;

typedef struct gpu_case {
    char name[128];
    double tolerance; /* |found - wanted| <= tolerance * max(1, |wanted|) */
    int64_t chunk, capacity;
    moec_description description;
    moec_port inputs[MOST_PORTS], outputs[MOST_PORTS];
    blob image, weights;
    int64_t fill_count;
    fill *fills;
    int64_t pass_count;
    pass_case *passes;
    void *mapped;
    size_t mapped_bytes;
} gpu_case;

/* False, with a sentence on standard error, where the file is no case. */
bool case_read(const char *path, gpu_case *to);
void case_free(gpu_case *of);

#endif
