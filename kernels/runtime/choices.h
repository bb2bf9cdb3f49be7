/* Which experts a run chose, for the self-test. */
#ifndef MOEC_CHOICES_H
#define MOEC_CHOICES_H

#include "internal.h"

/* One route of one layer: [tokens, choices]. */
typedef struct moec_chosen {
    int32_t route;
    int32_t rank;
    int64_t choices;
    int32_t *indices;
    float *weights;
} moec_chosen;

/* All of a sequence's, however it was cut into passes. */
typedef struct moec_choices {
    const moec_session *session;
    int64_t tokens;
    int64_t position; /* of the pass that is being recorded; -1 before the first */
    int32_t next;     /* the route that comes next in this pass */
    int32_t count;
    moec_chosen *chosen;
    bool failed; /* out of memory */
} moec_choices;

/* A moec_trace_function whose user is a moec_choices. */
void moec_choices_record(void *user, int32_t route, int32_t rank, const int32_t *indices, const float *weights,
    int64_t tokens, int64_t choices);
void moec_choices_free(moec_choices *choices);

/* Compares choices in the order in which they were made. Two levels round differently, so a choice between two experts that
 * are as good as equal may differ rightly; nothing that follows can be compared then. `*comparable`: how many positions,
 * from the first, are not affected by such a thing. */
int moec_choices_compare(const moec_choices *expected, const moec_choices *found, bool whole_pass, int64_t *comparable,
    const char *what, moec_error **error);

#endif
