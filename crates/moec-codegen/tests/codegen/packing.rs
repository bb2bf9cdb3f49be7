//! Packing against the formulas of moec_plan::Layout, element by element.

use std::borrow::Cow;

use moec_codegen::{Instance, Values, pack};
use moec_plan::{Format, Layout, PackSource, PackedParam};
use moec_types::DType;

fn axes(axes: &[(&str, u64)]) -> Vec<(String, u64)> {
    axes.iter().map(|(name, size)| (name.to_string(), *size)).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn source(rows: &[&str], columns: &[&str]) -> PackSource {
    PackSource { param: 0, path: "a.b".into(), rows: names(rows), columns: names(columns) }
}

fn param(layout: Layout, storage: impl Into<Format>, sources: Vec<PackSource>) -> PackedParam {
    let storage = storage.into();
    let (layers, per_layer, experts, offset) = (1, false, 1, 0);
    let mut param = PackedParam {
        name: "p".into(),
        layout,
        storage,
        layers,
        per_layer,
        experts,
        instance_bytes: 0,
        offset,
        sources,
    };
    param.instance_bytes = param.needed_bytes().next_multiple_of(64);
    param
}

fn floats(values: impl IntoIterator<Item = f32>) -> Values<'static> {
    Values::F32(Cow::Owned(values.into_iter().collect()))
}

fn as_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Two branches, n made of two axes that are not neighbours, k of two in the other order, n not a multiple of 16.
#[test]
fn panels() {
    let sizes = [("H", 3), ("D", 5), ("R", 7), ("C", 2)];
    let (n_size, k_size, branches) = (21, 10, 2);
    let layout = Layout::Panels { k: k_size, n: n_size, branches: 2 };
    let param = param(layout, DType::F32, vec![source(&["R", "H"], &["C", "D"]); 2]);
    let value =
        |branch: u64, h: u64, d: u64, r: u64, c: u64| (branch * 1000 + ((h * 5 + d) * 7 + r) * 2 + c) as f32 + 1.0;
    let instances = [0, 1].map(|branch| Instance {
        axes: axes(&sizes),
        values: floats((0..210).map(|at| value(branch, at / 70, at / 14 % 5, at / 2 % 7, at % 2))),
    });
    let packed = as_f32(&pack(&param, &instances).unwrap());
    let mut expected = vec![0.0; param.needed_bytes() as usize / 4];
    for branch in 0..branches {
        for n in 0..n_size {
            for k in 0..k_size {
                let (r, h, c, d) = (n / 3, n % 3, k / 5, k % 5);
                let at = ((n / 16 * k_size + k) * branches + branch) * 16 + n % 16;
                expected[at as usize] = value(branch, h, d, r, c);
            }
        }
    }
    assert_eq!(packed[..expected.len()], expected);
    assert!(packed[expected.len()..].iter().all(|value| *value == 0.0));
}

/// Large enough for threads, which must not change anything.
#[test]
fn large_panels() {
    let (n, k) = (301, 400);
    let param = param(Layout::Panels { k, n, branches: 1 }, DType::F32, vec![source(&["N"], &["K"])]);
    let instance = Instance { axes: axes(&[("N", n), ("K", k)]), values: floats((0..n * k).map(|at| at as f32)) };
    let packed = as_f32(&pack(&param, &[instance]).unwrap());
    for (row, column) in [(0, 0), (16, 3), (300, 399), (150, 200), (299, 1)] {
        assert_eq!(packed[((row / 16 * k + column) * 16 + row % 16) as usize], (row * k + column) as f32);
    }
}

#[test]
fn plain_is_transposed_by_name() {
    let param = param(Layout::Plain { elements: 24 }, DType::F32, vec![source(&["C", "A", "B"], &[])]);
    let instance =
        Instance { axes: axes(&[("A", 2), ("B", 3), ("C", 4)]), values: floats((0..24).map(|at| at as f32)) };
    let packed = as_f32(&pack(&param, &[instance]).unwrap());
    let expected = (0..24).map(|at| (at / 6, at / 3 % 2, at % 3)).map(|(c, a, b)| ((a * 3 + b) * 4 + c) as f32);
    assert_eq!(packed[..24], expected.collect::<Vec<_>>());
}

