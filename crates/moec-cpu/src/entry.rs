//! The entry of a library: the constant that tells the run time all about the model (kernels/runtime/moec_model.h), and the
//! public C functions, which forward to the run time.

use inkwell::{
    AddressSpace,
    builder::Builder,
    context::Context,
    module::{Linkage, Module},
    targets::FileType,
    types::{BasicMetadataTypeEnum, BasicType, BasicTypeEnum, FunctionType},
    values::{
        BasicMetadataValueEnum, BasicValue, BasicValueEnum, FunctionValue, GlobalValue, PointerValue, StructValue,
    },
};
use moec_codegen::{
    CType, Function, Image, Object, Unsupported, fingerprint, functions, port_rows, sees_later_positions,
};
use moec_diag::Span;
use moec_plan::{Plan, Port, RowFormat};
use moec_types::DType;

use crate::{level::Level, object::target_machine, pass::function_name};

/// What `moec_bind` keeps count of.
const MOST_PORTS: usize = 1024;

/// `MOEC_MOST_SEQUENCES` of kernels/runtime/moec_model.h.
const MOST_SEQUENCES: usize = 4;

/// The object with the description and the functions. `levels` are those whose objects are linked beside it, the plainest
/// first; each thread of a pass has `scratch_bytes`. `image` is a device's (`moec_device_entry` of kernels/runtime/moec_model.h).
pub(crate) fn emit(
    plan: &Plan,
    levels: &[Level],
    scratch_bytes: u64,
    image: Option<&Image>,
) -> Result<Object, Unsupported> {
    check(plan)?;
    let context = Context::create();
    let entry = Entry { module: context.create_module("entry"), builder: context.create_builder(), context: &context };
    let machine = target_machine(Level::Scalar);
    entry.module.set_triple(&machine.get_triple());
    entry.module.set_data_layout(&machine.get_target_data().get_data_layout());
    let description = entry.description(plan, levels, scratch_bytes, image);
    for function in functions(plan) {
        entry.forward(&plan.name, function, description);
    }
    let bytes = machine.write_to_memory_buffer(&entry.module, FileType::Object).expect("an object").as_slice().to_vec();
    Ok(Object { name: "entry.o".to_owned(), bytes })
}

fn check(plan: &Plan) -> Result<(), Unsupported> {
    let unsupported = |step: String, reason: &str, way_round: &str| Unsupported {
        step,
        target: "cpu",
        reason: reason.to_owned(),
        way_round: way_round.to_owned(),
        at: Span::NONE,
    };
    for port in plan.inputs.iter().chain(&plan.outputs) {
        if port_rows(plan, port).is_none() {
            let reason = "a caller cannot know how many rows it has";
            return Err(unsupported(port.name.clone(), reason, "give it one row, or one for each position"));
        }
    }
    if plan.passes().count() > MOST_SEQUENCES {
        let reason = format!("a model may have at most {MOST_SEQUENCES} sequences");
        return Err(unsupported(plan.name.clone(), &reason, "let several inputs go along one"));
    }
    if plan.inputs.len().max(plan.outputs.len()) > MOST_PORTS {
        let reason = format!("a model may have at most {MOST_PORTS} inputs and as many outputs");
        return Err(unsupported(plan.name.clone(), &reason, "put several into one"));
    }
    Ok(())
}

/// Significant bits of the coarsest rows that GEMMs multiply.
fn row_bits(plan: &Plan) -> i32 {
    let bits = |rows| match rows {
        RowFormat::F32 => 24,
        RowFormat::Bf16 => 8,
        RowFormat::Int8 => 7,
    };
    plan.params.iter().map(|param| bits(param.storage.rows())).min().unwrap_or(24)
}

struct Entry<'c> {
    context: &'c Context,
    module: Module<'c>,
    builder: Builder<'c>,
}

