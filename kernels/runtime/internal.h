/* What the files of the run time share. Every symbol is hidden, and within the limits of libc, libm and pthread. */
#ifndef MOEC_INTERNAL_H
#define MOEC_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "device.h"
#include "moec.h"

/* ---- error.c */

/* Makes an error (where `error` is not NULL) and returns its code. */
__attribute__((format(printf, 3, 4))) int moec_fail(moec_error **error, int code, const char *format, ...);

/* *error = NULL: how every call begins. */
void moec_no_error(moec_error **error);

/* ---- checksum.c */

uint64_t moec_xxh64(const void *data, size_t bytes);

/* ---- memory.c */

/* Zeroed memory, 64-byte aligned. */
typedef struct moec_block {
    char *at;
    void *raw;
} moec_block;

/* False when there is no memory, or `count * bytes` overflows. Asking for nothing gives an address all the same. */
bool moec_block_new(moec_block *block, size_t count, size_t bytes);
void moec_block_free(moec_block *block);

/* ---- cpu.c */

/* The MOEC_CPU_… that this machine and its operating system support. */
int32_t moec_cpu_features(void);
/* Whether this process may use all of `needs`, which the CPU has. Of some the operating system must be asked first. */
bool moec_cpu_allows(int32_t needs);
int moec_cpu_count(void);

/* ---- wait.c */

/* A number that threads wait upon. */
typedef struct moec_signal {
    _Atomic uint32_t value;
    _Atomic int32_t sleepers;
    _Atomic int32_t patience; /* how often a waiter looks before it sleeps; a guess, so nobody minds a lost update */
} moec_signal;

void moec_signal_init(moec_signal *signal);
/* Returns once the value is no longer `old`. */
void moec_signal_wait(moec_signal *signal, uint32_t old);
/* Adds one, and wakes whoever waits. What this thread wrote before is seen by those who return. */
void moec_signal_raise(moec_signal *signal);

/* ---- team.c */

/* Those who meet at a barrier. */
typedef struct moec_team {
    _Alignas(64) _Atomic int32_t arrived;
    _Alignas(64) moec_signal left;
    int32_t threads;
} moec_team;

void moec_team_init(moec_team *team, int32_t threads);

/* ---- pool.c */

typedef struct moec_pool moec_pool;

/* Up to `threads - 1` workers: fewer where the system does not give so many. NULL when there is no memory. */
moec_pool *moec_pool_new(int threads);
void moec_pool_free(moec_pool *pool);
/* Whether the pool's workers are threads of this process: not so after a fork. */
bool moec_pool_is_ours(const moec_pool *pool);
/* Runs a pass on the caller and on workers, `threads` in all or as many as there are. One call at a time. */
void moec_pool_run(moec_pool *pool, moec_pass_function *function, moec_pass *pass, int threads);
/* Runs a pass on the caller alone. */
void moec_run_alone(moec_pass_function *function, moec_pass *pass);

/* ---- tempo.c */

/* How long a pass of one position takes, with one thread and with all; 0 while unknown. */
typedef struct moec_tempo {
    int64_t alone_ns;
    int64_t team_ns;
    int64_t until_trial;
} moec_tempo;

int64_t moec_now_ns(void);
/* Whether the next short pass had better be run by one thread. */
bool moec_tempo_alone(moec_tempo *tempo);
void moec_tempo_note(moec_tempo *tempo, bool alone, int64_t ns);

/* ---- weights.c */

/* A mapped weight file. */
typedef struct moec_weights {
    void *map;
    size_t map_bytes;
    const char *data;
} moec_weights;

int moec_weights_open(moec_weights *weights, const moec_description *description, const char *path, int32_t verify,
    moec_error **error);
void moec_weights_close(moec_weights *weights);

/* ---- room.c */

/* What a pass needs besides weights and sessions. */
typedef struct moec_room {
    int64_t chunk; /* the most tokens of a pass in it */
    moec_block workspace;
    moec_block scratch;
    moec_block *staging; /* for each output: where rows go that nobody asked for, or not there; made when first needed */
    void **inputs;       /* addresses for one pass */
    void **outputs;
    int32_t *ids;          /* the rest: of each row */
    int64_t *positions;
    char *const **pages;
    moec_segment *segments;
    void *on_device; /* what the device needs for a pass in it; made when first needed */
} moec_room;

/* As many calls at once keep their rooms. */
enum { MOEC_ROOMS = 8 };

/* For passes of up to `chunk` tokens, on as many threads as the model has; it must be given back. NULL: no memory. */
moec_room *moec_room_take(moec_open_model *model, int64_t chunk);
void moec_room_give(moec_open_model *model, moec_room *room);
void moec_rooms_free(moec_open_model *model);

/* ---- choose.c */

/* The level asked for, or the best that this CPU can run. */
int moec_choose_level(const moec_description *description, int32_t wanted, const moec_level_entry **level,
    moec_error **error);

/* What the options say, or else, where there is a choice, the environment; AUTO where nobody says it. */
int moec_choose_device(const moec_description *description, const moec_options *options, int32_t *device,
    moec_error **error);

/* Opens the model's device, from its weights. A failure says how to do without. */
int moec_open_device(moec_open_model *model, moec_error **error);

/* ---- model.c */

