//! A typed builder over MLIR: values know their element type and lanes in Rust, so emission code reads as arithmetic.
//!
//! Every operation that the generated code uses is a method here; nothing else in this crate names a dialect. Building an
//! ill-typed operation is a bug of this crate and panics.

use std::ffi::c_void;

use melior::{
    Context,
    ir::{
        Attribute, Block, Identifier, Location, Module, Operation, Region, RegionLike, Type, TypeLike, Value,
        ValueLike,
        attribute::{
            DenseElementsAttribute, DenseI32ArrayAttribute, DenseI64ArrayAttribute, FlatSymbolRefAttribute,
            FloatAttribute, IntegerAttribute, StringAttribute, TypeAttribute,
        },
        block::BlockLike,
        operation::{OperationBuilder, OperationLike},
        r#type::{FunctionType, IntegerType, RankedTensorType},
    },
};
use mlir_sys::{MlirBlock, MlirValue};

/// What one lane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    F64,
    F32,
    F16,
    I1,
    I8,
    I16,
    I32,
    I64,
    Ptr,
}

/// An element type and a number of lanes; 0 lanes is a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ty {
    pub elem: Elem,
    pub lanes: u32,
}

pub const PTR: Ty = Ty::scalar(Elem::Ptr);
pub const I64: Ty = Ty::scalar(Elem::I64);
pub const I32: Ty = Ty::scalar(Elem::I32);
pub const F32: Ty = Ty::scalar(Elem::F32);

impl Ty {
    pub const fn scalar(elem: Elem) -> Ty {
        Ty { elem, lanes: 0 }
    }

    pub const fn vector(elem: Elem, lanes: u32) -> Ty {
        Ty { elem, lanes }
    }

    /// The same lanes of another element.
    pub const fn of(self, elem: Elem) -> Ty {
        Ty { elem, lanes: self.lanes }
    }

    fn is_float(self) -> bool {
        matches!(self.elem, Elem::F64 | Elem::F32 | Elem::F16)
    }
}

/// A value in the code being built.
#[derive(Clone, Copy, Debug)]
pub struct Val {
    raw: MlirValue,
    pub ty: Ty,
}

/// Comparisons; of floats they are ordered (false with NaN) but for `Ne`; of integers they are signed but for `Below`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Unsigned less-than, for integers only.
    Below,
}

/// Appends operations to one block. Copies and nested builders are cheap; `self` is never exclusive.
#[derive(Clone, Copy)]
pub struct Builder<'c> {
    context: &'c Context,
    block: MlirBlock,
    entry: MlirBlock,
    location: Location<'c>,
}

/// A module under construction.
pub struct ModuleBuilder<'c> {
    pub context: &'c Context,
    pub module: Module<'c>,
    pub location: Location<'c>,
}

impl<'c> ModuleBuilder<'c> {
    pub fn new(context: &'c Context) -> Self {
        let location = Location::unknown(context);
        ModuleBuilder { context, module: Module::new(location), location }
    }

