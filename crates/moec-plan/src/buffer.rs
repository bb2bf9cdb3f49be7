//! Where values live while a pass runs.

use moec_types::DType;

use crate::Share;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// How many rows something has, or which rows a step works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// So many rows, whatever the pass.
    Fixed(u64),
    /// The new positions.
    Tokens,
    /// The new positions whose outputs are asked for: `first_output .. tokens`. Buffers with so many rows are allocated and
    /// addressed as with `Tokens`.
    Outputs,
    /// One row for each new position and choice, in the order that a bin made.
    Slots { choices: u64 },
    /// As many rows as this share of the new positions.
    Share(Share),
    /// All positions up to now.
    Positions,
}

impl Rows {
    /// The only row of what is the same for all positions.
    pub const ONE: Rows = Rows::Fixed(1);
}

/// A matrix: rows that a pass counts, each of a fixed number of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    pub name: String,
    pub dtype: DType,
    pub rows: Rows,
    /// Elements of one row.
    pub row: u64,
    pub home: Home,
}

/// Offsets are in bytes and multiples of 64.
#[derive(Clone, Debug, PartialEq)]
pub enum Home {
    /// The n-th input of the plan, given by the caller.
    Input(u32),
    Output(u32),
    /// At `per_token * chunk + fixed` in the workspace, where `chunk` is the most tokens that a pass of this session may
    /// have. Buffers whose lives do not overlap may share a place.
    Workspace {
        per_token: u64,
        fixed: u64,
    },
    /// Kept between passes, one instance for each execution of the layer kind that it stands in. Positions lie in pages of
    /// [`crate::PAGE`]; within each, instance `i` starts at `(per_position + i * row bytes) * PAGE`. Row `r` of a pass is
    /// position `past + r`. Rows lie one after the other; or, `panels`, in blocks of 16 positions, element by element: element
    /// `c` of position `p` of a page at `(p / 16) * 16 * row + c * 16 + p % 16`.
    Cache {
        instances: u32,
        per_position: u64,
        panels: bool,
    },
    /// Kept between passes, of a size that does not depend on how many positions there were; one instance for each execution
    /// of the layer kind that it stands in. Instance `i` starts at `offset + i * instance bytes` of the session's states,
    /// where instance bytes are the row's, rounded up to 64. What a new sequence starts from is written by steps.
    State {
        instances: u32,
        offset: u64,
    },
}

impl Home {
    /// Whether a session keeps it from pass to pass.
    pub fn is_kept(&self) -> bool {
        match self {
            Home::Cache { .. } | Home::State { .. } => true,
            Home::Input(_) | Home::Output(_) | Home::Workspace { .. } => false,
        }
    }
}

impl Buffer {
    pub fn row_bytes(&self) -> u64 {
        self.row * self.dtype.bytes()
    }

    /// Bytes from one instance of a state to the next.
    pub fn instance_bytes(&self) -> u64 {
        self.row_bytes().next_multiple_of(64)
    }

    /// `(bytes for each token of the chunk, fixed bytes)`, each rounded up to 64.
    pub fn bytes(&self) -> (u64, u64) {
        let round = |bytes: u64| bytes.next_multiple_of(64);
        match self.rows {
            Rows::Fixed(rows) => (0, round(self.row_bytes() * rows)),
            Rows::Tokens | Rows::Outputs => (round(self.row_bytes()), 0),
            Rows::Slots { choices } => (round(self.row_bytes() * choices), 0),
            // Rounding up is at most one more row.
            Rows::Share(share) => {
                (round((self.row_bytes() * share.times).div_ceil(share.per)), round(self.row_bytes()))
            }
            Rows::Positions => (0, 0),
        }
    }
}

/// An input or output of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: String,
    pub buffer: BufferId,
    /// Whose positions its rows are; 0 where it has none.
    pub sequence: u32,
    /// The axes of a row, for the header and for messages: names and sizes.
    pub axes: Vec<(String, u64)>,
    /// Indices along an axis of this size, to be checked at the boundary (`ids` look up a table of `vocab` rows).
    pub index_limit: Option<u64>,
}
