/* A balanced assignment of tokens to experts, of the largest total score.
 *
 * One token after the other enters by the cheapest chain of moves: it takes a place of some expert, a token of that expert one
 * of another, and so on until there is room (successive shortest paths, by Bellman and Ford). Costs are whole numbers, so that
 * no rounding decides. Among equals the lowest token moves, and the chain found first, from the lowest expert on, stays. The
 * oracle states the same rule; the plan's interpreter too. */
#include <math.h>
#include <string.h>

#include "moec_pass.h"

/* Costs add up along chains, and leave one token without an expert only where nothing else does. */
__extension__ typedef __int128 moec_cost;

static const double UNIT = 1073741824.0; /* of a score of 1: 2^30 */
static const moec_cost NEVER = (moec_cost)1 << 120;
static const moec_cost NO_EXPERT = (moec_cost)1 << 90;

/* All that is remembered of the tokens so far; `places` is one more than there are experts: the last has room for all. */
typedef struct moec_assignment {
    const float *score;
    int32_t *of; /* by token: its place */
    int64_t experts, places;
    moec_cost *move;     /* [places, places]: what the cheapest move from one to another costs */
    moec_cost *best;     /* [places]: what the cheapest chain that fills it costs */
    int64_t *mover;      /* [places, places]: the token of that move */
    int64_t *load;       /* [places] */
    int64_t *from;       /* [places]: where the chain comes from, or -1 */
} moec_assignment;

static moec_cost cost(const moec_assignment *all, int64_t token, int64_t place) {
    if (place == all->experts) return NO_EXPERT;
    float score = all->score[token * all->experts + place];
    double bounded = isnan(score) ? -1e9 : fmin(fmax((double)score, -1e9), 1e9);
    return -(moec_cost)(int64_t)rint(bounded * UNIT);
}

/* The cheapest moves away from a place, among the first tokens. */
static void find_moves(moec_assignment *all, int64_t from, int64_t tokens) {
    moec_cost *move = all->move + from * all->places;
    for (int64_t to = 0; to < all->places; to++) move[to] = NEVER;
    for (int64_t token = 0; token < tokens; token++) {
        if (all->of[token] != from) continue;
        moec_cost here = cost(all, token, from);
        for (int64_t to = 0; to < all->places; to++) {
            if (to == from) continue;
            moec_cost change = cost(all, token, to) - here;
            if (change >= move[to]) continue;
            move[to] = change;
            all->mover[from * all->places + to] = token;
        }
    }
}

/* The cheapest chain for a token to each place. */
static void find_chains(moec_assignment *all, int64_t token) {
    for (int64_t place = 0; place < all->places; place++) {
        all->best[place] = cost(all, token, place);
        all->from[place] = -1;
    }
    int shorter = 1;
    for (int64_t round = 1; shorter && round < all->places; round++) {
        shorter = 0;
        for (int64_t at = 0; at < all->places; at++) {
            for (int64_t to = 0; to < all->places; to++) {
                moec_cost move = all->move[at * all->places + to];
                if (to == at || move == NEVER || all->best[at] + move >= all->best[to]) continue;
                all->best[to] = all->best[at] + move;
                all->from[to] = at;
                shorter = 1;
            }
        }
    }
}

void moec_assign(const float *score, int32_t *out, int64_t tokens, int64_t experts, int64_t most, void *room) {
    moec_assignment all = {.score = score, .of = out, .experts = experts, .places = experts + 1};
    int64_t square = all.places * all.places;
    all.move = room;
    all.best = all.move + square;
    all.mover = (int64_t *)(all.best + all.places);
    all.load = all.mover + square;
    all.from = all.load + all.places;
    memset(all.load, 0, (size_t)all.places * sizeof *all.load);
    for (int64_t at = 0; at < square; at++) all.move[at] = NEVER;
    for (int64_t token = 0; token < tokens; token++) {
        find_chains(&all, token);
        int64_t at = experts;
        for (int64_t place = experts - 1; place >= 0; place--)
            if (all.load[place] < most && all.best[place] <= all.best[at]) at = place;
        all.load[at]++;
        /* What moves is known before anything does; then the moves of all places on the chain are others. */
        int64_t end = at, before;
        for (; (before = all.from[at]) >= 0; at = before) out[all.mover[before * all.places + at]] = (int32_t)at;
        out[token] = (int32_t)at;
        for (at = end; at >= 0; at = all.from[at]) find_moves(&all, at, token + 1);
    }
    for (int64_t token = 0; token < tokens; token++)
        if (out[token] == experts) out[token] = -1;
}
