//! The order of the passes.

use crate::{Pass, passes};

/// All passes, in order.
pub fn pipeline() -> &'static [Pass] {
    &[
        // Composes maps and folds constants, so that the others see one spelling.
        passes::canonicalise::PASS,
        // Before anything outlines parts of a softmax.
        passes::fuse_attention::PASS,
        passes::fuse_gather::PASS,
        // Leaves a sum over choices for `fuse-rows` to take in.
        passes::fuse_combine::PASS,
        // Before `fuse-activation`, which would take the gate's contraction for a GEMM.
        passes::fuse_router::PASS,
        passes::fuse_activation::PASS,
        // Last: takes whatever is left that works on rows.
        passes::fuse_rows::PASS,
    ]
}
