/* The barrier. The last to come resets the count before it lets the others go, so it can be used again at once. */
#include "internal.h"

void moec_team_init(moec_team *team, int32_t threads) {
    atomic_init(&team->arrived, 0);
    moec_signal_init(&team->left);
    team->threads = threads;
}

void moec_barrier(struct moec_team *team) {
    if (team->threads == 1) return;
    uint32_t round = atomic_load_explicit(&team->left.value, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 < team->threads) {
        moec_signal_wait(&team->left, round);
        return;
    }
    atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
    moec_signal_raise(&team->left);
}
