//! Numbers that a pass counts: as many as its tokens, or a fraction or a multiple of them.

use std::fmt::{self, Display, Formatter};

/// `tokens * times / per`, rounded up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    pub times: u64,
    pub per: u64,
    pub up: bool,
}

/// How many turns a loop takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    Fixed(u64),
    /// The new positions.
    Tokens,
    Share(Share),
}

impl Share {
    /// As many as there are tokens times `choices`.
    pub fn multiple(choices: u64) -> Share {
        Share { times: choices, per: 1, up: false }
    }

    pub fn of(self, tokens: u64) -> u64 {
        let product = tokens * self.times;
        if self.up { product.div_ceil(self.per) } else { product / self.per }
    }
}

impl Extent {
    pub fn of(self, tokens: u64) -> u64 {
        match self {
            Extent::Fixed(size) => size,
            Extent::Tokens => tokens,
            Extent::Share(share) => share.of(tokens),
        }
    }

    pub fn fixed(self) -> Option<u64> {
        match self {
            Extent::Fixed(size) => Some(size),
            Extent::Tokens | Extent::Share(_) => None,
        }
    }
}

/// The product of all; `None` where one is counted by the pass.
pub fn fixed_product(extents: &[Extent]) -> Option<u64> {
    extents.iter().map(|extent| extent.fixed()).product()
}

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "share({}, {}, {})", self.times, self.per, if self.up { "up" } else { "down" })
    }
}

/// `64`, `tokens`, `share(1, 8, up)`.
impl Display for Extent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Fixed(size) => write!(f, "{size}"),
            Extent::Tokens => f.write_str("tokens"),
            Extent::Share(share) => share.fmt(f),
        }
    }
}
