//! Files of one's own that a file uses: whoever runs a check says how they are opened.

use std::{fmt, sync::Arc};

/// Opens files, by a name that is put together from that of the file which uses it.
pub trait Open: Send + Sync {
    /// All bytes of a file; else why not.
    fn read(&self, name: &str) -> Result<Vec<u8>, String>;

    /// Names of `.moe` files that may have been meant, in the form of `name`.
    fn near(&self, name: &str) -> Vec<String>;
}

/// A way to open files; by default there is none.
#[derive(Clone, Default)]
pub struct Files(Option<Arc<dyn Open>>);

impl Files {
    pub fn new(open: impl Open + 'static) -> Files {
        Files(Some(Arc::new(open)))
    }

    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        match &self.0 {
            Some(open) => open.read(name),
            None => Err("this text stands in no folder".to_owned()),
        }
    }

    pub(crate) fn near(&self, name: &str) -> Vec<String> {
        self.0.as_ref().map(|open| open.near(name)).unwrap_or_default()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Files" } else { "no files" })
    }
}

/// The name of the file that `used` says in the file `from`: relative to that file's folder, without `.` and needless `..`.
pub(crate) fn beside(from: &str, used: &str) -> String {
    let folder = from.rfind('/').map_or("", |at| &from[..=at]);
    let whole = if used.starts_with('/') { used.to_owned() } else { [folder, used].concat() };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match (part, parts.last()) {
            ("." | "", Some(_)) | (".", None) => {}
            ("..", Some(last)) if !matches!(*last, ".." | "") => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn names_are_put_together_as_folders_lie() {
        let cases = [
            ("a.moe", "b.moe", "b.moe"),
            ("x/a.moe", "./b.moe", "x/b.moe"),
            ("x/a.moe", "../y//b.moe", "y/b.moe"),
            ("a.moe", "../b.moe", "../b.moe"),
            ("../x/a.moe", "../../b.moe", "../../b.moe"),
            ("x/a.moe", "/y/./b.moe", "/y/b.moe"),
            ("/x/a.moe", "../../b.moe", "/../b.moe"),
        ];
        for (from, used, wanted) in cases {
            assert_eq!(beside(from, used), wanted, "{used} in {from}");
        }
    }
}
