// Attention over cached keys and values by running softmax, on tensor cores: no score leaves the block.
//
//   out[row, g, q, :] = sum over keys of softmax(score(q[row, g, q] · k[key, g])) * v[key, g, :]
//
// A block has a tile of up to TILE query rows of one group of heads, positions times queries, and walks the keys in blocks of
// KEYS: the products of queries and keys, the printed score and the running softmax (a warp for a row, its lanes for the
// keys), then the weighted values. Keys and values come by asynchronous copies, a block ahead where there is room. Keys that no
// row of the tile may look at (causal, window) are skipped. Numbers of f32 are cut into bf16 parts (gemm.cuh).
//
// With SPLITS, the keys of a tile are cut into as many stretches of whole pages, a block for each, so that few queries over many
// keys fill the machine; blocks leave what they have in the pass's scratch, and `AttentionEnd`, launched behind them, puts it
// together in the order of the stretches. How the keys are cut depends on the tile's keys only.
//
// Layouts: queries and results in f32; keys in panels of 16 positions, element by element; values in rows (contract: the
// plan's `Attention`); both in pages. Of the last panel, what lies behind the last key may be anything.
// Grid: (ceil(rows / ROWS) + sessions - 1) * TIMES: tiles of ROWS positions of one session, times groups, times parts of a group's
// queries, times SPLITS.
// Each row's sums are in the order of the keys in blocks that begin at a multiple of 16.
//
// STEP, printed: GROUPS, QUERIES, WIDTH, VALUES, CAUSAL, SINK, WINDOW (0: none), Key, Value, first, end, keys(pass, segment), q, out,
// k(pass, rank, segment, position), v, score, sink. `k` is asked for positions that are multiples of 16.

