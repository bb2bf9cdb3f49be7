// How the weights of a GEMM lie in the weight file (docs/weight-file.md), and how they become numbers again.
//
// `Panels<STORE, K, BRANCHES, GROUP>` describes one panel: 16 columns of all branches. A panel is its scales, filled up to 64
// bytes, then lines of elements; a line holds LINE_K neighbours along k of each of the COLUMNS = 16 * BRANCHES columns, in
// CELL_BYTES for each column. GROUP elements along k share a scale; 0 where all of them do, or there is none.

namespace moec {

// What the rows of a GEMM are rounded to before they are multiplied (RowFormat).
enum RowsAs { ROWS_F32, ROWS_BF16, ROWS_BYTES };

struct Store_F32 {
    static constexpr RowsAs ROWS = ROWS_F32;
    static constexpr int LINE_K = 1, CELL_BYTES = 4, SCALE_BYTES = 0, PADDED = 1, PARTS = 3;
};
struct Store_Bf16 {
    static constexpr RowsAs ROWS = ROWS_F32;
    static constexpr int LINE_K = 1, CELL_BYTES = 2, SCALE_BYTES = 0, PADDED = 1, PARTS = 1;
};
struct Store_F16 {
    static constexpr RowsAs ROWS = ROWS_F32;
    static constexpr int LINE_K = 1, CELL_BYTES = 2, SCALE_BYTES = 0, PADDED = 1, PARTS = 2;
};
struct Store_Pairs {
    static constexpr RowsAs ROWS = ROWS_BF16;
    static constexpr int LINE_K = 2, CELL_BYTES = 4, SCALE_BYTES = 0, PADDED = 2, PARTS = 1;
};
struct Store_Int8 {
    static constexpr RowsAs ROWS = ROWS_BYTES;
    static constexpr int LINE_K = 4, CELL_BYTES = 4, SCALE_BYTES = 4, PADDED = 4, PARTS = 1;
};
struct Store_Int4 {
    static constexpr RowsAs ROWS = ROWS_BYTES;
    static constexpr int LINE_K = 8, CELL_BYTES = 4, SCALE_BYTES = 2, PADDED = 0, PARTS = 1;
};
struct Store_Mxfp4 {
    static constexpr RowsAs ROWS = ROWS_F32;
    static constexpr int LINE_K = 8, CELL_BYTES = 4, SCALE_BYTES = 1, PADDED = 0, PARTS = 1;
};
struct Store_Fp8 {
    static constexpr RowsAs ROWS = ROWS_F32;
    static constexpr int LINE_K = 4, CELL_BYTES = 4, SCALE_BYTES = 4, PADDED = 0, PARTS = 1;
};

// A code of e4m3 (the low 8 bits).
MOEC_DEVICE float e4m3(u32 code) {
    // The exponents' biases differ by 120; below the normals this is right as well. The one NaN is told apart.
    float size = float_of((code & 0x7f) << 20) * float_of((120 + 127) << 23);
    size = (code & 0x7f) == 0x7f ? float_of(0x7fc00000) : size;
    return code & 0x80 ? -size : size;
}

// A code of e2m1 (the low 4 bits).
MOEC_DEVICE float e2m1(u32 code) {
    float size = float_of((code & 7) << 22) * float_of((126 + 127) << 23);
    return code & 8 ? -size : size;
}

// 2^(code - 127); code 0 is no normal number.
MOEC_DEVICE float e8m0(u32 code) { return float_of(code == 0 ? 1u << 22 : code << 23); }

// One of a cell's values: element `at` along k (below LINE_K). Not for the formats of integers.
MOEC_DEVICE float cell_value(Store_F32, u32 cell, int) { return float_of(cell); }
MOEC_DEVICE float cell_value(Store_Bf16, u32 cell, int) { return bf16_to_f32((unsigned short)cell); }
MOEC_DEVICE float cell_value(Store_F16, u32 cell, int) { return f16_to_f32((unsigned short)cell); }
MOEC_DEVICE float cell_value(Store_Pairs, u32 cell, int at) { return float_of(at ? cell & 0xffff0000u : cell << 16); }
MOEC_DEVICE float cell_value(Store_Mxfp4, u32 cell, int at) { return e2m1(cell >> (at % 4 * 8 + at / 4 * 4)); }
MOEC_DEVICE float cell_value(Store_Fp8, u32 cell, int at) { return e4m3(cell >> (at * 8)); }

// Four of a cell's integers, those from 4 * `half` on, as signed bytes.
MOEC_DEVICE u32 cell_bytes(Store_Int8, u32 cell, int) { return cell ^ 0x80808080u; }
MOEC_DEVICE u32 cell_bytes(Store_Int4, u32 cell, int half) {
    // From 0..15 to -8..7; nothing is carried from byte to byte.
    return ((cell >> (half * 4) & 0x0f0f0f0fu) + 0x78787878u) ^ 0x80808080u;
}

MOEC_DEVICE float scale_value(Store_Int8, const char *at) { return *(const float *)at; }
MOEC_DEVICE float scale_value(Store_Int4, const char *at) { return bf16_to_f32(*(const unsigned short *)at); }
MOEC_DEVICE float scale_value(Store_Mxfp4, const char *at) { return e8m0(*(const unsigned char *)at); }
MOEC_DEVICE float scale_value(Store_Fp8, const char *at) { return *(const float *)at; }
template <class STORE> MOEC_DEVICE float scale_value(STORE, const char *) { return 1.0f; }

template <class STORE, int K, int BRANCHES, int GROUP> struct Panels {
    typedef STORE Store;
    static constexpr RowsAs ROWS = STORE::ROWS;
    static constexpr int LINE_K = STORE::LINE_K;
    // What k is filled up to a multiple of, with zeros.
    static constexpr int MULTIPLE = STORE::PADDED ? STORE::PADDED : GROUP;
    static constexpr int PADDED_K = (K + MULTIPLE - 1) / MULTIPLE * MULTIPLE;
    static constexpr int COLUMNS = 16 * BRANCHES;
    static constexpr int LINES = PADDED_K / LINE_K;
    static constexpr int LINE_BYTES = COLUMNS * STORE::CELL_BYTES;
    static constexpr bool SCALED = STORE::SCALE_BYTES > 0;
    // Elements along k that share a scale.
    static constexpr int GROUP_K = STORE::PADDED ? PADDED_K : GROUP;
    static constexpr int SCALES = SCALED ? PADDED_K / GROUP_K * COLUMNS * STORE::SCALE_BYTES : 0;
    static constexpr i64 LINES_AT = (SCALES + 63) / 64 * 64;
    static constexpr i64 BYTES = LINES_AT + (i64)LINES * LINE_BYTES;

    static MOEC_DEVICE float scale(const char *panel, int group, int column) {
        return scale_value(STORE(), panel + (group * COLUMNS + column) * STORE::SCALE_BYTES);
    }
};

// A row of a GEMM as integers: what its values are multiplied by before they are rounded, and what the sums are multiplied by.
struct ByteRow {
    float inverse, scale;
};

MOEC_DEVICE ByteRow byte_row(float largest) {
    const float LEAST_ROW = 1e-30f;
    ByteRow row;
    row.inverse = largest >= LEAST_ROW ? 127.0f / largest : 0.0f;
    row.scale = largest < LEAST_ROW ? 0.0f : largest / 127.0f;
    return row;
}

// The largest magnitude among the values of a row, NaN if there is any. All lanes of a warp call it, and get it.
MOEC_DEVICE float warp_largest(const float *row, int count) {
    float largest = 0.0f;
    for (int at = lane(); at < count; at += 32) largest = most_or_nan(largest, fabsf(row[at]));
    return warp_most(largest);
}

// Four values of a row as signed bytes.
MOEC_DEVICE u32 bytes_of(const float (&values)[4], float inverse) {
    u32 word = 0;
    for (int at = 0; at < 4; at++) word |= ((u32)round_to_int(values[at] * inverse) & 0xff) << (at * 8);
    return word;
}

} // namespace moec
