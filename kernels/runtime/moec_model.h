/* What a compiled model says of itself to the run time: one constant, emitted beside its pass functions.
 *
 * Field order and sizes are known to the code generator (crates/moec-cpu/src/entry.rs): change both together. */
#ifndef MOEC_MODEL_H
#define MOEC_MODEL_H

#include <stdint.h>

#include "moec_pass.h"

/* What a CPU must be able to do before a level may run; zero for none. */
enum {
    MOEC_CPU_X86_64_V3 = 1, /* AVX2, FMA, BMI, F16C, and an operating system that saves the registers */
    MOEC_CPU_X86_64_V4 = 2, /* AVX-512 F, BW, CD, DQ, VL, likewise */
    MOEC_CPU_AVX512_DOT = 4, /* AVX-512 BF16 and VNNI */
    MOEC_CPU_AMX = 8         /* AMX TILE, BF16 and INT8, and an operating system that knows of them: moec_cpu_allows asks it */
};

/* Which rows an input or output has. */
enum {
    MOEC_ROWS_ONE = 0,    /* one, whatever the pass */
    MOEC_ROWS_TOKENS = 1, /* one for each new position; all are written */
    MOEC_ROWS_OUTPUTS = 2 /* one for each new position; only rows first_output .. tokens are written */
};

typedef struct moec_axis {
    const char *name;
    int64_t size;
} moec_axis;

/* An input or output. */
typedef struct moec_port {
    const char *name;
    const moec_axis *axes; /* of one row */
    int64_t row_elements;
    int64_t row_bytes;
    int64_t index_limit; /* elements must be in 0 .. index_limit; -1: any value */
    int32_t axis_count;
    int32_t dtype; /* MOEC_F32 and so on, see moec.h */
    int32_t rows;
    int32_t sequence; /* whose positions they are */
} moec_port;

/* The most sequences of a model. */
enum { MOEC_MOST_SEQUENCES = 4 };

/* The passes, compiled for one kind of CPU. */
typedef struct moec_level_entry {
    const char *name;
    moec_pass_function *const *passes; /* one along each sequence */
    int32_t number; /* MOEC_LEVEL_SCALAR and so on, see moec.h */
    int32_t needs;  /* MOEC_CPU_… or-ed together */
} moec_level_entry;

typedef struct moec_device_calls moec_device_calls;

/* Kernels for something else than this CPU, and what runs them (device.h). */
typedef struct moec_device_entry {
    const moec_device_calls *calls;
    const void *image; /* 64-byte aligned */
    int64_t image_bytes;
} moec_device_entry;

typedef struct moec_description {
    const char *name;
    const char *version;
    uint64_t fingerprint; /* of the packed weights that fit */
    int64_t weight_bytes;
    int64_t workspace_bytes_per_token; /* of the longest pass */
    int64_t workspace_bytes_fixed;
    int64_t cache_bytes_per_position;
    int64_t state_bytes; /* of a session, whatever its positions */
    int64_t scratch_bytes; /* for each thread; a multiple of 64 */
    /* Of a pass along each sequence: so many are chosen of its positions; at most 1 where none are. */
    int64_t least_tokens[MOEC_MOST_SEQUENCES];
    const moec_level_entry *levels; /* the plainest first; the first needs nothing special; none where there is a device only */
    const moec_port *inputs;
    const moec_port *outputs;
    int32_t level_count;
    int32_t input_count;
    int32_t output_count;
    int32_t whole_pass; /* not 0: earlier positions see later ones, so an input cannot be cut into several passes */
    int32_t sequence_count; /* at least 1; number 0 is that of the outputs, the others are what it reads */
    int32_t row_bits;       /* significant bits that rows are rounded to before they are multiplied; 24 where they are not */
    const moec_device_entry *device; /* NULL: none, this is a library for CPUs */
} moec_description;

#endif
