//! A compiled model in use: its library loaded and called, text to tokens and back, tokens drawn. `moec run` does it with a
//! build's folder, and a program that `moec build --emit exe` makes with what it holds inside.
//!
//! Nothing here compiles anything, so that such a program is small.

pub mod generate;
pub mod manifest;
pub mod native;
mod npy;
pub mod parts;
pub mod products;
pub mod program;
pub mod sampling;
pub mod text;
