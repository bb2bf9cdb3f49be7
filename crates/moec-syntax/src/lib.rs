//! Text to tree: the grammar (`grammar/moe.pest`), a parser that recovers, and the tree it makes.

pub mod tree;
