/* What the tests of kernels share: random numbers, and a count of what is wrong. */
#pragma once
#include "shim.h"

namespace check {

inline uint64_t random_state = 1;
inline uint32_t random_bits() {
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 32);
}
inline int below(int count) { return (int)(random_bits() % (uint32_t)count); }
/* From -1 to 1. */
inline float number() { return (float)((int)(random_bits() >> 8) - (1 << 23)) / (float)(1 << 23); }

inline int failures = 0, checks = 0;

/* `found` is `expected` but for `tolerance` times `size`; NaN where that is. */
inline void near(double found, double expected, double size, double tolerance, const char *what, long long row, long long column) {
    checks++;
    bool same = expected != expected ? found != found : std::fabs(found - expected) <= tolerance * size;
    if (!same && failures++ < 10)
        printf("%s: [%lld, %lld] is %.9g, not %.9g (of sizes up to %.3g)\n", what, row, column, found, expected, size);
}
inline void same(long long found, long long expected, const char *what, long long at) {
    checks++;
    if (found != expected && failures++ < 10) printf("%s: [%lld] is %lld, not %lld\n", what, at, found, expected);
}

/* A buffer with pages around it that nobody may touch, full of NaNs. */
template <class T> struct Buffer {
    moec_shim::Guarded memory;
    size_t count;
    explicit Buffer(size_t count) : memory(count * sizeof(T), alignof(T) > 16 ? alignof(T) : 16), count(count) { memory.poison(); }
    T &operator[](size_t at) { return ((T *)memory.data)[at]; }
    T *data() { return (T *)memory.data; }
};

inline int finish(const char *name) {
    printf("%s: %d checks, %d wrong\n", name, checks, failures);
    return failures != 0;
}

} // namespace check