impl<'c> Entry<'c> {
    fn int(&self, value: i32) -> BasicValueEnum<'c> {
        self.context.i32_type().const_int(value as u32 as u64, false).into()
    }

    fn long(&self, value: u64) -> BasicValueEnum<'c> {
        self.context.i64_type().const_int(value, false).into()
    }

    fn null(&self) -> PointerValue<'c> {
        self.context.ptr_type(AddressSpace::default()).const_null()
    }

    fn constant(&self, value: impl BasicValue<'c>) -> GlobalValue<'c> {
        let value = value.as_basic_value_enum();
        let global = self.module.add_global(value.get_type(), None, "");
        global.set_initializer(&value);
        global.set_constant(true);
        global.set_linkage(Linkage::Private);
        global
    }

    fn text(&self, text: &str) -> BasicValueEnum<'c> {
        self.constant(self.context.const_string(text.as_bytes(), true)).as_pointer_value().into()
    }

    /// An array, or NULL where it has no elements.
    fn array(&self, elements: Vec<StructValue<'c>>) -> BasicValueEnum<'c> {
        let Some(first) = elements.first() else { return self.null().into() };
        self.constant(first.get_type().const_array(&elements)).as_pointer_value().into()
    }

    /// `moec_description`.
    fn description(
        &self,
        plan: &Plan,
        levels: &[Level],
        scratch_bytes: u64,
        image: Option<&Image>,
    ) -> PointerValue<'c> {
        let version = ["moec ", env!("CARGO_PKG_VERSION"), ", model ", &plan.name].concat();
        let (per_token, fixed) = plan.workspace_bytes();
        let ports = |ports: &[Port]| self.array(ports.iter().map(|port| self.port(plan, port)).collect());
        let count = |count: usize| self.int(count as i32);
        let fields = [
            self.text(&plan.name),
            self.text(&version),
            self.long(fingerprint(plan)),
            self.long(plan.weight_bytes()),
            self.long(per_token),
            self.long(fixed),
            self.long(plan.cache_bytes_per_position()),
            self.long(plan.state_bytes()),
            self.long(scratch_bytes.next_multiple_of(64)),
            self.least_tokens(plan),
            self.array(levels.iter().map(|level| self.level(plan, *level)).collect()),
            ports(&plan.inputs),
            ports(&plan.outputs),
            count(levels.len()),
            count(plan.inputs.len()),
            count(plan.outputs.len()),
            self.int(i32::from(sees_later_positions(plan))),
            count(plan.passes().count()),
            self.int(row_bits(plan)),
            image.map_or_else(|| self.null(), |image| self.device(image)).into(),
        ];
        self.constant(self.context.const_struct(&fields, false)).as_pointer_value()
    }

    /// `moec_device_entry`.
    fn device(&self, image: &Image) -> PointerValue<'c> {
        let pointer = self.context.ptr_type(AddressSpace::default());
        let calls = self.module.add_global(pointer, None, image.calls);
        let bytes = self.constant(self.context.const_string(&image.bytes, false));
        bytes.set_alignment(64);
        let length = self.long(image.bytes.len() as u64);
        let fields = [calls.as_pointer_value().into(), bytes.as_pointer_value().into(), length];
        self.constant(self.context.const_struct(&fields, false)).as_pointer_value()
    }

    fn least_tokens(&self, plan: &Plan) -> BasicValueEnum<'c> {
        let along_each = plan.least_tokens().chain(std::iter::repeat(1)).take(MOST_SEQUENCES);
        let long = self.context.i64_type();
        long.const_array(&along_each.map(|least| long.const_int(least, false)).collect::<Vec<_>>()).into()
    }

    /// `moec_level_entry`.
    fn level(&self, plan: &Plan, level: Level) -> StructValue<'c> {
        let (number, needs) = match level {
            Level::Scalar => (1, 0),
            Level::Avx2 => (2, 1),
            Level::Avx512 => (3, 1 | 2),
            Level::Avx512Dot => (4, 1 | 2 | 4),
            Level::Amx => (5, 1 | 2 | 4 | 8),
        };
        let (pointer, int) = (self.context.ptr_type(AddressSpace::default()), self.context.i32_type());
        let pass = self.context.void_type().fn_type(&[pointer.into(), int.into(), int.into()], false);
        let passes: Vec<PointerValue> = (0..plan.passes().count())
            .map(|sequence| self.module.add_function(&function_name(level, sequence), pass, None))
            .map(|pass| pass.as_global_value().as_pointer_value())
            .collect();
        let passes = self.constant(pointer.const_array(&passes)).as_pointer_value().into();
        self.context.const_struct(&[self.text(level.name()), passes, self.int(number), self.int(needs)], false)
    }

    /// `moec_port`.
    fn port(&self, plan: &Plan, port: &Port) -> StructValue<'c> {
        let axis =
            |(name, size): &(String, u64)| self.context.const_struct(&[self.text(name), self.long(*size)], false);
        let buffer = plan.buffer(port.buffer);
        let dtype = match buffer.dtype {
            DType::F32 => 0,
            DType::Bf16 => 1,
            DType::F16 => 2,
            DType::I32 => 3,
            DType::Bool => 4,
        };
        let rows = port_rows(plan, port).expect("checked before");
        let fields = [
            self.text(&port.name),
            self.array(port.axes.iter().map(axis).collect()),
            self.long(buffer.row),
            self.long(buffer.row_bytes()),
            self.long(port.index_limit.unwrap_or(u64::MAX)),
            self.int(port.axes.len() as i32),
            self.int(dtype),
            self.int(rows as i32),
            self.int(port.sequence as i32),
        ];
        self.context.const_struct(&fields, false)
    }

    /// `NAME_suffix(...) { return moec_suffix(&description, ...); }`
    fn forward(&self, name: &str, function: Function, description: PointerValue<'c>) {
        let public = self.function_type(function, false);
        let public = self.module.add_function(&[name, "_", function.suffix].concat(), public, None);
        let behind = self.function_type(function, function.describes);
        let behind = self.module.add_function(&["moec_", function.suffix].concat(), behind, None);
        let described = function.describes.then_some(BasicMetadataValueEnum::from(description));
        let given = public.get_params().into_iter().map(BasicMetadataValueEnum::from);
        let arguments: Vec<BasicMetadataValueEnum> = described.into_iter().chain(given).collect();
        self.builder.position_at_end(self.context.append_basic_block(public, "entry"));
        self.call_and_return(behind, &arguments);
    }

    fn call_and_return(&self, function: FunctionValue<'c>, arguments: &[BasicMetadataValueEnum<'c>]) {
        let call = self.builder.build_call(function, arguments, "").expect("the builder stands in a block");
        call.set_tail_call(true);
        let result = call.try_as_basic_value().basic();
        let result = result.as_ref().map(|value| value as &dyn BasicValue);
        self.builder.build_return(result).expect("the builder stands in a block");
    }

    fn function_type(&self, function: Function, describes: bool) -> FunctionType<'c> {
        let pointer = self.context.ptr_type(AddressSpace::default());
        let described = describes.then_some(BasicMetadataTypeEnum::from(pointer));
        let given = function.params.iter().filter_map(|param| self.passed(*param)).map(BasicMetadataTypeEnum::from);
        let params: Vec<BasicMetadataTypeEnum> = described.into_iter().chain(given).collect();
        match self.passed(function.result) {
            Some(result) => result.fn_type(&params, false),
            None => self.context.void_type().fn_type(&params, false),
        }
    }

    fn passed(&self, ctype: CType) -> Option<BasicTypeEnum<'c>> {
        match ctype {
            CType::Int => Some(self.context.i32_type().into()),
            CType::Size => Some(self.context.i64_type().into()),
            CType::Pointer => Some(self.context.ptr_type(AddressSpace::default()).into()),
            CType::Nothing => None,
        }
    }
}
