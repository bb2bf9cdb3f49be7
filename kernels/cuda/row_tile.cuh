// Which rows of a GEMM a block works on, where the host does not know how many rows each expert has.
//
// Tiles of ROWS rows are numbered expert by expert, each expert's rows starting a new one, then the rows of choices without an
// expert where they are to become zeros. (ceil(rows / ROWS) + experts + 1) tiles are always enough.

namespace moec {

// Rows of one expert, one after the other.
struct RowTile {
    i64 from, to;
    // The instance of the weights; -1: rows of choices without an expert; -2: there is no such tile.
    int expert;
};

// Tile `number` of a step, of at most ROWS rows. Every lane of a warp calls it; each gets the same.
template <class STEP, int ROWS> MOEC_DEVICE RowTile row_tile(const Pass &pass, int rank, i64 number) {
    RowTile tile;
    i64 end = STEP::end(pass);
    tile.expert = -2;
    if constexpr (!STEP::GROUPED) {
        tile.from = STEP::first(pass) + number * ROWS;
        if (tile.from < end) tile.expert = 0;
        tile.to = least(tile.from + ROWS, end);
        return tile;
    } else {
        const int *offsets = STEP::offsets(pass, rank) + STEP::FIRST;
        int left = (int)number;
        // Thirty-two experts at once: how many tiles all up to each have.
        for (int first = 0; first < STEP::EXPERTS; first += 32) {
            int expert = first + lane();
            bool is_one = expert < STEP::EXPERTS;
            int from = is_one ? offsets[expert] * STEP::BATCH : 0, to = is_one ? offsets[expert + 1] * STEP::BATCH : 0;
            int tiles = (to - from + ROWS - 1) / ROWS, below = warp_sum_below(tiles);
            u32 beyond = ballot(below > left);
            if (beyond) {
                int at = lowest_bit(beyond);
                left -= shuffle(below - tiles, at);
                tile.from = shuffle(from, at) + left * ROWS;
                tile.to = least(tile.from + ROWS, (i64)shuffle(to, at));
                tile.expert = first + at;
                return tile;
            }
            left -= shuffle(below, 31);
        }
        if constexpr (STEP::STORE_CHOICES) {
            tile.from = (i64)offsets[STEP::ALL_EXPERTS - STEP::FIRST] * STEP::BATCH + (i64)left * ROWS;
            tile.to = least(tile.from + ROWS, end);
            if (tile.from < end) tile.expert = -1;
        }
        return tile;
    }
}

// Zeros for the columns [from, to) of the rows of a tile.
template <class STEP> MOEC_DEVICE void store_zeros(const Pass &pass, int rank, const RowTile &tile, int from, int to) {
    if constexpr (STEP::GROUPED && STEP::STORE_CHOICES) {
        for (i64 row = tile.from; row < tile.to; row++)
            for (int n = from + thread(); n < to; n += threads()) STEP::store_zero(pass, rank, row, n);
    }
}

} // namespace moec
