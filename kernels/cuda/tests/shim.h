/* Runs the text of kernels/cuda on a CPU: stands in front of it in the place of device.cuh's first part, and is compiled with it
 * by a host C++ compiler (C++17, x86-64).
 *
 * Blocks run one after another. The threads of a block are fibers that change at barriers and collective functions only; in
 * which order they run is chosen by a seed, so that what must not depend on it can be seen not to. Stricter than a machine:
 * - copies to shared memory arrive when they are waited for, not before; so what is read too early is seen;
 * - shared memory is full of NaNs when a block begins, and has no bytes before its first or behind its last;
 * - lanes of a warp that come to different collective functions, and threads that wait for what never comes, end the program
 *   with a message.
 * Products of matrices spread and collect their fragments as the instruction set's manual says, lane by lane. */
#pragma once
#define MOEC_SHIM

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#if !defined(__x86_64__)
#error "the shim's fibers are written for x86-64"
#endif

#define MOEC_DEVICE inline __attribute__((always_inline))
#define MOEC_KERNEL(threads) extern "C" void
#define MOEC_SHARED static
#define MOEC_CONSTANT static const

namespace moec {
typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
struct Pass;
} // namespace moec

namespace moec_shim {

[[noreturn]] inline void die(const char *what) {
    fprintf(stderr, "shim: %s\n", what);
    fflush(stderr);
    abort();
}

/* Memory between two pages that nobody may touch; its end, or with `at_start` its beginning, is at such a page. */
struct Guarded {
    char *base = nullptr, *data = nullptr;
    size_t mapped = 0, bytes = 0;

    explicit Guarded(size_t wanted, size_t alignment = 16, bool at_start = false) {
        size_t page = 4096, inner = (wanted + page - 1) / page * page;
        mapped = inner + 2 * page;
        bytes = wanted;
        base = (char *)mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) die("out of memory");
        if (inner) mprotect(base + page, inner, PROT_READ | PROT_WRITE);
        size_t rest = at_start ? 0 : (inner - wanted) / alignment * alignment;
        data = base + page + rest;
    }
    Guarded(const Guarded &) = delete;
    ~Guarded() { munmap(base, mapped); }
    void poison() { memset(data, 0xff, bytes); }
};

struct Copy {
    char *to;
    const char *from;
    unsigned bytes;
    bool wanted;
};

struct Warp;

struct Fiber {
    void *stack_pointer = nullptr;
    int number = 0;
    bool done = true;
    Warp *warp = nullptr;
    /* Copies that were started; `ends[i]` are in the first i + 1 groups. */
    std::vector<Copy> copies;
    std::vector<size_t> ends;
};

/* Threads that do collective functions together: a warp, or four of them. */
struct Warp {
    int lanes = 32, arrived = 0;
    uint64_t turn = 0;
    const char *doing = nullptr;
    void *operands[128];
};

/* A copy of the engine's that has been started; it arrives when all threads that its turnstile counts have. */
struct Bulk {
    void *turnstile;
    Copy copy;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps, warpgroups;
    std::vector<Bulk> bulk;
    std::vector<Guarded *> stacks;
    Fiber *current = nullptr;
    void *scheduler = nullptr;
    int count = 0, running = 0, at_barrier = 0;
    uint64_t barrier_turn = 0, progress = 0;
    long long number = 0, of = 0;
    char *shared = nullptr;
    void (*body)(void *) = nullptr;
    void *argument = nullptr;
    unsigned seed = 0;
};

inline Block state;

/* Saves the registers that a call must keep on the stack of one fiber, and goes on with another. */
__attribute__((naked, noinline)) inline void change(void **, void *) {
    asm volatile("pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
                 "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
                 "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\tret");
}

/* A fiber lets the others run. */
__attribute__((noinline)) inline void yield() { change(&state.current->stack_pointer, state.scheduler); }

inline void start() {
    state.body(state.argument);
    state.current->done = true;
    state.running--;
    state.progress++;
    yield();
    die("a thread went on after its end");
}

