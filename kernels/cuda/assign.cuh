// A balanced assignment of tokens to experts, of the largest total score: the same rule, step by step, as kernels/runtime/assign.c
// has for CPUs. One token enters after the other, so that one thread does it; meant for few tokens.
//
// Spec: EXPERTS; tokens(pass), most(pass); score(pass, rank) [tokens, EXPERTS], out(pass, rank) [tokens],
// room(pass, rank), Assign::room_elements(EXPERTS) i32, aligned to 16 bytes.

namespace moec {

typedef __int128 Cost;

template <class Spec>
struct Assign {
  static constexpr int THREADS = 32, ROWS = 0, MORE = 1, TIMES = 1, SHARED_BYTES = 0;
  static constexpr i64 PLACES = Spec::EXPERTS + 1;  // the last has room for all

  const float *score;
  int *of;       // by token: its place
  Cost *move;    // [PLACES, PLACES]: what the cheapest move from one to another costs
  Cost *best;    // [PLACES]: what the cheapest chain that fills it costs
  i64 *mover;    // [PLACES, PLACES]: the token of that move
  i64 *load;     // [PLACES]
  i64 *from;     // [PLACES]: where the chain comes from, or -1

  static MOEC_DEVICE Cost never() { return (Cost)1 << 120; }

  MOEC_DEVICE Cost cost(i64 token, i64 place) const {
    if (place == Spec::EXPERTS) return (Cost)1 << 90;
    float found = score[token * Spec::EXPERTS + place];
    double bounded = found != found ? -1e9 : found < -1e9f ? -1e9 : found > 1e9f ? 1e9 : (double)found;
    return -(Cost)(i64)rint(bounded * 1073741824.0);  // in units of 2^-30
  }

  // The cheapest moves away from a place, among the first tokens.
  MOEC_DEVICE void find_moves(i64 away, i64 tokens) const {
    Cost *moves = move + away * PLACES;
    for (i64 to = 0; to < PLACES; to++) moves[to] = never();
    for (i64 token = 0; token < tokens; token++) {
      if (of[token] != away) continue;
      Cost here = cost(token, away);
      for (i64 to = 0; to < PLACES; to++) {
        if (to == away) continue;
        Cost change = cost(token, to) - here;
        if (change >= moves[to]) continue;
        moves[to] = change;
        mover[away * PLACES + to] = token;
      }
    }
  }

  // The cheapest chain for a token to each place.
  MOEC_DEVICE void find_chains(i64 token) const {
    for (i64 place = 0; place < PLACES; place++) {
      best[place] = cost(token, place);
      from[place] = -1;
    }
    bool shorter = true;
    for (i64 round = 1; shorter && round < PLACES; round++) {
      shorter = false;
      for (i64 at = 0; at < PLACES; at++) {
        for (i64 to = 0; to < PLACES; to++) {
          Cost change = move[at * PLACES + to];
          if (to == at || change == never() || best[at] + change >= best[to]) continue;
          best[to] = best[at] + change;
          from[to] = at;
          shorter = true;
        }
      }
    }
  }

  static MOEC_DEVICE void run(const Pass &pass, int rank) {
    if (thread() != 0) return;
    Assign all;
    all.score = Spec::score(pass, rank);
    all.of = Spec::out(pass, rank);
    all.move = (Cost *)Spec::room(pass, rank);
    all.best = all.move + PLACES * PLACES;
    all.mover = (i64 *)(all.best + PLACES);
    all.load = all.mover + PLACES * PLACES;
    all.from = all.load + PLACES;
    for (i64 at = 0; at < PLACES; at++) all.load[at] = 0;
    for (i64 at = 0; at < PLACES * PLACES; at++) all.move[at] = never();
    i64 tokens = Spec::tokens(pass), most = Spec::most(pass);
    for (i64 token = 0; token < tokens; token++) {
      all.find_chains(token);
      i64 at = Spec::EXPERTS;
      for (i64 place = Spec::EXPERTS - 1; place >= 0; place--)
        if (all.load[place] < most && all.best[place] <= all.best[at]) at = place;
      all.load[at]++;
      // What moves is known before anything does; then the moves of all places on the chain are others.
      i64 end = at, before;
      for (; (before = all.from[at]) >= 0; at = before) all.of[all.mover[before * PLACES + at]] = (int)at;
      all.of[token] = (int)at;
      for (at = end; at >= 0; at = all.from[at]) all.find_moves(at, token + 1);
    }
    for (i64 token = 0; token < tokens; token++)
      if (all.of[token] == Spec::EXPERTS) all.of[token] = -1;
  }
};

}  // namespace moec
