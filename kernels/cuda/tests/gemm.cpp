/* The GEMM templates against plain loops in double precision: every storage format, tails along every axis, one branch and
 * several, gathers, empty and crowded experts, choices without an expert, and any order of threads and blocks. */
#include "check.h"
#include "device.cuh"
#include "storage.cuh"
#include "row_tile.cuh"
#include "few_rows.cuh"
#include "gemm.cuh"
#include "gemm_wide.cuh"

using namespace moec;
using check::number;

struct moec::Pass {};

namespace {

/* One matrix of one expert as codes, packed as docs/weight-file.md says. */
struct Packed {
    std::vector<double> values; /* [branches, n, k] */
    std::vector<char> bytes;
};

float f16_number() { return moec::f16_to_f32(moec::f32_to_f16(number())); }

double e2m1_value(int code) {
    static const double sizes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return code & 8 ? -sizes[code & 7] : sizes[code & 7];
}
double e4m3_value(int code) {
    int exponent = code >> 3 & 15, fraction = code & 7;
    double size = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
    return code & 128 ? -size : size;
}

enum Kind { F32, BF16, F16, PAIRS, INT8, INT4, MXFP4, FP8 };

Packed pack(Kind kind, int k_size, int n_size, int branches, int group) {
    int multiple = kind == PAIRS ? 2 : kind == INT8 ? 4 : kind >= INT4 ? group : 1;
    int padded = (k_size + multiple - 1) / multiple * multiple, columns = 16 * branches;
    int scale_bytes = kind == INT8 || kind == FP8 ? 4 : kind == INT4 ? 2 : kind == MXFP4 ? 1 : 0;
    int groups = scale_bytes ? (kind == INT8 ? 1 : padded / group) : 0;
    size_t scales = (size_t)(groups * columns * scale_bytes + 63) / 64 * 64;
    int bits = kind == F32 ? 32 : kind <= PAIRS ? 16 : kind == INT4 || kind == MXFP4 ? 4 : 8;
    size_t panel_bytes = scales + (size_t)padded * columns * bits / 8;
    int panels = (n_size + 15) / 16;
    Packed packed;
    packed.values.assign((size_t)branches * n_size * k_size, 0.0);
    packed.bytes.assign(panel_bytes * panels, 0);
    for (int panel = 0; panel < panels; panel++) {
        char *base = packed.bytes.data() + panel * panel_bytes, *elements = base + scales;
        std::vector<double> scale((size_t)std::max(groups, 1) * columns, 1.0);
        for (int at = 0; at < groups * columns; at++) {
            if (kind == INT8 || kind == FP8) {
                float value = (1.0f + number()) * 0.1f;
                memcpy(base + at * 4, &value, 4);
                scale[at] = value;
            } else if (kind == INT4) {
                unsigned short half = moec::f32_to_bf16(number() * 0.1f);
                memcpy(base + at * 2, &half, 2);
                scale[at] = moec::bf16_to_f32(half);
            } else {
                unsigned char code = (unsigned char)(120 + check::below(8));
                base[at] = (char)code;
                scale[at] = ldexp(1.0, code - 127);
            }
        }
        for (int branch = 0; branch < branches; branch++)
            for (int within = 0; within < 16; within++)
                for (int k = 0; k < padded; k++) {
                    int n = panel * 16 + within, c = branch * 16 + within;
                    bool real = n < n_size && k < k_size;
                    double value = 0;
                    if (kind == F32) {
                        float weight = real ? number() : 0;
                        memcpy(elements + (k * columns + c) * 4, &weight, 4);
                        value = weight;
                    } else if (kind == BF16 || kind == PAIRS) {
                        unsigned short half = real ? moec::f32_to_bf16(number()) : 0;
                        memcpy(elements + (kind == BF16 ? (k * columns + c) * 2 : (k / 2 * columns + c) * 4 + k % 2 * 2), &half, 2);
                        value = moec::bf16_to_f32(half);
                    } else if (kind == F16) {
                        float weight = real ? f16_number() : 0;
                        unsigned short half = moec::f32_to_f16(weight);
                        memcpy(elements + (k * columns + c) * 2, &half, 2);
                        value = weight;
                    } else if (kind == INT8 || kind == FP8) {
                        int code = real ? check::below(255) : kind == INT8 ? 128 : 0;
                        if (kind == INT8 && real) code += 1;
                        if (kind == FP8 && (code & 127) == 127) code &= 128;
                        elements[(k / 4 * columns + c) * 4 + k % 4] = (char)code;
                        double s = scale[(kind == INT8 ? 0 : k / group) * columns + c];
                        value = s * (kind == INT8 ? code - 128 : e4m3_value(code));
                    } else {
                        int code = real ? check::below(16) : kind == INT4 ? 8 : 0;
                        char &byte = elements[(k / 8 * columns + c) * 4 + k % 4];
                        byte = (char)(byte | code << (k % 8 < 4 ? 0 : 4));
                        value = scale[k / group * columns + c] * (kind == INT4 ? code - 8 : e2m1_value(code));
                    }
                    if (real) packed.values[((size_t)branch * n_size + n) * k_size + k] = value;
                }
    }
    return packed;
}

/* What the kernels' steps look at. */
struct Problem {
    std::vector<Packed> experts;
    check::Buffer<char> *weights;
    size_t instance_bytes;
    check::Buffer<float> *a, *out;
    check::Buffer<int> *written;
    std::vector<int> offsets, order;
    i64 first, end;
} problem;

template <Kind KIND> struct StoreOf;
template <> struct StoreOf<F32> { typedef Store_F32 Type; };
template <> struct StoreOf<BF16> { typedef Store_Bf16 Type; };
template <> struct StoreOf<F16> { typedef Store_F16 Type; };
template <> struct StoreOf<PAIRS> { typedef Store_Pairs Type; };
template <> struct StoreOf<INT8> { typedef Store_Int8 Type; };
template <> struct StoreOf<INT4> { typedef Store_Int4 Type; };
template <> struct StoreOf<MXFP4> { typedef Store_Mxfp4 Type; };
template <> struct StoreOf<FP8> { typedef Store_Fp8 Type; };

/* Out rows `[row][branch][n]`: every branch's sum is kept, so that each is checked. */
template <Kind KIND, int K_SIZE, int N_SIZE, int BRANCH_COUNT, int GROUP, bool IS_GROUPED> struct Step {
    static constexpr Kind KIND_OF = KIND;
    static constexpr int K = K_SIZE, N = N_SIZE, BRANCHES = BRANCH_COUNT, BATCH = 1, GROUP_SIZE = GROUP;
    typedef Panels<typename StoreOf<KIND>::Type, K, BRANCHES, GROUP> Weights;
    static constexpr bool GROUPED = IS_GROUPED, STORE_CHOICES = IS_GROUPED;
    static constexpr int EXPERTS = IS_GROUPED ? 5 : 1, FIRST = IS_GROUPED ? 1 : 0, ALL_EXPERTS = IS_GROUPED ? 7 : 1;
    static i64 first(const Pass &) { return problem.first; }
    static i64 end(const Pass &) { return problem.end; }
    static const int *offsets(const Pass &, int) { return problem.offsets.data(); }
    static const float *a(const Pass &, int, i64 row) {
        return problem.a->data() + (IS_GROUPED ? problem.order[(size_t)row] / 2 : row) * K;
    }
    static const char *weights(const Pass &, int, int expert) { return problem.weights->data() + expert * problem.instance_bytes; }
    static void store(const Pass &, int, int, i64 row, int n, const float (&sums)[BRANCHES]) {
        if (n < 0 || n >= N) moec_shim::die("a column that there is not");
        (*problem.written)[(size_t)(row * N + n)]++;
        for (int branch = 0; branch < BRANCHES; branch++) (*problem.out)[(size_t)((row * BRANCHES + branch) * N + n)] = sums[branch];
    }
    static void store_zero(const Pass &, int, i64 row, int n) {
        (*problem.written)[(size_t)(row * N + n)]++;
        for (int branch = 0; branch < BRANCHES; branch++) (*problem.out)[(size_t)((row * BRANCHES + branch) * N + n)] = 0;
    }
};

/* A row as it is multiplied. */
std::vector<double> rounded(Kind kind, const float *row, int count) {
    std::vector<double> values((size_t)count);
    float largest = 0;
    for (int at = 0; at < count; at++) largest = std::max(largest, std::fabs(row[at]));
    for (int at = 0; at < count; at++) {
        if (kind == PAIRS) values[at] = moec::bf16_to_f32(moec::f32_to_bf16(row[at]));
        else if (kind == INT8 || kind == INT4) values[at] = (double)rintf(row[at] * (127.0f / largest)) * (double)(largest / 127.0f);
        else values[at] = row[at];
    }
    return values;
}

template <class KERNEL, class STEP> void run(const char *name, const std::vector<int> &counts, int tokens) {
    int a_rows = STEP::GROUPED ? tokens : counts[0];
    i64 rows = 0;
    for (int count : counts) rows += count;
    problem.experts.clear();
    for (int expert = 0; expert < STEP::EXPERTS; expert++)
        problem.experts.push_back(pack(STEP::KIND_OF, STEP::K, STEP::N, STEP::BRANCHES, STEP::GROUP_SIZE));
    problem.instance_bytes = (problem.experts[0].bytes.size() + 63) / 64 * 64;
    check::Buffer<char> weights(problem.instance_bytes * STEP::EXPERTS);
    for (int expert = 0; expert < STEP::EXPERTS; expert++)
        memcpy(&weights[expert * problem.instance_bytes], problem.experts[expert].bytes.data(), problem.experts[expert].bytes.size());
    check::Buffer<float> a((size_t)a_rows * STEP::K), out((size_t)(rows * STEP::BRANCHES * STEP::N));
    check::Buffer<int> written((size_t)(rows * STEP::N));
    for (size_t at = 0; at < a.count; at++) a[at] = number() * (at % 7 == 0 ? 10.0f : 1.0f);
    for (size_t at = 0; at < written.count; at++) written[at] = 0;
    problem.weights = &weights, problem.a = &a, problem.out = &out, problem.written = &written;
    problem.first = STEP::GROUPED ? 0 : rows / 3, problem.end = rows;
    problem.offsets.assign(1, 0);
    if (STEP::GROUPED) {
        /* Counts are of all experts of the routing, then of the choices without one. */
        for (int expert = 0; expert < STEP::ALL_EXPERTS; expert++) problem.offsets.push_back(problem.offsets.back() + counts[expert]);
        problem.order.clear();
        for (i64 row = 0; row < rows; row++) problem.order.push_back(check::below(2 * tokens));
    }
    i64 step_rows = problem.end - problem.first;
    long long blocks = ((step_rows + KERNEL::ROWS - 1) / KERNEL::ROWS + KERNEL::MORE) * KERNEL::TIMES;
    Pass pass;
    moec_shim::launch(blocks, KERNEL::THREADS, KERNEL::SHARED_BYTES, [&] { KERNEL::run(pass, 0); });

    for (i64 row = 0; row < rows; row++) {
        int expert = 0;
        if (STEP::GROUPED) {
            while (expert < STEP::ALL_EXPERTS && row >= problem.offsets[expert + 1]) expert++;
            expert = expert == STEP::ALL_EXPERTS ? -1 : expert - STEP::FIRST;
        }
        bool is_mine = row >= problem.first && expert < STEP::EXPERTS && !(STEP::GROUPED && expert < 0 && row < problem.offsets.back());
        std::vector<double> values;
        if (is_mine && expert >= 0) values = rounded(STEP::KIND_OF, STEP::a(pass, 0, row), STEP::K);
        for (int n = 0; n < STEP::N; n++) {
            check::same(written[(size_t)(row * STEP::N + n)], is_mine, name, row);
            if (!is_mine) continue;
            for (int branch = 0; branch < STEP::BRANCHES; branch++) {
                double sum = 0, size = 1e-6;
                if (expert >= 0) {
                    const double *w = &problem.experts[expert].values[((size_t)branch * STEP::N + n) * STEP::K];
                    for (int k = 0; k < STEP::K; k++) sum += values[k] * w[k], size += std::fabs(values[k] * w[k]);
                }
                check::near(out[(size_t)((row * STEP::BRANCHES + branch) * STEP::N + n)], sum, size, 1e-6, name, row, n);
            }
        }
    }
}

template <class STEP> void both(const char *name, const std::vector<int> &counts, int tokens) {
    for (unsigned seed : {0u, 1u, 77u}) {
        moec_shim::state.seed = seed;
        run<Gemm<STEP>, STEP>(name, counts, tokens);
        run<GemmFew<STEP>, STEP>(name, counts, tokens);
    }
}

template <class STEP> void wide(const char *name, const std::vector<int> &counts, int tokens) {
    for (unsigned seed : {0u, 1u, 77u}) {
        moec_shim::state.seed = seed;
        run<GemmWide<STEP>, STEP>(name, counts, tokens);
        run<GemmWide<STEP, 32>, STEP>(name, counts, tokens);
    }
}

template <Kind KIND, int GROUP> void format(const char *name) {
    both<Step<KIND, 136, 24, 1, GROUP, false>>(name, {90}, 0);
    both<Step<KIND, 67, 70, 2, GROUP, false>>(name, {3}, 0);
    /* One expert more than the bank has on each side; an empty one, one of one row, a crowded one; three without. */
    both<Step<KIND, 200, 33, 2, GROUP, true>>(name, {4, 0, 1, 70, 9, 8, 2, 3}, 50);
}

} // namespace

