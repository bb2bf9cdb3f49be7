// GEMMs of up to eight rows: the time is that of reading the weights, so all threads of a block read them, each a part of k.
//
// A thread has 16 bytes of every LANES-th line of a panel: some neighbouring columns, for which it sums alone; the sums of all
// threads are then added in the order of the threads. Rows stay f32 (or bytes) and are multiplied as they are.
//
// `FewRows` is one tile's way, `GemmFew` a kernel of its own with a panel for each block, which takes any number of rows but
// is meant for few: more blocks, more bytes under way. STEP as in gemm.cuh.
// Grid of GemmFew: (ceil(rows / 8) + MORE) * TIMES. Shared memory: the rows as columns, then the sums.

namespace moec {

// SIZES: code for one and for up to four rows as well, not for up to eight only.
template <class STEP, int THREADS, int PANELS, bool SIZES> struct FewRows {
    typedef typename STEP::Weights Weights;
    typedef typename Weights::Store Store;
    static constexpr int MOST = 8;
    static constexpr bool BYTES = Weights::ROWS == ROWS_BYTES;
    static constexpr int ALL_PANELS = (STEP::N + 15) / 16;
    // Columns of 16 bytes, such parts of a line, and lines that are read side by side.
    static constexpr int WIDE = 16 / Store::CELL_BYTES, CHUNKS = Weights::LINE_BYTES / 16, LANES = THREADS / CHUNKS;
    static_assert(LANES > 0, "a panel of so many branches is too wide for the block");
    // Lines that a thread reads before it uses the first.
    static constexpr int AHEAD = 4;
    static constexpr int ROW_BYTES = 32 << 10, SUM_BYTES = THREADS * WIDE * MOST * 4;
    static constexpr int RESULTS_AT = ROW_BYTES > SUM_BYTES ? ROW_BYTES : SUM_BYTES;
    static constexpr int SHARED_BYTES = RESULTS_AT + Weights::COLUMNS * MOST * 4;

    static MOEC_DEVICE void run(const Pass &pass, int rank, const RowTile &tile, int first_panel) {
        if constexpr (SIZES) {
            i64 count = tile.to - tile.from;
            if (count == 1) return rows<1>(pass, rank, tile, first_panel);
            if (count <= 4) return rows<4>(pass, rank, tile, first_panel);
        }
        rows<MOST>(pass, rank, tile, first_panel);
    }

    template <int COUNT> static MOEC_DEVICE void rows(const Pass &pass, int rank, const RowTile &tile, int first_panel) {
        // Elements of the rows that shared memory holds at once.
        constexpr int SLAB = ROW_BYTES / 4 / COUNT;
        const int count = (int)(tile.to - tile.from), chunk = thread() % CHUNKS, lane_line = thread() / CHUNKS;
        const char *weights = STEP::weights(pass, rank, tile.expert);
        MOEC_SHARED ByteRow as_bytes[MOST];
        if constexpr (BYTES) {
            for (int row = warp(); row < count; row += THREADS / 32) {
                ByteRow as = byte_row(warp_largest(STEP::a(pass, rank, tile.from + row), STEP::K));
                if (lane() == 0) as_bytes[row] = as;
            }
            barrier();
        }
        for (int panel = first_panel; panel < first_panel + PANELS && panel < ALL_PANELS; panel++) {
            const char *base = weights + panel * Weights::BYTES;
            float sums[COUNT][WIDE];
            int whole[COUNT][WIDE];
            for (int row = 0; row < COUNT; row++)
                for (int i = 0; i < WIDE; i++) sums[row][i] = 0.0f, whole[row][i] = 0;
            for (int k = 0; k < Weights::PADDED_K; k += SLAB) {
                barrier();
                load_rows<COUNT>(pass, rank, tile, k, least(SLAB, (int)Weights::PADDED_K - k), as_bytes);
                barrier();
                int end = least(k + SLAB, (int)Weights::PADDED_K) / Weights::LINE_K;
                int line = lane_line < LANES ? k / Weights::LINE_K + lane_line : end;
                for (; line < end; line += LANES * AHEAD) {
                    Words4 cells[AHEAD];
#pragma unroll
                    for (int i = 0; i < AHEAD; i++) {
                        int at = least(line + i * LANES, end - 1);
                        cells[i] = load_stream(base + Weights::LINES_AT + (i64)at * Weights::LINE_BYTES + chunk * 16);
                    }
#pragma unroll
                    for (int i = 0; i < AHEAD; i++) {
                        int at = line + i * LANES;
                        if (at < end) add_line<COUNT>(base, at, at - k / Weights::LINE_K, chunk, cells[i], sums, whole);
                    }
                }
            }
            barrier();
            add_threads<COUNT>(base, chunk, lane_line, sums, whole);
            for (int at = thread(); at < 16 * count; at += THREADS) {
                int row = at / 16, n = panel * 16 + at % 16;
                if (n >= STEP::N) continue;
                float branches[STEP::BRANCHES];
                for (int branch = 0; branch < STEP::BRANCHES; branch++) {
                    float sum = results()[row * Weights::COLUMNS + branch * 16 + at % 16];
                    branches[branch] = BYTES ? sum * as_bytes[row].scale : sum;
                }
                STEP::store(pass, rank, tile.expert, tile.from + row, n, branches);
            }
        }
    }

  private:
    static MOEC_DEVICE float *results() { return (float *)(dynamic_shared() + RESULTS_AT); }

    // Elements k .. k + size of the rows: as columns of COUNT floats, or of COUNT words of four bytes.
    template <int COUNT>
    static MOEC_DEVICE void load_rows(const Pass &pass, int rank, const RowTile &tile, int k, int size, const ByteRow *as_bytes) {
        for (int row = 0; row < COUNT; row++) {
            const float *from = tile.from + row < tile.to ? STEP::a(pass, rank, tile.from + row) + k : nullptr;
            int real = from ? least(size, STEP::K - k) : 0;
            if constexpr (BYTES) {
                u32 *into = (u32 *)dynamic_shared();
                float inverse = from ? as_bytes[row].inverse : 0.0f;
                for (int at = thread(); at < size / 4; at += THREADS) {
                    float four[4];
                    for (int i = 0; i < 4; i++) four[i] = at * 4 + i < real ? from[at * 4 + i] : 0.0f;
                    into[at * COUNT + row] = bytes_of(four, inverse);
                }
            } else {
                float *into = (float *)dynamic_shared();
                for (int at = thread(); at < size; at += THREADS) {
                    float value = at < real ? from[at] : 0.0f;
                    into[at * COUNT + row] = Weights::ROWS == ROWS_BF16 ? rounded_to_bf16(value) : value;
                }
            }
        }
    }

    // The products of one line with the rows; `within` is the line's number among those of the slab.
    template <int COUNT>
    static MOEC_DEVICE void add_line(const char *base, int line, int within, int chunk, const Words4 &cells,
                                     float (&sums)[COUNT][WIDE], int (&whole)[COUNT][WIDE]) {
        constexpr bool SCALED = Weights::SCALED && Weights::GROUP_K < Weights::PADDED_K;
        float scales[WIDE];
        for (int i = 0; i < WIDE; i++)
            scales[i] = SCALED ? Weights::scale(base, line * Weights::LINE_K / Weights::GROUP_K, chunk * WIDE + i) : 1.0f;
        if constexpr (BYTES) {
            const u32 *row_words = (const u32 *)dynamic_shared() + within * (Weights::LINE_K / 4) * COUNT;
            for (int i = 0; i < WIDE; i++)
                for (int row = 0; row < COUNT; row++) {
                    int sum = SCALED ? 0 : whole[row][i];
                    for (int half = 0; half < Weights::LINE_K / 4; half++)
                        sum = dot_bytes(row_words[half * COUNT + row], cell_bytes(Store(), cells.words[i], half), sum);
                    if (SCALED) sums[row][i] += (float)sum * scales[i];
                    else whole[row][i] = sum;
                }
        } else {
            const float *row_values = (const float *)dynamic_shared() + within * Weights::LINE_K * COUNT;
            for (int i = 0; i < WIDE; i++) {
                u32 cell = Store::CELL_BYTES == 4 ? cells.words[i % 4] : cells.words[i / 2] >> (i % 2 * 16) & 0xffff;
                float of_line[COUNT];
                for (int row = 0; row < COUNT; row++) of_line[row] = SCALED ? 0.0f : sums[row][i];
                for (int at = 0; at < Weights::LINE_K; at++) {
                    float weight = cell_value(Store(), cell, at);
                    for (int row = 0; row < COUNT; row++) of_line[row] += row_values[at * COUNT + row] * weight;
                }
                for (int row = 0; row < COUNT; row++)
                    sums[row][i] = SCALED ? sums[row][i] + of_line[row] * scales[i] : of_line[row];
            }
        }
    }

    // What all threads have for a column, in their order; scaled where all of k has one scale. Ends with a barrier.
    template <int COUNT>
    static MOEC_DEVICE void add_threads(const char *base, int chunk, int lane_line, const float (&sums)[COUNT][WIDE],
                                        const int (&whole)[COUNT][WIDE]) {
        constexpr bool INTEGERS = BYTES && Weights::GROUP_K == Weights::PADDED_K;
        constexpr int ALL = COUNT * Weights::COLUMNS;
        if (lane_line < LANES)
            for (int row = 0; row < COUNT; row++)
                for (int i = 0; i < WIDE; i++) {
                    int at = lane_line * ALL + row * Weights::COLUMNS + chunk * WIDE + i;
                    if (INTEGERS) ((int *)dynamic_shared())[at] = whole[row][i];
                    else ((float *)dynamic_shared())[at] = sums[row][i];
                }
        barrier();
        for (int at = thread(); at < ALL; at += THREADS) {
            float sum = 0.0f;
            if constexpr (INTEGERS) {
                int all = 0;
                for (int from = 0; from < LANES; from++) all += ((const int *)dynamic_shared())[from * ALL + at];
                sum = (float)all;
            } else {
                for (int from = 0; from < LANES; from++) sum += ((const float *)dynamic_shared())[from * ALL + at];
            }
            bool one_scale = Weights::SCALED && Weights::GROUP_K == Weights::PADDED_K;
            results()[at] = one_scale ? sum * Weights::scale(base, 0, at % Weights::COLUMNS) : sum;
        }
        barrier();
    }
};

template <class STEP> struct GemmFew {
    static constexpr int THREADS = 256, ROWS = 8;
    typedef FewRows<STEP, THREADS, 1, true> Few;
    static constexpr int TIMES = Few::ALL_PANELS;
    static constexpr int MORE = STEP::GROUPED ? STEP::EXPERTS + (STEP::STORE_CHOICES ? 1 : 0) : 0;
    static constexpr int SHARED_BYTES = Few::SHARED_BYTES;

    static MOEC_DEVICE void run(const Pass &pass, int rank) {
        RowTile tile = row_tile<STEP, ROWS>(pass, rank, block() / TIMES);
        int panel = (int)(block() % TIMES);
        if (tile.expert == -2) return;
        if (tile.expert == -1) store_zeros<STEP>(pass, rank, tile, panel * 16, least(panel * 16 + 16, (int)STEP::N));
        else Few::run(pass, rank, tile, panel);
    }
};

} // namespace moec
