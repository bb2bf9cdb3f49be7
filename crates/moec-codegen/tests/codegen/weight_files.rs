use std::{error::Error, fs};

use moec_codegen::{Checksum, Instance, Instances, WriteError, fingerprint, write_weights};

use crate::plans::{Table, tiny, write};

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// As docs/weight-file.md has it.
#[test]
fn layout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.weights");
    let plan = tiny("tiny");
    let mut told = Vec::new();
    write_weights(&plan, &Table, &path, &mut |done, total| told.push((done, total))).unwrap();
    assert_eq!(told, [(320, 320)]);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(&bytes[..8], b"MOECWTS\0");
    assert_eq!(bytes[8..16], [1, 0, 0, 0, 64, 0, 0, 0]);
    let (offset, data_bytes, table_bytes) = (word(&bytes, 16) as usize, word(&bytes, 24), word(&bytes, 48) as usize);
    assert_eq!((offset % 4096, data_bytes, bytes.len()), (0, 320, offset + 320));
    assert_eq!(word(&bytes, 32), fingerprint(&plan));
    assert_eq!(word(&bytes, 40), Checksum::of(&bytes[offset..]));
    assert_eq!(word(&bytes, 56), Checksum::of(&bytes[..56]));
    let table: serde_json::Value = serde_json::from_slice(&bytes[64..64 + table_bytes]).unwrap();
    assert_eq!(table["parameters"][0]["sources"][0]["path"], "table");
    assert_eq!(f32::from_le_bytes(bytes[offset + 4..offset + 8].try_into().unwrap()), -7.5);
}

#[test]
fn the_same_plan_gives_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| write(&tiny("tiny"), path));
    assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
}

#[test]
fn what_is_packed_otherwise_has_another_fingerprint() {
    let plan = tiny("tiny");
    let mut others = [tiny("other"), plan.clone(), plan.clone(), plan.clone()];
    others[1].params[0].storage = moec_types::DType::Bf16;
    others[2].params[0].offset = 64;
    others[3].params[0].sources[0].rows.reverse();
    for other in &others {
        assert_ne!(fingerprint(other), fingerprint(&plan));
    }
    assert_eq!(fingerprint(&tiny("tiny")), fingerprint(&plan));
}

struct Failing;

impl Instances for Failing {
    fn load(&self, _: u32, _: u32, _: u32) -> Result<Instance<'_>, Box<dyn Error + Send + Sync>> {
        Err("the disk is on fire".into())
    }
}

/// Whatever goes wrong, no file appears, none is left behind, and an old one stays.
#[test]
fn nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.weights");
    let error = write_weights(&tiny("tiny"), &Failing, &path, &mut |_, _| ()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the weights of `table`: the disk is on fire");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    fs::write(&path, "old").unwrap();
    write_weights(&tiny("tiny"), &Failing, &path, &mut |_, _| ()).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("no/such/folder/tiny.weights");
    let error = write_weights(&tiny("tiny"), &Table, &nowhere, &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, WriteError::Io { path, .. } if path == nowhere));
}
