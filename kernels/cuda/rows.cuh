// The loops of row programs, one block for a row: what the plan's row operations become. Each is given the loops' sizes and
// functions of the loops' place, and is followed by a barrier.
//
// Deterministic: the order of a sum depends on its length and the number of threads of the kernel, which is fixed.

namespace moec {

// write(i) for all i below count.
template <class Write>
MOEC_DEVICE void each(i64 count, Write write) {
  for (i64 at = thread(); at < count; at += threads()) write(at);
  barrier();
}

struct Sum {
  static MOEC_DEVICE float none(float) { return 0.0f; }
  static MOEC_DEVICE int none(int) { return 0; }
  template <class T>
  static MOEC_DEVICE T both(T x, T y) { return op_add(x, y); }
};

struct Prod {
  static MOEC_DEVICE float none(float) { return 1.0f; }
  static MOEC_DEVICE int none(int) { return 1; }
  template <class T>
  static MOEC_DEVICE T both(T x, T y) { return op_mul(x, y); }
};

struct Max {
  static MOEC_DEVICE float none(float) { return -infinity(); }
  static MOEC_DEVICE int none(int) { return -2147483647 - 1; }
  template <class T>
  static MOEC_DEVICE T both(T x, T y) { return op_max(x, y); }
};

struct Min {
  static MOEC_DEVICE float none(float) { return infinity(); }
  static MOEC_DEVICE int none(int) { return 2147483647; }
  template <class T>
  static MOEC_DEVICE T both(T x, T y) { return op_min(x, y); }
};

struct Any {
  static MOEC_DEVICE bool none(bool) { return false; }
  static MOEC_DEVICE bool both(bool x, bool y) { return x || y; }
};

struct All {
  static MOEC_DEVICE bool none(bool) { return true; }
  static MOEC_DEVICE bool both(bool x, bool y) { return x && y; }
};

// write(i, Op over j of value(i, j)) for all i below kept. Many results: each by one thread. Few, each of many values: by all
// threads together, their parts put together as a tree. `room` has a T for each thread.
template <class Op, class T, class Value, class Write>
MOEC_DEVICE void reduce(i64 kept, i64 over, T *room, Value value, Write write) {
  if (kept >= threads() || over < threads()) {
    for (i64 at = thread(); at < kept; at += threads()) {
      T sum = Op::none(T());
      for (i64 j = 0; j < over; j++) sum = Op::both(sum, value(at, j));
      write(at, sum);
    }
    barrier();
    return;
  }
  for (i64 at = 0; at < kept; at++) {
    T sum = Op::none(T());
    for (i64 j = thread(); j < over; j += threads()) sum = Op::both(sum, value(at, j));
    room[thread()] = sum;
    barrier();
    // The number of threads is a power of two.
    for (int half = threads() / 2; half > 0; half /= 2) {
      if (thread() < half) room[thread()] = Op::both(room[thread()], room[thread() + half]);
      barrier();
    }
    if (thread() == 0) write(at, room[0]);
    barrier();
  }
}

// write(i, j, sum over j' <= j of value(i, j')).
template <class T, class Value, class Write>
MOEC_DEVICE void cumsum(i64 kept, i64 along, Value value, Write write) {
  for (i64 at = thread(); at < kept; at += threads()) {
    T sum = Sum::none(T());
    for (i64 j = 0; j < along; j++) {
      sum = op_add(sum, value(at, j));
      write(at, j, sum);
    }
  }
  barrier();
}

// write(i, n, sum over j, where index(i, j) is n, of value(i, j)) for every n below count, in order of j. Few targets: each looks
// for what is its. Many, where they are T as they stand (IN_PLACE): a warp goes through the values, 32 at a time, of which those
// with one target are summed by one lane; read(i, n) is what was written last.
template <class T, bool IN_PLACE, class Index, class Value, class Read, class Write>
MOEC_DEVICE void scatter_add(i64 kept, i64 over, i64 count, Index index, Value value, Read read_target, Write write) {
  if constexpr (IN_PLACE) {
    if (count >= 128 && over >= 64) {
      for (i64 flat = thread(); flat < kept * count; flat += threads()) write(flat / count, flat % count, Sum::none(T()));
      barrier();
      for (i64 at = warp(); at < kept; at += threads() / 32) {
        for (i64 from = 0; from < over; from += 32) {
          const i64 j = from + lane();
          const int n = j < over ? index(at, j) : -1;
          const T own = j < over ? value(at, j) : Sum::none(T());
          const u32 same = same_lanes(n);
          const bool leads = lowest_bit(same) == lane() && n >= 0 && n < count;
          T sum = leads ? read_target(at, n) : Sum::none(T());
          for (u32 left = same; ballot(left != 0);) {
            T other = shuffle(own, left ? lowest_bit(left) : lane());
            if (left) sum = op_add(sum, other);
            left &= left - 1;
          }
          if (leads) write(at, n, sum);
          warp_barrier();
        }
      }
      barrier();
      return;
    }
  }
  for (i64 flat = thread(); flat < kept * count; flat += threads()) {
    i64 at = flat / count, n = flat % count;
    T sum = Sum::none(T());
    for (i64 j = 0; j < over; j++)
      if (index(at, j) == n) sum = op_add(sum, value(at, j));
    write(at, n, sum);
  }
  barrier();
}

// Whether x at place i comes before y at place j: the larger first, equal ones by place, NaN last.
MOEC_DEVICE bool precedes(float x, i64 i, float y, i64 j) {
  bool no_x = x != x, no_y = y != y;
  if (no_x || no_y) return no_x == no_y ? i < j : no_y;
  return x == y ? i < j : x > y;
}

// A value and its place; the place is -1 where there is none.
struct Ranked {
  float value;
  int at;
};

MOEC_DEVICE bool precedes(const Ranked &x, const Ranked &y) {
  return x.at >= 0 && (y.at < 0 || precedes(x.value, x.at, y.value, y.at));
}

// The one of a warp's, or of a block's, that comes before all others, for each lane.
MOEC_DEVICE Ranked warp_first(Ranked own) {
  for (int distance = 16; distance > 0; distance /= 2) {
    Ranked other = {shuffle_xor(own.value, distance), shuffle_xor(own.at, distance)};
    if (precedes(other, own)) own = other;
  }
  return own;
}
MOEC_DEVICE Ranked block_first(Ranked own) {
  MOEC_SHARED float values[32];
  MOEC_SHARED int places[32];
  own = warp_first(own);
  barrier();
  if (lane() == 0) {
    values[warp()] = own.value;
    places[warp()] = own.at;
  }
  barrier();
  bool is_one = lane() * 32 < threads();
  Ranked of_warp = {is_one ? values[lane()] : 0.0f, is_one ? places[lane()] : -1};
  return warp_first(of_warp);
}

// The k first of `len` values of i by lanes `own`, `own + step` and so on, one after the other: each is the first of those that
// come after the one before.
template <class First, class Value, class Write>
MOEC_DEVICE void select_first(i64 at, i64 len, i64 k, int own, int step, First first, Value value, Write write) {
  Ranked last = {0.0f, -1};
  for (i64 place = 0; place < k && place < len; place++) {
    Ranked best = {0.0f, -1};
    for (i64 j = own; j < len; j += step) {
      Ranked one = {value(at, j), (int)j};
      if ((last.at < 0 || precedes(last, one)) && precedes(one, best)) best = one;
    }
    last = first(best);
    if (own == 0) write(at, place, last.value, last.at);
  }
}

// write(i, place, value, j) for the k largest of len values of i, largest first. Many of few values: each value counts those
// before it, which is its place. Few of many: one after the other is selected, by a warp for each i, or by the block.
template <class Value, class Write>
MOEC_DEVICE void top_k(i64 kept, i64 len, i64 k, Value value, Write write) {
  if (k * (len + 320) < len * len) {
    if (kept == 1 && len > 1024) {
      select_first(0, len, k, thread(), threads(), [](Ranked own) { return block_first(own); }, value, write);
    } else {
      for (i64 at = warp(); at < kept; at += threads() / 32)
        select_first(at, len, k, lane(), 32, [](Ranked own) { return warp_first(own); }, value, write);
    }
  } else {
    for (i64 flat = thread(); flat < kept * len; flat += threads()) {
      i64 at = flat / len, j = flat % len, before = 0;
      float own = value(at, j);
      for (i64 other = 0; other < len && before < k; other++) before += precedes(value(at, other), other, own, j);
      if (before < k) write(at, before, own, (int)j);
    }
  }
  for (i64 flat = thread(); len < k && flat < kept * (k - len); flat += threads())
    write(flat / (k - len), len + flat % (k - len), not_a_number(), 0);
  barrier();
}

// The expert of a slot, counted from `first`, of `count`; -1 where it is of none of them.
MOEC_DEVICE int expert_of(const int *offsets, int first, int count, i64 slot) {
  const int *of = offsets + first;
  if (slot < of[0] || slot >= of[count]) return -1;
  int low = 0, high = count;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (of[middle] <= slot) low = middle;
    else high = middle;
  }
  return low;
}

}  // namespace moec
