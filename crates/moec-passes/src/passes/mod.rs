//! The passes, one file each.

pub mod canonicalise;
pub mod fuse_activation;
pub mod fuse_attention;
pub mod fuse_combine;
pub mod fuse_gather;
pub mod fuse_router;
pub mod fuse_rows;
