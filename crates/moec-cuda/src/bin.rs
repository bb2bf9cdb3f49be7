//! Sorting choices by expert: what the template in kernels/cuda/bin.cuh asks of a step.

use std::fmt::Write;

use moec_plan::{Bin, BufferId, Plan};

use crate::{
    launch::{Kernel, Traced, instance},
    place,
};

pub fn kernel(plan: &Plan, name: &str, bin: &Bin) -> Kernel {
    let mut text = format!(
        "  static constexpr int CHOICES = {}, EXPERTS = {};\n  static constexpr bool SLOT_OF = {};\n",
        bin.choices,
        bin.experts,
        bin.slot_of.is_some()
    );
    let [_, tokens] = place::range(bin.tokens);
    let _ = writeln!(text, "  static MOEC_DEVICE i64 tokens(const Pass &pass) {{ return {tokens}; }}");
    let mut pointer = |name: &str, id: Option<BufferId>, dtype: &str| {
        let at = id.map_or("0".to_owned(), |id| place::elements(plan, id));
        let _ = writeln!(text, "  static MOEC_DEVICE {dtype}{name}(const Pass &pass, int rank) {{ return {at}; }}");
    };
    pointer("indices", Some(bin.indices), "const int *");
    pointer("offsets", Some(bin.offsets), "int *");
    pointer("order", Some(bin.order), "int *");
    pointer("slot_of", bin.slot_of, "int *");
    let mut kernel = instance("Bin", name, &text, bin.tokens);
    let Bin { route, indices, weights, choices, .. } = *bin;
    kernel.launch.traced = Some(Traced { route, indices, weights, choices });
    kernel
}
