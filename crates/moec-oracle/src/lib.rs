//! The oracle: what a module means, computed the slow, obvious way.
//!
//! Every pass and every backend is judged against it, so it shares no code with any of them: each op is written from its
//! contract in `moec-ir`, one node at a time, without fusion, packing or threads.
//!
//! *Arithmetic.* Values are f32, i32 and bool. Sums (contractions, reductions, softmax, combine) run in f64 and are rounded
//! once; `exp`, `tanh` and their like are computed in f64 and rounded. So the oracle is nearer to the true value than any
//! backend, whatever order that backend sums in.

mod error;
mod ops;
mod scalar;
mod session;
mod shake;
mod strided;
mod tensor;
mod trace;
mod weights;

pub use error::EvalError;
pub use session::Session;
pub use shake::Shake;
pub use tensor::{Data, Tensor};
pub use trace::{RouteRecord, Trace};
pub use weights::{MemoryWeights, RandomWeights, Weights};
