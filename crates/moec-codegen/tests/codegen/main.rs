//! Header, weight file, linking and run time, by their public faces: without any backend, whose part C files play.

mod c;
mod checksum;
mod header;
mod interface;
mod link;
mod packing;
mod plans;
mod runtime;
mod weight_files;
