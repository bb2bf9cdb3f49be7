//! The standard library: `.moe` files that the binary carries. What `use std::norm` reads is `std/norm.moe`.

/// Name and text of every library file; `prelude` is in scope everywhere without a `use`.
const FILES: &[(&str, &str)] = &[
    ("prelude", include_str!("../std/prelude.moe")),
    ("attention", include_str!("../std/attention.moe")),
    ("expert", include_str!("../std/expert.moe")),
    ("gate", include_str!("../std/gate.moe")),
    ("norm", include_str!("../std/norm.moe")),
];

/// Every file of the standard library: the name after `std::`, and the text.
pub fn library() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().copied()
}

pub(crate) const PRELUDE: &str = "prelude";
