//! Loads and stores of the plan's element types: storage in memory, f32, i32 or `I1` in registers.

use moec_types::DType;

use crate::{
    builder::{Builder, Cmp, Elem, Ty, Val},
    level::Level,
    math,
};

/// So many elements (0: one, as a scalar), one after the other.
pub fn load(b: &Builder, level: Level, dtype: DType, ptr: Val, lanes: u32) -> Val {
    let raw = |elem| b.load(Ty { elem, lanes }, ptr);
    match dtype {
        DType::F32 => raw(Elem::F32),
        DType::I32 => raw(Elem::I32),
        DType::Bf16 => math::from_bf16(b, raw(Elem::I16)),
        DType::F16 => math::from_f16(b, level, raw(Elem::I16)),
        DType::Bool => {
            let bytes = raw(Elem::I8);
            b.cmp(Cmp::Ne, bytes, b.int(bytes.ty, 0))
        }
    }
}

/// Elements `stride` bytes apart.
pub fn load_strided(b: &Builder, level: Level, dtype: DType, ptr: Val, stride: i64, lanes: u32) -> Val {
    if lanes == 0 || stride == dtype.bytes() as i64 {
        return load(b, level, dtype, ptr, lanes);
    }
    if stride == 0 {
        return b.splat(load(b, level, dtype, ptr, 0), lanes);
    }
    let lane = |at: u32| load(b, level, dtype, b.offset_by(ptr, stride * i64::from(at)), 0);
    b.gather(&(0..lanes).map(lane).collect::<Vec<_>>())
}

/// The lanes of `value`, `stride` bytes apart.
pub fn store_strided(b: &Builder, level: Level, dtype: DType, value: Val, ptr: Val, stride: i64) {
    let stored = match dtype {
        DType::F32 | DType::I32 => value,
        DType::Bf16 => math::to_bf16(b, value),
        DType::F16 => math::to_f16(b, level, value),
        DType::Bool => b.widen(value, Elem::I8),
    };
    if value.ty.lanes == 0 || stride == dtype.bytes() as i64 {
        return b.store(stored, ptr);
    }
    for lane in 0..value.ty.lanes {
        b.store(b.lane(stored, lane), b.offset_by(ptr, stride * i64::from(lane)));
    }
}