namespace moec {

// How a cache's numbers become bf16 parts.
template <class T> struct PartsIn;
template <> struct PartsIn<float> { static constexpr int COUNT = 3, OTHERS = 3; };
template <> struct PartsIn<F16> { static constexpr int COUNT = 2, OTHERS = 2; };
template <> struct PartsIn<Bf16> { static constexpr int COUNT = 1, OTHERS = 2; };

// Two neighbours along k of rows of f32: lines 2t..2t+1 and 2t+8.. of sixteen, of the rows g and g + 8.
template <int PARTS> struct RowPairs {
    u32 parts[PARTS][4];

    MOEC_DEVICE void load(const float *rows, int stride) {
        const float *from = rows + lane() / 4 * stride + lane() % 4 * 2;
        for (int word = 0; word < 4; word++) {
            const float *two = from + word % 2 * 8 * stride + word / 2 * 8;
            u32 of_word[PARTS];
            parts_of<PARTS>(two[0], two[1], of_word);
            for (int part = 0; part < PARTS; part++) parts[part][word] = of_word[part];
        }
    }
};

// The same of a matrix whose lines along k lie `stride` elements apart, of column g.
template <class T> struct ColumnPairs {
    static constexpr int PARTS = PartsIn<T>::COUNT;
    u32 parts[PARTS][2];

    MOEC_DEVICE void load(const T *lines, int stride) {
        const T *from = lines + lane() % 4 * 2 * stride + lane() / 4;
        for (int word = 0; word < 2; word++) {
            float low = read(from[word * 8 * stride]), high = read(from[word * 8 * stride + stride]);
            u32 of_word[PARTS];
            parts_of<PARTS>(low, high, of_word);
            for (int part = 0; part < PARTS; part++) parts[part][word] = of_word[part];
        }
    }
};

// All products of parts that can be seen; the small ones first.
template <int ROW_PARTS, class T>
MOEC_DEVICE void multiply(float (&sums)[4], const RowPairs<ROW_PARTS> &rows, const ColumnPairs<T> &columns) {
    for (int order = ROW_PARTS - 1; order >= 0; order--)
        for (int part = 0; part < PartsIn<T>::COUNT; part++)
            if (order - part >= 0) mma_bf16(sums, rows.parts[order - part], columns.parts[part]);
}

template <class STEP, int MOST_ROWS = 64, int SPLITS = 1> struct Attention {
    typedef typename STEP::Key Key;
    typedef typename STEP::Value Value;
    static constexpr int THREADS = 128, WARPS = THREADS / 32, KEYS = 32;
    static constexpr int WIDTH_16 = (STEP::WIDTH + 15) / 16 * 16, VALUES_8 = (STEP::VALUES + 7) / 8 * 8;
    // As many rows as leave a thread registers for its sums.
    static constexpr int BY_VALUES = STEP::VALUES <= 128 ? 64 : STEP::VALUES <= 256 ? 32 : 16;
    static constexpr int TILE = BY_VALUES < MOST_ROWS ? BY_VALUES : MOST_ROWS;
    // Positions of a tile, queries of each, and how many tiles all queries of a group take.
    static constexpr int ROWS = STEP::QUERIES < TILE ? TILE / STEP::QUERIES : 1;
    static constexpr int QUERIES = STEP::QUERIES < TILE ? STEP::QUERIES : TILE;
    static constexpr int QUERY_TILES = (STEP::QUERIES + QUERIES - 1) / QUERIES;
    static constexpr int HEADS = STEP::GROUPS * QUERY_TILES, TIMES = HEADS * SPLITS, MORE = 0;

    // Strides in elements, so that the lanes of a fragment meet no bank twice, in shared memory.
    static constexpr int Q_ROW = WIDTH_16 + 8, P_ROW = KEYS + 8;
    static constexpr int K_LINE = sizeof(Key) == 4 ? 20 : 24;
    static constexpr int V_ROW = VALUES_8 + 16 / (int)sizeof(Value);
    static constexpr int Q_BYTES = TILE * Q_ROW * 4, P_BYTES = TILE * P_ROW * 4;
    static constexpr int K_PANEL = WIDTH_16 * K_LINE, K_BYTES = KEYS / 16 * K_PANEL * (int)sizeof(Key);
    static constexpr int V_BYTES = (KEYS * V_ROW * (int)sizeof(Value) + 15) / 16 * 16;
    static constexpr int STAGE_BYTES = K_BYTES + V_BYTES;
    static constexpr int STAGES = Q_BYTES + P_BYTES + 2 * STAGE_BYTES <= 160 << 10 ? 2 : 1;
    static constexpr int SHARED_BYTES = Q_BYTES + P_BYTES + STAGES * STAGE_BYTES;

    // How warps share products: rows of sixteen, and columns among those that have the same rows.
    static constexpr int ROW_WARPS = TILE / 16, COLUMN_WARPS = WARPS / ROW_WARPS;
    static constexpr int KEY_TILES = KEYS / 8 / COLUMN_WARPS;
    static constexpr int VALUE_TILES = (VALUES_8 / 8 + COLUMN_WARPS - 1) / COLUMN_WARPS;

    static MOEC_DEVICE float *queries() { return (float *)dynamic_shared(); }
    static MOEC_DEVICE float *scores() { return (float *)(dynamic_shared() + Q_BYTES); }
    static MOEC_DEVICE Key *keys_at(int number) {
        return (Key *)(dynamic_shared() + Q_BYTES + P_BYTES + number % STAGES * STAGE_BYTES);
    }
    static MOEC_DEVICE Value *values_at(int number) { return (Value *)((char *)keys_at(number) + K_BYTES); }

    // Which query a row of the tile is. Those from `count` on are none.
    struct Tile {
        int group, query, count, split;
        const Segment *segment;
        i64 row;
        // The keys that any row may look at; of them, those of this split: from `from` up to `to`.
        i64 start, end, from, to;

        MOEC_DEVICE i64 row_of(int at) const { return row + at / QUERIES; }
        MOEC_DEVICE int query_of(int at) const { return query + at % QUERIES; }
        MOEC_DEVICE bool is_one(int at) const { return at < count && query_of(at) < STEP::QUERIES; }
        // Keys of a split: whole pages.
        MOEC_DEVICE i64 stretch() const { return ((end - start + SPLITS - 1) / SPLITS + PAGE - 1) / PAGE * PAGE; }
    };

    // Of the block with this number; false where there is none. Every lane of a warp calls it.
    static MOEC_DEVICE bool find(const Pass &pass, i64 number, Tile &tile) {
        const i64 first = STEP::first(pass), rows_end = STEP::end(pass);
        tile.split = (int)(number % SPLITS);
        const int head = (int)(number / SPLITS % HEADS);
        tile.group = head / QUERY_TILES;
        tile.query = head % QUERY_TILES * QUERIES;
        int left = (int)(number / TIMES);
        // Thirty-two sessions at once: how many tiles all up to each have.
        for (i64 at = 0; at < pass.segment_count; at += 32) {
            const Segment *of_lane = pass.segments + least(at + lane(), pass.segment_count - 1);
            i64 from = most(first, of_lane->first), to = least(rows_end, of_lane->first + of_lane->tokens);
            int tiles = at + lane() < pass.segment_count && from < to ? (int)((to - from + ROWS - 1) / ROWS) : 0;
            int below = warp_sum_below(tiles);
            u32 beyond = ballot(below > left);
            if (!beyond) {
                left -= shuffle(below, 31);
                continue;
            }
            int one = lowest_bit(beyond);
            left -= shuffle(below - tiles, one);
            tile.segment = pass.segments + at + one;
            tile.row = most(first, tile.segment->first) + (i64)left * ROWS;
            const i64 positions = least((i64)ROWS, least(rows_end, tile.segment->first + tile.segment->tokens) - tile.row);
            tile.count = (int)positions * QUERIES;
            tile.end = STEP::keys(pass, *tile.segment);
            tile.start = 0;
            if (STEP::CAUSAL) tile.end = least(tile.end, pass.positions[tile.row] + positions);
            if (STEP::WINDOW > 0)
                tile.start = most((i64)0, least(tile.end, pass.positions[tile.row] - (STEP::WINDOW - 1))) / 16 * 16;
            tile.from = least(tile.end, tile.start + tile.split * tile.stretch());
            tile.to = SPLITS == 1 ? tile.end : least(tile.end, tile.from + tile.stretch());
            return true;
        }
        return false;
    }

    // What a split leaves of a row: sums, the largest score, and the sum of exponentials.
    static constexpr int PARTIAL = STEP::VALUES + 2;
    static MOEC_DEVICE float *partial(const Pass &pass, i64 number, int row) {
        return (float *)pass.scratch + (number * TILE + row) * PARTIAL;
    }

    // Bytes of a cache to shared memory; zeros where they are not wanted.
    template <class T, int COUNT> static MOEC_DEVICE void copy_line(T *to, const T *from, int chunk, bool wanted) {
        constexpr int LINE = COUNT * (int)sizeof(T);
        if constexpr (LINE % 16 == 0) copy_16((char *)to + chunk * 16, (const char *)from + chunk * 16, wanted);
        else if constexpr (LINE % 4 == 0) copy_4((char *)to + chunk * 4, (const char *)from + chunk * 4, wanted);
        else {
            T none = {};
            to[chunk] = wanted ? from[chunk] : none;
        }
    }
    template <class T, int COUNT> static MOEC_DEVICE constexpr int chunks() {
        return COUNT * (int)sizeof(T) % 16 == 0 ? COUNT * (int)sizeof(T) / 16
            : COUNT * (int)sizeof(T) % 4 == 0   ? COUNT * (int)sizeof(T) / 4
                                                : COUNT;
    }

    // Starts the copies of the keys from `first` on, a multiple of 16, below `end`.
    static MOEC_DEVICE void fill(const Pass &pass, int rank, const Tile &tile, int number, i64 first) {
        const i64 end = tile.to;
        if (first < end) {
            Key *k = keys_at(number);
            constexpr int K_CHUNKS = chunks<Key, 16>();
            for (int at = thread(); at < KEYS / 16 * WIDTH_16 * K_CHUNKS; at += THREADS) {
                int panel = at / (WIDTH_16 * K_CHUNKS), line = at / K_CHUNKS % WIDTH_16;
                bool wanted = first + panel * 16 < end && line < STEP::WIDTH;
                // What is not wanted has no page: any address will do.
                const Key *from = STEP::k(pass, rank, *tile.segment, wanted ? first + panel * 16 : first) +
                                  ((i64)tile.group * STEP::WIDTH + line) * 16;
                copy_line<Key, 16>(k + panel * K_PANEL + line * K_LINE, from, at % K_CHUNKS, wanted);
            }
            Value *v = values_at(number);
            constexpr int V_CHUNKS = chunks<Value, STEP::VALUES>();
            for (int at = thread(); at < KEYS * V_CHUNKS; at += THREADS) {
                int key = at / V_CHUNKS;
                bool wanted = first + key < end;
                const Value *from = STEP::v(pass, rank, *tile.segment, wanted ? first + key : first) + (i64)tile.group * STEP::VALUES;
                copy_line<Value, STEP::VALUES>(v + key * V_ROW, from, at % V_CHUNKS, wanted);
            }
        }
        copies_group();
    }

    static MOEC_DEVICE void run(const Pass &pass, int rank) {
        // Of each row: the largest score so far, the sum of exponentials, and what the sums before shrink by.
        MOEC_SHARED float largest[TILE], total[TILE], shrink[TILE];
        Tile tile;
        if (!find(pass, block(), tile)) return;
        // Only the first split is never without a key; it has the sink.
        if (SPLITS > 1 && tile.split > 0 && tile.from >= tile.to) return;
        const i64 start = tile.from, end = tile.to;

        if (STAGES > 1) fill(pass, rank, tile, 0, start);
        for (int at = thread(); at < TILE * WIDTH_16; at += THREADS) {
            int row = at / WIDTH_16, c = at % WIDTH_16;
            float value = 0.0f;
            if (c < STEP::WIDTH && tile.is_one(row))
                value = STEP::q(pass, rank, tile.row_of(row))[(tile.group * STEP::QUERIES + tile.query_of(row)) * STEP::WIDTH + c];
            queries()[row * Q_ROW + c] = value;
        }
        for (int row = thread(); row < TILE; row += THREADS) {
            // A sink is as good as a key that was looked at before, and has no value.
            largest[row] = float_of(0xff800000u);
            total[row] = 0.0f;
            if constexpr (STEP::SINK) {
                if (tile.is_one(row) && tile.split == 0) {
                    largest[row] = STEP::sink(pass, rank, tile.group, tile.query_of(row));
                    total[row] = 1.0f;
                }
            }
        }

        const int warp_row = warp() / COLUMN_WARPS * 16, part = warp() % COLUMN_WARPS;
        const int g = lane() / 4, t = lane() % 4;
        float sums[VALUE_TILES][4];
        for (int at = 0; at < VALUE_TILES; at++)
            for (int i = 0; i < 4; i++) sums[at][i] = 0.0f;

        int number = 0;
        for (i64 first = start; first < end; first += KEYS, number++) {
            if (STAGES == 1) {
                barrier();
                fill(pass, rank, tile, number, first);
            }
            copies_wait<0>();
            barrier();
            if (STAGES > 1) fill(pass, rank, tile, number + 1, first + KEYS);

            float products[KEY_TILES][4];
            for (int at = 0; at < KEY_TILES; at++)
                for (int i = 0; i < 4; i++) products[at][i] = 0.0f;
#pragma unroll 2
            for (int c = 0; c < WIDTH_16; c += 16) {
                RowPairs<PartsIn<Key>::OTHERS> rows;
                rows.load(queries() + warp_row * Q_ROW + c, Q_ROW);
#pragma unroll
                for (int at = 0; at < KEY_TILES; at++) {
                    int key = (part * KEY_TILES + at) * 8;
                    ColumnPairs<Key> columns;
                    columns.load(keys_at(number) + key / 16 * K_PANEL + c * K_LINE + key % 16, K_LINE);
                    multiply(products[at], rows, columns);
                }
            }
            for (int at = 0; at < KEY_TILES; at++)
                for (int i = 0; i < 4; i++)
                    scores()[(warp_row + i / 2 * 8 + g) * P_ROW + (part * KEY_TILES + at) * 8 + t * 2 + i % 2] = products[at][i];
            barrier();

            for (int row = warp(); row < TILE; row += WARPS) {
                float score = float_of(0xff800000u);
                const i64 key = first + lane();
                bool is_one = tile.is_one(row);
                float *at = scores() + row * P_ROW + lane();
                if (is_one && key < end) {
                    int position = (int)pass.positions[tile.row_of(row)];
                    score = STEP::score(pass, rank, tile.group, tile.query_of(row), *at, position, (int)key);
                }
                float before = largest[row], best = score;
                for (int distance = 16; distance > 0; distance /= 2) best = most(best, shuffle_xor(best, distance));
                best = most(before, best);
                // Where nothing was looked at yet, any finite value will do.
                float base = best == float_of(0xff800000u) ? 0.0f : best, factor = expf(before - base);
                float probability = is_one ? expf(score - base) : 0.0f, sum = warp_sum(probability);
                *at = probability;
                if (lane() == 0) {
                    largest[row] = best;
                    total[row] = total[row] * factor + sum;
                    shrink[row] = factor;
                }
            }
            barrier();

            for (int at = 0; at < VALUE_TILES; at++)
                for (int i = 0; i < 4; i++) sums[at][i] *= shrink[warp_row + i / 2 * 8 + g];
#pragma unroll
            for (int key = 0; key < KEYS; key += 16) {
                RowPairs<PartsIn<Value>::OTHERS> rows;
                rows.load(scores() + warp_row * P_ROW + key, P_ROW);
#pragma unroll
                for (int at = 0; at < VALUE_TILES; at++) {
                    int column = (part * VALUE_TILES + at) * 8;
                    if (column >= VALUES_8) break;
                    ColumnPairs<Value> columns;
                    columns.load(values_at(number) + key * V_ROW + column, V_ROW);
                    multiply(sums[at], rows, columns);
                }
            }
        }
        copies_wait<0>();
        barrier();

#pragma unroll
        for (int at = 0; at < VALUE_TILES; at++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = warp_row + i / 2 * 8 + g, column = (part * VALUE_TILES + at) * 8 + t * 2 + i % 2;
                if (column >= STEP::VALUES || !tile.is_one(row)) continue;
                if constexpr (SPLITS > 1) {
                    partial(pass, block(), row)[column] = sums[at][i];
                } else {
                    int head = tile.group * STEP::QUERIES + tile.query_of(row);
                    STEP::out(pass, rank, tile.row_of(row))[head * STEP::VALUES + column] = sums[at][i] / total[row];
                }
            }
        if constexpr (SPLITS > 1) {
            for (int row = thread(); row < TILE; row += THREADS) {
                if (!tile.is_one(row)) continue;
                float *of_row = partial(pass, block(), row);
                of_row[STEP::VALUES] = largest[row];
                of_row[STEP::VALUES + 1] = total[row];
            }
        }
    }
};

// Puts the splits of each tile together: a block for a tile, launched behind `Attention` of the same SPLITS.
template <class STEP, int MOST_ROWS, int SPLITS> struct AttentionEnd {
    typedef Attention<STEP, MOST_ROWS, SPLITS> Split;
    static constexpr int THREADS = 128, ROWS = Split::ROWS, MORE = 0, TIMES = Split::HEADS, SHARED_BYTES = 0;

    static MOEC_DEVICE void run(const Pass &pass, int rank) {
        MOEC_SHARED float factors[Split::TILE][SPLITS], totals[Split::TILE];
        typename Split::Tile tile;
        const i64 first = block() * SPLITS;
        if (!Split::find(pass, first, tile)) return;
        const i64 stretch = tile.stretch();
        const int splits = stretch ? (int)most((i64)1, (tile.end - tile.start + stretch - 1) / stretch) : 1;
        for (int row = thread(); row < Split::TILE; row += THREADS) {
            if (!tile.is_one(row)) continue;
            float largest = float_of(0xff800000u), total = 0.0f;
            for (int split = 0; split < splits; split++)
                largest = most(largest, Split::partial(pass, first + split, row)[STEP::VALUES]);
            float base = largest == float_of(0xff800000u) ? 0.0f : largest;
            for (int split = 0; split < splits; split++) {
                const float *of_row = Split::partial(pass, first + split, row);
                factors[row][split] = expf(of_row[STEP::VALUES] - base);
                total += of_row[STEP::VALUES + 1] * factors[row][split];
            }
            totals[row] = total;
        }
        barrier();
        for (int at = thread(); at < Split::TILE * STEP::VALUES; at += THREADS) {
            int row = at / STEP::VALUES, column = at % STEP::VALUES;
            if (!tile.is_one(row)) continue;
            float sum = 0.0f;
            for (int split = 0; split < splits; split++)
                sum += Split::partial(pass, first + split, row)[column] * factors[row][split];
            int head = tile.group * STEP::QUERIES + tile.query_of(row);
            STEP::out(pass, rank, tile.row_of(row))[head * STEP::VALUES + column] = sum / totals[row];
        }
    }
};

} // namespace moec