int main() {
    format<F32, 0>("f32");
    format<BF16, 0>("bf16");
    format<F16, 0>("f16");
    format<PAIRS, 0>("bf16_pairs");
    format<INT8, 0>("int8");
    format<INT4, 32>("int4_32");
    format<INT4, 128>("int4_128");
    format<MXFP4, 32>("mxfp4");
    format<FP8, 128>("fp8_128");
    format<FP8, 48>("fp8_48");
    /* More of k than shared memory holds at once. */
    both<Step<PAIRS, 2600, 20, 1, 0, false>>("long rows", {9}, 0);
    both<Step<PAIRS, 64, 16, 3, 0, false>>("three branches", {65}, 0);
    both<Step<F32, 9, 5, 1, 0, false>>("tiny", {2}, 0);
    both<Step<BF16, 40, 16, 5, 0, false>>("five branches", {20}, 0);
    wide<Step<PAIRS, 600, 40, 1, 0, false>>("wide", {150}, 0);
    wide<Step<PAIRS, 67, 270, 1, 0, false>>("wide, odd sizes", {40}, 0);
    wide<Step<PAIRS, 200, 33, 2, 0, true>>("wide, grouped", {4, 0, 1, 70, 9, 8, 2, 3}, 50);
    return check::finish("gemm");
}
