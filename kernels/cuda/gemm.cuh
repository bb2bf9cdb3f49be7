// GEMMs, plain and grouped by expert, on tensor cores by `mma.sync` (sm_80 and later).
//
//   sums[b][row, n] = sum over k of rounded(a[row, k]) * weights[b][n, k], then STEP::store(row, n, sums)
//
// `a` is f32 and rounded as the weights' format asks; where rows stay f32, they and the weights are cut into as many bf16 as
// keep 24 bits, and every product that matters at f32's precision is summed.
//
// Grid: (ceil(rows / ROWS) + MORE) * TIMES blocks: tiles of ROWS rows times groups of columns, columns fastest. Tiles of a
// routing start anew with each expert; which tile a block has, it finds from the offsets, so the host need not know them.
// Shared memory: a ring of STAGES slabs of SLAB elements along k, filled by asynchronous copies: of `a` as it is, row by row
// (so a gather costs nothing), of the weights panel by panel as they are stored.
// A tile of at most FEW_ROWS rows goes the way of `FewRows` (few_rows.cuh) instead: the choice is made for each expert by its
// count. The order of every sum depends on K, the format and which of the two ways only.
//
// STEP, printed: K, N, BRANCHES, BATCH, Weights (a Panels), GROUPED, EXPERTS, FIRST, ALL_EXPERTS, STORE_CHOICES, first, end,
// offsets, a, weights, store, store_zero. Rows of `a` are aligned to 16 bytes where K is a multiple of 4.

