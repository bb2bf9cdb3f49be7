//! Arithmetic: integer or float by the operands' type; conversions.

use melior::ir::attribute::{DenseI32ArrayAttribute, StringAttribute};

use super::{Builder, Cmp, Elem, Ty, Val};

impl Builder<'_> {
    fn binary(&self, float: &str, integer: &str, a: Val, b: Val) -> Val {
        assert_eq!(a.ty, b.ty, "{float}/{integer}");
        self.op1(if a.ty.is_float() { float } else { integer }, &[a, b], a.ty, &[])
    }

    pub fn add(&self, a: Val, b: Val) -> Val {
        self.binary("arith.addf", "arith.addi", a, b)
    }

    pub fn sub(&self, a: Val, b: Val) -> Val {
        self.binary("arith.subf", "arith.subi", a, b)
    }

    pub fn mul(&self, a: Val, b: Val) -> Val {
        self.binary("arith.mulf", "arith.muli", a, b)
    }

    /// Integers: towards zero; the divisor must not be 0, nor -1 where the dividend may be the least integer.
    pub fn div(&self, a: Val, b: Val) -> Val {
        self.binary("arith.divf", "arith.divsi", a, b)
    }

    pub fn rem(&self, a: Val, b: Val) -> Val {
        self.binary("arith.remf", "arith.remsi", a, b)
    }

    /// NaN if either is NaN.
    pub fn min(&self, a: Val, b: Val) -> Val {
        self.binary("arith.minimumf", "arith.minsi", a, b)
    }

    /// NaN if either is NaN.
    pub fn max(&self, a: Val, b: Val) -> Val {
        self.binary("arith.maximumf", "arith.maxsi", a, b)
    }

    pub fn and(&self, a: Val, b: Val) -> Val {
        self.binary("", "arith.andi", a, b)
    }

    pub fn or(&self, a: Val, b: Val) -> Val {
        self.binary("", "arith.ori", a, b)
    }

    pub fn xor(&self, a: Val, b: Val) -> Val {
        self.binary("", "arith.xori", a, b)
    }

    pub fn shl(&self, a: Val, bits: i64) -> Val {
        self.shl_by(a, self.int(a.ty, bits))
    }

    /// By fewer bits than there are.
    pub fn shl_by(&self, a: Val, bits: Val) -> Val {
        self.binary("", "arith.shli", a, bits)
    }

    /// Filling with the sign.
    pub fn shr(&self, a: Val, bits: i64) -> Val {
        let bits = self.int(a.ty, bits);
        self.binary("", "arith.shrsi", a, bits)
    }

    /// Filling with zeros.
    pub fn shr_unsigned(&self, a: Val, bits: i64) -> Val {
        self.shr_unsigned_by(a, self.int(a.ty, bits))
    }

    /// By fewer bits than there are.
    pub fn shr_unsigned_by(&self, a: Val, bits: Val) -> Val {
        self.binary("", "arith.shrui", a, bits)
    }

    /// `a * b + c`; in one rounding where the level has such an instruction.
    pub fn mul_add(&self, a: Val, b: Val, c: Val) -> Val {
        self.op1("llvm.intr.fmuladd", &[a, b, c], a.ty, &[])
    }

    pub fn neg(&self, a: Val) -> Val {
        if a.ty.is_float() {
            return self.op1("arith.negf", &[a], a.ty, &[]);
        }
        let zero = self.int(a.ty, 0);
        self.sub(zero, a)
    }

    /// A function of one or two floats that LLVM knows as `llvm.<name>`.
    pub fn intrinsic(&self, name: &str, operands: &[Val]) -> Val {
        self.intrinsic_to(name, operands, operands[0].ty)
    }

    /// The same with a result of another type.
    pub fn intrinsic_to(&self, name: &str, operands: &[Val], result: Ty) -> Val {
        self.call_intrinsic(name, operands, &[result])[0]
    }

    /// The same without a result, of any operands.
    pub fn intrinsic_alone(&self, name: &str, operands: &[Val]) {
        self.call_intrinsic(name, operands, &[]);
    }

    fn call_intrinsic(&self, name: &str, operands: &[Val], results: &[Ty]) -> Vec<Val> {
        let full = ["llvm.", name].concat();
        let attributes = [
            ("intrin", StringAttribute::new(self.context, &full).into()),
            ("operandSegmentSizes", DenseI32ArrayAttribute::new(self.context, &[operands.len() as i32, 0]).into()),
            ("op_bundle_sizes", DenseI32ArrayAttribute::new(self.context, &[]).into()),
        ];
        self.op("llvm.call_intrinsic", operands, results, &attributes)
    }

    pub fn cmp(&self, cmp: Cmp, a: Val, b: Val) -> Val {
        assert_eq!(a.ty, b.ty, "{cmp:?}");
        // The numbers of the predicates in the arith dialect.
        let (float, integer) = match cmp {
            Cmp::Eq => (1, 0),
            Cmp::Ne => (13, 1),
            Cmp::Lt => (4, 2),
            Cmp::Le => (5, 3),
            Cmp::Gt => (2, 4),
            Cmp::Ge => (3, 5),
            Cmp::Below => (4, 6),
        };
        let (name, predicate) = if a.ty.is_float() { ("arith.cmpf", float) } else { ("arith.cmpi", integer) };
        self.op1(name, &[a, b], a.ty.of(Elem::I1), &[("predicate", self.integer_attribute(Elem::I64, predicate))])
    }

    pub fn select(&self, condition: Val, yes: Val, no: Val) -> Val {
        assert_eq!(yes.ty, no.ty);
        self.op1("arith.select", &[condition, yes, no], yes.ty, &[])
    }

    // Conversions.

    fn convert(&self, name: &str, a: Val, elem: Elem) -> Val {
        self.op1(name, &[a], a.ty.of(elem), &[])
    }

    pub fn bits(&self, a: Val, elem: Elem) -> Val {
        self.convert("arith.bitcast", a, elem)
    }

    pub fn widen(&self, a: Val, elem: Elem) -> Val {
        self.convert("arith.extui", a, elem)
    }

    pub fn widen_signed(&self, a: Val, elem: Elem) -> Val {
        self.convert("arith.extsi", a, elem)
    }

    pub fn narrow(&self, a: Val, elem: Elem) -> Val {
        self.convert("arith.trunci", a, elem)
    }

    /// i32 to f32.
    pub fn int_to_float(&self, a: Val) -> Val {
        self.convert("arith.sitofp", a, Elem::F32)
    }

    /// f32 to i32, towards zero; saturating, and 0 for NaN.
    pub fn float_to_int(&self, a: Val) -> Val {
        self.intrinsic_to("fptosi.sat", &[a], a.ty.of(Elem::I32))
    }

    /// To a float of more bits; from f16, in hardware.
    pub fn extend(&self, a: Val, elem: Elem) -> Val {
        self.convert("arith.extf", a, elem)
    }

    /// To a float of fewer bits, to nearest even; to f16, in hardware.
    pub fn truncate(&self, a: Val, elem: Elem) -> Val {
        self.convert("arith.truncf", a, elem)
    }
}
