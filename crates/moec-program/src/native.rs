//! A compiled library, loaded and called through the C interface of its header (kernels/runtime/header.h.in).
//!
//! Everything unsafe about calling a model stands here: pointers are checked by the types around them, buffers by their
//! lengths, and handles live as long as what needs them.

mod marks;

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr,
    sync::Arc,
};

use libloading::Library;
use miette::Diagnostic;
use thiserror::Error;

pub use marks::Interval;

/// The interface that this file speaks; `NAME_ABI` of the header.
const MAX_RANK: usize = 8;

#[derive(Debug, Error, Diagnostic)]
pub enum NativeError {
    #[error("cannot load {}: {cause}", path.display())]
    #[diagnostic(
        code(moec::native::cannot_load),
        help("is it a library that `moec build` of this version made, for this machine?")
    )]
    CannotLoad { path: PathBuf, cause: libloading::Error },

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

/// `NAME_tensor`.
#[repr(C)]
struct RawTensor {
    name: *const c_char,
    data: *mut c_void,
    dtype: i32,
    rank: i32,
    shape: [i64; MAX_RANK],
    reserved: [u64; 5],
}

type RawModel = *mut c_void;
type RawSession = *mut c_void;
type RawError = *mut c_void;
type Trace = extern "C" fn(*mut c_void, i32, i32, *const i32, *const f32, i64, i64);
type Source = unsafe extern "C" fn(RawSession, *const i32, usize, *mut RawError) -> c_int;
type Tokens = unsafe extern "C" fn(RawSession, *const i32, usize, *mut f32, *mut RawError) -> c_int;

struct Functions {
    open: unsafe extern "C" fn(*const c_char, *const RawOptions, *mut RawModel, *mut RawError) -> c_int,
    close: unsafe extern "C" fn(RawModel),
    session_new: unsafe extern "C" fn(RawModel, usize, *mut RawSession, *mut RawError) -> c_int,
    session_free: unsafe extern "C" fn(RawSession),
    session_fork: unsafe extern "C" fn(RawSession, usize, *mut RawSession, *mut RawError) -> c_int,
    session_reset: unsafe extern "C" fn(RawSession) -> c_int,
    session_trace: unsafe extern "C" fn(RawSession, Option<Trace>, *mut c_void) -> c_int,
    session_run:
        unsafe extern "C" fn(RawSession, *const RawTensor, usize, *mut RawTensor, usize, *mut RawError) -> c_int,
    /// `NAME_forward` and `NAME_step`, where the model goes from tokens to logits.
    tokens: Option<(Tokens, Tokens)>,
    /// `NAME_encode`, where such a model has an encoder.
    encode: Option<Source>,
    selftest: unsafe extern "C" fn(RawModel, *mut RawError) -> c_int,
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
        let weights = c_path(weights)?;
        let raw = RawOptions {
            struct_size: size_of::<RawOptions>(),
            threads: options.threads,
            level: options.level,
            verify_checksums: 0,
            cache_mib: 0,
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
                open: get(library, name, "open")?,
                close: get(library, name, "close")?,
                session_new: get(library, name, "session_new")?,
                session_free: get(library, name, "session_free")?,
                session_fork: get(library, name, "session_fork")?,
                session_reset: get(library, name, "session_reset")?,
                session_trace: get(library, name, "session_trace")?,
                session_run: get(library, name, "session_run")?,
                encode: get(library, name, "encode").ok(),
                tokens: match (get(library, name, "forward"), get(library, name, "step")) {
                    (Ok(forward), Ok(step)) => Some((forward, step)),
                    (Err(_), _) | (_, Err(_)) => None,
                },
                selftest: get(library, name, "selftest")?,
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

/// One sequence.
pub struct Session {
    model: Arc<Model>,
    handle: RawSession,
}

// SAFETY: a session may be used by one thread at a time, whichever it is.
unsafe impl Send for Session {}

/// What a route of one layer chose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routed {
    /// Its number in the model's text, and which execution of its kind of layer this is; none where that is not known.
    pub place: Option<(i32, i32)>,
    pub choices: usize,
    /// `[positions, choices]`.
    pub indices: Vec<i32>,
    pub weights: Vec<f32>,
}

/// Routes in the order in which they were run first. Long inputs go through in several passes: what one route of one layer
/// chose is put together.
#[derive(Default)]
struct Record {
    routed: Vec<Routed>,
    /// By the route's number and the rank of its layer.
    places: BTreeMap<(i32, i32), usize>,
}

/// A tensor that goes in or comes out. Bytes are row-major, in the machine's order.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub dtype: moec_types::DType,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Session {
    /// Gives a model that has an encoder what that reads.
    pub fn encode(&mut self, ids: &[i32]) -> Result<(), NativeError> {
        let encode = self.model.functions.encode.ok_or(NativeError::NoTokens)?;
        let mut error = ptr::null_mut();
        // SAFETY: the ids are read during the call only.
        let code = unsafe { encode(self.handle, ids.as_ptr(), ids.len(), &mut error) };
        self.model.functions.check(code, error)
    }

