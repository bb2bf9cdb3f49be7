//! Checkpoints: safetensors files on disk, matched against what a module's `weights` section claims.
//!
//! A checkpoint comes from anywhere, so everything in it is checked before it is believed: no header can make a read leave
//! the file, and every fault names the file and the tensor.

mod checkpoint;
mod claimed;
mod error;
mod header;
mod matching;
mod pattern;
mod small;
mod stored;
mod tensor_file;
mod weights;

pub use checkpoint::Checkpoint;
pub use claimed::{Codes, Part, Scaled, Tensor, find};
pub use error::CheckpointError;
pub use matching::{
    DoublyClaimed, MissingTensors, UnboundParam, UnclaimedTensors, Unscalable, UnsupportedElements, WrongShape,
    match_checkpoint,
};
pub use pattern::matches;
pub use stored::{StoredTensor, StoredType};
pub use tensor_file::TensorFile;
pub use weights::CheckpointWeights;
