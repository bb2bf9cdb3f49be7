/* Attention against plain loops in double precision: prefill and one position after many, grouped queries, causal or not,
 * windows, sinks, a soft cap, wide keys and narrow values, caches of each type, rubbish behind the last key, several sessions, keys
 * that are split over blocks. */
#include "check.h"
#include "device.cuh"

#include "pass.cuh"
#include "storage.cuh"
#include "row_tile.cuh"
#include "few_rows.cuh"
#include "gemm.cuh"
#include "attention.cuh"

using namespace moec;

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
    static i64 keys(const Pass &, const Segment &segment) { return segment.past + segment.tokens; }
    static const float *q(const Pass &pass, int, i64 row) { return (const float *)pass.inputs[0] + row * G * Q * W; }
    static float *out(const Pass &pass, int, i64 row) { return (float *)pass.outputs[0] + row * G * Q * V; }
    static const Key *k(const Pass &, int, const Segment &segment, i64 position) {
        if (position % 16) moec_shim::die("keys come in panels");
        return (const Key *)segment.pages[position / PAGE] + position % PAGE * G * W;
    }
    static const Value *v(const Pass &, int, const Segment &segment, i64 position) {
        return (const Value *)(segment.pages[position / PAGE] + sizeof(Key) * PAGE * G * W) + position % PAGE * G * V;
    }
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

/* What a session brings to a pass. */
struct Given {
    int tokens, past;
};

void launch_all(long long blocks, int threads, size_t shared_bytes, void (*run)(const Pass &, int), const Pass &pass) {
    moec_shim::launch(blocks, threads, shared_bytes, [&] { run(pass, 0); });
}

/* All rows from `first_output` on, of sessions with keys of their own, in pages that lie anywhere. */
template <class STEP, int MOST_ROWS, int SPLITS> void one(const char *name, std::vector<Given> sessions, int first_output) {
    typedef typename STEP::Key Key;
    typedef typename STEP::Value Value;
    typedef Attention<STEP, MOST_ROWS, SPLITS> Kernel;
    constexpr int G = STEP::GROUPS, Q = STEP::QUERIES, W = STEP::WIDTH, V = STEP::VALUES;
    constexpr size_t PAGE_BYTES = PAGE * G * (W * sizeof(Key) + V * sizeof(Value));
    int tokens = 0, all_pages = 0;
    for (const Given &given : sessions) {
        tokens += given.tokens;
        all_pages += (given.past + given.tokens + PAGE - 1) / PAGE;
    }
    check::Buffer<float> q((size_t)tokens * G * Q * W), out((size_t)tokens * G * Q * V);
    check::Buffer<char> cache((size_t)all_pages * PAGE_BYTES);
    for (size_t at = 0; at < q.count; at++) q[at] = check::number();
    std::vector<char *> pages;
    for (int at = 0; at < all_pages; at++) pages.push_back(cache.data() + (size_t)(all_pages - 1 - at) * PAGE_BYTES);
    std::vector<Segment> segments;
    std::vector<i64> positions;
    std::vector<char *const *> pages_of_rows;
    std::vector<int> of_rows;
    size_t taken = 0;
    for (const Given &given : sessions) {
        segments.push_back({(i64)positions.size(), given.tokens, given.past, nullptr, pages.data() + taken, nullptr});
        taken += (size_t)(given.past + given.tokens + PAGE - 1) / PAGE;
        for (int at = 0; at < given.tokens; at++) {
            positions.push_back(given.past + at);
            of_rows.push_back((int)segments.size() - 1);
            pages_of_rows.push_back(segments.back().pages);
        }
    }
    auto key_at = [&](int of, int s, int c) -> Key & {
        return ((Key *)segments[(size_t)of].pages[s / PAGE])[s % PAGE / 16 * 16 * G * W + c * 16 + s % 16];
    };
    auto value_at = [&](int of, int s, int c) -> Value & {
        return ((Value *)(segments[(size_t)of].pages[s / PAGE] + sizeof(Key) * PAGE * G * W))[s % PAGE * G * V + c];
    };
    for (int of = 0; of < (int)segments.size(); of++)
        for (int s = 0; s < segments[(size_t)of].past + segments[(size_t)of].tokens; s++) {
            for (int c = 0; c < G * W; c++) store(key_at(of, s, c), check::number());
            for (int c = 0; c < G * V; c++) store(value_at(of, s, c), check::number());
        }
    char *inputs[] = {(char *)q.data()}, *outputs[] = {(char *)out.data()};
    long long tiles = (tokens - first_output + Kernel::ROWS - 1) / Kernel::ROWS + (long long)segments.size() - 1;
    check::Buffer<float> scratch(SPLITS == 1 ? 1 : (size_t)(tiles * Kernel::TIMES * Kernel::TILE * Kernel::PARTIAL));
    Pass pass = {tokens, first_output, tokens, (i64)segments.size(), nullptr, nullptr, inputs, outputs,
        (char *)scratch.data(), positions.data(), pages_of_rows.data(), segments.data()};
    launch_all(tiles * Kernel::TIMES, Kernel::THREADS, Kernel::SHARED_BYTES, Kernel::run, pass);
    if constexpr (SPLITS > 1) {
        typedef AttentionEnd<STEP, MOST_ROWS, SPLITS> End;
        launch_all(tiles * End::TIMES, End::THREADS, End::SHARED_BYTES, End::run, pass);
    }
    for (int row = 0; row < tokens; row++)
        for (int head = 0; head < G * Q; head++) {
            int group = head / Q, of = of_rows[(size_t)row], own = (int)positions[(size_t)row];
            int all = (int)(segments[(size_t)of].past + segments[(size_t)of].tokens);
            if (row < first_output) {
                for (int c = 0; c < V; c++) check::same(bits(out[(size_t)((row * G * Q + head) * V + c)]), 0xffffffffu, name, row);
                continue;
            }
            std::vector<double> scores((size_t)all);
            double largest = STEP::SINK ? (double)STEP::sink(pass, 0, group, head % Q) : -INFINITY, total = 0;
            for (int s = 0; s < all; s++) {
                double dot = 0;
                for (int c = 0; c < W; c++) dot += (double)q[(size_t)((row * G * Q + head) * W + c)] * read(key_at(of, s, group * W + c));
                scores[(size_t)s] = STEP::scored(dot, own, s);
                largest = std::max(largest, scores[(size_t)s]);
            }
            if (STEP::SINK) total += std::exp((double)STEP::sink(pass, 0, group, head % Q) - largest);
            for (double &score : scores) total += score = std::exp(score - largest);
            for (int c = 0; c < V; c++) {
                double sum = 0;
                for (int s = 0; s < all; s++) sum += scores[(size_t)s] * read(value_at(of, s, group * V + c));
                check::near(out[(size_t)((row * G * Q + head) * V + c)], sum / total, 1, 2e-5, name, row, head * V + c);
            }
        }
}