#[test]
fn scalars_and_empty_tensors() {
    let scalar = param(Layout::Plain { elements: 1 }, DType::F32, vec![source(&[], &[])]);
    let packed = pack(&scalar, &[Instance { axes: vec![], values: floats([2.5]) }]).unwrap();
    assert_eq!(as_f32(&packed)[0], 2.5);
    for layout in [Layout::Plain { elements: 0 }, Layout::Panels { k: 0, n: 4, branches: 1 }] {
        let columns: &[&str] = if matches!(layout, Layout::Plain { .. }) { &[] } else { &["K"] };
        let rows: &[&str] = if columns.is_empty() { &["N", "K"] } else { &["N"] };
        let empty = param(layout, DType::F32, vec![source(rows, columns)]);
        let instance = Instance { axes: axes(&[("N", 4), ("K", 0)]), values: floats([]) };
        assert!(pack(&empty, &[instance]).unwrap().is_empty());
    }
}

/// Halves go to even; what is stored already is not touched.
#[test]
fn rounding() {
    // The second and third are half-way between two bf16.
    let values = [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -0.0, f32::INFINITY, 3.4e38, 1e-41, 65520.0];
    let sources = || vec![source(&["N"], &[])];
    let words = |storage| {
        let param = param(Layout::Plain { elements: 8 }, storage, sources());
        let packed = pack(&param, &[Instance { axes: axes(&[("N", 8)]), values: floats(values) }]).unwrap();
        packed[..16].chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]])).collect::<Vec<_>>()
    };
    assert_eq!(words(DType::Bf16), [0x3F80, 0x3F80, 0x3F82, 0x8000, 0x7F80, 0x7F80, 0x0000, 0x4780]);
    assert_eq!(words(DType::F16), [0x3C00, 0x3C04, 0x3C0C, 0x8000, 0x7C00, 0x7C00, 0x0000, 0x7C00]);
    let bits = [0x3F81, 0x7FC1, 0x0001];
    let raw = Instance { axes: axes(&[("N", 3)]), values: Values::Bf16(Cow::Borrowed(&bits)) };
    let same = pack(&param(Layout::Plain { elements: 3 }, DType::Bf16, sources()), std::slice::from_ref(&raw)).unwrap();
    assert_eq!(same[..6], [0x81, 0x3F, 0xC1, 0x7F, 0x01, 0x00]);
    let wide = as_f32(&pack(&param(Layout::Plain { elements: 3 }, DType::F32, sources()), &[raw]).unwrap());
    assert_eq!(wide[0], 1.0078125);
}

#[test]
fn what_does_not_fit_is_said() {
    let said = |layout: Layout, storage, rows: &[&str], columns: &[&str], values: Values<'static>| {
        let param = param(layout, storage, vec![source(rows, columns)]);
        pack(&param, &[Instance { axes: axes(&[("N", 2), ("K", 3)]), values }]).unwrap_err().to_string()
    };
    let layout = || Layout::Panels { k: 3, n: 2, branches: 1 };
    let six = || floats([0.0; 6]);
    assert!(said(layout(), DType::F32, &["M"], &["K"], six()).contains("no axis `M`"));
    assert!(said(layout(), DType::F32, &["N"], &[], six()).contains("nothing is said of its axis `K`"));
    assert!(said(layout(), DType::F32, &["N"], &["K", "N"], six()).contains("twice"));
    assert!(said(layout(), DType::F32, &["K"], &["N"], six()).contains("3 by 2"));
    assert!(said(layout(), DType::F32, &["N"], &["K"], floats([0.0; 5])).contains("6 elements, but it has 5"));
    assert!(said(layout(), DType::F32, &["N"], &["K"], Values::I32(Cow::Owned(vec![0; 6]))).contains("i32"));
}
