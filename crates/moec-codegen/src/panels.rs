//! Panels of weights in formats of several elements: pairs, integers and small floats with their scales.
//!
//! A panel is 16 columns of each branch; what a column's numbers become is `moec_plan::quantise`'s business, where they lie
//! is decided here and written down in docs/weight-file.md.

use moec_plan::{Format, PANEL, quantise};

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

    /// Writes one column of one branch: k numbers. Says what cannot be stored.
    pub fn write(&self, panel: &mut [u8], [branch, lane]: [usize; 2], column: &[f32]) -> Result<(), String> {
        let bad = column.iter().position(|value| !value.is_finite());
        match (self.format, bad) {
            (Format::Each(_) | Format::Pairs, _) | (_, None) => {}
            (format, Some(k)) => {
                return Err(format!(
                    "it has a {} (element {k} of a column), and {format} holds finite numbers",
                    column[k]
                ));
            }
        }
        let shape = self.format.panel(self.k as u64, self.branches as u32);
        let (scales, elements) = panel.split_at_mut(shape.scales as usize);
        let mut padded = column.to_vec();
        padded.resize(self.format.padded(self.k as u64) as usize, 0.0);
        let group = self.format.group(self.k as u64).max(1) as usize;
        let columns = self.branches * LANES;
        let at = branch * LANES + lane;
        // Where the four bytes of a column begin that hold element k.
        let word = |k: usize, of: usize| (k / of * columns + at) * 4;
        for (number, values) in padded.chunks(group).enumerate() {
            let first = number * group;
            let scale_at = (number * columns + at) * self.format.scale_bytes() as usize;
            match self.format {
                Format::Each(_) => unreachable!("what is stored each by itself has no panels of this kind"),
                Format::Pairs => {
                    for (k, value) in (first..).zip(values) {
                        let place = word(k, 2) + k % 2 * 2;
                        elements[place..place + 2].copy_from_slice(&half::bf16::from_f32(*value).to_le_bytes());
                    }
                }
                Format::Int8 => {
                    let found = quantise::int8(values);
                    scales[scale_at..scale_at + 4].copy_from_slice(&found.scale.to_le_bytes());
                    for (k, code) in (first..).zip(found.codes) {
                        elements[word(k, 4) + k % 4] = (i16::from(code) + 128) as u8;
                    }
                }
                Format::Int4 { .. } => {
                    let found = quantise::int4(values);
                    let scale = half::bf16::from_f32(found.scale);
                    scales[scale_at..scale_at + 2].copy_from_slice(&scale.to_le_bytes());
                    for (k, code) in (first..).zip(found.codes) {
                        put_half(&mut elements[word(k, 8) + k % 4], k, (code + 8) as u8);
                    }
                }
                Format::Mxfp4 => {
                    let found = quantise::mxfp4(values);
                    scales[scale_at] = quantise::e8m0_code(found.scale);
                    for (k, code) in (first..).zip(found.codes) {
                        put_half(&mut elements[word(k, 8) + k % 4], k, code);
                    }
                }
                Format::Fp8 { .. } => {
                    let found = quantise::fp8(values);
                    scales[scale_at..scale_at + 4].copy_from_slice(&found.scale.to_le_bytes());
                    for (k, code) in (first..).zip(found.codes) {
                        elements[word(k, 4) + k % 4] = code;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Of eight elements, the first four are the low halves of a column's four bytes, the others the high ones.
fn put_half(byte: &mut u8, k: usize, code: u8) {
    *byte |= code << (k % 8 / 4 * 4);
}