template <class STEP> void all(const char *name) {
    for (unsigned seed : {0u, 1u, 9u}) {
        moec_shim::state.seed = seed;
        one<STEP, 64, 1>(name, {{41, 0}}, 0);
        one<STEP, 16, 1>(name, {{1, 70}, {3, 29}, {1, 0}}, 0);
        one<STEP, 16, 1>(name, {{3, 126}}, 1);
    }
}

/* Splits of whole pages: of one session with many keys, one with few, one with a single one. */
template <class STEP> void splits(const char *name) {
    for (unsigned seed : {0u, 9u}) {
        moec_shim::state.seed = seed;
        one<STEP, 16, 3>(name, {{2, 520}, {1, 130}, {1, 0}}, 1);
    }
}

} // namespace

int main() {
    typedef Step<Bf16, Bf16, 1, 1, 16, 16, true, 20, true> Window;
    typedef Step<float, float, 2, 2, 20, 6, true, 0, true> Plain;
    typedef Step<F16, F16, 1, 2, 7, 5, false, 0, false> Odd;
    all<Step<Bf16, Bf16, 2, 3, 32, 40, true, 0, false>>("causal");
    all<Window>("window and sink");
    all<Plain>("f32");
    all<Odd>("f16, odd sizes, not causal");
    all<Step<Bf16, Bf16, 1, 20, 144, 136, true, 0, false>>("wide");
    splits<Plain>("f32, split");
    splits<Odd>("f16, split");
    splits<Step<Bf16, Bf16, 1, 1, 16, 16, true, 300, true>>("window and sink, split");
    /* Compressed caches: all heads share wide keys, and shared memory has room for one block of them. */
    typedef Step<Bf16, Bf16, 1, 3, 576, 512, true, 0, false> Compressed;
    static_assert(Attention<Compressed>::STAGES == 1, "");
    one<Compressed, 64, 1>("compressed", {{20, 30}}, 0);
    return check::finish("attention");
}
