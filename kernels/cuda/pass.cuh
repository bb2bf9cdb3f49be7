// What every kernel is given, and how elements of each storage type are read and written.
//
// A pass lies in device memory, so that captured launches see new numbers without new parameters. Its rows are those of one
// session, or of several that step together. Rounding to storage types is to
// the nearest, ties to even.

#ifdef MOEC_SHIM
#define MOEC_SHAPE extern "C" const int
#else
#define MOEC_SHAPE extern "C" __device__ int
#endif

// `MOEC_SHAPE NAME_shape[] = {threads, rows, more, times, shared_bytes, most};` says how the kernel NAME is launched: with
// (ceil(count / rows) + more) * times blocks, at least one and, where `most` is not 0, at most that; without the first part where
// `rows` is 0. `count` is what the plan counts for the step; `shared_bytes` are dynamic ones.

namespace moec {

// Positions of a page of the caches; instance i of a cache begins at (per_position + i * row bytes) * PAGE of each page.
enum { PAGE = 128 };

// Field order and sizes of both are known to the run time (kernels/runtime/cuda/cuda.c): change them together.

// One session's rows of a pass.
struct Segment {
  i64 first, tokens, past;  // the row of its first new position, how many they are, and positions before them
  char *states;
  char *const *pages;  // of its caches: position p is in pages[p / PAGE]
  const i64 *pasts;    // positions that each sequence of the model had before this pass
};

struct Pass {
  i64 tokens, first_output, chunk, segment_count;
  char *workspace;
  const char *weights;
  char *const *inputs;   // row 0 of each
  char *const *outputs;  // where row 0 of each is or would be: rows before first_output are never touched
  char *scratch;
  const i64 *positions;        // of each row, within its sequence
  char *const *const *pages;   // of each row: its session's
  const Segment *segments;     // in the order of their rows, which they share out
};

struct Bf16 {
  unsigned short bits;
};

struct F16 {
  unsigned short bits;
};

struct Bool {
  unsigned char byte;
};

MOEC_DEVICE float read(const float &at) { return at; }
MOEC_DEVICE float read(const Bf16 &at) { return bf16_to_f32(at.bits); }
MOEC_DEVICE float read(const F16 &at) { return f16_to_f32(at.bits); }
MOEC_DEVICE int read(const int &at) { return at; }
MOEC_DEVICE bool read(const Bool &at) { return at.byte != 0; }

MOEC_DEVICE void write(float &at, float value) { at = value; }
MOEC_DEVICE void write(Bf16 &at, float value) { at.bits = f32_to_bf16(value); }
MOEC_DEVICE void write(F16 &at, float value) { at.bits = f32_to_f16(value); }
MOEC_DEVICE void write(int &at, int value) { at = value; }
MOEC_DEVICE void write(Bool &at, bool value) { at.byte = value; }

// The page of a cache where a row is kept, from byte `start` on; and the row's place there.
MOEC_DEVICE char *page_of(const Pass &pass, i64 row, i64 start) { return pass.pages[row][pass.positions[row] / PAGE] + start; }
MOEC_DEVICE i64 place_of(const Pass &pass, i64 row) { return pass.positions[row] % PAGE; }
// Of rows of `width` elements in blocks of 16, element by element: where the row's element 0 is.
MOEC_DEVICE i64 panel_place_of(const Pass &pass, i64 row, i64 width) {
  i64 place = place_of(pass, row);
  return place / 16 * 16 * width + place % 16;
}

// `tokens * times / per`, rounded up or down.
MOEC_DEVICE i64 share(const Pass &pass, i64 times, i64 per, bool up) {
  i64 product = pass.tokens * times;
  return up ? (product + per - 1) / per : product / per;
}

}  // namespace moec