namespace moec {

// A float as PARTS bf16 whose sum it is, as far as they reach. What is not finite stays whole in the first.
template <int PARTS> MOEC_DEVICE void parts_of(float low, float high, u32 (&parts)[PARTS]) {
    parts[0] = bf16_pair(low, high);
    if constexpr (PARTS > 1) {
        for (int part = 1; part < PARTS; part++) {
            float low_part = float_of(parts[part - 1] << 16), high_part = float_of(parts[part - 1] & 0xffff0000u);
            low = fabsf(low_part) <= 3.0e38f ? low - low_part : 0.0f;
            high = fabsf(high_part) <= 3.0e38f ? high - high_part : 0.0f;
            parts[part] = bf16_pair(low, high);
        }
    }
}

// How one format's slabs become fragments. A step of the tensor core takes STEP_K elements along k; the elements of lane t
// (of four) are 4t..4t+3, and for bytes 16 + 4t.. as well: another order than the instruction's own, the same on both sides.
template <class WEIGHTS, int ROWS_PER_WARP, int TILES> struct FloatFragments {
    typedef typename WEIGHTS::Store Store;
    static constexpr int STEP_K = 16, PARTS = Store::PARTS, ROW_PARTS = WEIGHTS::ROWS == ROWS_BF16 ? 1 : 3;
    // Products of parts beyond these are too small to be seen.
    static constexpr int ORDERS = 3;
    typedef float Sum;
    u32 rows[ROWS_PER_WARP][ROW_PARTS][4], columns[PARTS][2];

    MOEC_DEVICE void load_rows(int tile, int half, const float *row, ByteRow) {
        Floats4 four = *(const Floats4 *)(row + lane() % 4 * 4);
        for (int pair = 0; pair < 2; pair++) {
            u32 parts[ROW_PARTS];
            parts_of<ROW_PARTS>(four.values[2 * pair], four.values[2 * pair + 1], parts);
            for (int part = 0; part < ROW_PARTS; part++) rows[tile][part][pair * 2 + half] = parts[part];
        }
    }

    // From the line at k, of lines `stride` bytes apart.
    MOEC_DEVICE void load_columns(const char *slab, int stride, int k, int column) {
        int at = k + lane() % 4 * 4;
        const char *cell = slab + at / WEIGHTS::LINE_K * stride + column * Store::CELL_BYTES;
        if constexpr (WEIGHTS::LINE_K == 2) {
            columns[0][0] = *(const u32 *)cell;
            columns[0][1] = *(const u32 *)(cell + stride);
        } else {
            float four[4];
            for (int i = 0; i < 4; i++) {
                u32 word;
                if constexpr (WEIGHTS::LINE_K > 1) word = *(const u32 *)cell;
                else if constexpr (Store::CELL_BYTES == 2) word = *(const unsigned short *)(cell + i * stride);
                else word = *(const u32 *)(cell + i * stride);
                four[i] = cell_value(Store(), word, WEIGHTS::LINE_K == 1 ? 0 : at % WEIGHTS::LINE_K + i);
            }
            for (int pair = 0; pair < 2; pair++) {
                u32 parts[PARTS];
                parts_of<PARTS>(four[2 * pair], four[2 * pair + 1], parts);
                for (int part = 0; part < PARTS; part++) columns[part][pair] = parts[part];
            }
        }
    }

    MOEC_DEVICE void multiply(int tile, float (&sums)[4]) {
        // The small products first.
        for (int order = ORDERS - 1; order >= 0; order--)
            for (int part = 0; part < PARTS; part++)
                if (order - part >= 0 && order - part < ROW_PARTS) mma_bf16(sums, rows[tile][order - part], columns[part]);
    }
};

template <class WEIGHTS, int ROWS_PER_WARP, int TILES> struct ByteFragments {
    typedef typename WEIGHTS::Store Store;
    static constexpr int STEP_K = 32;
    typedef int Sum;
    u32 rows[ROWS_PER_WARP][4], columns[2];

    MOEC_DEVICE void load_rows(int tile, int half, const float *row, ByteRow as) {
        for (int part = 0; part < 2; part++) {
            Floats4 four = *(const Floats4 *)(row + part * 16 + lane() % 4 * 4);
            rows[tile][part * 2 + half] = bytes_of(four.values, as.inverse);
        }
    }

    MOEC_DEVICE void load_columns(const char *slab, int stride, int k, int column) {
        for (int part = 0; part < 2; part++) {
            int at = k + part * 16 + lane() % 4 * 4;
            u32 cell = *(const u32 *)(slab + at / WEIGHTS::LINE_K * stride + column * 4);
            columns[part] = cell_bytes(Store(), cell, at % WEIGHTS::LINE_K / 4);
        }
    }

    MOEC_DEVICE void multiply(int tile, int (&sums)[4]) { mma_bytes(sums, rows[tile], columns); }
};

template <bool BYTES, class WEIGHTS, int ROWS_PER_WARP, int TILES> struct FragmentsOf {
    typedef FloatFragments<WEIGHTS, ROWS_PER_WARP, TILES> Type;
};
template <class WEIGHTS, int ROWS_PER_WARP, int TILES> struct FragmentsOf<true, WEIGHTS, ROWS_PER_WARP, TILES> {
    typedef ByteFragments<WEIGHTS, ROWS_PER_WARP, TILES> Type;
};

template <class STEP> struct Gemm {
    typedef typename STEP::Weights Weights;
    static constexpr int THREADS = 128, ROWS = 64, SLAB = 64, STAGES = 3, FEW_ROWS = 8;
    // Two warps side by side along the rows, two along the columns. A warp has all branches of its columns.
    static constexpr int WARP_ROWS = ROWS / 2 / 16, WARP_PANELS = STEP::BRANCHES == 1 ? 2 : 1;
    static constexpr int PANELS = 2 * WARP_PANELS, ALL_PANELS = (STEP::N + 15) / 16;
    static constexpr int TIMES = (ALL_PANELS + PANELS - 1) / PANELS;
    static constexpr int MORE = STEP::GROUPED ? STEP::EXPERTS + (STEP::STORE_CHOICES ? 1 : 0) : 0;

    // A row of the slab of `a`, so that eight lanes that read 16 bytes each meet no bank twice.
    static constexpr int A_ROW = SLAB + 16;
    static constexpr int SLAB_LINES = SLAB / Weights::LINE_K;
    static constexpr int LINE_BYTES = Weights::LINE_BYTES + (Weights::LINE_K == 2 || Weights::LINE_K == 1 ? 16 : 32);
    static constexpr int A_BYTES = ROWS * A_ROW * 4, B_BYTES = PANELS * SLAB_LINES * LINE_BYTES;
    static constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
    typedef FewRows<STEP, THREADS, PANELS, false> Few;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES > Few::SHARED_BYTES ? STAGES * STAGE_BYTES : Few::SHARED_BYTES;

    static constexpr bool BYTES = Weights::ROWS == ROWS_BYTES;
    // Tiles of eight columns of a warp.
    static constexpr int TILES = WARP_PANELS * STEP::BRANCHES * 2;
    typedef typename FragmentsOf<BYTES, Weights, WARP_ROWS, TILES>::Type Fragments;
    typedef typename Fragments::Sum Sum;
    static constexpr int SLABS = (Weights::PADDED_K + SLAB - 1) / SLAB;
    // Sums of one group of scales have to be kept apart from those before.
    static constexpr bool GROUPS = Weights::SCALED && Weights::GROUP_K < Weights::PADDED_K;

    static MOEC_DEVICE void run(const Pass &pass, int rank) {
        RowTile tile = row_tile<STEP, ROWS>(pass, rank, block() / TIMES);
        int first_panel = (int)(block() % TIMES) * PANELS;
        if (tile.expert == -2) return;
        if (tile.expert == -1) {
            store_zeros<STEP>(pass, rank, tile, first_panel * 16, least((first_panel + PANELS) * 16, (int)STEP::N));
        } else if (tile.to - tile.from <= FEW_ROWS) {
            Few::run(pass, rank, tile, first_panel);
        } else {
            many(pass, rank, tile, first_panel);
        }
    }

    // Starts the copies of slab `number`, as one group.
    static MOEC_DEVICE void fill(const float *const *rows, const char *weights, int first_panel, int number) {
        char *a = dynamic_shared() + number % STAGES * STAGE_BYTES, *b = a + A_BYTES;
        if (number < SLABS) {
            int k = number * SLAB;
            if constexpr (STEP::K % 4 == 0) {
                for (int at = thread(); at < ROWS * (SLAB / 4); at += THREADS) {
                    int row = at / (SLAB / 4), within = at % (SLAB / 4) * 4;
                    const float *from = rows[row];
                    copy_16(a + (row * A_ROW + within) * 4, from + k + within, from && k + within < STEP::K);
                }
            } else {
                for (int at = thread(); at < ROWS * SLAB; at += THREADS) {
                    int row = at / SLAB, within = at % SLAB;
                    const float *from = rows[row];
                    copy_4(a + (row * A_ROW + within) * 4, from + k + within, from && k + within < STEP::K);
                }
            }
            constexpr int CHUNKS = Weights::LINE_BYTES / 16;
            for (int at = thread(); at < PANELS * SLAB_LINES * CHUNKS; at += THREADS) {
                int panel = at / (SLAB_LINES * CHUNKS), line = at / CHUNKS % SLAB_LINES, chunk = at % CHUNKS;
                int from_line = number * SLAB_LINES + line;
                const char *from = weights + (first_panel + panel) * Weights::BYTES + Weights::LINES_AT +
                                   (i64)from_line * Weights::LINE_BYTES + chunk * 16;
                bool wanted = first_panel + panel < ALL_PANELS && from_line < Weights::LINES;
                copy_16(b + (panel * SLAB_LINES + line) * LINE_BYTES + chunk * 16, from, wanted);
            }
        }
        copies_group();
    }

    static MOEC_DEVICE void many(const Pass &pass, int rank, const RowTile &tile, int first_panel) {
        MOEC_SHARED const float *rows[ROWS];
        MOEC_SHARED ByteRow as_bytes[BYTES ? ROWS : 1];
        const char *weights = STEP::weights(pass, rank, tile.expert);
        int count = (int)(tile.to - tile.from);
        for (int row = thread(); row < ROWS; row += THREADS)
            rows[row] = row < count ? STEP::a(pass, rank, tile.from + row) : nullptr;
        barrier();
        for (int stage = 0; stage < STAGES - 1; stage++) fill(rows, weights, first_panel, stage);
        if constexpr (BYTES) {
            for (int row = warp(); row < ROWS; row += THREADS / 32) {
                ByteRow as = byte_row(rows[row] ? warp_largest(rows[row], STEP::K) : 0.0f);
                if (lane() == 0) as_bytes[row] = as;
            }
            barrier();
        }

        const int warp_row = warp() / 2 * WARP_ROWS * 16, warp_panel = warp() % 2 * WARP_PANELS;
        const int g = lane() / 4, t = lane() % 4;
        ByteRow of_rows[WARP_ROWS][2];
        for (int at = 0; at < WARP_ROWS; at++)
            for (int half = 0; half < 2; half++)
                of_rows[at][half] = BYTES ? as_bytes[BYTES ? warp_row + at * 16 + half * 8 + g : 0] : ByteRow();

        float sums[WARP_ROWS][TILES][4];
        Sum of_group[WARP_ROWS][TILES][4];
        for (int at = 0; at < WARP_ROWS; at++)
            for (int tile = 0; tile < TILES; tile++)
                for (int i = 0; i < 4; i++) {
                    sums[at][tile][i] = 0.0f;
                    of_group[at][tile][i] = 0;
                }

        auto end_group = [&](int group) {
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
                int panel = first_panel + warp_panel + tile / (2 * STEP::BRANCHES);
                int column = tile % (2 * STEP::BRANCHES) * 8 + t * 2;
                const char *scales = weights + least(panel, ALL_PANELS - 1) * Weights::BYTES;
                float scale[2];
                for (int i = 0; i < 2; i++) scale[i] = Weights::scale(scales, group, column + i);
                for (int at = 0; at < WARP_ROWS; at++)
                    for (int i = 0; i < 4; i++) {
                        sums[at][tile][i] += (float)of_group[at][tile][i] * scale[i % 2];
                        of_group[at][tile][i] = 0;
                    }
            }
        };

        for (int slab = 0; slab < SLABS; slab++) {
            copies_wait<STAGES - 2>();
            barrier();
            fill(rows, weights, first_panel, slab + STAGES - 1);
            const char *stage = dynamic_shared() + slab % STAGES * STAGE_BYTES, *b = stage + A_BYTES;
            const float *a = (const float *)stage;
#pragma unroll
            for (int k = 0; k < SLAB; k += Fragments::STEP_K) {
                if (slab * SLAB + k >= Weights::PADDED_K) break;
                Fragments fragments;
#pragma unroll
                for (int at = 0; at < WARP_ROWS; at++)
                    for (int half = 0; half < 2; half++)
                        fragments.load_rows(at, half, a + (warp_row + at * 16 + half * 8 + g) * A_ROW + k, of_rows[at][half]);
#pragma unroll
                for (int tile = 0; tile < TILES; tile++) {
                    int panel = warp_panel + tile / (2 * STEP::BRANCHES), column = tile % (2 * STEP::BRANCHES) * 8 + g;
                    fragments.load_columns(b + panel * SLAB_LINES * LINE_BYTES, LINE_BYTES, k, column);
                    for (int at = 0; at < WARP_ROWS; at++) fragments.multiply(at, of_group[at][tile]);
                }
                if constexpr (GROUPS) {
                    int done = slab * SLAB + k + Fragments::STEP_K;
                    if (done % Weights::GROUP_K == 0) end_group(done / Weights::GROUP_K - 1);
                }
            }
        }
        copies_wait<0>();
        if constexpr (!GROUPS) end_group(0);

#pragma unroll
        for (int at = 0; at < WARP_ROWS; at++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                i64 row = tile.from + warp_row + at * 16 + half * 8 + g;
                if (row >= tile.to) continue;
#pragma unroll
                for (int panel = 0; panel < WARP_PANELS; panel++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        int n = (first_panel + warp_panel + panel) * 16 + i / 2 * 8 + t * 2 + i % 2;
                        if (n >= STEP::N) continue;
                        float branches[STEP::BRANCHES];
                        for (int branch = 0; branch < STEP::BRANCHES; branch++) {
                            float sum = sums[at][(panel * STEP::BRANCHES + branch) * 2 + i / 2][half * 2 + i % 2];
                            branches[branch] = BYTES ? sum * of_rows[at][half].scale : sum;
                        }
                        STEP::store(pass, rank, tile.expert, row, n, branches);
                    }
            }
    }
};

} // namespace moec
