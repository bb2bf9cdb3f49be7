//! A language server for `.moe` files, over standard input and output.
//!
//! Each open document is read and checked again when it changes (`analysis`); requests are answered from what that found:
//! the tree, the names of the text and what they stand for (`names`), and what the checker learned of each place.

mod analysis;
mod completion;
mod diagnostics;
mod document;
mod hover;
mod library;
mod names;
mod own_files;
mod rename;
mod semantic_tokens;
mod server;
mod symbols;

pub use semantic_tokens::LEGEND;
pub use server::{ServerStopped, serve, serve_standard_streams};
