//! How the weights of a GEMM are stored, and what its rows are rounded to before they are multiplied.
//!
//! One layout for each format, whatever the backend: panels of 16 columns, each streamed from its first byte to its last.
//! A panel is its scales, rounded up to 64 bytes, then its elements. The numbers themselves are made in `quantise.rs`.

use std::{fmt, str::FromStr};

use moec_types::DType;

use crate::PANEL;

/// A storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Each element by itself. Rows stay as they are.
    Each(DType),
    /// bf16, two neighbours along k side by side. Rows are rounded to bf16.
    Pairs,
    /// 8-bit integers times a scale for each column. Rows are rounded to 8-bit integers times a scale for each row.
    Int8,
    /// 4-bit integers times a bf16 scale for each `group` elements (a multiple of 16) of a column along k. Rows as with `Int8`.
    Int4 { group: u32 },
    /// Numbers of 4 bits (e2m1) times a power of two for each 32 elements of a column. Rows stay as they are.
    Mxfp4,
    /// Numbers of 8 bits (e4m3) times an f32 scale for each `group` elements of a column. Rows stay as they are.
    Fp8 { group: u32 },
}

/// What the rows of a GEMM are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowFormat {
    F32,
    Bf16,
    /// As [`crate::quantise::row`] does it.
    Int8,
}

/// Bytes of a panel with all its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelBytes {
    /// Of the scales, with what fills them up to a multiple of 64.
    pub scales: u64,
    pub elements: u64,
}

impl PanelBytes {
    pub fn all(self) -> u64 {
        self.scales + self.elements
    }
}

/// Elements along k that share a scale in the MX formats.
const MX_GROUP: u32 = 32;

/// The most elements along k whose products of 8 bits each a 32-bit sum takes.
const MOST_INTEGERS: u64 = 65_536;

impl Format {
    /// Those of several elements, with their usual groups.
    pub const ALL: [Format; 8] = [
        Format::Pairs,
        Format::Int8,
        Format::Int4 { group: 32 },
        Format::Int4 { group: 64 },
        Format::Int4 { group: 128 },
        Format::Mxfp4,
        Format::Fp8 { group: 32 },
        Format::Fp8 { group: 128 },
    ];

    pub fn rows(self) -> RowFormat {
        match self {
            Format::Each(_) | Format::Mxfp4 | Format::Fp8 { .. } => RowFormat::F32,
            Format::Pairs => RowFormat::Bf16,
            Format::Int8 | Format::Int4 { .. } => RowFormat::Int8,
        }
    }

    /// The type of an element that is stored by itself.
    pub fn each(self) -> Option<DType> {
        match self {
            Format::Each(dtype) => Some(dtype),
            Format::Pairs | Format::Int8 | Format::Int4 { .. } | Format::Mxfp4 | Format::Fp8 { .. } => None,
        }
    }

    /// k with the zeros that fill up the last pair, four or group.
    pub fn padded(self, k: u64) -> u64 {
        k.next_multiple_of(match self {
            Format::Each(_) => 1,
            Format::Pairs => 2,
            Format::Int8 => 4,
            Format::Int4 { group } | Format::Fp8 { group } => u64::from(group),
            Format::Mxfp4 => u64::from(MX_GROUP),
        })
    }

    /// Elements of a column of k that share a scale, with what fills them up.
    pub fn group(self, k: u64) -> u64 {
        match self {
            Format::Each(_) | Format::Pairs | Format::Int8 => self.padded(k),
            Format::Int4 { group } | Format::Fp8 { group } => u64::from(group),
            Format::Mxfp4 => u64::from(MX_GROUP),
        }
    }

    /// Bytes of one scale.
    pub fn scale_bytes(self) -> u64 {
        match self {
            Format::Each(_) | Format::Pairs => 0,
            Format::Int8 | Format::Fp8 { .. } => 4,
            Format::Int4 { .. } => 2,
            Format::Mxfp4 => 1,
        }
    }

    /// Bits of one element without its scale.
    pub fn element_bits(self) -> u64 {
        match self {
            Format::Each(dtype) => dtype.bytes() * 8,
            Format::Pairs => 16,
            Format::Int8 | Format::Fp8 { .. } => 8,
            Format::Int4 { .. } | Format::Mxfp4 => 4,
        }
    }

    /// The parts of a panel of `branches` matrices.
    pub fn panel(self, k: u64, branches: u32) -> PanelBytes {
        let columns = PANEL * u64::from(branches);
        let padded = self.padded(k);
        let groups = padded.checked_div(self.group(k)).unwrap_or(0);
        PanelBytes {
            scales: (groups * columns * self.scale_bytes()).next_multiple_of(64),
            elements: padded * columns * self.element_bits() / 8,
        }
    }

    /// Whether a matrix of k by n is large enough for the format, and not too large.
    pub fn takes(self, k: u64, n: u64) -> bool {
        match self {
            Format::Each(_) => true,
            Format::Pairs => n >= PANEL,
            Format::Int8 => n >= PANEL && (16..=MOST_INTEGERS).contains(&k),
            Format::Int4 { .. } | Format::Mxfp4 | Format::Fp8 { .. } => n >= PANEL && k >= 16,
        }
    }
}

/// `bf16`, `bf16_pairs`, `int8`, `int4_32`, `mxfp4`, `fp8_128`.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Each(dtype) => dtype.fmt(f),
            Format::Pairs => f.write_str("bf16_pairs"),
            Format::Int8 => f.write_str("int8"),
            Format::Int4 { group } => write!(f, "int4_{group}"),
            Format::Mxfp4 => f.write_str("mxfp4"),
            Format::Fp8 { group } => write!(f, "fp8_{group}"),
        }
    }
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let group =
            |prefix: &str| text.strip_prefix(prefix)?.parse().ok().filter(|group| group % 16 == 0 && *group > 0);
        if let Some(group) = group("int4_") {
            return Ok(Format::Int4 { group });
        }
        if let Some(group) = group("fp8_") {
            return Ok(Format::Fp8 { group });
        }
        let each = || text.parse().map(Format::Each);
        [Format::Pairs, Format::Int8, Format::Mxfp4]
            .into_iter()
            .find(|format| format.to_string() == text)
            .map_or_else(each, Ok)
    }
}

impl From<DType> for Format {
    fn from(dtype: DType) -> Self {
        Format::Each(dtype)
    }
}