/* Every lane of the warp comes here with its operands; the last one computes for all. */
template <class F> void collective_of(Warp &warp, const char *what, void *operands, F compute) {
    if (warp.lanes % 32) die("a warp of fewer than 32 threads came to a collective function");
    if (warp.arrived && warp.doing != what) {
        fprintf(stderr, "shim: some lanes of a warp came to %s, others to %s\n", warp.doing, what);
        die("a warp is divided");
    }
    warp.doing = what;
    warp.operands[state.current->number % warp.lanes] = operands;
    if (++warp.arrived == warp.lanes) {
        compute(warp.operands);
        warp.arrived = 0;
        warp.turn++;
        state.progress++;
        return;
    }
    for (uint64_t turn = warp.turn; warp.turn == turn;) yield();
}
template <class F> void collective(const char *what, void *operands, F compute) {
    collective_of(*state.current->warp, what, operands, compute);
}

inline void finish_copies(size_t open_groups) {
    Fiber &fiber = *state.current;
    if (fiber.ends.size() <= open_groups) return;
    size_t groups = fiber.ends.size() - open_groups, count = fiber.ends[groups - 1];
    for (size_t at = 0; at < count; at++) {
        const Copy &copy = fiber.copies[at];
        if (copy.wanted) memcpy(copy.to, copy.from, copy.bytes);
        else memset(copy.to, 0, copy.bytes);
    }
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + (long)count);
    fiber.ends.erase(fiber.ends.begin(), fiber.ends.begin() + (long)groups);
    for (size_t &end : fiber.ends) end -= count;
}

inline void run_block(int threads) {
    const size_t STACK = 256 << 10;
    state.fibers.resize((size_t)threads);
    state.warps.assign((size_t)(threads + 31) / 32, Warp());
    state.warpgroups.assign((size_t)(threads + 127) / 128, Warp());
    for (Warp &group : state.warpgroups) group.lanes = 128;
    state.bulk.clear();
    while ((int)state.stacks.size() < threads) state.stacks.push_back(new Guarded(STACK, 64, true));
    for (int at = 0; at < threads; at++) {
        Fiber &fiber = state.fibers[(size_t)at];
        fiber.number = at;
        fiber.done = false;
        fiber.copies.clear();
        fiber.ends.clear();
        fiber.warp = &state.warps[(size_t)at / 32];
        /* As after a call: the address to return to, and 8 bytes off the alignment. */
        void **top = (void **)(state.stacks[(size_t)at]->data + STACK - 64);
        *--top = nullptr;
        *--top = (void *)start;
        for (int saved = 0; saved < 6; saved++) *--top = nullptr;
        fiber.stack_pointer = top;
    }
    if (threads % 32) state.warps.back().lanes = threads % 32;
    state.count = state.running = threads;
    state.at_barrier = 0;
    std::vector<int> order((size_t)threads);
    for (int at = 0; at < threads; at++) order[(size_t)at] = at;
    if (state.seed == 1) std::reverse(order.begin(), order.end());
    unsigned random = state.seed;
    for (size_t at = order.size(); state.seed > 1 && at > 1; at--) {
        random = random * 1664525u + 1013904223u;
        std::swap(order[at - 1], order[(random >> 8) % at]);
    }
    while (state.running) {
        uint64_t before = state.progress;
        for (int at : order) {
            state.current = &state.fibers[(size_t)at];
            if (!state.current->done) change(&state.scheduler, state.current->stack_pointer);
        }
        if (state.progress == before) {
            fprintf(stderr, "shim: block %lld: %d of %d threads run, %d of them wait at a barrier\n", state.number,
                state.running, threads, state.at_barrier);
            die("threads wait for what never comes");
        }
    }
    for (const Fiber &fiber : state.fibers)
        if (!fiber.copies.empty()) die("a block ended before its copies had arrived");
    if (!state.bulk.empty()) die("a block ended before the copy engine had done its work");
}

/* All blocks of a launch, from the last to the first where the seed is odd. `shared_bytes` of dynamic shared memory. */
template <class F> void launch(long long blocks, int threads, size_t shared_bytes, F body) {
    if (threads < 1 || threads > 1024) die("a block of so many threads cannot be launched");
    if (shared_bytes > 227 << 10) die("a block cannot have so much shared memory");
    Guarded shared(shared_bytes, 16);
    state.shared = shared.data;
    state.body = [](void *f) { (*(F *)f)(); };
    state.argument = &body;
    state.of = blocks;
    for (long long at = 0; at < blocks; at++) {
        state.number = state.seed % 2 ? blocks - 1 - at : at;
        shared.poison();
        run_block(threads);
    }
}

} // namespace moec_shim