    pub fn encodes(&self) -> bool {
        self.model.functions.encode.is_some()
    }

    /// Appends tokens; logits of each, `vocabulary` floats a token.
    pub fn forward(&mut self, ids: &[i32], vocabulary: usize) -> Result<Vec<f32>, NativeError> {
        let (forward, _) = self.model.functions.tokens.ok_or(NativeError::NoTokens)?;
        let mut logits = vec![0.0; ids.len() * vocabulary];
        self.call(forward, ids, &mut logits)?;
        Ok(logits)
    }

    /// Appends tokens; logits of what follows the last.
    pub fn step(&mut self, ids: &[i32], logits: &mut [f32]) -> Result<(), NativeError> {
        let (_, step) = self.model.functions.tokens.ok_or(NativeError::NoTokens)?;
        self.call(step, ids, logits)
    }

    fn call(&mut self, function: Tokens, ids: &[i32], logits: &mut [f32]) -> Result<(), NativeError> {
        let mut error = ptr::null_mut();
        // SAFETY: the caller sized `logits` by the vocabulary that the build says.
        let code = unsafe { function(self.handle, ids.as_ptr(), ids.len(), logits.as_mut_ptr(), &mut error) };
        self.model.functions.check(code, error)
    }

    /// Runs named tensors. `outputs` say what is wanted; their bytes are replaced.
    pub fn run(&mut self, inputs: &[NamedTensor], outputs: &mut [NamedTensor]) -> Result<(), NativeError> {
        let names = |tensors: &[NamedTensor]| -> Result<Vec<CString>, NativeError> {
            let name = |tensor: &NamedTensor| CString::new(tensor.name.as_str());
            tensors
                .iter()
                .map(name)
                .collect::<Result<_, _>>()
                .map_err(|_| NativeError::Call { code: 1, message: "a tensor's name holds a zero byte".into() })
        };
        let (input_names, output_names) = (names(inputs)?, names(outputs)?);
        // Inputs are only read; the copies give them an alignment.
        let mut copies: Vec<Aligned> = inputs.iter().map(|tensor| Aligned::of(&tensor.bytes)).collect();
        let mut places: Vec<Aligned> = outputs.iter().map(|tensor| Aligned::of(&tensor.bytes)).collect();
        let raw = |tensors: &[NamedTensor], names: &[CString], data: &mut [Aligned]| -> Vec<RawTensor> {
            let each = tensors.iter().zip(names).zip(data);
            each.map(|((tensor, name), data)| raw_tensor(tensor, name, data)).collect()
        };
        let raw_inputs = raw(inputs, &input_names, &mut copies);
        let mut raw_outputs = raw(outputs, &output_names, &mut places);
        let mut error = ptr::null_mut();
        // SAFETY: every tensor's memory is as large as its shape says, which `raw_tensor` asserts.
        let code = unsafe {
            (self.model.functions.session_run)(
                self.handle,
                raw_inputs.as_ptr(),
                raw_inputs.len(),
                raw_outputs.as_mut_ptr(),
                raw_outputs.len(),
                &mut error,
            )
        };
        self.model.functions.check(code, error)?;
        for (output, place) in outputs.iter_mut().zip(&places) {
            place.copy_to(&mut output.bytes);
        }
        Ok(())
    }

