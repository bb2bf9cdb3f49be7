// Instantiations of every template as a printed plan has them, to be compiled and looked at where there is no GPU: after
// device, pass, storage, row_tile, few_rows, gemm, bin and attention.

namespace {

using namespace moec;

template <class STORE, int GROUP> struct Experts {
    static constexpr int K = 2048, N = 768, BRANCHES = 2, BATCH = 1, EXPERTS = 128, FIRST = 0, ALL_EXPERTS = 128;
    typedef Panels<STORE, K, BRANCHES, GROUP> Weights;
    static constexpr bool GROUPED = true, STORE_CHOICES = true;
    static MOEC_DEVICE i64 first(const Pass &) { return 0; }
    static MOEC_DEVICE i64 end(const Pass &pass) { return pass.tokens * 8; }
    static MOEC_DEVICE const int *offsets(const Pass &pass, int) { return (const int *)(pass.workspace + 64); }
    static MOEC_DEVICE const float *a(const Pass &pass, int, i64 row) {
        const int *order = (const int *)(pass.workspace + (1 << 20) * pass.chunk);
        return (const float *)pass.inputs[0] + (i64)(order[row] / 8) * K;
    }
    static MOEC_DEVICE const char *weights(const Pass &pass, int rank, int expert) {
        return pass.weights + ((i64)rank * EXPERTS + expert) * Weights::BYTES * (N / 16);
    }
    static MOEC_DEVICE void store(const Pass &pass, int, int, i64 row, int n, const float (&sums)[BRANCHES]) {
        ((float *)pass.workspace)[row * N + n] = sums[0] / (1.0f + expf(-sums[0])) * sums[1];
    }
    static MOEC_DEVICE void store_zero(const Pass &pass, int, i64 row, int n) { ((float *)pass.workspace)[row * N + n] = 0.0f; }
};

struct Routing {
    static constexpr int CHOICES = 8, EXPERTS = 128;
    static constexpr bool SLOT_OF = true;
    static MOEC_DEVICE i64 tokens(const Pass &pass) { return pass.tokens; }
    static MOEC_DEVICE const int *indices(const Pass &pass, int) { return (const int *)pass.inputs[0]; }
    static MOEC_DEVICE int *offsets(const Pass &pass, int) { return (int *)pass.workspace; }
    static MOEC_DEVICE int *order(const Pass &pass, int) { return (int *)pass.workspace + 256; }
    static MOEC_DEVICE int *slot_of(const Pass &pass, int) { return (int *)pass.workspace + 256 + pass.chunk * 8; }
};

template <class CACHE, int G, int Q, int W, int V> struct Heads {
    static constexpr int GROUPS = G, QUERIES = Q, WIDTH = W, VALUES = V;
    static constexpr bool CAUSAL = true, SINK = true;
    static constexpr i64 WINDOW = 4096;
    typedef CACHE Key;
    typedef CACHE Value;
    static MOEC_DEVICE i64 first(const Pass &pass) { return pass.first_output; }
    static MOEC_DEVICE i64 end(const Pass &pass) { return pass.tokens; }
    static MOEC_DEVICE i64 keys(const Pass &, const Segment &segment) { return segment.past + segment.tokens; }
    static MOEC_DEVICE const float *q(const Pass &pass, int, i64 row) { return (float *)pass.workspace + row * G * Q * W; }
    static MOEC_DEVICE float *out(const Pass &pass, int, i64 row) { return (float *)pass.outputs[0] + row * G * Q * V; }
    static MOEC_DEVICE const Key *k(const Pass &, int rank, const Segment &segment, i64 position) {
        return (const Key *)(segment.pages[position / PAGE] + (i64)rank * PAGE * G * W * 2) + position % PAGE * G * W;
    }
    static MOEC_DEVICE const Value *v(const Pass &, int rank, const Segment &segment, i64 position) {
        return (const Value *)(segment.pages[position / PAGE] + (1 << 20) + (i64)rank * PAGE * G * V * 2) + position % PAGE * G * V;
    }
    static MOEC_DEVICE float score(const Pass &, int, int, int, float dot, int query, int key) {
        return key > query || query - key >= WINDOW ? float_of(0xff800000u) : 50.0f * tanhf(dot * 0.088f / 50.0f);
    }
    static MOEC_DEVICE float sink(const Pass &, int, int group, int query) { return 0.1f * (float)(group * Q + query); }
};

} // namespace

// What a block of an A100 may have of shared memory is 163 KB, static included; of a H100, 227.
// (A kernel with warpgroups is for the latter only.)
#define GATE(NAME, ...)                                                                                                 \
    static_assert(__VA_ARGS__::SHARED_BYTES <= (__VA_ARGS__::THREADS == 384 ? 224 : 160) << 10, "shared memory");        \
    MOEC_KERNEL((__VA_ARGS__::THREADS)) NAME(const moec::Pass *pass, int rank) { __VA_ARGS__::run(*pass, rank); }           \
    MOEC_SHAPE NAME##_shape[] = {__VA_ARGS__::THREADS, __VA_ARGS__::ROWS, __VA_ARGS__::MORE, __VA_ARGS__::TIMES,             \
                                 __VA_ARGS__::SHARED_BYTES, 0};

GATE(gemm_f32, moec::Gemm<Experts<Store_F32, 0>>)
GATE(gemm_pairs, moec::Gemm<Experts<Store_Pairs, 0>>)
GATE(gemm_int4, moec::Gemm<Experts<Store_Int4, 128>>)
GATE(gemm_mxfp4, moec::Gemm<Experts<Store_Mxfp4, 32>>)
GATE(gemm_fp8, moec::Gemm<Experts<Store_Fp8, 128>>)
GATE(few_pairs, moec::GemmFew<Experts<Store_Pairs, 0>>)
GATE(few_int4, moec::GemmFew<Experts<Store_Int4, 128>>)
GATE(few_mxfp4, moec::GemmFew<Experts<Store_Mxfp4, 32>>)
GATE(bin, moec::Bin<Routing>)
GATE(attention_prefill, moec::Attention<Heads<Bf16, 8, 4, 128, 128>>)
GATE(attention_decode, moec::Attention<Heads<Bf16, 8, 4, 128, 128>, 16>)
GATE(attention_split, moec::Attention<Heads<Bf16, 8, 4, 128, 128>, 16, 16>)
GATE(end_of_split, moec::AttentionEnd<Heads<Bf16, 8, 4, 128, 128>, 16, 16>)
GATE(attention_compressed, moec::Attention<Heads<Bf16, 1, 16, 576, 512>>)
#if __CUDA_ARCH__ >= 900
GATE(wide_pairs, moec::GemmWide<Experts<Store_Pairs, 0>>)
GATE(wide_pairs_32, moec::GemmWide<Experts<Store_Pairs, 0>, 32>)
#endif
