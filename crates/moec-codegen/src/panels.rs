//! Panels of weights in formats of several elements: pairs, integers and small floats with their scales.
//!
//! A panel is 16 columns of each branch; what a column's numbers become is `moec_plan::quantise`'s business, where they lie
//! is decided here and written down in docs/weight-file.md.

use moec_plan::{Format, PANEL, quantise};

use crate::pack::CodeKind;

type Group = quantise::Scaled<u8>;

/// The shape of a parameter in panels.
#[derive(Clone, Copy)]
pub struct Panels {
    pub format: Format,
    pub k: usize,
    pub branches: usize,
}

const LANES: usize = PANEL as usize;

impl Panels {
    pub fn bytes(&self) -> usize {
        self.format.panel(self.k as u64, self.branches as u32).all() as usize
    }

    /// Whether codes of this kind stay as they are.
    pub fn keeps(&self, kind: CodeKind) -> bool {
        match self.format {
            Format::Mxfp4 => kind == CodeKind::E2m1,
            Format::Fp8 { .. } => kind == CodeKind::E4m3,
            Format::Each(_) | Format::Pairs | Format::Int8 | Format::Int4 { .. } => false,
        }
    }

    /// Writes one column of one branch: k codes as they are. Says why they cannot be kept.
    pub fn write_codes(&self, panel: &mut [u8], at: [usize; 2], codes: &[u8], scales: &[f32]) -> Result<(), String> {
        let group = self.format.group(self.k as u64).max(1) as usize;
        for (number, (codes, scales)) in codes.chunks(group).zip(scales.chunks(group)).enumerate() {
            let scale = scales[0];
            if scales.iter().any(|other| other.to_bits() != scale.to_bits()) {
                return Err(format!(
                    "its scales change within {group} elements of a column, where {} has one",
                    self.format
                ));
            }
            if self.format == Format::Mxfp4 && quantise::e8m0(quantise::e8m0_code(scale)) != scale {
                return Err(format!("its scales are no powers of two ({scale})"));
            }
            // Codes of a zero that fills up are zeros in both formats.
            self.put(panel, at, number, Group { scale, codes: codes.to_vec() });
        }
        Ok(())
    }

    /// Writes one column of one branch: k numbers. Says what cannot be stored.
    pub fn write(&self, panel: &mut [u8], at: [usize; 2], column: &[f32]) -> Result<(), String> {
        let bad = column.iter().position(|value| !value.is_finite());
        match (self.format, bad) {
            (Format::Each(_) | Format::Pairs, _) | (_, None) => {}
            (format, Some(k)) => {
                return Err(format!(
                    "it has {} (element {k} of a column), and {format} holds finite numbers",
                    column[k]
                ));
            }
        }
        let mut padded = column.to_vec();
        padded.resize(self.format.padded(self.k as u64) as usize, 0.0);
        let group = self.format.group(self.k as u64).max(1) as usize;
        for (number, values) in padded.chunks(group).enumerate() {
            let found = match self.format {
                Format::Each(_) => unreachable!("what is stored each by itself has no panels of this kind"),
                Format::Pairs => {
                    self.put_pairs(panel, at, values);
                    continue;
                }
                Format::Int8 => quantise::int8(values).map(|code| (i16::from(code) + 128) as u8),
                Format::Int4 { .. } => quantise::int4(values).map(|code| (code + 8) as u8),
                Format::Mxfp4 => quantise::mxfp4(values),
                Format::Fp8 { .. } => quantise::fp8(values),
            };
            self.put(panel, at, number, found);
        }
        Ok(())
    }

    fn put_pairs(&self, panel: &mut [u8], at: [usize; 2], values: &[f32]) {
        for (k, value) in values.iter().enumerate() {
            let place = self.word(at, k, 2) + k % 2 * 2;
            panel[place..place + 2].copy_from_slice(&half::bf16::from_f32(*value).to_le_bytes());
        }
    }

    /// The codes of group `number`, and their scale.
    fn put(&self, panel: &mut [u8], at: [usize; 2], number: usize, group: Group) {
        let shape = self.format.panel(self.k as u64, self.branches as u32);
        let (scales, elements) = panel.split_at_mut(shape.scales as usize);
        let scale_bytes = self.format.scale_bytes() as usize;
        let column = at[0] * LANES + at[1];
        let scale = &mut scales[(number * self.branches * LANES + column) * scale_bytes..][..scale_bytes];
        match scale {
            [one] => *one = quantise::e8m0_code(group.scale),
            [_, _] => scale.copy_from_slice(&half::bf16::from_f32(group.scale).to_le_bytes()),
            _ => scale.copy_from_slice(&group.scale.to_le_bytes()),
        }
        let halves = self.format.element_bits() == 4;
        let first = number * self.format.group(self.k as u64) as usize;
        for (k, code) in (first..).zip(group.codes) {
            if halves {
                // Of eight elements, the first four are the low halves of a column's four bytes.
                elements[self.word(at, k, 8) + k % 4] |= code << (k % 8 / 4 * 4);
            } else {
                elements[self.word(at, k, 4) + k % 4] = code;
            }
        }
    }

    /// Where a column's four bytes begin that hold element k, `of` elements being in them.
    fn word(&self, [branch, lane]: [usize; 2], k: usize, of: usize) -> usize {
        (k / of * self.branches * LANES + branch * LANES + lane) * 4
    }
}
