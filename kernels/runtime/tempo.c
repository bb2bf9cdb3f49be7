/* One thread or all of them, for the short passes of a decoder? A small model's pass is over in less time than threads take
 * to meet at every step, the more so where other programs want the CPUs. That cannot be known beforehand, so it is measured:
 * both ways give the same numbers. */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include "internal.h"

/* A pass that takes longer with all threads has enough work for them. It also bounds what a trial of one thread costs. */
static const int64_t SHORT_NS = 4000000;

/* So many passes, times how much slower the other way was, lie between trials: they cost about 3 %. */
enum { TRIAL_EVERY = 32 };

int64_t moec_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool moec_tempo_alone(moec_tempo *tempo) {
    if (!tempo->team_ns || tempo->team_ns > SHORT_NS) return false;
    if (!tempo->alone_ns) return true;
    bool alone = tempo->alone_ns < tempo->team_ns;
    if (tempo->until_trial-- > 0) return alone;
    int64_t better = alone ? tempo->alone_ns : tempo->team_ns, worse = alone ? tempo->team_ns : tempo->alone_ns;
    tempo->until_trial = TRIAL_EVERY * worse / (better + 1);
    return !alone;
}

/* Quick to believe a better time, slow to believe a worse one: that may be another program's doing. */
static int64_t smoothed(int64_t before, int64_t now) {
    if (!before) return now;
    if (now < before) return (before + now) / 2;
    return before + (now < 2 * before ? now - before : before) / 8;
}

void moec_tempo_note(moec_tempo *tempo, bool alone, int64_t ns) {
    int64_t *kept = alone ? &tempo->alone_ns : &tempo->team_ns;
    *kept = smoothed(*kept, ns);
}
