//! Keys of a `config.json` that a file says nothing of. A file that serves an architecture answers for every key: what it does
//! not read, require or ignore might change the meaning, and would be lost without a word.

use std::collections::BTreeSet;

use miette::Diagnostic;
use moec_diag::{SourceMap, Span};
use moec_syntax::tree::{Config, Item, Text};
use serde_json::Value as Json;
use thiserror::Error;

use super::{look_up_inside, shown};
use crate::{evaluator::Evaluator, library, spelling::closest};

impl Evaluator {
    /// Reports every key of `json` that `sections` and the library say nothing of.
    pub(super) fn unread_keys<'t>(
        &mut self,
        json: &Json,
        sections: impl Iterator<Item = &'t Config> + Clone,
        serves: &Text,
    ) {
        let read = sections.clone().flat_map(|section| {
            let entries = section.entries.iter().flat_map(|entry| &entry.keys);
            let keys = entries.chain(section.requires.iter().map(|require| &require.key));
            keys.map(|key| key.text.as_str())
        });
        let read: BTreeSet<&str> = read.collect();
        let insides = sections.clone().filter_map(|section| Some(section.inside.as_ref()?.text.as_str())).collect();
        let own = sections.flat_map(|section| &section.ignores).map(|key| key.text.clone());
        let ignored: Vec<String> = own.chain(ignored_everywhere()).collect();
        let known = Known { read, insides, ignored };
        for unread in known.inside(json, "").unread {
            let absent = known.read.iter().copied().filter(|key| look_up_inside(json, &known.insides, key).is_none());
            let own = known.own(&unread.key);
            let meant = closest(own, absent).map(|key| format!("did you mean \"{key}\"? Else "));
            let help = format!(
                "{}read it in an entry (`… from \"{key}\"`), `require` its value, or, if nothing depends on it, `ignore \"{key}\"`",
                meant.unwrap_or_default(),
                key = own
            );
            // All have one place here, and are as many things.
            self.problems.report(UnreadKey { key: unread.key, found: unread.found, help, at: serves.at });
        }
    }
}

/// What the library says of all files.
fn ignored_everywhere() -> Vec<String> {
    let (_, text) = library::library().find(|(name, _)| *name == "config").expect("the library has it");
    let (file, problems) = moec_syntax::parse(&mut SourceMap::default(), "std/config.moe", text);
    assert!(problems.is_empty(), "the library file std/config.moe does not parse: {problems:?}");
    let items = file.into_iter().flat_map(|file| file.items);
    let keys = items.flat_map(|item| match item {
        Item::Config(config) => config.ignores,
        Item::Definition(_) | Item::Model(_) | Item::Weights(_) => Vec::new(),
    });
    keys.map(|key| key.text).collect()
}

/// What a file says of keys.
struct Known<'t> {
    /// Read or required, as paths.
    read: BTreeSet<&'t str>,
    /// Objects in which they may stand instead.
    insides: Vec<&'t str>,
    ignored: Vec<String>,
}

/// A key, or an object in which no key is known.
struct Unread {
    key: String,
    found: String,
}

#[derive(Default)]
struct Found {
    any_known: bool,
    unread: Vec<Unread>,
}

impl Known<'_> {
    /// What is in the value at a path.
    fn inside(&self, json: &Json, path: &str) -> Found {
        if json.is_null() {
            return Found::default();
        }
        if self.has(path) {
            return Found { any_known: true, unread: Vec::new() };
        }
        let Json::Object(object) = json else {
            let unread = Unread { key: path.to_owned(), found: shown(json) };
            return Found { any_known: false, unread: vec![unread] };
        };
        let mut all = Found::default();
        for (key, value) in object {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let found = self.inside(value, &path);
            all.any_known |= found.any_known;
            all.unread.extend(found.unread);
        }
        // One word for all of a thing that the file knows nothing of.
        if !all.any_known && all.unread.len() > 1 && !path.is_empty() {
            all.unread = vec![Unread { key: path.to_owned(), found: shown(json) }];
        }
        all
    }

    /// A path as the file would spell it.
    fn own<'p>(&self, path: &'p str) -> &'p str {
        let inner = |inside: &&str| path.strip_prefix(*inside)?.strip_prefix('.');
        self.insides.iter().find_map(inner).unwrap_or(path)
    }

    fn has(&self, path: &str) -> bool {
        let read = self.read.contains(path) || self.read.contains(self.own(path));
        // Wherever it stands: whole names, one after the other.
        let dotted = format!(".{path}.");
        read || self.ignored.iter().any(|key| dotted.contains(&format!(".{key}.")))
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("config.json has \"{key}\": {found}, of which this file says nothing")]
#[diagnostic(code(moec::sema::unread_key), help("{help}"))]
struct UnreadKey {
    key: String,
    found: String,
    help: String,
    #[label("who serves this answers for all of its keys")]
    at: Span,
}
