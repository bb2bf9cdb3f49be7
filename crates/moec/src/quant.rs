//! `--quant`: the formats that weights are stored in.

use std::collections::BTreeMap;

use moec_checkpoint::find;
use moec_plan::{Format, PackedParam, Plan};
use moec_sema::Encoding;

use crate::{checkpoint::Matched, cli::Quant};

/// Stores the plan's matrices as asked. What a checkpoint has is looked at for `stored` alone.
pub fn apply(plan: &mut Plan, quant: Option<Quant>, matched: Option<&Matched>) {
    let Some(quant) = quant else { return };
    let same = match quant {
        Quant::Stored => {
            let stored = matched.map(stored).unwrap_or_default();
            return moec_plan::store(plan, |param| of_sources(param, &stored));
        }
        Quant::Bf16 => Format::Pairs,
        Quant::Int8 => Format::Int8,
        Quant::Int4By32 => Format::Int4 { group: 32 },
        Quant::Int4By64 => Format::Int4 { group: 64 },
        Quant::Int4By128 => Format::Int4 { group: 128 },
        Quant::Mxfp4 => Format::Mxfp4,
        Quant::Fp8 => Format::Fp8 { group: 128 },
    };
    moec_plan::store(plan, |_| Some(same));
}

/// The format that all sources of a parameter have in the checkpoint.
fn of_sources(param: &PackedParam, stored: &BTreeMap<u32, Option<Format>>) -> Option<Format> {
    let mut formats = param.sources.iter().map(|source| stored.get(&source.param).copied().flatten());
    let first = formats.next()??;
    formats.all(|other| other == Some(first)).then_some(first)
}

/// The format of each parameter that all its instances have; `None` where there is none.
fn stored(matched: &Matched) -> BTreeMap<u32, Option<Format>> {
    let mut formats: BTreeMap<u32, Option<Format>> = BTreeMap::new();
    for claim in matched.map.claims.iter().filter(|claim| !claim.shared) {
        let encoding = find(&matched.tensors, &matched.map, &claim.tensor).and_then(|tensor| tensor.encoding());
        let format = encoding.and_then(|(encoding, block)| match encoding {
            Encoding::F4E2M1 => (block == 32).then_some(Format::Mxfp4),
            // Groups are whole vectors of the CPU's.
            Encoding::F8E4M3 => {
                let group = u32::try_from(block).ok().filter(|group| group % 16 == 0)?;
                Some(Format::Fp8 { group })
            }
            Encoding::E8M0 => None,
        });
        let known = formats.entry(claim.param.0).or_insert(format);
        if *known != format {
            *known = None;
        }
    }
    formats
}
