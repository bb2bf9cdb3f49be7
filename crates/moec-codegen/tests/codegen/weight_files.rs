use std::{borrow::Cow, cell::Cell, error::Error, fs, ops::ControlFlow, path::Path};

use moec_codegen::{
    Checksum, Instance, Instances, Place, Values, WriteError, fingerprint, resume_weights, write_weights,
};
use moec_plan::Plan;

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
    others[1].params[0].storage = moec_types::DType::Bf16.into();
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

/// Four instances, each full of its layer's number.
struct Layers {
    loaded: Cell<u32>,
}

impl Instances for Layers {
    fn load(&self, _: u32, layer: u32, _: u32) -> Result<Instance<'_>, Box<dyn Error + Send + Sync>> {
        self.loaded.set(self.loaded.get() + 1);
        let values = Values::F32(Cow::Owned(vec![layer as f32; 70]));
        Ok(Instance { axes: vec![("I".into(), 10), ("V".into(), 7)], values })
    }
}

fn four_layers() -> Plan {
    let mut plan = tiny("tiny");
    plan.params[0].layers = 4;
    plan
}

/// Packs until `stop` bytes are there. What came of it, and how many instances it took.
fn packed_until(stop: u64, folder: &Path, plan: &Plan, origin: Option<u64>) -> (Result<u64, WriteError>, u32) {
    let (source, partial) = (Layers { loaded: Cell::new(0) }, folder.join("tiny.weights.partial"));
    let mut progress = |done, _| if done >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let place = Place { partial: &partial, origin };
    let outcome = resume_weights(plan, &source, &folder.join("tiny.weights"), &place, &mut progress);
    (outcome, source.loaded.get())
}

const NEVER: u64 = u64::MAX;

#[test]
fn packing_goes_on_where_it_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let (at, plan) = (folder.path(), four_layers());
    let (whole, partial) = (at.join("tiny.weights"), at.join("tiny.weights.partial"));
    packed_until(NEVER, at, &plan, Some(7)).0.unwrap();
    let expected = fs::read(&whole).unwrap();
    fs::remove_file(&whole).unwrap();
    let interrupt = |origin| {
        let (outcome, loaded) = packed_until(640, at, &plan, origin);
        assert!(matches!(outcome, Err(WriteError::Interrupted { done: 640, total: 1280, .. })), "{outcome:?}");
        assert_eq!((loaded, whole.exists()), (2, false));
    };
    let resumed = || {
        let (outcome, loaded) = packed_until(NEVER, at, &plan, Some(7));
        assert_eq!(fs::read(&whole).unwrap(), expected);
        assert!(!partial.exists());
        fs::remove_file(&whole).unwrap();
        (outcome.unwrap(), loaded)
    };
    interrupt(Some(7));
    assert_eq!(resumed(), (640, 2));
    // Longer than it says, as after a kill: what came after the last note is written over.
    interrupt(Some(7));
    fs::write(&partial, [fs::read(&partial).unwrap(), vec![9; 100]].concat()).unwrap();
    assert_eq!(resumed(), (640, 2));
    // Another origin, a changed byte, a lost end, another file: nothing of it is believed.
    interrupt(Some(8));
    assert_eq!(resumed(), (0, 4));
    let damages: [&dyn Fn(Vec<u8>) -> Vec<u8>; 5] = [
        &|mut bytes| {
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        },
        &|mut bytes| {
            bytes.pop();
            bytes
        },
        &|mut bytes| {
            bytes[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
            bytes
        },
        &|bytes| bytes[..30].to_vec(),
        &|bytes| vec![0; bytes.len()],
    ];
    for damage in damages {
        interrupt(Some(7));
        fs::write(&partial, damage(fs::read(&partial).unwrap())).unwrap();
        assert_eq!(resumed(), (0, 4));
    }
    // Whoever cannot be told apart from others leaves nothing.
    interrupt(None);
    assert!(!partial.exists());
}

#[test]
fn two_do_not_pack_into_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let partial = folder.path().join("tiny.weights.partial");
    let other = fs::File::create(&partial).unwrap();
    other.lock().unwrap();
    let (outcome, _) = packed_until(NEVER, folder.path(), &four_layers(), Some(7));
    assert!(matches!(outcome, Err(WriteError::Busy { .. })), "{outcome:?}");
    assert!(partial.exists());
    drop(other);
    packed_until(NEVER, folder.path(), &four_layers(), Some(7)).0.unwrap();
}
