//! Where NVRTC usually is: in the Python wheels `nvidia-cuda-nvrtc` (13 and later) and `nvidia-cuda-nvrtc-cu12`, in CUDA's own
//! folders, and in a distribution's.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Of site-packages: wheels of CUDA 13, newer and older.
const IN_WHEELS: [&str; 3] = ["nvidia/cu14/lib", "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

const INSTALLED: [&str; 4] = [
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
    "/opt/cuda/lib64",
    "/usr/lib/x86_64-linux-gnu",
];

/// Folders that may have it, the nearest first: of the Python environment that is active, of the one that this program is
/// installed in, of CUDA's variables, of the user, of the system.
pub fn usual() -> Vec<PathBuf> {
    let of_variable = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.to_owned()));
    let prefixes = [of_variable("VIRTUAL_ENV"), of_variable("CONDA_PREFIX"), own];
    let mut folders: Vec<PathBuf> = prefixes.into_iter().flatten().flat_map(|prefix| of_prefix(&prefix)).collect();
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(of_variable);
    folders.extend(toolkits.map(|toolkit| toolkit.join("lib64")));
    let user = of_variable("HOME").map(|home| home.join(".local"));
    let shared = [user, Some("/usr/local".into()), Some("/usr".into())];
    folders.extend(shared.into_iter().flatten().flat_map(|prefix| of_wheels(&prefix)));
    folders.extend(INSTALLED.map(PathBuf::from));
    folders
}

/// Of an environment: wheels, or conda's own folder.
fn of_prefix(prefix: &Path) -> Vec<PathBuf> {
    let mut folders = of_wheels(prefix);
    folders.push(prefix.join("lib"));
    folders
}

/// The folders of wheels in every Python of a prefix, the newest Python first.
fn of_wheels(prefix: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(prefix.join("lib")).into_iter().flatten().filter_map(Result::ok);
    let python = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with("python"));
    let mut pythons: Vec<PathBuf> =
        entries.filter(|entry| python(&entry.file_name())).map(|entry| entry.path()).collect();
    pythons.sort();
    let packages =
        pythons.iter().rev().flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.join(name)));
    packages
        .flat_map(|packages| IN_WHEELS.map(|folder| packages.join(folder)))
        .filter(|folder| folder.is_dir())
        .collect()
}