    /// A function with a body; `body` gets a builder and the arguments.
    pub fn function(
        &self,
        name: &str,
        inputs: &[Ty],
        results: &[Ty],
        body: impl FnOnce(&Builder<'c>, &[Val]) -> Vec<Val>,
    ) {
        let types = types(self.context, inputs);
        let block = Block::new(&types.iter().map(|ty| (*ty, self.location)).collect::<Vec<_>>());
        let region = Region::new();
        let arguments = arguments(&block, inputs);
        let block = region.append_block(block);
        let builder =
            Builder { context: self.context, block: block.to_raw(), entry: block.to_raw(), location: self.location };
        let values = body(&builder, &arguments);
        builder.op("func.return", &values, &[], &[]);
        self.append_function(name, inputs, results, region, &[]);
    }

    /// A function that the linker finds elsewhere.
    pub fn external(&self, name: &str, inputs: &[Ty], results: &[Ty]) {
        let private =
            (Identifier::new(self.context, "sym_visibility"), StringAttribute::new(self.context, "private").into());
        self.append_function(name, inputs, results, Region::new(), &[private]);
    }

    fn append_function(
        &self,
        name: &str,
        inputs: &[Ty],
        results: &[Ty],
        region: Region<'c>,
        attributes: &[(Identifier<'c>, Attribute<'c>)],
    ) {
        let ty = FunctionType::new(self.context, &types(self.context, inputs), &types(self.context, results));
        let function = melior::dialect::func::func(
            self.context,
            StringAttribute::new(self.context, name),
            TypeAttribute::new(ty.into()),
            region,
            attributes,
            self.location,
        );
        self.module.body().append_operation(function);
    }

    /// A constant array, 64-byte aligned, under a name of this module. (An empty one holds a zero, which nobody reads.)
    pub fn constant(&self, name: &str, elem: Elem, bytes: &[u8]) {
        let bytes = if bytes.is_empty() { &[0; 8][..] } else { bytes };
        let size = match elem {
            Elem::I1 | Elem::I8 => 1,
            Elem::F16 | Elem::I16 => 2,
            Elem::F32 | Elem::I32 => 4,
            Elem::F64 | Elem::I64 | Elem::Ptr => 8,
        };
        let element = mlir_type(self.context, Ty::scalar(elem));
        let count = bytes.len() / size;
        let tensor: Type = RankedTensorType::new(&[count as u64], element, None).into();
        let raw = unsafe {
            mlir_sys::mlirDenseElementsAttrRawBufferGet(tensor.to_raw(), bytes.len(), bytes.as_ptr() as *const c_void)
        };
        let array = unsafe { Type::from_raw(mlir_sys::mlirLLVMArrayTypeGet(element.to_raw(), count as u32)) };
        let name = StringAttribute::new(self.context, name);
        let linkage = Attribute::parse(self.context, "#llvm.linkage<internal>").expect("an attribute");
        let attributes = [
            ("sym_name", name.into()),
            ("global_type", TypeAttribute::new(array).into()),
            ("linkage", linkage),
            ("constant", Attribute::unit(self.context)),
            ("value", unsafe { Attribute::from_raw(raw) }),
            ("alignment", IntegerAttribute::new(IntegerType::new(self.context, 64).into(), 64).into()),
            ("addr_space", IntegerAttribute::new(IntegerType::new(self.context, 32).into(), 0).into()),
        ];
        let attributes = attributes.map(|(name, value)| (Identifier::new(self.context, name), value));
        let global = OperationBuilder::new("llvm.mlir.global", self.location)
            .add_attributes(&attributes)
            .add_regions([Region::new()])
            .build()
            .expect("a global");
        self.module.body().append_operation(global);
    }
}

fn arguments(block: &Block<'_>, inputs: &[Ty]) -> Vec<Val> {
    let argument = |at: usize| block.argument(at).expect("an argument").to_raw();
    inputs.iter().enumerate().map(|(at, ty)| Val { raw: argument(at), ty: *ty }).collect()
}

fn types<'c>(context: &'c Context, types: &[Ty]) -> Vec<Type<'c>> {
    types.iter().map(|ty| mlir_type(context, *ty)).collect()
}

fn mlir_type(context: &Context, ty: Ty) -> Type<'_> {
    let element: Type = match ty.elem {
        Elem::F64 => Type::float64(context),
        Elem::F32 => Type::float32(context),
        Elem::F16 => Type::float16(context),
        Elem::I1 => IntegerType::new(context, 1).into(),
        Elem::I8 => IntegerType::new(context, 8).into(),
        Elem::I16 => IntegerType::new(context, 16).into(),
        Elem::I32 => IntegerType::new(context, 32).into(),
        Elem::I64 => IntegerType::new(context, 64).into(),
        Elem::Ptr => melior::dialect::llvm::r#type::pointer(context, 0),
    };
    match ty.lanes {
        0 => element,
        lanes => Type::vector(&[u64::from(lanes)], element),
    }
}

