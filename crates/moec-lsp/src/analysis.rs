//! All that is known of one document: its tree, its names, its problems, and what the checker learned.

use moec_diag::{Problem, SourceMap};
use moec_sema::{Files, Index, Settings};
use moec_syntax::tree::File;

use crate::{document::Document, names::Names};

pub struct Analysis {
    pub document: Document,
    /// What could be read; empty where the text is no `.moe` file at all.
    pub tree: File,
    pub names: Names,
    pub index: Index,
    pub problems: Vec<Problem>,
    pub sources: SourceMap,
    /// How it opens other files.
    pub files: Files,
}

impl Analysis {
    /// `name` says in reports which file it is; `files` opens others, by names relative to its folder.
    pub fn of(name: &str, text: String, files: Files) -> Analysis {
        let mut sources = SourceMap::default();
        let (tree, problems) = moec_syntax::parse(&mut sources, name, &text);
        let mut problems = problems.into_vec();
        let readable = tree.is_some();
        let tree = tree.unwrap_or_default();
        let mut index = Index::default();
        if readable {
            let settings = Settings { files: files.clone(), definitions_suffice: true, ..Settings::default() };
            let (_, found, learned) = moec_sema::check_and_index(&mut sources, &tree, &settings);
            index = learned;
            // Of a file that cannot be read whole, the checker sees only a part, and misses the rest.
            if problems.is_empty() {
                problems = found.into_vec();
            }
        }
        let names = Names::of(&tree);
        Analysis { document: Document::new(text), tree, names, index, problems, sources, files }
    }

    /// Whether what is known of it depends on other documents.
    pub fn uses_files(&self) -> bool {
        self.tree.uses.iter().any(|used| used.file.is_some())
    }
}
