/* The threads of a model. Workers wait for a pass, run their share of it, and wait again. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

struct moec_pool {
    moec_team team; /* those who run the pass */
    moec_team crew; /* the caller and all workers, at the end of every pass */
    moec_signal start;
    moec_pass_function *function;
    moec_pass *pass;
    bool stop;
    int workers;
    pid_t process;
    struct worker {
        moec_pool *pool;
        pthread_t thread;
        int32_t number;
    } worker[];
};

/* Rounding and denormals as IEEE has them, on every thread, whatever the program set for its own: results must not depend
 * on who computes them. */
static void run_share(moec_pass_function *function, const moec_pass *pass, int32_t thread, int32_t threads) {
    enum { DEFAULT_MODE = 0x1F80 };
    unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(DEFAULT_MODE);
    function(pass, thread, threads);
    __builtin_ia32_ldmxcsr(mode);
}

static void *work(void *argument) {
    const struct worker *self = argument;
    moec_pool *pool = self->pool;
    for (uint32_t round = 0;; round++) {
        moec_signal_wait(&pool->start, round);
        if (pool->stop) return NULL;
        if (self->number < pool->team.threads)
            run_share(pool->function, pool->pass, self->number, pool->team.threads);
        moec_barrier(&pool->crew);
    }
}

/* Workers take no signals: those are for the program's own threads. */
static bool start_worker(struct worker *worker) {
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before)) return false;
    int failed = pthread_create(&worker->thread, NULL, work, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

moec_pool *moec_pool_new(int threads) {
    size_t bytes = sizeof(moec_pool) + (size_t)(threads - 1) * sizeof(struct worker);
    moec_pool *pool = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!pool) return NULL;
    moec_signal_init(&pool->start);
    moec_team_init(&pool->team, 1);
    pool->function = NULL;
    pool->pass = NULL;
    pool->stop = false;
    pool->process = getpid();
    for (pool->workers = 0; pool->workers < threads - 1; pool->workers++) {
        struct worker *worker = &pool->worker[pool->workers];
        worker->pool = pool;
        worker->number = pool->workers + 1;
        if (!start_worker(worker)) break;
    }
    moec_team_init(&pool->crew, pool->workers + 1);
    return pool;
}

void moec_pool_free(moec_pool *pool) {
    if (!pool) return;
    if (moec_pool_is_ours(pool)) {
        pool->stop = true;
        moec_signal_raise(&pool->start);
        for (int i = 0; i < pool->workers; i++) pthread_join(pool->worker[i].thread, NULL);
    }
    free(pool);
}

bool moec_pool_is_ours(const moec_pool *pool) { return pool->process == getpid(); }

void moec_pool_run(moec_pool *pool, moec_pass_function *function, moec_pass *pass, int threads) {
    if (threads > pool->workers + 1) threads = pool->workers + 1;
    pool->function = function;
    pool->pass = pass;
    pool->team.threads = threads;
    pass->team = &pool->team;
    moec_signal_raise(&pool->start);
    run_share(function, pass, 0, threads);
    moec_barrier(&pool->crew);
}

void moec_run_alone(moec_pass_function *function, moec_pass *pass) {
    moec_team team;
    moec_team_init(&team, 1);
    pass->team = &team;
    run_share(function, pass, 0, 1);
}