struct moec_open_model {
    const moec_description *description;
    const moec_level_entry *level; /* NULL where a device runs the passes */
    const moec_device_calls *calls; /* NULL where this CPU does */
    void *device;
    moec_weights weights;
    int threads;
    _Atomic int64_t references; /* the caller's handle, and each session */
    atomic_flag pool_busy;      /* held by whoever runs a pass on the pool, or makes it */
    moec_pool *pool;            /* made by the first pass of more than one thread */
    moec_tempo tempo;           /* of whoever holds the pool, likewise */
    _Atomic(moec_room *) rooms[MOEC_ROOMS];
    int64_t most_pages;     /* of all sessions' caches */
    _Atomic int64_t pages; /* in use or reserved */
};

void moec_model_release(moec_open_model *model);

/* ---- pages.c */

/* MOEC_PAGE positions of all caches, of one session or of several. */
typedef struct moec_page moec_page;

/* How many pages fit into so many MiB; 0 MiB is no limit. */
int64_t moec_most_pages(const moec_description *description, int32_t cache_mib);

/* A session's tables, without a page. False: no memory. */
bool moec_pages_new(moec_session *session);
/* How many pages it must get before it may write positions from .. to. */
int64_t moec_pages_missing(const moec_session *session, int64_t from, int64_t to);
/* Sets so many aside, or fails with MOEC_CACHE_FULL. */
int moec_pages_reserve(moec_open_model *model, int64_t count, moec_error **error);
void moec_pages_give_back(moec_open_model *model, int64_t count);
/* Gets those that are missing, of those reserved. */
int moec_pages_take(moec_session *session, int64_t from, int64_t to, int64_t *reserved, moec_error **error);
/* A new session shares the pages of another's first positions. */
void moec_pages_share(moec_session *session, const moec_session *from, int64_t positions);
void moec_pages_release(moec_session *session);

/* ---- session.c */

struct moec_session {
    moec_open_model *model;
    moec_pass_function *const *passes; /* NULL where it is on the model's device */
    int threads;
    bool all_threads; /* whether or not that is quicker */
    int64_t max_tokens;
    int64_t chunk; /* the most tokens of one pass */
    _Atomic int64_t positions[MOEC_MOST_SEQUENCES];
    int64_t pasts[MOEC_MOST_SEQUENCES]; /* the same, before the pass that runs */
    atomic_flag busy;
    moec_page **pages; /* for each MOEC_PAGE positions; NULL where there are no caches, or no page yet */
    char **page_at;    /* their addresses */
    moec_block states; /* there, too, where it is on a device */
    void **bound; /* addresses of a call's inputs, then outputs */
    moec_trace_function trace;
    void *trace_user;
};

/* A session that runs `level` on up to `threads` threads; NULL: on the model's device. */
int moec_session_make(moec_open_model *model, const moec_level_entry *level, int threads, size_t max_tokens,
    moec_session **session, moec_error **error);

/* Takes the session for this call; fails where another has it. */
int moec_session_enter(moec_session *session, moec_error **error);
void moec_session_leave(moec_session *session);

/* ---- ports.c */

/* Finds the tensor of each port and checks everything about it: name, type, shape, address. `tokens` are the numbers of
 * positions of each sequence: found from the first tensor that has them where it is -1 before (and still -1 where none has).
 * `bound` has a place for each port; it becomes NULL for an output that is not given, and for inputs of a sequence of which
 * none is given, where the model has several. */
int moec_bind(const moec_description *description, bool output, const moec_tensor *tensors, size_t count,
    int64_t *tokens, void **bound, moec_error **error);

/* Whether all values of an input of `tokens` positions are ones that it may have. */
int moec_check_values(const moec_port *port, const void *data, int64_t tokens, moec_error **error);

/* ---- run.c */

/* The first input along a sequence, or -1. */
int32_t moec_input_along(const moec_description *description, int32_t sequence);

/* ---- passes.c */

/* Appends `tokens` checked positions to a sequence. `inputs[i]` is row 0 of input i, if that is one of its inputs;
 * `outputs[i]` is where row `first_output` of output i goes, or NULL where it is not wanted. Fails, having done nothing,
 * where there is not enough room. */
int moec_append(moec_session *session, int32_t sequence, void *const *inputs, void *const *outputs, int64_t tokens,
    int64_t first_output, moec_error **error);

/* Whether a session has so many positions left along a sequence. */
int moec_check_room(const moec_session *session, int32_t sequence, int64_t tokens, moec_error **error);

/* The next rows of a pass: `tokens` new positions of a session, after what it has. Gives their segment. */
const moec_segment *moec_add_segment(moec_room *room, int64_t *segments, moec_session *session, int32_t sequence,
    int64_t tokens);

/* How a pass is run. */
typedef struct moec_run_by {
    moec_open_model *model;
    moec_room *room;
    int32_t sequence;
    moec_pass_function *function; /* NULL: on the model's device */
    int threads;
    bool all_threads; /* whether or not that is quicker */
    bool is_usual;    /* of sequence 0, so that its time says something of others */
} moec_run_by;

/* Fails only where a device does. */
int moec_run_pass(moec_run_by by, moec_pass *pass, moec_error **error);

/* The function of a pass of the session along a sequence; NULL where it is on the model's device. */
moec_pass_function *moec_pass_function_of(const moec_session *session, int32_t sequence);

/* A pass over the room's segments: inputs, outputs and the trace are the caller's to add. */
moec_pass moec_pass_of(const moec_open_model *model, const moec_room *room, int64_t segments, int64_t first_output);

/* Where rows of an output go that the caller has no place for: row 0 of a whole pass. NULL: no memory. */
char *moec_stage(moec_room *room, const moec_description *description, int32_t output);

#endif
