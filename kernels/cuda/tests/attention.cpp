/* Attention against plain loops in double precision: prefill and one position after many, grouped queries, causal or not,
 * windows, sinks, a soft cap, wide keys and narrow values, caches of each type, rubbish behind the last key. */
#include "check.h"
#include "device.cuh"

namespace moec {
struct Bf16 {
    unsigned short bits;
};
struct F16 {
    unsigned short bits;
};
inline float read(const float &value) { return value; }
inline float read(const Bf16 &value) { return bf16_to_f32(value.bits); }
inline float read(const F16 &value) { return f16_to_f32(value.bits); }
} // namespace moec

#include "storage.cuh"
#include "row_tile.cuh"
#include "few_rows.cuh"
#include "gemm.cuh"
#include "attention.cuh"

using namespace moec;

struct moec::Pass {
    i64 tokens, past, first_output, all;
    const float *q;
    float *out;
    const void *k, *v;
};

namespace {

void store(float &into, float value) { into = value; }
void store(Bf16 &into, float value) { into.bits = f32_to_bf16(value); }
void store(F16 &into, float value) { into.bits = f32_to_f16(value); }

template <class KEY, class VALUE, int G, int Q, int W, int V, bool IS_CAUSAL, int WINDOW_KEYS, bool HAS_SINK> struct Step {
    static constexpr int GROUPS = G, QUERIES = Q, WIDTH = W, VALUES = V;
    static constexpr bool CAUSAL = IS_CAUSAL, SINK = HAS_SINK;
    static constexpr i64 WINDOW = WINDOW_KEYS;
    typedef KEY Key;
    typedef VALUE Value;
    static i64 first(const Pass &pass) { return pass.first_output; }
    static i64 end(const Pass &pass) { return pass.tokens; }
    static i64 position(const Pass &pass, i64 row) { return pass.past + row; }
    static i64 keys(const Pass &pass) { return pass.all; }
    static const float *q(const Pass &pass, int, i64 row) { return pass.q + row * G * Q * W; }
    static float *out(const Pass &pass, int, i64 row) { return pass.out + row * G * Q * V; }
    static const Key *k(const Pass &pass, int) { return (const Key *)pass.k; }
    static const Value *v(const Pass &pass, int) { return (const Value *)pass.v; }
    static double scored(double dot, int query_position, int key_position) {
        if (CAUSAL && key_position > query_position) return -INFINITY;
        if (WINDOW && query_position - key_position >= WINDOW) return -INFINITY;
        return 5.0 * std::tanh(dot * 0.3 / 5.0);
    }
    static float score(const Pass &, int, int group, int query, float dot, int query_position, int key_position) {
        if (group < 0 || group >= G || query < 0 || query >= Q) moec_shim::die("a head that there is not");
        if (CAUSAL && key_position > query_position) return float_of(0xff800000u);
        if (WINDOW && query_position - key_position >= WINDOW) return float_of(0xff800000u);
        return 5.0f * tanhf(dot * 0.3f / 5.0f);
    }
    static float sink(const Pass &, int, int group, int query) { return 0.1f * (float)(group * Q + query) - 0.2f; }
};

template <class KERNEL, class STEP> void one(const char *name, int tokens, int past, int first_output) {
    typedef typename STEP::Key Key;
    typedef typename STEP::Value Value;
    constexpr int G = STEP::GROUPS, Q = STEP::QUERIES, W = STEP::WIDTH, V = STEP::VALUES;
    int all = past + tokens, capacity = (all + 15) / 16 * 16;
    check::Buffer<float> q((size_t)tokens * G * Q * W), out((size_t)tokens * G * Q * V);
    check::Buffer<Key> k((size_t)capacity * G * W);
    check::Buffer<Value> v((size_t)capacity * G * V);
    for (size_t at = 0; at < q.count; at++) q[at] = check::number();
    auto key_at = [&](int s, int c) -> Key & { return k[(size_t)(s / 16 * 16 * G * W + c * 16 + s % 16)]; };
    for (int s = 0; s < all; s++) {
        for (int c = 0; c < G * W; c++) store(key_at(s, c), check::number());
        for (int c = 0; c < G * V; c++) store(v[(size_t)(s * G * V + c)], check::number());
    }
    Pass pass = {tokens, past, first_output, all, q.data(), out.data(), k.data(), v.data()};
    long long tiles = (tokens - first_output + KERNEL::ROWS - 1) / KERNEL::ROWS;
    moec_shim::launch((tiles + KERNEL::MORE) * KERNEL::TIMES, KERNEL::THREADS, KERNEL::SHARED_BYTES, [&] { KERNEL::run(pass, 0); });
    for (int row = 0; row < tokens; row++)
        for (int head = 0; head < G * Q; head++) {
            int group = head / Q;
            if (row < first_output) {
                for (int c = 0; c < V; c++) check::same(bits(out[(size_t)((row * G * Q + head) * V + c)]), 0xffffffffu, name, row);
                continue;
            }
            std::vector<double> scores((size_t)all);
            double largest = STEP::SINK ? (double)STEP::sink(pass, 0, group, head % Q) : -INFINITY, total = 0;
            for (int s = 0; s < all; s++) {
                double dot = 0;
                for (int c = 0; c < W; c++) dot += (double)q[(size_t)((row * G * Q + head) * W + c)] * read(key_at(s, group * W + c));
                scores[(size_t)s] = STEP::scored(dot, past + row, s);
                largest = std::max(largest, scores[(size_t)s]);
            }
            if (STEP::SINK) total += std::exp((double)STEP::sink(pass, 0, group, head % Q) - largest);
            for (double &score : scores) total += score = std::exp(score - largest);
            for (int c = 0; c < V; c++) {
                double sum = 0;
                for (int s = 0; s < all; s++) sum += scores[(size_t)s] * read(v[(size_t)(s * G * V + group * V + c)]);
                check::near(out[(size_t)((row * G * Q + head) * V + c)], sum / total, 1, 2e-5, name, row, head * V + c);
            }
        }
}

template <class STEP> void both(const char *name) {
    for (unsigned seed : {0u, 1u, 9u}) {
        moec_shim::state.seed = seed;
        one<Attention<STEP>, STEP>(name, 41, 0, 0);
        one<Attention<STEP, 16>, STEP>(name, 1, 70, 0);
        one<Attention<STEP, 16>, STEP>(name, 3, 29, 1);
    }
}

} // namespace

int main() {
    both<Step<Bf16, Bf16, 2, 3, 32, 40, true, 0, false>>("causal");
    both<Step<Bf16, Bf16, 1, 1, 16, 16, true, 20, true>>("window and sink");
    both<Step<float, float, 2, 2, 20, 6, true, 0, true>>("f32");
    both<Step<F16, F16, 1, 2, 7, 5, false, 0, false>>("f16, odd sizes, not causal");
    both<Step<Bf16, Bf16, 1, 20, 144, 136, true, 0, false>>("wide");
    /* Compressed caches: all heads share wide keys, and shared memory has room for one block of them. */
    typedef Step<Bf16, Bf16, 1, 3, 576, 512, true, 0, false> Compressed;
    static_assert(Attention<Compressed>::STAGES == 1, "");
    one<Attention<Compressed>, Compressed>("compressed", 20, 30, 0);
    return check::finish("attention");
}
