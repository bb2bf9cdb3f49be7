//! Memory: addresses, loads and stores, the stack.

use melior::ir::{
    Attribute,
    attribute::{DenseI32ArrayAttribute, TypeAttribute},
    operation::OperationLike,
};

use super::{Builder, Elem, I64, PTR, Ty, Val, mlir_type};

impl<'c> Builder<'c> {
    /// `ptr + bytes`.
    pub fn offset(&self, ptr: Val, bytes: Val) -> Val {
        self.gep(&[ptr, bytes], i32::MIN)
    }

    pub fn offset_by(&self, ptr: Val, bytes: i64) -> Val {
        match i32::try_from(bytes) {
            Ok(0) => ptr,
            Ok(bytes) => self.gep(&[ptr], bytes),
            Err(_) => self.offset(ptr, self.i64(bytes)),
        }
    }

    fn gep(&self, operands: &[Val], index: i32) -> Val {
        let attributes = [
            ("rawConstantIndices", DenseI32ArrayAttribute::new(self.context, &[index]).into()),
            ("elem_type", TypeAttribute::new(mlir_type(self.context, Ty::scalar(Elem::I8))).into()),
        ];
        self.op1("llvm.getelementptr", operands, PTR, &attributes)
    }

    /// Vectors need the alignment of an element only.
    pub fn load(&self, ty: Ty, ptr: Val) -> Val {
        self.op1("llvm.load", &[ptr], ty, &[("alignment", self.alignment(ty))])
    }

    /// A load of what nobody writes while the pass runs, so that loops need it once.
    pub fn load_constant(&self, ty: Ty, ptr: Val) -> Val {
        let invariant = ("invariant", Attribute::unit(self.context));
        self.op1("llvm.load", &[ptr], ty, &[("alignment", self.alignment(ty)), invariant])
    }

    pub fn store(&self, value: Val, ptr: Val) {
        self.op("llvm.store", &[value, ptr], &[], &[("alignment", self.alignment(value.ty))]);
    }

    /// Adds to the integer at `ptr`, which several threads may do at once, and gives what was there before. It orders nothing else.
    pub fn fetch_add(&self, ptr: Val, value: Val) -> Val {
        const ADD: i64 = 1;
        const MONOTONIC: i64 = 2;
        let attributes = [("bin_op", ADD), ("ordering", MONOTONIC)];
        let attributes = attributes.map(|(name, value)| (name, self.integer_attribute(Elem::I64, value)));
        self.op1("llvm.atomicrmw", &[ptr, value], value.ty, &attributes)
    }

    /// A hint to bring the line at `ptr`, which need not exist, into the second-level cache.
    pub fn prefetch(&self, ptr: Val) {
        let attributes = [("rw", 0), ("hint", 2), ("cache", 1)];
        let attributes = attributes.map(|(name, value)| (name, self.integer_attribute(Elem::I32, value)));
        self.op("llvm.intr.prefetch", &[ptr], &[], &attributes);
    }

    fn alignment(&self, ty: Ty) -> Attribute<'c> {
        let bytes = match ty.elem {
            Elem::I1 | Elem::I8 => 1,
            Elem::F16 | Elem::Bf16 | Elem::I16 => 2,
            Elem::F32 | Elem::I32 => 4,
            Elem::F64 | Elem::I64 | Elem::Ptr => 8,
        };
        self.integer_attribute(Elem::I64, bytes)
    }

    /// Room on the stack for the whole function, 64-byte aligned. Contents are undefined.
    pub fn stack(&self, bytes: i64) -> Val {
        let entry = Builder { block: self.entry, ..*self };
        let build = |name: &str, operands: &[Val], result: Ty, attributes: &[(&str, Attribute<'c>)]| {
            let operation = entry.build(name, operands, &[result], attributes, Vec::new());
            let raw = operation.to_raw();
            std::mem::forget(operation);
            (raw, Val { raw: unsafe { mlir_sys::mlirOperationGetResult(raw, 0) }, ty: result })
        };
        let (count_op, count) =
            build("arith.constant", &[], I64, &[("value", self.integer_attribute(Elem::I64, bytes))]);
        let attributes = [
            ("alignment", self.integer_attribute(Elem::I64, 64)),
            ("elem_type", TypeAttribute::new(mlir_type(self.context, Ty::scalar(Elem::I8))).into()),
        ];
        let (alloca_op, pointer) = build("llvm.alloca", &[count], PTR, &attributes);
        unsafe {
            mlir_sys::mlirBlockInsertOwnedOperation(self.entry, 0, alloca_op);
            mlir_sys::mlirBlockInsertOwnedOperation(self.entry, 0, count_op);
        }
        pointer
    }
}
