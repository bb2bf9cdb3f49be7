/* Waiting for another thread. Passes are short and follow each other closely, so a waiter first looks for a while; then it
 * gives way, for there may be more threads than CPUs; then it sleeps, for the next pass may be far off. */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

enum { YIELDS = 32 };

static void futex(moec_signal *signal, int operation, uint32_t value) {
    syscall(SYS_futex, &signal->value, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

void moec_signal_wait(moec_signal *signal, uint32_t old, int spins) {
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(&signal->value, memory_order_acquire) != old) return;
        __builtin_ia32_pause();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (atomic_load_explicit(&signal->value, memory_order_acquire) != old) return;
        sched_yield();
    }
    /* All sequentially consistent: either the raiser sees a sleeper, or the sleeper sees the new value. */
    atomic_fetch_add(&signal->sleepers, 1);
    while (atomic_load(&signal->value) == old) futex(signal, FUTEX_WAIT, old);
    atomic_fetch_sub(&signal->sleepers, 1);
}

void moec_signal_raise(moec_signal *signal) {
    atomic_fetch_add(&signal->value, 1);
    if (atomic_load(&signal->sleepers) > 0) futex(signal, FUTEX_WAKE, INT_MAX);
}
