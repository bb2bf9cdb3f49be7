// What this machine can do right now: streaming reads from DRAM, and multiply-adds with no memory traffic (the tile unit
// where there is one, else AVX-512's dot products). Needs AVX-512.
// Build: gcc -O3 -march=native -fPIC -shared -pthread probe.c -o libprobe.so
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 64, REPEATS = 3 };

typedef struct {
    int id, kind;             // kind: 0 read eight streams, 1 bf16, 2 int8, 3 read one stream
    char *data;
    size_t bytes;
    long steps;
    pthread_barrier_t *barrier;
    double best;
} Task;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

// Which way is the fastest depends on the machine: with Sapphire Rapids' cores one stream alone left a third of what eight gave
// (10 against 14.5 GB/s), with Zen 4's one, with no prefetching of ours, gives half as much again as eight (45 against 30).
__attribute__((always_inline)) static inline void read_streams(const char *p, size_t bytes, size_t streams) {
    size_t length = bytes / streams / 4096 * 4096;
    __m512i acc[4];
    for (int k = 0; k < 4; k++) acc[k] = _mm512_setzero_si512();
    for (size_t i = 0; i < length; i += 256)
        for (size_t s = 0; s < streams; s++) {
            const char *q = p + s * length + i;
            for (int k = 0; k < 4; k++) {
                acc[k] = _mm512_xor_si512(acc[k], _mm512_load_si512(q + 64 * k));
                if (streams > 1) _mm_prefetch(q + 1024 + 64 * k, _MM_HINT_T0);
            }
        }
    for (int k = 1; k < 4; k++) acc[0] = _mm512_xor_si512(acc[0], acc[k]);
    volatile long long sink = _mm512_reduce_add_epi64(acc[0]);
    (void)sink;
}

/* The fastest multiply-add of each kind that this CPU has, on registers alone: `steps` times twelve chains, as many as hide the
 * latency. OWN: what an accumulator holds is unknown to the compiler, which would else make one chain of twelve equal ones. */
enum { CHAINS = 12 };
#define OWN(acc) __asm__ volatile("" : "+v"(acc))

