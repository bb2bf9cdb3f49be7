//! A compiled library, loaded and called through the C interface of its header (kernels/runtime/header.h.in).
//!
//! Everything unsafe about calling a model stands here: pointers are checked by the types around them, buffers by their
//! lengths, and handles live as long as what needs them.

mod marks;
mod session;
mod together;

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr,
    sync::Arc,
};

use libloading::Library;
use miette::Diagnostic;
use thiserror::Error;

pub use marks::Interval;
pub use session::{NamedTensor, Routed, Session};
pub use together::Turn;

use session::{RawTensor, Trace};
use together::RawTurn;

/// The interface that this file speaks; `NAME_ABI` of the header.
const ABI: c_int = 1;
/// `NAME_CACHE_FULL`.
const CACHE_FULL: c_int = 9;

#[derive(Debug, Error, Diagnostic)]
pub enum NativeError {
    #[error("cannot load {}: {cause}", path.display())]
    #[diagnostic(
        code(moec::native::cannot_load),
        help("is it a library that `moec build` of this version made, for this machine?")
    )]
    CannotLoad { path: PathBuf, cause: libloading::Error },

    #[error("{} has version {found} of the interface, and this program calls version {}", path.display(), ABI)]
    #[diagnostic(code(moec::native::abi), help("build the model again, with the `moec` that this program came with"))]
    Abi { path: PathBuf, found: i32 },

    /// The library's own words.
    #[error("{message}")]
    #[diagnostic(code(moec::native::call))]
    Call { code: i32, message: String },

    #[error("this model is not one from tokens to logits")]
    #[diagnostic(
        code(moec::native::no_tokens),
        help("give its inputs with `--inputs`, take its outputs with `--outputs`")
    )]
    NoTokens,
}

impl NativeError {
    /// The budget of [`Options::cache_mib`] is used up: it may work once sessions have ended.
    pub fn is_cache_full(&self) -> bool {
        matches!(self, NativeError::Call { code: CACHE_FULL, .. })
    }
}

/// `NAME_options`.
#[repr(C)]
struct RawOptions {
    struct_size: usize,
    threads: i32,
    level: i32,
    verify_checksums: i32,
    cache_mib: i32,
    device: i32,
    reserved: [i32; 3],
}

type RawModel = *mut c_void;
type RawSession = *mut c_void;
type RawError = *mut c_void;
type Source = unsafe extern "C" fn(RawSession, *const i32, usize, *mut RawError) -> c_int;
type Tokens = unsafe extern "C" fn(RawSession, *const i32, usize, *mut f32, *mut RawError) -> c_int;

/// What models from tokens to logits have.
#[derive(Clone, Copy)]
struct TokenFunctions {
    forward: Tokens,
    step: Tokens,
    step_batch: unsafe extern "C" fn(RawModel, *const RawTurn, usize, *mut RawError) -> c_int,
}

struct Functions {
    abi: unsafe extern "C" fn() -> c_int,
    open: unsafe extern "C" fn(*const c_char, *const RawOptions, *mut RawModel, *mut RawError) -> c_int,
    close: unsafe extern "C" fn(RawModel),
    session_new: unsafe extern "C" fn(RawModel, usize, *mut RawSession, *mut RawError) -> c_int,
    session_free: unsafe extern "C" fn(RawSession),
    session_fork: unsafe extern "C" fn(RawSession, usize, *mut RawSession, *mut RawError) -> c_int,
    session_reset: unsafe extern "C" fn(RawSession) -> c_int,
    session_position: unsafe extern "C" fn(RawSession) -> usize,
    session_trace: unsafe extern "C" fn(RawSession, Option<Trace>, *mut c_void) -> c_int,
    session_run:
        unsafe extern "C" fn(RawSession, *const RawTensor, usize, *mut RawTensor, usize, *mut RawError) -> c_int,
    tokens: Option<TokenFunctions>,
    /// `NAME_encode`, where such a model has an encoder.
    encode: Option<Source>,
    selftest: unsafe extern "C" fn(RawModel, *mut RawError) -> c_int,
    cache_bytes: unsafe extern "C" fn(RawModel) -> usize,
    level: unsafe extern "C" fn(RawModel) -> *const c_char,
    threads: unsafe extern "C" fn(RawModel) -> c_int,
    error_code: unsafe extern "C" fn(RawError) -> c_int,
    error_message: unsafe extern "C" fn(RawError) -> *const c_char,
    error_free: unsafe extern "C" fn(RawError),
}

/// How to open a model; 0 lets the library choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub threads: i32,
    pub level: i32,
    /// At most so many MiB for the caches of all sessions together; 0 is no limit.
    pub cache_mib: i32,
    pub device: Device,
}

/// Where to run (`NAME_device_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// On a GPU where the library has code for one and there is one.
    #[default]
    Auto = 0,
    Cpu = 1,
    Cuda = 2,
}

/// An opened model.
pub struct Model {
    functions: Functions,
    handle: RawModel,
    // Last: the code must outlive the handle's drop.
    _library: Library,
}

