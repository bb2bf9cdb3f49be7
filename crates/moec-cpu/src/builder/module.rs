//! Modules: functions, externals, constant arrays.

use std::ffi::c_void;

use melior::{
    Context,
    ir::{
        Attribute, Block, Identifier, Location, Module, Region, RegionLike, Type, TypeLike,
        attribute::{IntegerAttribute, StringAttribute, TypeAttribute},
        block::BlockLike,
        operation::OperationBuilder,
        r#type::{FunctionType, IntegerType, RankedTensorType},
    },
};

use super::{Builder, Elem, Ty, Val, arguments, mlir_type, types};

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
            Elem::F16 | Elem::Bf16 | Elem::I16 => 2,
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
