//! Matrix tiles (AMX): eight registers of 16 rows of 64 bytes. Who uses them names them; nothing allocates them.

use super::{Builder, Elem, Ty, Val};

/// Bytes of a tile's row, and rows.
pub const TILE_ROW: i64 = 64;
pub const TILE_ROWS: i64 = 16;

/// What a product of tiles multiplies: four bytes of the rows of `a` with four of each column of `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileProduct {
    /// Two bf16 each, into f32.
    Pairs,
    /// Signed bytes with unsigned ones, into i32.
    Fours,
}

impl Builder<'_> {
    /// Sizes of all tiles, which become zero. `config` is 64 bytes: [`tile_config`]. Up to `release_tiles` the thread has tiles.
    pub fn configure_tiles(&self, config: Val) {
        self.intrinsic_alone("x86.ldtilecfg", &[config]);
    }

    pub fn release_tiles(&self) {
        self.intrinsic_alone("x86.tilerelease", &[]);
    }

    pub fn zero_tile(&self, tile: u32) {
        self.intrinsic_alone("x86.tilezero", &[self.tile(tile)]);
    }

    /// As many rows as the tile has, `stride` bytes apart.
    pub fn load_tile(&self, tile: u32, from: Val, stride: Val) {
        self.intrinsic_alone("x86.tileloadd64", &[self.tile(tile), from, stride]);
    }

    pub fn store_tile(&self, tile: u32, to: Val, stride: Val) {
        self.intrinsic_alone("x86.tilestored64", &[self.tile(tile), to, stride]);
    }

    /// `sums += a * b`.
    pub fn multiply_tiles(&self, product: TileProduct, sums: u32, a: u32, b: u32) {
        let name = match product {
            TileProduct::Pairs => "x86.tdpbf16ps",
            TileProduct::Fours => "x86.tdpbsud",
        };
        self.intrinsic_alone(name, &[sums, a, b].map(|tile| self.tile(tile)));
    }

    fn tile(&self, number: u32) -> Val {
        self.int(Ty::scalar(Elem::I8), i64::from(number))
    }
}

/// Palette 1, with the rows of each tile and the bytes of a row.
pub fn tile_config(sizes: [(u8, u8); 8]) -> [u8; 64] {
    let mut config = [0; 64];
    config[0] = 1;
    for (tile, (rows, bytes)) in sizes.into_iter().enumerate() {
        config[16 + 2 * tile] = bytes;
        config[48 + tile] = rows;
    }
    config
}
