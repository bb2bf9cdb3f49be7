/* Waiting for another thread. Passes are short and follow each other closely, so a waiter first looks on for a while, which
 * is the quickest where every thread has a CPU. Where other programs want the CPUs too, looking on uses up the time that the
 * thread waited for needs, and a sleeper is woken sooner than a busy thread gets its turn. So patience adapts: in vain, it
 * halves; rewarded, it grows slowly. (Giving way with sched_yield was tried: it waits for whole time slices of others.) */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

/* In pauses, of 10 to 50 ns each. */
enum { LEAST_PATIENCE = 32, MOST_PATIENCE = 4096 };

static void futex(moec_signal *signal, int operation, uint32_t value) {
    syscall(SYS_futex, &signal->value, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

void moec_signal_init(moec_signal *signal) {
    atomic_init(&signal->value, 0);
    atomic_init(&signal->sleepers, 0);
    atomic_init(&signal->patience, MOST_PATIENCE);
}

/* Whether the value changed while we looked on. */
static bool look_on(moec_signal *signal, uint32_t old) {
    int32_t patience = atomic_load_explicit(&signal->patience, memory_order_relaxed);
    for (int32_t i = 0; i < patience; i++) {
        if (atomic_load_explicit(&signal->value, memory_order_acquire) != old) {
            int32_t more = patience + patience / 16 + 1;
            if (patience < MOST_PATIENCE) atomic_store_explicit(&signal->patience, more, memory_order_relaxed);
            return true;
        }
        __builtin_ia32_pause();
    }
    if (patience > LEAST_PATIENCE) atomic_store_explicit(&signal->patience, patience / 2, memory_order_relaxed);
    return false;
}

void moec_signal_wait(moec_signal *signal, uint32_t old) {
    if (look_on(signal, old)) return;
    /* All sequentially consistent: either the raiser sees a sleeper, or the sleeper sees the new value. */
    atomic_fetch_add(&signal->sleepers, 1);
    while (atomic_load(&signal->value) == old) futex(signal, FUTEX_WAIT, old);
    atomic_fetch_sub(&signal->sleepers, 1);
}

void moec_signal_raise(moec_signal *signal) {
    atomic_fetch_add(&signal->value, 1);
    if (atomic_load(&signal->sleepers) > 0) futex(signal, FUTEX_WAKE, INT_MAX);
}
