// What depends on the machine: every instruction of the hardware that C++ has no word for, each as one small function, and
// what CUDA and a host compiler spell differently. The other files say nothing of PTX, so the same text also runs on a CPU,
// where a shim (defined: MOEC_SHIM) takes the place of the first part of this file.
//
// All of it is `namespace moec`. Warps are whole: where one lane calls a collective function, all 32 do.

// Whether Hopper's own instructions are there.
#if defined(MOEC_SHIM) || __CUDA_ARCH__ >= 900
#define MOEC_HOPPER 1
#else
#define MOEC_HOPPER 0
#endif

#ifndef MOEC_SHIM
#define MOEC_DEVICE __device__ __forceinline__
#define MOEC_KERNEL(threads) extern "C" __global__ __launch_bounds__(threads, 1) void
#define MOEC_SHARED __shared__
#define MOEC_CONSTANT __device__ const

namespace moec {

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;

// Blocks and threads are counted along one axis.
MOEC_DEVICE int thread() { return (int)threadIdx.x; }
MOEC_DEVICE int threads() { return (int)blockDim.x; }
MOEC_DEVICE i64 block() { return blockIdx.x; }
MOEC_DEVICE i64 blocks() { return gridDim.x; }

// All threads of the block have come here, and see what each wrote.
MOEC_DEVICE void barrier() { __syncthreads(); }

// What a launch gives beyond static shared memory, aligned to 1024 bytes.
MOEC_DEVICE char *dynamic_shared() {
    extern __shared__ __align__(1024) char moec_dynamic_shared[];
    return moec_dynamic_shared;
}

MOEC_DEVICE u32 bits(float value) { return __float_as_uint(value); }
MOEC_DEVICE float float_of(u32 bits) { return __uint_as_float(bits); }

// The value of the lane whose number differs in the bits of `mask`, and that of the lane `distance` below (the own one where
// there is none).
template <class T> MOEC_DEVICE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(~0u, value, mask); }
template <class T> MOEC_DEVICE T shuffle_up(T value, int distance) { return __shfl_up_sync(~0u, value, distance); }
template <class T> MOEC_DEVICE T shuffle(T value, int lane) { return __shfl_sync(~0u, value, lane); }
// Bit i: what lane i says.
MOEC_DEVICE u32 ballot(bool vote) { return __ballot_sync(~0u, vote); }
// Bit i: whether lane i says the same number as this one.
MOEC_DEVICE u32 same_lanes(int number) { return __match_any_sync(~0u, number); }
// All lanes of the warp have come here, and see what each wrote.
MOEC_DEVICE void warp_barrier() { __syncwarp(); }
MOEC_DEVICE int bits_set(u32 word) { return __popc(word); }
// The number of the lowest bit that is set; word is not 0.
MOEC_DEVICE int lowest_bit(u32 word) { return __ffs((int)word) - 1; }

// To the nearest integer, ties to even.
MOEC_DEVICE int round_to_int(float value) { return __float2int_rn(value); }

// Two floats as bf16 (nearest, ties to even), `low` in the low half.
MOEC_DEVICE u32 bf16_pair(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// f16 to f32, and back to the nearest, ties to even.
MOEC_DEVICE float f16_to_f32(unsigned short half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}
MOEC_DEVICE unsigned short f32_to_f16(float value) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}

// The sum of the products of four signed bytes each, and `sum`.
MOEC_DEVICE int dot_bytes(u32 a, u32 b, int sum) { return __dp4a((int)a, (int)b, sum); }

// sums += a · b, of 16 x 16 by 16 x 8 in bf16. With g = lane / 4 and t = lane % 4, a lane holds: of `a` the elements
// (g, 2t..2t+1), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..); of `b` (2t..2t+1, g), (2t + 8.., g); of `sums`
// (g, 2t..2t+1), (g + 8, 2t..2t+1).
MOEC_DEVICE void mma_bf16(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of 16 x 32 by 32 x 8 in signed bytes: a word has the elements 4t..4t+3 along k, or those 16 further.
MOEC_DEVICE void mma_bytes(int (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Starts a copy of 16 (4) aligned bytes to shared memory; zeros, and nothing is read, where it is not `wanted`.
MOEC_DEVICE void copy_16(void *shared, const void *global, bool wanted) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(wanted ? 16 : 0)
                 : "memory");
}
MOEC_DEVICE void copy_4(void *shared, const void *global, bool wanted) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"((u32)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(wanted ? 4 : 0)
                 : "memory");
}
// The copies that this thread has started since the last such call are one group.
MOEC_DEVICE void copies_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the last `OPEN` groups of this thread have arrived. (Other threads see them after a barrier.)
template <int OPEN> MOEC_DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory"); }

struct alignas(16) Words4 {
    u32 words[4];
};
struct alignas(16) Floats4 {
    float values[4];
};
// 16 aligned bytes that are read once.
MOEC_DEVICE Words4 load_stream(const void *global) {
    Words4 all;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(all.words[0]), "=r"(all.words[1]), "=r"(all.words[2]), "=r"(all.words[3])
                 : "l"(global));
    return all;
}

// Hopper's own instructions (sm_90a).

