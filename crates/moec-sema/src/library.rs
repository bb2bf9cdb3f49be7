//! The standard library: `.moe` files that the binary carries. What `use std::norm` reads is `std/norm.moe`.

use crate::spelling::closest;

/// Name and text of every library file; `prelude` is in scope everywhere without a `use`.
const FILES: &[(&str, &str)] = &[
    ("prelude", include_str!("../std/prelude.moe")),
    ("attention", include_str!("../std/attention.moe")),
    ("capacity", include_str!("../std/capacity.moe")),
    ("config", include_str!("../std/config.moe")),
    ("expert", include_str!("../std/expert.moe")),
    ("gate", include_str!("../std/gate.moe")),
    ("loss", include_str!("../std/loss.moe")),
    ("mixer", include_str!("../std/mixer.moe")),
    ("norm", include_str!("../std/norm.moe")),
    ("table", include_str!("../std/table.moe")),
    ("vision", include_str!("../std/vision.moe")),
];

/// Every file of the standard library: the name after `std::`, and the text.
pub fn library() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().copied()
}

/// The file of the library, other than the prelude, that defines a name.
pub(crate) fn home_of(name: &str) -> Option<&'static str> {
    defined().find(|(_, known)| *known == name).map(|(file, _)| file)
}

/// The file and the name of the library definition that a name was probably meant to be.
pub(crate) fn nearest(name: &str) -> Option<(&'static str, &'static str)> {
    let meant = closest(name, defined().map(|(_, known)| known))?;
    defined().find(|(_, known)| *known == meant)
}

/// File and name of every definition outside the prelude.
fn defined() -> impl Iterator<Item = (&'static str, &'static str)> {
    let files = FILES.iter().filter(|(file, _)| *file != PRELUDE);
    files.flat_map(|(file, text)| text.lines().filter_map(move |line| Some((*file, defined_by(line)?))))
}

/// The name that a line defines, by the word at its start: the library is formatted.
fn defined_by(line: &str) -> Option<&str> {
    let rest = ["fn ", "block ", "expert ", "gate "].iter().find_map(|word| line.strip_prefix(word))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

pub(crate) const PRELUDE: &str = "prelude";
