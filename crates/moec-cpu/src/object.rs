//! From an MLIR module to text or machine code: dialect conversions, translation into LLVM's context, optimisation, emission.

use inkwell::{
    OptimizationLevel,
    attributes::AttributeLoc,
    context::AsContextRef,
    module::Linkage,
    passes::PassBuilderOptions,
    targets::{CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple},
};
use melior::{
    Context,
    dialect::DialectRegistry,
    ir::operation::OperationLike,
    pass::{self, PassManager},
    utility::{register_all_dialects, register_all_llvm_translations},
};
use moec_plan::Plan;

use crate::{
    Marks,
    level::Level,
    pass::{Locate, emit, function_name},
};

/// A form of the code on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// As emitted, with locations.
    Mlir,
    /// After optimisation.
    Llvm,
    Asm,
}

/// The code of one level as text.
pub fn text(plan: &Plan, level: Level, stage: Stage, locate: &Locate) -> String {
    with_module(plan, level, Marks::Routes, locate, |context, module| match stage {
        Stage::Mlir => {
            let flags = melior::ir::operation::OperationPrintingFlags::new().enable_debug_info(true, true);
            module.as_operation().to_string_with_flags(flags).expect("a printed module")
        }
        Stage::Llvm => translated(context, module, level, |module, _| module.print_to_string().to_string()),
        Stage::Asm => translated(context, module, level, |module, machine| {
            let buffer = machine.write_to_memory_buffer(module, FileType::Assembly).expect("assembly");
            String::from_utf8_lossy(buffer.as_slice()).trim_end_matches('\0').to_string()
        }),
    })
}

/// The code of one level as a relocatable object.
pub fn object(plan: &Plan, level: Level, marks: Marks, locate: &Locate) -> Vec<u8> {
    with_module(plan, level, marks, locate, |context, module| {
        translated(context, module, level, |module, machine| {
            machine.write_to_memory_buffer(module, FileType::Object).expect("an object").as_slice().to_vec()
        })
    })
}

fn with_module<T>(
    plan: &Plan,
    level: Level,
    marks: Marks,
    locate: &Locate,
    then: impl FnOnce(&Context, &mut melior::ir::Module) -> T,
) -> T {
    let registry = DialectRegistry::new();
    register_all_dialects(&registry);
    let context = Context::new();
    context.enable_multi_threading(false);
    context.append_dialect_registry(&registry);
    for dialect in ["func", "scf", "arith", "vector", "llvm", "cf", "ub"] {
        context.get_or_load_dialect(dialect);
    }
    register_all_llvm_translations(&context);
    let mut module = emit(&context, plan, level, marks, locate).module;
    then(&context, &mut module)
}

/// Lowers, translates, optimises, and hands over.
fn translated<T>(
    context: &Context,
    module: &mut melior::ir::Module,
    level: Level,
    then: impl FnOnce(&inkwell::module::Module, &TargetMachine) -> T,
) -> T {
    use pass::conversion;
    if cfg!(debug_assertions) {
        assert!(module.as_operation().verify(), "moec-cpu made code that MLIR refuses");
    }
    let passes = PassManager::new(context);
    passes.enable_verifier(cfg!(debug_assertions));
    passes.add_pass(conversion::create_scf_to_control_flow());
    passes.add_pass(conversion::create_vector_to_llvm());
    passes.add_pass(conversion::create_arith_to_llvm());
    passes.add_pass(conversion::create_func_to_llvm());
    passes.add_pass(conversion::create_control_flow_to_llvm());
    passes.add_pass(conversion::create_ub_to_llvm());
    passes.add_pass(conversion::create_reconcile_unrealized_casts());
    passes.run(module).expect("a lowered module");

    let llvm = inkwell::context::Context::create();
    let translated = unsafe {
        let raw = mlir_sys::mlirTranslateModuleToLLVMIR(module.as_operation().to_raw(), (&llvm).as_ctx_ref() as *mut _);
        assert!(!raw.is_null(), "moec-cpu made code that does not translate");
        inkwell::module::Module::new(raw as *mut _)
    };
    let machine = target_machine(level);
    translated.set_triple(&machine.get_triple());
    translated.set_data_layout(&machine.get_target_data().get_data_layout());
    // The passes' own; a sequence has no step named as they are.
    let public = function_name(level, 0);
    let is_public = |name: &[u8]| {
        let rest = name.strip_prefix(public.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"_"))
    };
    for function in translated.get_functions() {
        let attribute = |key: &str, value: &str| {
            function.add_attribute(AttributeLoc::Function, llvm.create_string_attribute(key, value));
        };
        attribute("prefer-vector-width", "512");
        attribute("min-legal-vector-width", "512");
        let flag = |name: &str| {
            let kind = inkwell::attributes::Attribute::get_named_enum_kind_id(name);
            function.add_attribute(AttributeLoc::Function, llvm.create_enum_attribute(kind, 0));
        };
        flag("nounwind");
        let is_body = function.count_basic_blocks() > 0;
        if is_body && !is_public(function.get_name().to_bytes()) {
            function.set_linkage(Linkage::Internal);
            flag("noinline");
        }
    }
    let options = PassBuilderOptions::create();
    // Emission has done these.
    options.set_loop_vectorization(false);
    options.set_loop_slp_vectorization(false);
    options.set_loop_interleaving(false);
    options.set_loop_unrolling(false);
    translated.run_passes("default<O2>", &machine, options).expect("optimised code");
    then(&translated, &machine)
}

pub(crate) fn target_machine(level: Level) -> TargetMachine {
    Target::initialize_x86(&InitializationConfig::default());
    let triple = TargetTriple::create("x86_64-unknown-linux-gnu");
    let target = Target::from_triple(&triple).expect("x86-64 is built in");
    target
        .create_target_machine(
            &triple,
            level.cpu(),
            level.features(),
            OptimizationLevel::Default,
            RelocMode::PIC,
            CodeModel::Default,
        )
        .expect("a target machine")
}
