/* What this CPU can do, asked of it directly: the compiler's own helper would drag in a library. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

/* The registers that the operating system saves (XCR0); 0 where it does not say. */
static uint64_t saved_registers(void) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has_all(uint32_t found, uint32_t wanted) { return (found & wanted) == wanted; }

int32_t moec_cpu_features(void) {
    enum { AVX_STATE = 0x6, AVX512_STATE = 0xE6, LZCNT = 1 << 5, VNNI = 1 << 11, BF16 = 1 << 5 };
    uint64_t saved = saved_registers();
    enum { AMX_STATE = 0x60000, AMX = 1 << 22 | 1 << 24 | 1 << 25 };
    uint32_t a, b, basic, extended, d, wide, more, newest, tiles;
    if ((saved & AVX_STATE) != AVX_STATE) return 0;
    if (!__get_cpuid(1, &a, &b, &basic, &d)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &wide, &more, &tiles)) return 0;
    if (!__get_cpuid(0x80000001, &a, &b, &extended, &d)) return 0;
    bool v3 = has_all(basic, bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B | bit_AVX |
                                 bit_FMA | bit_F16C | bit_MOVBE) &&
              has_all(wide, bit_AVX2 | bit_BMI | bit_BMI2) && has_all(extended, LZCNT);
    if (!v3) return 0;
    bool v4 = (saved & AVX512_STATE) == AVX512_STATE &&
              has_all(wide, bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL);
    if (!v4) return MOEC_CPU_X86_64_V3;
    bool dot = __get_cpuid_count(7, 1, &newest, &b, &extended, &d) && has_all(newest, BF16) && has_all(more, VNNI);
    if (!dot) return MOEC_CPU_X86_64_V3 | MOEC_CPU_X86_64_V4;
    bool amx = (saved & AMX_STATE) == AMX_STATE && has_all(tiles, AMX);
    return MOEC_CPU_X86_64_V3 | MOEC_CPU_X86_64_V4 | MOEC_CPU_AVX512_DOT | (amx ? MOEC_CPU_AMX : 0);
}

/* Linux keeps tiles, which are 8 KiB in each thread, for processes that asked for them. */
bool moec_cpu_allows(int32_t needs) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return !(needs & MOEC_CPU_AMX) || syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

int moec_cpu_count(void) {
    cpu_set_t allowed;
    int count = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) count = CPU_COUNT(&allowed);
    if (count <= 0) count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return count <= 0 ? 1 : count > MOEC_MAX_THREADS ? MOEC_MAX_THREADS : count;
}
