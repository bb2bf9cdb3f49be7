// GEMMs, plain and grouped by expert, on Hopper's tensor cores (sm_90a), for weights in pairs of bf16 with one or two branches.
//
// The operands are swapped: the weights are the side of 64 rows of each product, and come from registers, straight from the
// panels as they are stored; the rows are the side of N, 128 of them, or 32 where experts have few. So no weight is packed
// another way, and a tile with few rows wastes little.
//
// Grid as in gemm.cuh, with tiles of ROWS rows times groups of 256 columns of all branches. A warpgroup produces: the weights by
// the copy engine, in pieces that lie in the file as they are needed; the rows by ordinary loads (so a gather costs nothing),
// rounded to bf16 on the way. Two warpgroups consume, each two products of 64 x ROWS; while one waits for its fragments, the
// other multiplies. Shared memory: a ring of STAGES slabs of SLAB elements along k, with a turnstile for full and one for empty.
// The order of every sum depends on K only.
//
// STEP: as in gemm.cuh. Rows of `a` are aligned to 16 bytes where K is a multiple of 8.

namespace moec {

template <class STEP, int TILE_ROWS = 128> struct GemmWide {
    typedef typename STEP::Weights Weights;
    static_assert(Weights::LINE_K == 2 && Weights::ROWS == ROWS_BF16 && STEP::BRANCHES <= 2, "pairs of bf16, in one or two branches");
    static constexpr int THREADS = 384, ROWS = TILE_ROWS, SLAB = 64, STAGES = 4;
    // Products of 64 columns of a consumer, and panels of each.
    static constexpr int BLOCKS = 2, BLOCK_PANELS = 4 / STEP::BRANCHES;
    static constexpr int PANELS = 2 * BLOCKS * BLOCK_PANELS, ALL_PANELS = (STEP::N + 15) / 16;
    static constexpr int TIMES = (ALL_PANELS + PANELS - 1) / PANELS;
    static constexpr int MORE = STEP::GROUPED ? STEP::EXPERTS + (STEP::STORE_CHOICES ? 1 : 0) : 0;
    static constexpr int SLAB_LINES = SLAB / 2, PANEL_BYTES = SLAB_LINES * Weights::LINE_BYTES;
    static constexpr int ROW_BYTES = ROWS * SLAB * 2, STAGE_BYTES = ROW_BYTES + PANELS * PANEL_BYTES;
    // Rows and turnstiles begin at multiples of 1024.
    static constexpr int TURNSTILES_AT = STAGES * STAGE_BYTES, SHARED_BYTES = TURNSTILES_AT + STAGES * 16;
    static constexpr int SLABS = (Weights::PADDED_K + SLAB - 1) / SLAB;
    static constexpr int LAST_LINES = Weights::LINES - (SLABS - 1) * SLAB_LINES;

    static MOEC_DEVICE u64 *full(int stage) { return (u64 *)(dynamic_shared() + TURNSTILES_AT) + stage; }
    static MOEC_DEVICE u64 *empty(int stage) { return full(STAGES + stage); }

    static MOEC_DEVICE void run(const Pass &pass, int rank) {
        RowTile tile = row_tile<STEP, ROWS>(pass, rank, block() / TIMES);
        const int first_panel = (int)(block() % TIMES) * PANELS;
        if (tile.expert == -2) return;
        if (tile.expert == -1) {
            store_zeros<STEP>(pass, rank, tile, first_panel * 16, least((first_panel + PANELS) * 16, (int)STEP::N));
            return;
        }
        if (thread() == 0) {
            for (int stage = 0; stage < STAGES; stage++) {
                turnstile_init(full(stage), 128);
                // Every warp of the consumers, for each has read its own fragments.
                turnstile_init(empty(stage), 8);
            }
            turnstiles_ready();
        }
        barrier();
        if (thread() < 128) {
            fewer_registers<88>();
            produce(pass, rank, tile, first_panel);
        } else {
            more_registers<208>();
            consume(pass, rank, tile, first_panel, thread() / 128 - 1);
        }
    }

    // Eight elements of a row from k on, rounded; zeros behind its end.
    static MOEC_DEVICE Words4 eight(const float *row, int k) {
        float values[8];
        if (row && STEP::K % 8 == 0 && k < STEP::K) {
            Floats4 low = *(const Floats4 *)(row + k), high = *(const Floats4 *)(row + k + 4);
            for (int i = 0; i < 4; i++) values[i] = low.values[i], values[4 + i] = high.values[i];
        } else {
            for (int i = 0; i < 8; i++) values[i] = row && k + i < STEP::K ? row[k + i] : 0.0f;
        }
        Words4 words;
        for (int i = 0; i < 4; i++) words.words[i] = bf16_pair(values[2 * i], values[2 * i + 1]);
        return words;
    }

    static MOEC_DEVICE void produce(const Pass &pass, int rank, const RowTile &tile, int first_panel) {
        const char *weights = STEP::weights(pass, rank, tile.expert) + first_panel * Weights::BYTES;
        const int panels = least((int)PANELS, ALL_PANELS - first_panel), piece = thread() % 8;
        // A thread has one piece of every sixteenth row.
        constexpr int OWN = ROWS / 16;
        const float *rows[OWN];
#pragma unroll
        for (int at = 0; at < OWN; at++) {
            i64 row = tile.from + at * 16 + thread() / 8;
            rows[at] = row < tile.to ? STEP::a(pass, rank, row) : nullptr;
        }
        for (int slab = 0; slab < SLABS; slab++) {
            const int stage = slab % STAGES;
            if (slab >= STAGES) turnstile_wait(empty(stage), (slab / STAGES - 1) & 1);
            char *into = dynamic_shared() + stage * STAGE_BYTES, *panels_at = into + ROW_BYTES;
            const int lines = slab == SLABS - 1 ? LAST_LINES : SLAB_LINES;
#pragma unroll
            for (int at = 0; at < OWN; at++) {
                int row = at * 16 + thread() / 8;
                *(Words4 *)(into + row * 128 + (piece ^ row % 8) * 16) = eight(rows[at], slab * SLAB + piece * 8);
            }
            if constexpr (LAST_LINES < SLAB_LINES) {
                // What is behind the last line meets zeros, but must be numbers.
                constexpr int REST = (SLAB_LINES - LAST_LINES) * Weights::LINE_BYTES / 16;
                for (int at = thread(); slab == SLABS - 1 && at < panels * REST; at += 128) {
                    Words4 none = {};
                    *(Words4 *)(panels_at + at / REST * PANEL_BYTES + lines * Weights::LINE_BYTES + at % REST * 16) = none;
                }
            }
            shared_to_tensor_cores();
            if (thread() == 0) {
                turnstile_arrive_expecting(full(stage), panels * lines * Weights::LINE_BYTES);
                for (int panel = 0; panel < panels; panel++)
                    copy_bulk(panels_at + panel * PANEL_BYTES,
                              weights + panel * Weights::BYTES + (i64)slab * SLAB_LINES * Weights::LINE_BYTES,
                              lines * Weights::LINE_BYTES, full(stage));
            } else {
                turnstile_arrive(full(stage));
            }
        }
    }

    static MOEC_DEVICE void consume(const Pass &pass, int rank, const RowTile &tile, int first_panel, int consumer) {
        const int g = lane() / 4, t = lane() % 4, of_four = warp() % 4;
        // A warp has sixteen rows of each product: the columns g and g + 8 of a panel; or, of two branches, column g of half a
        // panel of each branch, so that a thread has all branches of its columns.
        const int panel_of_block = STEP::BRANCHES == 1 ? of_four : of_four / 2;
        const int low = STEP::BRANCHES == 1 ? g : of_four % 2 * 8 + g, high = low + (STEP::BRANCHES == 1 ? 8 : 16);
        float sums[BLOCKS][ROWS / 2];
#pragma unroll
        for (int at = 0; at < BLOCKS; at++)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++) sums[at][i] = 0.0f;

        for (int slab = 0; slab < SLABS; slab++) {
            const int stage = slab % STAGES;
            turnstile_wait(full(stage), (slab / STAGES) & 1);
            const char *rows = dynamic_shared() + stage * STAGE_BYTES;
            const char *panels = rows + ROW_BYTES + (consumer * BLOCKS * BLOCK_PANELS + panel_of_block) * PANEL_BYTES;
            u32 fragments[SLAB / 16][BLOCKS][4];
#pragma unroll
            for (int step = 0; step < SLAB / 16; step++)
#pragma unroll
                for (int at = 0; at < BLOCKS; at++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const u32 *line = (const u32 *)(panels + at * BLOCK_PANELS * PANEL_BYTES +
                                                        (step * 8 + half * 4 + t) * Weights::LINE_BYTES);
                        // Half of the lanes read the other column first: so they meet no bank twice.
                        u32 first = line[t < 2 ? low : high], second = line[t < 2 ? high : low];
                        fragments[step][at][half * 2] = t < 2 ? first : second;
                        fragments[step][at][half * 2 + 1] = t < 2 ? second : first;
                    }
            products_begin();
#pragma unroll
            for (int step = 0; step < SLAB / 16; step++)
#pragma unroll
                for (int at = 0; at < BLOCKS; at++)
                    multiply_64(sums[at], fragments[step][at], tensor_rows(rows + step * 32));
            products_wait();
            if (lane() == 0) turnstile_arrive(empty(stage));
        }

#pragma unroll
        for (int at = 0; at < BLOCKS; at++) {
            const int panel = first_panel + (consumer * BLOCKS + at) * BLOCK_PANELS + panel_of_block;
#pragma unroll
            for (int i = 0; i < ROWS / 2; i += 4)
#pragma unroll
                for (int part = 0; part < 2; part++) {
                    i64 row = tile.from + i * 2 + t * 2 + part;
                    if (row >= tile.to) continue;
                    store(pass, rank, tile.expert, row, panel * 16 + low, sums[at][i + part], sums[at][i + 2 + part]);
                }
        }
    }

    // The two sums that a thread has of a row: of two columns, or of two branches of one.
    static MOEC_DEVICE void store(const Pass &pass, int rank, int expert, i64 row, int n, float low, float high) {
        float branches[STEP::BRANCHES];
        branches[0] = low;
        if constexpr (STEP::BRANCHES == 2) branches[1] = high;
        if (n < STEP::N) STEP::store(pass, rank, expert, row, n, branches);
        if constexpr (STEP::BRANCHES == 1) {
            branches[0] = high;
            if (n + 8 < STEP::N) STEP::store(pass, rank, expert, row, n + 8, branches);
        }
    }
};

} // namespace moec
