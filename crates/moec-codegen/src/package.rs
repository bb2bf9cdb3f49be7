//! What other build systems find a model by: a pkg-config file and a CMake package. Both speak of the folder that they
//! stand in, so that it can be moved.

use crate::{BadName, check_name};

const PKG_CONFIG: &str = include_str!("../../../kernels/runtime/package.pc.in");
const CMAKE: &str = include_str!("../../../kernels/runtime/package.cmake.in");

/// The files to write beside the library: their names and texts.
pub fn package(name: &str) -> Result<[(String, String); 2], BadName> {
    check_name(name)?;
    let fill = |text: &str| text.replace("@name@", name).replace("@version@", env!("CARGO_PKG_VERSION"));
    Ok([(format!("{name}.pc"), fill(PKG_CONFIG)), (format!("{name}Config.cmake"), fill(CMAKE))])
}