// SAFETY: the header promises that a model may be shared by any number of threads.
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Model {
    /// Opens `library`, whose symbols begin with `name`, and its weight file.
    pub fn open(library: &Path, name: &str, weights: &Path, options: Options) -> Result<Arc<Model>, NativeError> {
        let fail = |cause| NativeError::CannotLoad { path: library.into(), cause };
        // A path without a slash would be looked up on the system's search path.
        let path = std::path::absolute(library).unwrap_or_else(|_| library.into());
        // SAFETY: loading runs no code of the library but the C run time's own start-up.
        let loaded = unsafe { Library::new(&path) }.map_err(fail)?;
        let functions = Functions::of(&loaded, name).map_err(fail)?;
        // SAFETY: it takes nothing, and says a number.
        let found = unsafe { (functions.abi)() };
        if found != ABI {
            return Err(NativeError::Abi { path: library.into(), found });
        }
        let weights = c_path(weights)?;
        let raw = RawOptions {
            struct_size: size_of::<RawOptions>(),
            threads: options.threads,
            level: options.level,
            verify_checksums: 0,
            cache_mib: options.cache_mib,
            device: options.device as i32,
            reserved: [0; 3],
        };
        let mut handle = ptr::null_mut();
        let mut error = ptr::null_mut();
        // SAFETY: all pointers are valid for the call.
        let code = unsafe { (functions.open)(weights.as_ptr(), &raw, &mut handle, &mut error) };
        functions.check(code, error)?;
        Ok(Arc::new(Model { functions, handle, _library: loaded }))
    }

    pub fn session(self: &Arc<Model>, max_tokens: usize) -> Result<Session, NativeError> {
        let mut handle = ptr::null_mut();
        let mut error = ptr::null_mut();
        // SAFETY: all pointers are valid for the call.
        let code = unsafe { (self.functions.session_new)(self.handle, max_tokens, &mut handle, &mut error) };
        self.functions.check(code, error)?;
        Ok(Session { model: self.clone(), handle })
    }

    pub fn selftest(&self) -> Result<(), NativeError> {
        let mut error = ptr::null_mut();
        // SAFETY: as above.
        let code = unsafe { (self.functions.selftest)(self.handle, &mut error) };
        self.functions.check(code, error)
    }

    /// The instruction level in use.
    pub fn level(&self) -> String {
        // SAFETY: the result is a string that lives as long as the library.
        unsafe { CStr::from_ptr((self.functions.level)(self.handle)) }.to_string_lossy().into_owned()
    }

    pub fn threads(&self) -> i32 {
        // SAFETY: the handle is open.
        unsafe { (self.functions.threads)(self.handle) }
    }

    /// Bytes that the caches of all sessions take now.
    pub fn cache_bytes(&self) -> usize {
        // SAFETY: the handle is open.
        unsafe { (self.functions.cache_bytes)(self.handle) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: the handle was opened and is closed once; sessions hold the model.
        unsafe { (self.functions.close)(self.handle) };
    }
}

impl Functions {
    fn of(library: &Library, name: &str) -> Result<Functions, libloading::Error> {
        /// # Safety
        /// `T` must be the type of the function.
        unsafe fn get<T: Copy>(library: &Library, name: &str, function: &str) -> Result<T, libloading::Error> {
            // SAFETY: passed on to the caller.
            unsafe { library.get::<T>(format!("{name}_{function}").as_bytes()) }.map(|symbol| *symbol)
        }
        // SAFETY: these are the signatures of the header.
        unsafe {
            Ok(Functions {
                abi: get(library, name, "abi")?,
                open: get(library, name, "open")?,
                close: get(library, name, "close")?,
                session_new: get(library, name, "session_new")?,
                session_free: get(library, name, "session_free")?,
                session_fork: get(library, name, "session_fork")?,
                session_reset: get(library, name, "session_reset")?,
                session_position: get(library, name, "session_position")?,
                session_trace: get(library, name, "session_trace")?,
                session_run: get(library, name, "session_run")?,
                encode: get(library, name, "encode").ok(),
                tokens: match get(library, name, "forward") {
                    Ok(forward) => Some(TokenFunctions {
                        forward,
                        step: get(library, name, "step")?,
                        step_batch: get(library, name, "step_batch")?,
                    }),
                    Err(_) => None,
                },
                selftest: get(library, name, "selftest")?,
                cache_bytes: get(library, name, "cache_bytes")?,
                level: get(library, name, "level")?,
                threads: get(library, name, "threads")?,
                error_code: get(library, name, "error_code")?,
                error_message: get(library, name, "error_message")?,
                error_free: get(library, name, "error_free")?,
            })
        }
    }

    /// Turns a returned code and error into a result, and frees the error.
    fn check(&self, code: c_int, error: RawError) -> Result<(), NativeError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the error is ours to read and free; NULL reads as "".
        let failure = unsafe {
            let message = CStr::from_ptr((self.error_message)(error)).to_string_lossy().into_owned();
            let code = if error.is_null() { code } else { (self.error_code)(error) };
            (self.error_free)(error);
            NativeError::Call { code, message }
        };
        Err(failure)
    }
}

fn c_path(path: &Path) -> Result<CString, NativeError> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| NativeError::Call { code: 1, message: format!("{} holds a zero byte", path.display()) })
}
