//! NVIDIA's run-time compiler, which needs neither a GPU nor a driver: loaded when it is asked for, from the Python wheel
//! `nvidia-cuda-nvrtc` or a CUDA installation.

use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_void},
    fs,
    path::{Path, PathBuf},
    ptr,
};

use libloading::{Library, Symbol};
use miette::Diagnostic;
use thiserror::Error;

use crate::places;

/// A folder with `libnvrtc.so.*` and `libnvrtc-builtins.so.*`.
pub const FOLDER_VARIABLE: &str = "MOEC_NVRTC";

#[derive(Debug, Error, Diagnostic)]
pub enum NvrtcError {
    #[error("the CUDA target needs NVRTC, NVIDIA's run-time compiler, and it is not there: {reason}")]
    #[diagnostic(
        code(moec::cuda::no_nvrtc),
        help(
            "pip install --target nvrtc nvidia-cuda-nvrtc, and set MOEC_NVRTC to nvrtc/nvidia/cu13/lib; or leave `cuda` out \
             of `--target`"
        )
    )]
    Missing { reason: String },

    #[error("NVRTC refuses the model's kernels for {architecture} ({status})\n{log}")]
    #[diagnostic(
        code(moec::cuda::not_compiled),
        help("NVRTC 12.8 or later compiles them: take a newer one; with one, this is a bug of moec")
    )]
    Refused { architecture: String, status: String, log: String },
}

/// Code for one architecture, and what the compiler said.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// A cubin for `sm_…`, PTX for `compute_…`.
    pub code: Vec<u8>,
    /// Registers, spills and shared memory of each kernel, among other things.
    pub log: String,
}

/// The loaded compiler.
pub struct Compiler {
    path: PathBuf,
    library: Library,
    /// The compiler looks for these by name, once it compiles.
    _builtins: Option<Library>,
}

type Handle = *mut c_void;
type Create =
    unsafe extern "C" fn(*mut Handle, *const c_char, *const c_char, c_int, *const c_void, *const c_void) -> c_int;
