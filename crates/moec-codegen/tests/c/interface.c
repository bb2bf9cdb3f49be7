/* The generated header against the run time's own: types under different names, but the same. */
#include "moec.h"
#include "tiny.h"

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)
#define SAME_SIZE(ours, theirs) SAME(sizeof(ours), sizeof(theirs))
#define SAME_FIELD(type, field) SAME(offsetof(moec_##type, field), offsetof(tiny_##type, field))

SAME(MOEC_ABI, TINY_ABI);
SAME(MOEC_OK, TINY_OK);
SAME(MOEC_BAD_ARGUMENT, TINY_BAD_ARGUMENT);
SAME(MOEC_IO, TINY_IO);
SAME(MOEC_BAD_WEIGHTS, TINY_BAD_WEIGHTS);
SAME(MOEC_OUT_OF_RANGE, TINY_OUT_OF_RANGE);
SAME(MOEC_CONTEXT_OVERRUN, TINY_CONTEXT_OVERRUN);
SAME(MOEC_OUT_OF_MEMORY, TINY_OUT_OF_MEMORY);
SAME(MOEC_UNSUPPORTED_CPU, TINY_UNSUPPORTED_CPU);
SAME(MOEC_SELFTEST_FAILED, TINY_SELFTEST_FAILED);
SAME(MOEC_CACHE_FULL, TINY_CACHE_FULL);
SAME(MOEC_NO_DEVICE, TINY_NO_DEVICE);
SAME(MOEC_DEVICE_FAILED, TINY_DEVICE_FAILED);
SAME(MOEC_DEVICE_AUTO, TINY_DEVICE_AUTO);
SAME(MOEC_DEVICE_CPU, TINY_DEVICE_CPU);
SAME(MOEC_DEVICE_CUDA, TINY_DEVICE_CUDA);
SAME(MOEC_LEVEL_BEST, TINY_LEVEL_BEST);
SAME(MOEC_LEVEL_SCALAR, TINY_LEVEL_SCALAR);
SAME(MOEC_LEVEL_AVX2, TINY_LEVEL_AVX2);
SAME(MOEC_LEVEL_AVX512, TINY_LEVEL_AVX512);
SAME(MOEC_LEVEL_AVX512_DOT, TINY_LEVEL_AVX512_DOT);
SAME(MOEC_LEVEL_AMX, TINY_LEVEL_AMX);
SAME(MOEC_F32, TINY_F32);
SAME(MOEC_BF16, TINY_BF16);
SAME(MOEC_F16, TINY_F16);
SAME(MOEC_I32, TINY_I32);
SAME(MOEC_BOOL, TINY_BOOL);
SAME_SIZE(moec_options, tiny_options);
SAME_FIELD(options, threads);
SAME_FIELD(options, level);
SAME_FIELD(options, verify_checksums);
SAME_FIELD(options, cache_mib);
SAME_FIELD(options, device);
SAME_FIELD(options, reserved);
SAME_SIZE(moec_tensor, tiny_tensor);
SAME(sizeof(tiny_tensor), 128);
SAME_FIELD(tensor, data);
SAME_FIELD(tensor, dtype);
SAME_FIELD(tensor, rank);
SAME_FIELD(tensor, shape);
SAME_FIELD(tensor, reserved);
SAME_SIZE(moec_turn, tiny_turn);
SAME(sizeof(tiny_turn), 64);
SAME_FIELD(turn, ids);
SAME_FIELD(turn, n);
SAME_FIELD(turn, logits);
SAME_FIELD(turn, reserved);
SAME(MOEC_PASS_TOKENS, TINY_PASS_TOKENS(100000));
SAME(TINY_PASS_TOKENS(7), 7);
SAME(TINY_VOCAB, 7);
SAME(TINY_TOKEN_LIMIT, 10);
SAME(TINY_OUTPUT_LOGITS_V, 7);
SAME(TINY_CACHE_BYTES(MOEC_PAGE + 1), 2 * MOEC_PAGE * 64);
SAME(TINY_WORKSPACE_BYTES(17), 17 * 64);
SAME(TINY_STATE_BYTES, 0);
SAME(TINY_WEIGHT_BYTES, 320);

/* What passes are made after (crates/moec-cpu/src/frame.rs). */
_Static_assert(sizeof(moec_segment) == 56 && offsetof(moec_segment, pasts) == 40, "moec_segment");
_Static_assert(sizeof(moec_pass) == 128 && offsetof(moec_pass, segments) == 112, "moec_pass");

/* What entry objects are made after (crates/moec-cpu/src/entry.rs). */
_Static_assert(sizeof(moec_port) == 56 && offsetof(moec_port, axis_count) == 40, "moec_port");
_Static_assert(sizeof(moec_axis) == 16, "moec_axis");
_Static_assert(sizeof(moec_level_entry) == 24, "moec_level_entry");
_Static_assert(sizeof(moec_device_entry) == 24, "moec_device_entry");
_Static_assert(sizeof(moec_description) == 160 && offsetof(moec_description, levels) == 104, "moec_description");
