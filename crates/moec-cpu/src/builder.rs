//! A typed builder over MLIR: values know their element type and lanes in Rust, so emission code reads as arithmetic.
//!
//! Every operation that the generated code uses is a method here; nothing else in this crate names a dialect. Building an
//! ill-typed operation is a bug of this crate and panics.

mod arithmetic;
mod control;
mod lanes;
mod memory;
mod module;
mod tiles;

use melior::{
    Context,
    ir::{
        Attribute, Block, Identifier, Location, Operation, Region, Type, Value, ValueLike,
        attribute::{DenseElementsAttribute, FlatSymbolRefAttribute, FloatAttribute, IntegerAttribute},
        block::BlockLike,
        operation::{OperationBuilder, OperationLike},
        r#type::IntegerType,
    },
};
use mlir_sys::{MlirBlock, MlirValue};

pub use module::ModuleBuilder;
pub use tiles::{TILE_ROW, TILE_ROWS, TileProduct, tile_config};

/// What one lane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    F64,
    F32,
    F16,
    Bf16,
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
        matches!(self.elem, Elem::F64 | Elem::F32 | Elem::F16 | Elem::Bf16)
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
        Elem::Bf16 => Type::bfloat16(context),
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
}