// A barrier that counts arrivals, and the bytes that copies bring: it turns over when `arrivals` threads have come and all
// expected bytes are there. `turn` is 0 before the first time, then 1, then 0.
MOEC_DEVICE u32 shared_address(const void *shared) { return (u32)__cvta_generic_to_shared(shared); }
MOEC_DEVICE void turnstile_init(u64 *at, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(arrivals) : "memory");
}
// What was initialised is seen by the copy engine.
MOEC_DEVICE void turnstiles_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
MOEC_DEVICE void turnstile_arrive(u64 *at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
}
MOEC_DEVICE void turnstile_arrive_expecting(u64 *at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)), "r"(bytes) : "memory");
}
// Until turn `turn` is over.
MOEC_DEVICE void turnstile_wait(u64 *at, int turn) {
    asm volatile("{\n.reg .pred over;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n@!over bra again;\n}" ::"r"(
                     shared_address(at)),
                 "r"(turn)
                 : "memory");
}
// Starts a copy of a multiple of 16 bytes, aligned to 16, by the copy engine; its bytes count at the turnstile.
MOEC_DEVICE void copy_bulk(void *shared, const void *global, int bytes, u64 *at) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(at))
                 : "memory");
}
// What this thread wrote to shared memory is seen by the tensor cores.
MOEC_DEVICE void shared_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// How many registers the threads of a warpgroup may have from here on.
template <int COUNT> MOEC_DEVICE void fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT> MOEC_DEVICE void more_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }

// A matrix in shared memory whose rows are 128 bytes along k, in blocks of eight rows that begin at multiples of 1024 bytes; the
// 16-byte pieces of row r stand at their place xor r % 8. Of it, the sixteen columns from `shared` on.
MOEC_DEVICE u64 tensor_rows(const void *shared) {
    return (u64)((shared_address(shared) & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// sums += a · b', of 64 x 16 by 16 x N in bf16, by a warpgroup: each of its warps has 16 of the 64 rows, in `a` as mma_bf16
// has them; b is `tensor_rows` of N rows. Of the N columns, 8j + 2t..2t+1 stand in sums[4j..], with g and g + 8 as there.
// Nothing may touch `sums` and `a` until products_wait.
MOEC_DEVICE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
MOEC_DEVICE void products_wait() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}
MOEC_DEVICE void multiply_64x128(float (&sums)[64], const u32 (&a)[4], u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"
        "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,"
        "%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,"
        "%62,%63}, {%64,%65,%66,%67}, %68, 1, 1, 1, 0;"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]),
          "+f"(sums[6]), "+f"(sums[7]), "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]),
          "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), "+f"(sums[16]), "+f"(sums[17]),
          "+f"(sums[18]), "+f"(sums[19]), "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]),
          "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), "+f"(sums[28]), "+f"(sums[29]),
          "+f"(sums[30]), "+f"(sums[31]), "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]),
          "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]), "+f"(sums[40]), "+f"(sums[41]),
          "+f"(sums[42]), "+f"(sums[43]), "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47]),
          "+f"(sums[48]), "+f"(sums[49]), "+f"(sums[50]), "+f"(sums[51]), "+f"(sums[52]), "+f"(sums[53]),
          "+f"(sums[54]), "+f"(sums[55]), "+f"(sums[56]), "+f"(sums[57]), "+f"(sums[58]), "+f"(sums[59]),
          "+f"(sums[60]), "+f"(sums[61]), "+f"(sums[62]), "+f"(sums[63])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
MOEC_DEVICE void multiply_64x32(float (&sums)[16], const u32 (&a)[4], u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, 1, 1, 1, 0;"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]),
          "+f"(sums[6]), "+f"(sums[7]), "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]),
          "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
MOEC_DEVICE void multiply_64(float (&sums)[64], const u32 (&a)[4], u64 b) { multiply_64x128(sums, a, b); }
MOEC_DEVICE void multiply_64(float (&sums)[16], const u32 (&a)[4], u64 b) { multiply_64x32(sums, a, b); }

} // namespace moec
#endif

namespace moec {

MOEC_DEVICE float bf16_to_f32(unsigned short half) { return float_of((u32)half << 16); }
MOEC_DEVICE unsigned short f32_to_bf16(float value) { return (unsigned short)bf16_pair(value, 0.0f); }
MOEC_DEVICE float rounded_to_bf16(float value) { return float_of(bf16_pair(0.0f, value) & 0xffff0000u); }

MOEC_DEVICE int lane() { return thread() & 31; }
MOEC_DEVICE int warp() { return thread() >> 5; }

template <class T> MOEC_DEVICE T least(T a, T b) { return b < a ? b : a; }
template <class T> MOEC_DEVICE T most(T a, T b) { return a < b ? b : a; }
// NaN where either is NaN.
MOEC_DEVICE float most_or_nan(float a, float b) { return a != a || a >= b ? a : b; }

// The sum over the lanes of a warp, for each of them, in an order that is always the same.
MOEC_DEVICE float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += shuffle_xor(value, distance);
    return value;
}
MOEC_DEVICE float warp_most(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value = most_or_nan(value, shuffle_xor(value, distance));
    return value;
}
// The sum over this and all lower lanes.
MOEC_DEVICE int warp_sum_below(int value) {
    for (int distance = 1; distance < 32; distance *= 2) {
        int below = shuffle_up(value, distance);
        if (lane() >= distance) value += below;
    }
    return value;
}

// The sum over all threads of the block, for each of them; at most 1024 threads. All of them call it.
MOEC_DEVICE float block_sum(float value) {
    MOEC_SHARED float of_warps[32];
    value = warp_sum(value);
    barrier();
    if (lane() == 0) of_warps[warp()] = value;
    barrier();
    return warp_sum(lane() * 32 < threads() ? of_warps[lane()] : 0.0f);
}

} // namespace moec