    /// Another session at an earlier position of this one.
    pub fn fork(&mut self, position: usize) -> Result<Session, NativeError> {
        let functions = &self.model.functions;
        let mut handle = ptr::null_mut();
        let mut error = ptr::null_mut();
        // SAFETY: all pointers are valid for the call.
        let code = unsafe { (functions.session_fork)(self.handle, position, &mut handle, &mut error) };
        functions.check(code, error)?;
        Ok(Session { model: self.model.clone(), handle })
    }

    /// Back to position 0.
    pub fn reset(&mut self) {
        // SAFETY: the handle is open, and `&mut self` says that no call is under way.
        unsafe { (self.model.functions.session_reset)(self.handle) };
    }

    /// Does `work` and reports what every route chose meanwhile, in order.
    pub fn traced<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> (T, Vec<Routed>) {
        let mut recorded = Record::default();
        let user = (&raw mut recorded).cast::<c_void>();
        // SAFETY: `record` casts `user` back to the type it is; the trace ends before `recorded` does.
        unsafe { (self.model.functions.session_trace)(self.handle, Some(record), user) };
        let result = work(self);
        unsafe { (self.model.functions.session_trace)(self.handle, None, ptr::null_mut()) };
        (result, recorded.routed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: freed once; the model outlives it.
        unsafe { (self.model.functions.session_free)(self.handle) };
    }
}

extern "C" fn record(
    user: *mut c_void,
    route: i32,
    rank: i32,
    indices: *const i32,
    weights: *const f32,
    tokens: i64,
    choices: i64,
) {
    let count = (tokens * choices).max(0) as usize;
    // SAFETY: `user` is what `traced` gave; the arrays have tokens * choices elements, says the header.
    let (record, indices, weights) = unsafe {
        let read = (std::slice::from_raw_parts(indices, count), std::slice::from_raw_parts(weights, count));
        (&mut *user.cast::<Record>(), read.0, read.1)
    };
    let place = *record.places.entry((route, rank)).or_insert_with(|| {
        record.routed.push(Routed { place: Some((route, rank)), choices: choices as usize, ..Routed::default() });
        record.routed.len() - 1
    });
    record.routed[place].indices.extend(indices);
    record.routed[place].weights.extend(weights);
}

/// Bytes at an address that suits every element type.
struct Aligned(Vec<u64>);

impl Aligned {
    fn of(bytes: &[u8]) -> Aligned {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        // SAFETY: the words have at least as many bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), words.as_mut_ptr().cast(), bytes.len()) };
        Aligned(words)
    }

    fn copy_to(&self, bytes: &mut [u8]) {
        // SAFETY: `of` made it of as many bytes.
        unsafe { ptr::copy_nonoverlapping(self.0.as_ptr().cast(), bytes.as_mut_ptr(), bytes.len()) };
    }
}

fn raw_tensor(tensor: &NamedTensor, name: &CString, data: &mut Aligned) -> RawTensor {
    let elements: usize = tensor.shape.iter().product();
    assert_eq!(elements * tensor.dtype.bytes() as usize, tensor.bytes.len(), "bytes of `{}`", tensor.name);
    let mut shape = [0; MAX_RANK];
    for (to, from) in shape.iter_mut().zip(&tensor.shape) {
        *to = *from as i64;
    }
    RawTensor {
        name: name.as_ptr(),
        data: data.0.as_mut_ptr().cast(),
        dtype: dtype_number(tensor.dtype),
        rank: tensor.shape.len() as i32,
        shape,
        reserved: [0; 5],
    }
}

/// `NAME_dtype_t`.
fn dtype_number(dtype: moec_types::DType) -> i32 {
    use moec_types::DType;
    match dtype {
        DType::F32 => 0,
        DType::Bf16 => 1,
        DType::F16 => 2,
        DType::I32 => 3,
        DType::Bool => 4,
    }
}
