//! Headers by whoever wishes ill: every one is refused or sound, none panics, and none makes memory grow beyond the file's size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use moec_checkpoint::Checkpoint;

/// The system's allocator, which remembers the largest thing that this thread asked for.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's own doing.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(size)));
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

fn file(header: &[u8], data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, &vec![7; data]].concat()
}

/// Opens what the bytes are as a file. The error's text, or `None` where it is sound.
#[track_caller]
fn opened(path: &Path, bytes: &[u8]) -> Option<String> {
    // A new file each time: to overwrite one makes some file systems wait for the disk.
    _ = fs::remove_file(path);
    fs::write(path, bytes).expect("written");
    LARGEST.set(0);
    let outcome = catch_unwind(|| match Checkpoint::open(path) {
        Ok(checkpoint) => {
            for name in checkpoint.names() {
                let tensor = checkpoint.tensor(name).expect("a name that was listed");
                if let Some(size) = tensor.dtype.bytes() {
                    assert_eq!(tensor.shape.iter().product::<u64>() * size, tensor.bytes.len() as u64);
                }
            }
            None
        }
        Err(error) => Some(error.to_string()),
    });
    let largest = LARGEST.get();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    // Twice, as what grows doubles; and what any error's text takes.
    assert!(largest <= 2 * bytes.len() + 4096, "{largest} bytes at once for a file of {}: {shown}", bytes.len());
    outcome.unwrap_or_else(|_| panic!("a panic: {shown}"))
}

#[test]
fn thousands_of_mutations() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.safetensors");
    let header = br#"{"__metadata__": {"format": "pt"}, "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]}, "c": {"dtype": "U8", "shape": [], "data_offsets": [34, 35]}}"#;
    assert_eq!(opened(&path, &file(header, 35)), None);
    let words: [&[u8]; 16] = [
        b"18446744073709551615",
        b"9223372036854775808",
        b"-1",
        b"1e999",
        b"[[[[",
        b"]",
        b"{",
        b"}",
        b"\"",
        b"\\u0000",
        b"\xff",
        b"null",
        b"\"F64\"",
        b"\"a.weight\"",
        b",",
        b"0",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut sound = 0;
    for _ in 0..5000 {
        let mut changed = header.to_vec();
        for _ in 0..=random(3) {
            let at = random(changed.len());
            match random(5) {
                0 => changed[at] ^= 1 << random(8),
                1 => drop(changed.splice(at..at, words[random(words.len())].iter().copied())),
                2 => {
                    drop(changed.splice(
                        at..(at + 1 + random(8)).min(changed.len()),
                        words[random(words.len())].iter().copied(),
                    ))
                }
                3 => changed.truncate(at.max(1)),
                _ => {
                    let piece = changed[at..(at + random(60)).min(changed.len())].to_vec();
                    let to = random(changed.len());
                    drop(changed.splice(to..to, piece));
                }
            }
        }
        let mut bytes = file(&changed, 35);
        if random(10) == 0 {
            bytes[random(8)] = random(256) as u8;
        }
        sound += usize::from(opened(&path, &bytes).is_none());
    }
    // Some changes are harmless, most are not: else nothing was tried.
    assert!((10..2500).contains(&sound), "{sound} sound");
}

#[test]
fn headers_that_ask_for_much() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.safetensors");
    let refused = |bytes: &[u8], words: &str| {
        let error = opened(&path, bytes).unwrap_or_else(|| panic!("sound, though: {words}"));
        assert!(error.contains(words) && error.contains("x.safetensors"), "{error}");
    };
    let numbers = "0,".repeat(200_000);
    let shape = format!(r#"{{"a": {{"dtype": "F32", "shape": [{numbers}0], "data_offsets": [0, 0]}}}}"#);
    refused(&file(shape.as_bytes(), 0), "`a`");
    let lists = format!(
        r#"{{"a": {{"dtype": "F32", "shape": [], "extra": {}, "data_offsets": [0, 0]}}}}"#,
        "[".repeat(200_000)
    );
    refused(&file(lists.as_bytes(), 0), "not a JSON object");
    let values = format!(r#"{{"a": [{numbers}0]}}"#);
    refused(&file(values.as_bytes(), 0), "`a`");
    let key = format!(r#"{{"{}": 1}}"#, "\\u0041".repeat(50_000));
    refused(&file(key.as_bytes(), 0), "AAAA");
    refused(&[&(4u64 << 30).to_le_bytes()[..], b"{}"].concat(), "4294967296");
    refused(&[&(1u64 << 63).to_le_bytes()[..], b"{}"].concat(), "9223372036854775808");
    // A hundred thousand tensors are many, and fine.
    let entry = |number: usize| format!(r#""{number}": {{"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}"#);
    let many = format!("{{{}}}", (0..100_000).map(entry).collect::<Vec<_>>().join(","));
    assert_eq!(opened(&path, &file(many.as_bytes(), 0)), None);
}