impl<'c> Builder<'c> {
    /// The same place, with operations that stand elsewhere in the source.
    pub fn at(&self, location: Location<'c>) -> Builder<'c> {
        Builder { location, ..*self }
    }

    fn append(&self, operation: Operation<'c>, results: &[Ty]) -> Vec<Val> {
        let raw = operation.to_raw();
        unsafe { mlir_sys::mlirBlockAppendOwnedOperation(self.block, raw) };
        std::mem::forget(operation);
        let value = |at| unsafe { mlir_sys::mlirOperationGetResult(raw, at as isize) };
        results.iter().enumerate().map(|(at, ty)| Val { raw: value(at), ty: *ty }).collect()
    }

    fn build(
        &self,
        name: &str,
        operands: &[Val],
        results: &[Ty],
        attributes: &[(&str, Attribute<'c>)],
        regions: Vec<Region<'c>>,
    ) -> Operation<'c> {
        let operands: Vec<Value> = operands.iter().map(|val| unsafe { Value::from_raw(val.raw) }).collect();
        let attributes: Vec<_> =
            attributes.iter().map(|(name, value)| (Identifier::new(self.context, name), *value)).collect();
        OperationBuilder::new(name, self.location)
            .add_operands(&operands)
            .add_results(&types(self.context, results))
            .add_attributes(&attributes)
            .add_regions_vec(regions)
            .build()
            .unwrap_or_else(|_| panic!("{name} cannot be built"))
    }

    fn op(&self, name: &str, operands: &[Val], results: &[Ty], attributes: &[(&str, Attribute<'c>)]) -> Vec<Val> {
        self.append(self.build(name, operands, results, attributes, Vec::new()), results)
    }

    fn op1(&self, name: &str, operands: &[Val], result: Ty, attributes: &[(&str, Attribute<'c>)]) -> Val {
        self.op(name, operands, &[result], attributes)[0]
    }

    fn integer_attribute(&self, elem: Elem, value: i64) -> Attribute<'c> {
        IntegerAttribute::new(mlir_type(self.context, Ty::scalar(elem)), value).into()
    }

    fn constant(&self, ty: Ty, element: Attribute<'c>) -> Val {
        let value: Attribute = match ty.lanes {
            0 => element,
            _ => DenseElementsAttribute::splat(mlir_type(self.context, ty), element).into(),
        };
        self.op1("arith.constant", &[], ty, &[("value", value)])
    }

    // Constants.

    /// In every lane.
    pub fn int(&self, ty: Ty, value: i64) -> Val {
        self.constant(ty, self.integer_attribute(ty.elem, value))
    }

    pub fn i64(&self, value: i64) -> Val {
        self.int(I64, value)
    }

    pub fn float(&self, ty: Ty, value: f32) -> Val {
        self.double(ty, f64::from(value))
    }

    /// A constant for a type of more than f32's precision.
    pub fn double(&self, ty: Ty, value: f64) -> Val {
        let element = mlir_type(self.context, Ty::scalar(ty.elem));
        self.constant(ty, FloatAttribute::new(self.context, element, value).into())
    }

    pub fn bool(&self, ty: Ty, value: bool) -> Val {
        self.int(ty.of(Elem::I1), i64::from(value))
    }

    /// `0, 1, 2, …` as i32 lanes; 0 for a scalar.
    pub fn iota(&self, lanes: u32) -> Val {
        if lanes == 0 {
            return self.int(I32, 0);
        }
        let ty = Ty::vector(Elem::I32, lanes);
        let values: Vec<i32> = (0..lanes as i32).collect();
        let dense = DenseElementsAttribute::i32_values(mlir_type(self.context, ty), &values);
        self.op1("arith.constant", &[], ty, &[("value", dense.into())])
    }

    /// The address of a constant or function of this module.
    pub fn address_of(&self, name: &str) -> Val {
        let symbol = FlatSymbolRefAttribute::new(self.context, name).into();
        self.op1("llvm.mlir.addressof", &[], PTR, &[("global_name", symbol)])
    }

    // Arithmetic: integer or float by the operands' type.

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
        let bits = self.int(a.ty, bits);
        self.binary("", "arith.shli", a, bits)
    }

    /// Filling with the sign.
    pub fn shr(&self, a: Val, bits: i64) -> Val {
        let bits = self.int(a.ty, bits);
        self.binary("", "arith.shrsi", a, bits)
    }

    /// Filling with zeros.
    pub fn shr_unsigned(&self, a: Val, bits: i64) -> Val {
        let bits = self.int(a.ty, bits);
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

    fn intrinsic_to(&self, name: &str, operands: &[Val], result: Ty) -> Val {
        let full = ["llvm.", name].concat();
        let attributes = [
            ("intrin", StringAttribute::new(self.context, &full).into()),
            ("operandSegmentSizes", DenseI32ArrayAttribute::new(self.context, &[operands.len() as i32, 0]).into()),
            ("op_bundle_sizes", DenseI32ArrayAttribute::new(self.context, &[]).into()),
        ];
        self.op1("llvm.call_intrinsic", operands, result, &attributes)
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

    // Lanes.

    /// A scalar in each of so many lanes; a vector of them stays as it is.
    pub fn splat(&self, a: Val, lanes: u32) -> Val {
        if a.ty.lanes == lanes {
            return a;
        }
        assert_eq!(a.ty.lanes, 0);
        self.op1("vector.broadcast", &[a], Ty::vector(a.ty.elem, lanes), &[])
    }

    pub fn lane(&self, a: Val, lane: u32) -> Val {
        if a.ty.lanes == 0 {
            return a;
        }
        let position = DenseI64ArrayAttribute::new(self.context, &[i64::from(lane)]).into();
        self.op1("vector.extract", &[a], Ty::scalar(a.ty.elem), &[("static_position", position)])
    }

    /// A vector of scalars.
    pub fn gather(&self, lanes: &[Val]) -> Val {
        self.op1("vector.from_elements", lanes, Ty::vector(lanes[0].ty.elem, lanes.len() as u32), &[])
    }

    /// Lanes `first .. first + count`.
    pub fn part(&self, a: Val, first: u32, count: u32) -> Val {
        let mask: Vec<i64> = (i64::from(first)..i64::from(first + count)).collect();
        let mask = DenseI64ArrayAttribute::new(self.context, &mask).into();
        self.op1("vector.shuffle", &[a, a], Ty::vector(a.ty.elem, count), &[("mask", mask)])
    }

    /// All lanes (a power of two) brought to one value by `f`, halves against halves: a fixed order.
    pub fn across(&self, mut a: Val, f: impl Fn(&Builder<'c>, Val, Val) -> Val) -> Val {
        while a.ty.lanes > 1 {
            let half = a.ty.lanes / 2;
            a = f(self, self.part(a, 0, half), self.part(a, half, half));
        }
        self.lane(a, 0)
    }

    // Memory.

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

    pub fn store(&self, value: Val, ptr: Val) {
        self.op("llvm.store", &[value, ptr], &[], &[("alignment", self.alignment(value.ty))]);
    }

    fn alignment(&self, ty: Ty) -> Attribute<'c> {
        let bytes = match ty.elem {
            Elem::I1 | Elem::I8 => 1,
            Elem::F16 | Elem::I16 => 2,
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

    // Control.

    fn nested(&self, inputs: &[Ty], body: impl FnOnce(&Builder<'c>, &[Val])) -> Region<'c> {
        let types = types(self.context, inputs);
        let block = Block::new(&types.iter().map(|ty| (*ty, self.location)).collect::<Vec<_>>());
        let values = arguments(&block, inputs);
        let region = Region::new();
        let block = region.append_block(block);
        body(&Builder { block: block.to_raw(), ..*self }, &values);
        region
    }

    /// `for iv in (lower..upper).step_by(step)` over i64, carrying values; `body` gives the next ones.
    pub fn for_loop(
        &self,
        [lower, upper, step]: [Val; 3],
        initial: &[Val],
        body: impl FnOnce(&Builder<'c>, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let carried: Vec<Ty> = initial.iter().map(|val| val.ty).collect();
        let inputs: Vec<Ty> = std::iter::once(I64).chain(carried.iter().copied()).collect();
        let region = self.nested(&inputs, |b, values| {
            let next = body(b, values[0], &values[1..]);
            b.op("scf.yield", &next, &[], &[]);
        });
        let operands: Vec<Val> = [lower, upper, step].into_iter().chain(initial.iter().copied()).collect();
        self.append(self.build("scf.for", &operands, &carried, &[], vec![region]), &carried)
    }

    /// `for iv in 0..count`.
    pub fn repeat(&self, count: Val, body: impl FnOnce(&Builder<'c>, Val)) {
        let [zero, one] = [self.i64(0), self.i64(1)];
        self.range(zero, count, one, body);
    }

    pub fn range(&self, lower: Val, upper: Val, step: Val, body: impl FnOnce(&Builder<'c>, Val)) {
        self.for_loop([lower, upper, step], &[], |b, iv, _| {
            body(b, iv);
            Vec::new()
        });
    }

    pub fn when(&self, condition: Val, body: impl FnOnce(&Builder<'c>)) {
        self.either(
            condition,
            &[],
            |b| {
                body(b);
                Vec::new()
            },
            |_| Vec::new(),
        );
    }

    pub fn either(
        &self,
        condition: Val,
        results: &[Ty],
        yes: impl FnOnce(&Builder<'c>) -> Vec<Val>,
        no: impl FnOnce(&Builder<'c>) -> Vec<Val>,
    ) -> Vec<Val> {
        let yes = self.nested(&[], |b, _| {
            let values = yes(b);
            b.op("scf.yield", &values, &[], &[]);
        });
        let no = self.nested(&[], |b, _| {
            let values = no(b);
            b.op("scf.yield", &values, &[], &[]);
        });
        self.append(self.build("scf.if", &[condition], results, &[], vec![yes, no]), results)
    }

    /// While `condition` holds of the carried values, `body` makes the next ones.
    pub fn while_loop(
        &self,
        initial: &[Val],
        condition: impl FnOnce(&Builder<'c>, &[Val]) -> Val,
        body: impl FnOnce(&Builder<'c>, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let carried: Vec<Ty> = initial.iter().map(|val| val.ty).collect();
        let before = self.nested(&carried, |b, values| {
            let holds = condition(b, values);
            let operands: Vec<Val> = std::iter::once(holds).chain(values.iter().copied()).collect();
            b.op("scf.condition", &operands, &[], &[]);
        });
        let after = self.nested(&carried, |b, values| {
            let next = body(b, values);
            b.op("scf.yield", &next, &[], &[]);
        });
        self.append(self.build("scf.while", initial, &carried, &[], vec![before, after]), &carried)
    }

    pub fn call(&self, name: &str, operands: &[Val], results: &[Ty]) -> Vec<Val> {
        let callee = FlatSymbolRefAttribute::new(self.context, name).into();
        self.op("func.call", operands, results, &[("callee", callee)])
    }

    /// Calls a C function, without result, through a pointer.
    pub fn call_pointer(&self, function: Val, operands: &[Val]) {
        let all: Vec<Val> = std::iter::once(function).chain(operands.iter().copied()).collect();
        let attributes = [
            ("operandSegmentSizes", DenseI32ArrayAttribute::new(self.context, &[all.len() as i32, 0]).into()),
            ("op_bundle_sizes", DenseI32ArrayAttribute::new(self.context, &[]).into()),
        ];
        self.op("llvm.call", &all, &[], &attributes);
    }
}
