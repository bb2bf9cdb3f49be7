//! Files of one's own that a document uses: as they stand in the editor, else as they are on disk.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, PathBuf},
};

/// No file of this kind is larger.
const MOST_BYTES: u64 = 4 << 20;

/// Opens files by their names relative to the folder of a document.
pub struct Beside {
    /// That of the document; none where its address is no file's.
    folder: Option<PathBuf>,
    /// The texts of all open documents.
    open: BTreeMap<PathBuf, String>,
}

impl Beside {
    /// For the document of this address; `open` has the addresses and texts of all.
    pub fn new<'t>(address: &str, open: impl Iterator<Item = (&'t str, &'t str)>) -> Beside {
        let folder = path_of(address).and_then(|path| Some(path.parent()?.to_owned()));
        Beside { folder, open: open.filter_map(|(address, text)| Some((path_of(address)?, text.to_owned()))).collect() }
    }

    /// Where a file lies.
    fn place(&self, name: &str) -> Option<PathBuf> {
        let mut path = PathBuf::new();
        for part in self.folder.as_ref()?.join(name).components() {
            match part {
                Component::ParentDir => {
                    path.pop();
                }
                Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::Normal(_) => path.push(part),
            }
        }
        Some(path)
    }
}

impl moec_sema::Open for Beside {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.place(name).ok_or("this document stands in no folder")?;
        if let Some(text) = self.open.get(&path) {
            return Ok(text.clone().into_bytes());
        }
        let meta = fs::metadata(&path).map_err(|error| error.to_string())?;
        if !meta.is_file() || meta.len() > MOST_BYTES {
            return Err("it is no file of this kind".to_owned());
        }
        fs::read(&path).map_err(|error| error.to_string())
    }

    fn near(&self, name: &str) -> Vec<String> {
        let folder = name.rfind('/').map_or("", |at| &name[..=at]);
        let Some(path) = self.place(name) else { return Vec::new() };
        let entries = path.parent().and_then(|parent| fs::read_dir(parent).ok()).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".moe")).map(|name| [folder, &name].concat()).collect()
    }
}

/// The path of `file:///home/me/my%20model.moe`.
fn path_of(address: &str) -> Option<PathBuf> {
    unescaped(address.strip_prefix("file://")?).map(PathBuf::from)
}

/// `%20` as the character that it is.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let code = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(code, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}