namespace moec {

inline int thread() { return moec_shim::state.current->number; }
inline int threads() { return moec_shim::state.count; }
inline i64 block() { return moec_shim::state.number; }
inline i64 blocks() { return moec_shim::state.of; }

inline void barrier() {
    moec_shim::Block &block = moec_shim::state;
    uint64_t turn = block.barrier_turn;
    block.at_barrier++;
    block.progress++;
    while (block.barrier_turn == turn) {
        if (block.at_barrier == block.running) {
            block.at_barrier = 0;
            block.barrier_turn++;
            return;
        }
        moec_shim::yield();
    }
}

inline char *dynamic_shared() { return moec_shim::state.shared; }

inline u32 bits(float value) {
    u32 word;
    memcpy(&word, &value, 4);
    return word;
}
inline float float_of(u32 word) {
    float value;
    memcpy(&value, &word, 4);
    return value;
}

template <class T> struct Shuffled {
    T value, result;
    int from;
};
template <class T> T shuffled(const char *what, T value, int from) {
    Shuffled<T> own = {value, value, from};
    moec_shim::collective(what, &own, [](void **lanes) {
        for (int at = 0; at < 32; at++) {
            Shuffled<T> &lane = *(Shuffled<T> *)lanes[at];
            lane.result = ((Shuffled<T> *)lanes[lane.from & 31])->value;
        }
    });
    return own.result;
}
template <class T> T shuffle_xor(T value, int mask) { return shuffled("shuffle_xor", value, thread() % 32 ^ mask); }
template <class T> T shuffle_up(T value, int distance) {
    int lane = thread() % 32;
    return shuffled("shuffle_up", value, lane < distance ? lane : lane - distance);
}
template <class T> T shuffle(T value, int lane) { return shuffled("shuffle", value, lane); }

inline u32 ballot(bool vote) {
    u32 word = vote;
    moec_shim::collective("ballot", &word, [](void **lanes) {
        u32 all = 0;
        for (int at = 0; at < 32; at++) all |= *(u32 *)lanes[at] << at;
        for (int at = 0; at < 32; at++) *(u32 *)lanes[at] = all;
    });
    return word;
}
struct Numbered {
    int number;
    u32 same;
};
inline u32 same_lanes(int number) {
    Numbered own = {number, 0};
    moec_shim::collective("same_lanes", &own, [](void **lanes) {
        for (int at = 0; at < 32; at++)
            for (int other = 0; other < 32; other++)
                ((Numbered *)lanes[at])->same |= (u32)(((Numbered *)lanes[other])->number == ((Numbered *)lanes[at])->number) << other;
    });
    return own.same;
}
inline void warp_barrier() {
    moec_shim::collective("warp_barrier", nullptr, [](void **) {});
}
inline int bits_set(u32 word) { return __builtin_popcount(word); }
inline int lowest_bit(u32 word) { return __builtin_ctz(word); }

inline int round_to_int(float value) { return value != value ? 0 : (int)rintf(value); }

inline u32 bf16_of(float value) {
    u32 word = bits(value);
    if (value != value) return 0x7fff;
    return (word + 0x7fff + (word >> 16 & 1)) >> 16;
}
inline u32 bf16_pair(float low, float high) { return bf16_of(high) << 16 | bf16_of(low); }

inline float f16_to_f32(unsigned short half) {
    int exponent = half >> 10 & 31, fraction = half & 1023;
    float size = exponent == 31 ? (fraction ? NAN : INFINITY)
        : exponent == 0         ? ldexpf((float)fraction, -24)
                                : ldexpf((float)(1024 + fraction), exponent - 25);
    return half & 0x8000 ? -size : size;
}
inline unsigned short f32_to_f16(float value) {
    unsigned sign = bits(value) >> 16 & 0x8000;
    float size = fabsf(value);
    if (value != value) return 0x7fff;
    if (size >= 65520.0f) return (unsigned short)(sign | 0x7c00);
    if (size < 6.103515625e-5f) return (unsigned short)(sign | (unsigned)rintf(ldexpf(size, 24)));
    u32 word = bits(size) - (112u << 23);
    return (unsigned short)(sign | ((word + 0xfff + (word >> 13 & 1)) >> 13));
}

inline int dot_bytes(u32 a, u32 b, int sum) {
    for (int at = 0; at < 32; at += 8) sum += (int8_t)(a >> at) * (int8_t)(b >> at);
    return sum;
}

/* How the fragments of `mma.m16n8kX` lie: register r of lane (g, t) has PER_WORD elements of `a` in row g + r % 2 * 8 and of k
 * from r / 2 * (4 * PER_WORD) + t * PER_WORD on; of `b` the same k with r, in column g. */
template <class SUM, int PER_WORD, class ELEMENT> struct Fragments {
    SUM *sums;
    const u32 *a, *b;
    static void compute(void **lanes) {
        constexpr int DEEP = PER_WORD * 8;
        SUM a[16][DEEP], b[DEEP][8];
        for (int at = 0; at < 32; at++) {
            const Fragments &lane = *(Fragments *)lanes[at];
            int g = at / 4, t = at % 4;
            for (int word = 0; word < 4; word++)
                for (int part = 0; part < PER_WORD; part++)
                    a[g + word % 2 * 8][word / 2 * (DEEP / 2) + t * PER_WORD + part] = ELEMENT::of(lane.a[word], part);
            for (int word = 0; word < 2; word++)
                for (int part = 0; part < PER_WORD; part++)
                    b[word * (DEEP / 2) + t * PER_WORD + part][g] = ELEMENT::of(lane.b[word], part);
        }
        SUM all[16][8] = {};
        for (int row = 0; row < 16; row++)
            for (int k = 0; k < DEEP; k++)
                for (int column = 0; column < 8; column++) all[row][column] += a[row][k] * b[k][column];
        for (int at = 0; at < 32; at++)
            for (int sum = 0; sum < 4; sum++)
                ((Fragments *)lanes[at])->sums[sum] += all[at / 4 + sum / 2 * 8][at % 4 * 2 + sum % 2];
    }
};
struct Bf16Element {
    static float of(u32 word, int part) { return float_of(part ? word & 0xffff0000u : word << 16); }
};
struct ByteElement {
    static int of(u32 word, int part) { return (int8_t)(word >> (part * 8)); }
};
inline void mma_bf16(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    Fragments<float, 2, Bf16Element> own = {sums, a, b};
    moec_shim::collective("mma_bf16", &own, Fragments<float, 2, Bf16Element>::compute);
}
inline void mma_bytes(int (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    Fragments<int, 4, ByteElement> own = {sums, a, b};
    moec_shim::collective("mma_bytes", &own, Fragments<int, 4, ByteElement>::compute);
}

inline void start_copy(void *shared, const void *global, unsigned bytes, bool wanted) {
    if ((uintptr_t)shared % bytes || (wanted && (uintptr_t)global % bytes)) moec_shim::die("a copy is not aligned");
    moec_shim::state.current->copies.push_back({(char *)shared, (const char *)global, bytes, wanted});
}
inline void copy_16(void *shared, const void *global, bool wanted) { start_copy(shared, global, 16, wanted); }
inline void copy_4(void *shared, const void *global, bool wanted) { start_copy(shared, global, 4, wanted); }
inline void copies_group() {
    moec_shim::Fiber &fiber = *moec_shim::state.current;
    fiber.ends.push_back(fiber.copies.size());
}
template <int OPEN> void copies_wait() { moec_shim::finish_copies(OPEN); }

/* A turnstile in its 64 bits. */
struct Turnstile {
    uint16_t arrivals, missing;
    int32_t bytes_and_turn; /* the turn is the lowest bit */
};
inline void turnstile_init(u64 *at, int arrivals) { *(Turnstile *)at = {(uint16_t)arrivals, (uint16_t)arrivals, 0}; }
inline void turnstiles_ready() {}
inline void turnstile_arrive_expecting(u64 *at, int bytes) {
    Turnstile &turnstile = *(Turnstile *)at;
    if (!turnstile.missing) moec_shim::die("more threads came to a turnstile than it counts");
    turnstile.missing--;
    turnstile.bytes_and_turn += 2 * bytes;
    moec_shim::state.progress++;
}
inline void turnstile_arrive(u64 *at) { turnstile_arrive_expecting(at, 0); }
inline void turnstile_wait(u64 *at, int turn) {
    Turnstile &turnstile = *(Turnstile *)at;
    while ((turnstile.bytes_and_turn & 1) == turn) {
        if (!turnstile.missing) {
            auto &bulk = moec_shim::state.bulk;
            for (const moec_shim::Bulk &one : bulk)
                if (one.turnstile == at) {
                    memcpy(one.copy.to, one.copy.from, one.copy.bytes);
                    turnstile.bytes_and_turn -= 2 * (int)one.copy.bytes;
                }
            bulk.erase(std::remove_if(bulk.begin(), bulk.end(), [&](const moec_shim::Bulk &one) { return one.turnstile == at; }),
                bulk.end());
            if (turnstile.bytes_and_turn / 2) moec_shim::die("other bytes come to a turnstile than it expects");
            turnstile.bytes_and_turn ^= 1;
            turnstile.missing = turnstile.arrivals;
            moec_shim::state.progress++;
            return;
        }
        moec_shim::yield();
    }
}
inline void copy_bulk(void *shared, const void *global, int bytes, u64 *at) {
    if ((uintptr_t)global % 16 || ((char *)shared - dynamic_shared()) % 16 || bytes % 16) moec_shim::die("a copy is not aligned");
    moec_shim::state.bulk.push_back({at, {(char *)shared, (const char *)global, (unsigned)bytes, true}});
}
inline void shared_to_tensor_cores() {}
template <int COUNT> void fewer_registers() {}
template <int COUNT> void more_registers() {}

/* Where it is from the beginning of shared memory, which stands for the address. */
inline u64 tensor_rows(const void *shared) {
    return (u64)(((char *)shared - dynamic_shared()) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
inline void products_begin() {}
inline void products_wait() {}
template <int COUNT> struct Products {
    float *sums;
    const u32 *a;
    u64 b;
    static void compute(void **lanes) {
        u64 b = ((Products *)lanes[0])->b;
        const size_t start = (b & 0x3fff) << 4, stride = (b >> 32 & 0x3fff) << 4;
        static float columns[COUNT * 2][16];
        if (b >> 62 != 1) moec_shim::die("only the layout of 128 bytes is known");
        for (int n = 0; n < COUNT * 2; n++)
            for (int k = 0; k < 16; k++) {
                size_t at = start + (size_t)(n / 8) * stride + (size_t)(n % 8 * 128 + k * 2);
                at ^= (at >> 7 & 7) << 4;
                unsigned short half;
                memcpy(&half, dynamic_shared() + at, 2);
                columns[n][k] = float_of((u32)half << 16);
            }
        for (int lane = 0; lane < 128; lane++) {
            const Products &own = *(Products *)lanes[lane];
            if (own.b != b) moec_shim::die("the lanes of a warpgroup multiply other matrices");
        }
        static float rows[64][16];
        for (int lane = 0; lane < 128; lane++)
            for (int word = 0; word < 4; word++)
                for (int part = 0; part < 2; part++) {
                    u32 pair = ((Products *)lanes[lane])->a[word];
                    int row = lane / 32 * 16 + lane % 32 / 4 + word % 2 * 8, k = word / 2 * 8 + lane % 4 * 2 + part;
                    rows[row][k] = float_of(part ? pair & 0xffff0000u : pair << 16);
                }
        for (int lane = 0; lane < 128; lane++)
            for (int at = 0; at < COUNT; at++) {
                int row = lane / 32 * 16 + lane % 32 / 4 + at % 4 / 2 * 8, n = at / 4 * 8 + lane % 4 * 2 + at % 2;
                float sum = 0;
                for (int k = 0; k < 16; k++) sum += rows[row][k] * columns[n][k];
                ((Products *)lanes[lane])->sums[at] += sum;
            }
    }
};
template <int COUNT> void multiply_64(float (&sums)[COUNT], const u32 (&a)[4], u64 b) {
    Products<COUNT> own = {sums, a, b};
    moec_shim::Block &block = moec_shim::state;
    moec_shim::collective_of(block.warpgroups[(size_t)thread() / 128], "multiply_64", &own, Products<COUNT>::compute);
}

struct alignas(16) Words4 {
    u32 words[4];
};
struct alignas(16) Floats4 {
    float values[4];
};
inline Words4 load_stream(const void *global) {
    if ((uintptr_t)global % 16) moec_shim::die("a load is not aligned");
    return *(const Words4 *)global;
}

} // namespace moec

/* One launch of a kernel that takes a pass and the layer's rank. 0 where it came to its end. */
extern "C" inline __attribute__((used)) int moec_shim_launch(void (*kernel)(const moec::Pass *, int), unsigned blocks,
    unsigned threads, unsigned shared_bytes, const void *pass, int rank) {
    moec_shim::launch(blocks, (int)threads, shared_bytes, [&] { kernel((const moec::Pass *)pass, rank); });
    return 0;
}