type Compile = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Handle) -> c_int;
type Size = unsafe extern "C" fn(Handle, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(Handle, *mut c_char) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type ErrorText = unsafe extern "C" fn(c_int) -> *const c_char;

impl Compiler {
    /// The compiler in the folder that MOEC_NVRTC names, or else in the first of the usual ones that has it.
    pub fn find() -> Result<Compiler, NvrtcError> {
        if let Some(folder) = env::var_os(FOLDER_VARIABLE) {
            return Compiler::in_folder(Path::new(&folder));
        }
        let found = places::usual().iter().find_map(|folder| Compiler::in_folder(folder).ok());
        found.ok_or_else(|| NvrtcError::Missing {
            reason: format!("{FOLDER_VARIABLE} is not set, and neither Python's packages nor CUDA's folders have it"),
        })
    }

    /// The library.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As NVIDIA counts CUDA's, such as `13.0`.
    pub fn version(&self) -> String {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the signature is that of nvrtc.h, and fills both numbers.
        let asked = unsafe { self.symbol::<Version>(b"nvrtcVersion\0").map(|version| version(&mut major, &mut minor)) };
        if asked.is_ok_and(|status| status == 0) { format!("{major}.{minor}") } else { "unknown".to_owned() }
    }

    /// How it is told to compile.
    pub fn options(&self, architecture: &str) -> Vec<String> {
        vec![
            format!("--gpu-architecture={architecture}"),
            "--std=c++17".to_owned(),
            "--device-int128".to_owned(),
            // Kernels of templates do not use all that they are given.
            "--diag-suppress=177".to_owned(),
            "--ptxas-options=-v".to_owned(),
        ]
    }

    fn in_folder(folder: &Path) -> Result<Compiler, NvrtcError> {
        let missing = |reason: String| NvrtcError::Missing { reason };
        let entries = fs::read_dir(folder).map_err(|cause| missing(format!("{}: {cause}", folder.display())))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        let begins = |path: &PathBuf, start: &str| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
        };
        let last = |start: &str| paths.iter().rfind(|path| begins(path, start));
        let path = last("libnvrtc.so").ok_or_else(|| missing(format!("no libnvrtc.so in {}", folder.display())))?;
        let load = |path: &PathBuf| {
            // SAFETY: NVIDIA's library, whose initialisers do nothing to us.
            unsafe { Library::new(path) }.map_err(|cause| missing(format!("{}: {cause}", path.display())))
        };
        // First, so that the compiler finds it by its name wherever it lies.
        let builtins = last("libnvrtc-builtins.so").map(load).transpose()?;
        Ok(Compiler { path: path.clone(), library: load(path)?, _builtins: builtins })
    }

    /// Compiles a whole translation unit for `architecture`: `sm_90a` or the like to machine code, `compute_80` to PTX.
    pub fn compile(&self, text: &str, architecture: &str) -> Result<Compiled, NvrtcError> {
        let text = CString::new(text.replace('\0', " ")).expect("no zeros are left");
        let options = self.options(architecture).into_iter();
        let options: Vec<CString> =
            options.map(|option| CString::new(option).expect("an option without zeros")).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let of_machine = architecture.starts_with("sm_");
        let (size, get) = if of_machine {
            (b"nvrtcGetCUBINSize\0".as_slice(), b"nvrtcGetCUBIN\0".as_slice())
        } else {
            (b"nvrtcGetPTXSize\0".as_slice(), b"nvrtcGetPTX\0".as_slice())
        };
        // SAFETY: the signatures are those of nvrtc.h, unchanged since CUDA 11.3; all buffers are as large as was asked.
        unsafe {
            let mut program: Handle = ptr::null_mut();
            let create: Symbol<Create> = self.symbol(b"nvrtcCreateProgram\0")?;
            let status = create(&mut program, text.as_ptr(), c"model.cu".as_ptr(), 0, ptr::null(), ptr::null());
            let refused = |status: c_int, log: String| NvrtcError::Refused {
                architecture: architecture.to_owned(),
                status: self.status(status),
                log,
            };
            if status != 0 {
                return Err(refused(status, String::new()));
            }
            let compile: Symbol<Compile> = self.symbol(b"nvrtcCompileProgram\0")?;
            let status = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let log = self.get(program, b"nvrtcGetProgramLogSize\0", b"nvrtcGetProgramLog\0")?;
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
            let code = if status == 0 { self.get(program, size, get)? } else { Vec::new() };
            let destroy: Symbol<Destroy> = self.symbol(b"nvrtcDestroyProgram\0")?;
            destroy(&mut program);
            if status == 0 { Ok(Compiled { code, log }) } else { Err(refused(status, log)) }
        }
    }

    unsafe fn symbol<T>(&self, name: &[u8]) -> Result<Symbol<'_, T>, NvrtcError> {
        unsafe { self.library.get(name) }.map_err(|cause| NvrtcError::Missing { reason: cause.to_string() })
    }

    unsafe fn get(&self, program: Handle, size: &[u8], get: &[u8]) -> Result<Vec<u8>, NvrtcError> {
        let (size, get): (Symbol<Size>, Symbol<Get>) = unsafe { (self.symbol(size)?, self.symbol(get)?) };
        let mut bytes = 0;
        let status = unsafe { size(program, &mut bytes) };
        let mut data = vec![0u8; bytes];
        let status = if status == 0 { unsafe { get(program, data.as_mut_ptr().cast()) } } else { status };
        if status == 0 { Ok(data) } else { Err(NvrtcError::Missing { reason: self.status(status) }) }
    }

    fn status(&self, status: c_int) -> String {
        // SAFETY: the function gives a constant text for every number.
        let text = unsafe {
            self.symbol::<ErrorText>(b"nvrtcGetErrorString\0")
                .ok()
                .map(|text| CStr::from_ptr(text(status)).to_string_lossy().into_owned())
        };
        text.unwrap_or_else(|| format!("status {status}"))
    }
}
