/* What generated code and the run time say to each other: one pass over new positions of one sequence, or of several
 * sessions that step together.
 *
 * A pass function is entered by every thread of a team at once and runs the plan's steps in order (single program, many
 * threads): each thread takes its share of a step from `thread` and `threads` alone, and meets the others at
 * `moec_barrier` where the plan says so. Results do not depend on the number of threads. */
#ifndef MOEC_PASS_H
#define MOEC_PASS_H

#include <stdint.h>

struct moec_team;

/* Positions of a page of the caches. A page has this many positions of every cache of every layer; within it, instance i of a
 * cache starts at (per_position + i * row bytes) * MOEC_PAGE. Known to the code generator (moec_plan::PAGE). */
enum { MOEC_PAGE = 128 };

/* Field order and sizes of both are known to the code generator (crates/moec-cpu): change them together. */

/* One session's rows of a pass. */
typedef struct moec_segment {
    int64_t first;        /* the row of its first new position */
    int64_t tokens;       /* its new positions, at least 1 */
    int64_t past;         /* positions before them */
    char *states;         /* 64-byte aligned; Plan::state_bytes */
    char *const *pages;   /* of its caches, each 64-byte aligned: position p is in pages[p / MOEC_PAGE] */
    const int64_t *pasts; /* positions that each sequence of the model had before this pass */
    const void *session;  /* the run time's own */
} moec_segment;

typedef struct moec_pass {
    int64_t tokens;       /* rows: new positions in this pass, at least 1 */
    int64_t first_output; /* outputs are wanted for rows first_output .. tokens */
    int64_t chunk;        /* the most tokens a pass with this workspace may have: its offsets scale with it */
    char *workspace;      /* 64-byte aligned; Plan::workspace_bytes */
    const char *weights;  /* 64-byte aligned; the data of the weight file */
    void *const *inputs;  /* row 0 of each input */
    void *const *outputs; /* where row 0 of each output is or would be: rows before first_output are never touched */
    char *scratch;        /* 64-byte aligned; thread t owns scratch_bytes from scratch + t * scratch_bytes */
    int64_t scratch_bytes;
    struct moec_team *team;
    /* Null, or called by thread 0 at every bin: indices and weights are [tokens, choices]. */
    void (*trace)(void *user, int32_t route, int32_t rank, const int32_t *indices, const float *weights, int64_t tokens,
                  int64_t choices);
    void *trace_user;
    const int64_t *positions;  /* of each row, within its sequence */
    char *const *const *pages; /* of each row: those of its session's caches */
    const moec_segment *segments; /* in the order of their rows, which they share out; several only where no position sees
                                     others but by attention and scans */
    int64_t segment_count;
} moec_pass;

typedef void moec_pass_function(const moec_pass *pass, int32_t thread, int32_t threads);

/* All threads of the team have come here. A no-op for a team of one. */
void moec_barrier(struct moec_team *team);

/* Every token to one expert, no expert more than `most`, so that the scores [tokens, experts] add up to as much as can be; -1
 * for those that find no place. `room`: 24 (experts + 1)^2 + 32 (experts + 1) bytes, aligned to 16. Called by one thread. */
void moec_assign(const float *score, int32_t *out, int64_t tokens, int64_t experts, int64_t most, void *room);

#endif
