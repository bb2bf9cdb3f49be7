// Scalar expressions, operation by operation, under the names that the plan's text has: `add($0, 1.0)` is printed as
// `op_add(a0, 1.0f)`. What each means is said in crates/moec-types/src/expr.rs.

namespace moec {

MOEC_DEVICE float infinity() { return float_of(0x7f800000u); }
MOEC_DEVICE float not_a_number() { return float_of(0x7fc00000u); }

MOEC_DEVICE float op_neg(float x) { return -x; }
MOEC_DEVICE int op_neg(int x) { return (int)(0u - (unsigned)x); }
MOEC_DEVICE bool op_not(bool x) { return !x; }
MOEC_DEVICE float op_exp(float x) { return expf(x); }
MOEC_DEVICE float op_log(float x) { return logf(x); }
MOEC_DEVICE float op_sqrt(float x) { return sqrtf(x); }
MOEC_DEVICE float op_tanh(float x) { return tanhf(x); }
MOEC_DEVICE float op_erf(float x) { return erff(x); }
MOEC_DEVICE float op_sin(float x) { return sinf(x); }
MOEC_DEVICE float op_cos(float x) { return cosf(x); }
MOEC_DEVICE float op_abs(float x) { return fabsf(x); }
MOEC_DEVICE int op_abs(int x) { return x < 0 ? op_neg(x) : x; }
// Zero and NaN are their own sign.
MOEC_DEVICE float op_sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; }
MOEC_DEVICE int op_sign(int x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }
MOEC_DEVICE float op_floor(float x) { return floorf(x); }
MOEC_DEVICE float op_ceil(float x) { return ceilf(x); }
MOEC_DEVICE float op_round(float x) { return rintf(x); }

MOEC_DEVICE float op_add(float x, float y) { return x + y; }
MOEC_DEVICE int op_add(int x, int y) { return (int)((unsigned)x + (unsigned)y); }
MOEC_DEVICE float op_sub(float x, float y) { return x - y; }
MOEC_DEVICE int op_sub(int x, int y) { return (int)((unsigned)x - (unsigned)y); }
MOEC_DEVICE float op_mul(float x, float y) { return x * y; }
MOEC_DEVICE int op_mul(int x, int y) { return (int)((unsigned)x * (unsigned)y); }
MOEC_DEVICE float op_div(float x, float y) { return x / y; }
MOEC_DEVICE int op_div(int x, int y) { return y == 0 ? 0 : y == -1 ? op_neg(x) : x / y; }
MOEC_DEVICE float op_mod(float x, float y) {
  float rest = fmodf(x, y);
  return rest != 0.0f && (rest < 0.0f) != (y < 0.0f) ? rest + y : rest;
}
MOEC_DEVICE int op_mod(int x, int y) {
  if (y == 0 || y == -1) return 0;
  int rest = x % y;
  return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
}
MOEC_DEVICE float op_pow(float x, float y) { return powf(x, y); }
MOEC_DEVICE float op_min(float x, float y) { return x != x || y != y ? not_a_number() : x < y ? x : y; }
MOEC_DEVICE int op_min(int x, int y) { return x < y ? x : y; }
MOEC_DEVICE float op_max(float x, float y) { return x != x || y != y ? not_a_number() : x > y ? x : y; }
MOEC_DEVICE int op_max(int x, int y) { return x > y ? x : y; }

template <class T>
MOEC_DEVICE bool op_lt(T x, T y) { return x < y; }
template <class T>
MOEC_DEVICE bool op_le(T x, T y) { return x <= y; }
template <class T>
MOEC_DEVICE bool op_gt(T x, T y) { return x > y; }
template <class T>
MOEC_DEVICE bool op_ge(T x, T y) { return x >= y; }
template <class T>
MOEC_DEVICE bool op_eq(T x, T y) { return x == y; }
template <class T>
MOEC_DEVICE bool op_ne(T x, T y) { return x != y; }
template <class T>
MOEC_DEVICE T op_where(bool condition, T yes, T no) { return condition ? yes : no; }

MOEC_DEVICE bool op_and(bool x, bool y) { return x && y; }
MOEC_DEVICE bool op_or(bool x, bool y) { return x || y; }
MOEC_DEVICE int op_bit_xor(int x, int y) { return x ^ y; }
MOEC_DEVICE int op_bit_and(int x, int y) { return x & y; }
MOEC_DEVICE int op_shift_left(int x, int y) { return (int)((unsigned)x << (y & 31)); }
MOEC_DEVICE int op_shift_right(int x, int y) { return (int)((unsigned)x >> (y & 31)); }

MOEC_DEVICE float op_f32(float x) { return x; }
MOEC_DEVICE float op_f32(int x) { return (float)x; }
MOEC_DEVICE float op_f32(bool x) { return x ? 1.0f : 0.0f; }
template <class T>
MOEC_DEVICE float op_bf16(T x) { return bf16_to_f32(f32_to_bf16(op_f32(x))); }
template <class T>
MOEC_DEVICE float op_f16(T x) { return f16_to_f32(f32_to_f16(op_f32(x))); }
// Towards zero, saturating; NaN becomes 0.
MOEC_DEVICE int op_i32(float x) {
  return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x <= -2147483648.0f ? -2147483647 - 1 : (int)x;
}
MOEC_DEVICE int op_i32(int x) { return x; }
MOEC_DEVICE int op_i32(bool x) { return x; }
MOEC_DEVICE bool op_bool(float x) { return x != 0.0f; }
MOEC_DEVICE bool op_bool(int x) { return x != 0; }
MOEC_DEVICE bool op_bool(bool x) { return x; }

}  // namespace moec
