// What every kernel is given, and how elements of each storage type are read and written.
//
// A pass lies in device memory, so that captured launches see new numbers without new parameters. Rounding to storage types is to
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

// Field order and sizes are known to the run time (kernels/runtime/cuda.c): change both together.
struct Pass {
  i64 tokens, past, first_output, chunk, capacity;
  char *workspace, *cache, *states;
  const char *weights;
  char *const *inputs;   // row 0 of each
  char *const *outputs;  // where row 0 of each is or would be: rows before first_output are never touched
  char *scratch;
  const i64 *pasts;  // positions that each sequence had before this pass
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

// `tokens * times / per`, rounded up or down.
MOEC_DEVICE i64 share(const Pass &pass, i64 times, i64 per, bool up) {
  i64 product = pass.tokens * times;
  return up ? (product + per - 1) / per : product / per;
}

}  // namespace moec