#if defined(__AVX512BF16__)
static void bf16_steps(long steps) {
    __m512 acc[CHAINS];
    __m512bh a = (__m512bh)_mm512_setzero_si512(), b = (__m512bh)_mm512_setzero_si512();
    for (int k = 0; k < CHAINS; k++) { acc[k] = _mm512_setzero_ps(); OWN(acc[k]); }
    for (long i = 0; i < steps; i++) {
        for (int k = 0; k < CHAINS; k++) acc[k] = _mm512_dpbf16_ps(acc[k], a, b);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    for (int k = 1; k < CHAINS; k++) acc[0] = _mm512_add_ps(acc[0], acc[k]);
    volatile float sink = _mm512_reduce_add_ps(acc[0]);
    (void)sink;
}
enum { BF16_OPERATIONS = CHAINS * 32 * 2 };
#else
static void bf16_steps(long steps) {
    __m512 acc[CHAINS], a = _mm512_setzero_ps(), b = _mm512_setzero_ps();
    for (int k = 0; k < CHAINS; k++) { acc[k] = _mm512_setzero_ps(); OWN(acc[k]); }
    for (long i = 0; i < steps; i++) {
        for (int k = 0; k < CHAINS; k++) acc[k] = _mm512_fmadd_ps(a, b, acc[k]);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    for (int k = 1; k < CHAINS; k++) acc[0] = _mm512_add_ps(acc[0], acc[k]);
    volatile float sink = _mm512_reduce_add_ps(acc[0]);
    (void)sink;
}
enum { BF16_OPERATIONS = CHAINS * 16 * 2 };
#endif

#if defined(__AVX512VNNI__)
static void int8_steps(long steps) {
    __m512i acc[CHAINS], a = _mm512_setzero_si512(), b = a;
    for (int k = 0; k < CHAINS; k++) { acc[k] = a; OWN(acc[k]); }
    for (long i = 0; i < steps; i++) {
        for (int k = 0; k < CHAINS; k++) acc[k] = _mm512_dpbusd_epi32(acc[k], a, b);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    for (int k = 1; k < CHAINS; k++) acc[0] = _mm512_add_epi32(acc[0], acc[k]);
    volatile int sink = _mm512_reduce_add_epi32(acc[0]);
    (void)sink;
}
enum { INT8_OPERATIONS = CHAINS * 64 * 2 };
#else
static void int8_steps(long steps) { bf16_steps(steps); }
enum { INT8_OPERATIONS = BF16_OPERATIONS };
#endif

#if defined(__AMX_BF16__) && defined(__AMX_INT8__)
typedef struct __attribute__((packed)) {
    uint8_t palette, start_row, reserved[14];
    uint16_t colsb[16];
    uint8_t rows[16];
} TileConfig;

static void tiles_on(void) {
    TileConfig c = {0};
    c.palette = 1;
    for (int i = 0; i < 8; i++) { c.colsb[i] = 64; c.rows[i] = 16; }
    __asm__ volatile("" : : "m"(c) : "memory"); /* gcc 12 believes that only 8 bytes of c are read */
    _tile_loadconfig(&c);
    static _Alignas(64) char zero[1024];
    _tile_loadd(4, zero, 64); _tile_loadd(5, zero, 64); _tile_loadd(6, zero, 64); _tile_loadd(7, zero, 64);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
}

static int tiles(void) {
    static int allowed = -1;
    if (allowed < 0) allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return allowed;
}

static void tile_steps(int kind, long steps) {
    tiles_on();
    for (long i = 0; i < steps; i++) {
        if (kind == 1) { _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7); }
        else { _tile_dpbssd(0, 4, 6); _tile_dpbssd(1, 4, 7); _tile_dpbssd(2, 5, 6); _tile_dpbssd(3, 5, 7); }
    }
    _tile_release();
}
#else
static int tiles(void) { return 0; }
static void tile_steps(int kind, long steps) { (void)kind; (void)steps; }
#endif

static void *work(void *arg) {
    Task *t = arg;
    cpu_set_t set;
    CPU_ZERO(&set); CPU_SET(t->id, &set);
    sched_setaffinity(0, sizeof set, &set);
    t->best = 1e9;
    for (int r = 0; r < REPEATS; r++) {
        pthread_barrier_wait(t->barrier);
        double s = now();
        if (t->kind == 0) read_streams(t->data, t->bytes, 8);
        else if (t->kind == 3) read_streams(t->data, t->bytes, 1);
        else if (tiles()) tile_steps(t->kind, t->steps);
        else if (t->kind == 1) bf16_steps(t->steps);
        else int8_steps(t->steps);
        pthread_barrier_wait(t->barrier);
        s = now() - s;
        if (s < t->best) t->best = s;
    }
    return 0;
}

static double run(int threads, int kind, char *data, size_t bytes, long steps) {
    Task t[MAX_THREADS];
    pthread_t h[MAX_THREADS];
    pthread_barrier_t barrier;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    pthread_barrier_init(&barrier, 0, threads);
    size_t part = bytes / threads / 32768 * 32768;
    for (int i = 0; i < threads; i++) {
        t[i] = (Task){i, kind, data + i * part, part, steps, &barrier, 0};
        pthread_create(&h[i], 0, work, &t[i]);
    }
    for (int i = 0; i < threads; i++) pthread_join(h[i], 0);
    double best = 1e9;
    for (int i = 0; i < threads; i++) if (t[i].best < best) best = t[i].best;
    return best;
}

double probe_read_gbs(int threads, long mib) {
    static char *data; static size_t size;
    size_t bytes = (size_t)mib << 20;
    if (size < bytes) {
        data = mmap(0, bytes + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(data, 1, bytes + 8192);
        size = bytes;
    }
    double eight = run(threads, 0, data, bytes, 0), one = run(threads, 3, data, bytes, 0);
    return (double)(bytes / threads / 32768 * 32768 * threads) / (eight < one ? eight : one) / 1e9;
}

double probe_bf16_tflops(int threads, long steps) {
    double operations = tiles() ? 4.0 * 16 * 16 * 32 * 2 : BF16_OPERATIONS;
    return operations * steps * threads / run(threads, 1, 0, 0, steps) / 1e12;
}

double probe_int8_tops(int threads, long steps) {
    double operations = tiles() ? 4.0 * 16 * 16 * 64 * 2 : INT8_OPERATIONS;
    return operations * steps * threads / run(threads, 2, 0, 0, steps) / 1e12;
}
