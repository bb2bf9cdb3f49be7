//! A compiled library, loaded and called through its C header: what a server needs of it.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    fmt,
    path::Path,
    ptr,
    sync::Arc,
};

use libloading::Library;
use serde::Deserialize;

/// `NAME_CACHE_FULL`.
const CACHE_FULL: c_int = 9;

/// What `build.json` says, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub struct About {
    pub model: String,
    /// Floats in a row of logits.
    pub vocabulary: Option<usize>,
    /// Positions that the model was made for.
    pub context: Option<usize>,
    /// Tokens that end a text.
    #[serde(default)]
    pub end_tokens: Vec<i32>,
    pub start_token: Option<i32>,
}

/// Why a call failed, in the library's words.
#[derive(Debug)]
pub struct Failure {
    code: c_int,
    message: String,
}

impl Failure {
    /// The caches' budget is used up: it may work when sessions have ended.
    pub fn is_cache_full(&self) -> bool {
        self.code == CACHE_FULL
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// `NAME_options`.
#[repr(C)]
struct RawOptions {
    struct_size: usize,
    threads: i32,
    level: i32,
    verify_checksums: i32,
    cache_mib: i32,
    reserved: [i32; 4],
}

/// `NAME_turn`.
#[repr(C)]
struct RawTurn {
    session: *mut c_void,
    ids: *const i32,
    n: usize,
    logits: *mut f32,
    reserved: [u64; 4],
}

type Handle = *mut c_void;

struct Functions {
    close: unsafe extern "C" fn(Handle),
    session_new: unsafe extern "C" fn(Handle, usize, *mut Handle, *mut Handle) -> c_int,
    session_fork: unsafe extern "C" fn(Handle, usize, *mut Handle, *mut Handle) -> c_int,
    session_free: unsafe extern "C" fn(Handle),
    session_position: unsafe extern "C" fn(Handle) -> usize,
    step_batch: unsafe extern "C" fn(Handle, *const RawTurn, usize, *mut Handle) -> c_int,
    cache_bytes: unsafe extern "C" fn(Handle) -> usize,
    error_message: unsafe extern "C" fn(Handle) -> *const c_char,
    error_free: unsafe extern "C" fn(Handle),
}

/// How a model is opened; 0 is the library's own choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub threads: i32,
    /// For the caches of all sessions together.
    pub cache_mib: i32,
}

/// An opened model.
pub struct Model {
    pub about: About,
    pub vocabulary: usize,
    functions: Functions,
    handle: Handle,
    // Last: the code must outlive the handle.
    _library: Library,
}

// SAFETY: the header promises that a model may be shared by any number of threads.
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

/// One sequence.
pub struct Session {
    model: Arc<Model>,
    handle: Handle,
}

// SAFETY: a session may be used by one thread at a time, whichever it is.
unsafe impl Send for Session {}

/// One session's part of a step: its new tokens, and where the logits that follow the last of them go.
pub struct Turn<'a> {
    pub session: &'a mut Session,
    pub ids: &'a [i32],
    /// Empty where none are wanted; else as long as the vocabulary.
    pub logits: &'a mut [f32],
}

impl Model {
    /// Opens what `moec build` wrote into a folder.
    pub fn open(folder: &Path, options: Options) -> Result<Arc<Model>, Box<dyn std::error::Error>> {
        let about = std::fs::read(folder.join("build.json"))
            .map_err(|error| format!("{} is no folder that `moec build` wrote: {error}", folder.display()))?;
        let about: About = serde_json::from_slice(&about)?;
        let Some(vocabulary) = about.vocabulary.filter(|_| about.start_token.is_none()) else {
            return Err(format!("{} does not go from tokens to logits", about.model).into());
        };
        let library = std::path::absolute(folder.join(format!("lib{}.so", about.model)))?;
        // SAFETY: loading runs no code of the library but the C run time's own start-up; the types are those of the header.
        let (library, functions, open) = unsafe {
            let library = Library::new(&library)?;
            let (functions, open) = Functions::of(&library, &about.model)?;
            (library, functions, open)
        };
        let weights = folder.join(format!("{}.weights", about.model));
        let weights = CString::new(weights.into_os_string().into_encoded_bytes())?;
        let raw = RawOptions {
            struct_size: size_of::<RawOptions>(),
            threads: options.threads,
            level: 0,
            verify_checksums: 0,
            cache_mib: options.cache_mib,
            reserved: [0; 4],
        };
        let (mut handle, mut error) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: all pointers are valid for the call.
        functions.check(unsafe { open(weights.as_ptr(), &raw, &mut handle, &mut error) }, error)?;
        Ok(Arc::new(Model { about, vocabulary, functions, handle, _library: library }))
    }

    /// The most positions of a session.
    pub fn context(&self) -> usize {
        self.about.context.unwrap_or(4096)
    }

    pub fn session(self: &Arc<Model>) -> Result<Session, Failure> {
        let (mut handle, mut error) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: all pointers are valid for the call.
        let code = unsafe { (self.functions.session_new)(self.handle, self.context(), &mut handle, &mut error) };
        self.functions.check(code, error)?;
        Ok(Session { model: self.clone(), handle })
    }

    /// Steps all sessions at once: either all turns are done, or none.
    pub fn step(&self, turns: &mut [Turn]) -> Result<(), Failure> {
        let raw = |turn: &mut Turn| {
            assert!(turn.logits.is_empty() || turn.logits.len() == self.vocabulary);
            let logits = if turn.logits.is_empty() { ptr::null_mut() } else { turn.logits.as_mut_ptr() };
            RawTurn {
                session: turn.session.handle,
                ids: turn.ids.as_ptr(),
                n: turn.ids.len(),
                logits,
                reserved: [0; 4],
            }
        };
        let raw: Vec<RawTurn> = turns.iter_mut().map(raw).collect();
        let mut error = ptr::null_mut();
        // SAFETY: sessions are held exclusively, and ids and logits are as long as said.
        let code = unsafe { (self.functions.step_batch)(self.handle, raw.as_ptr(), raw.len(), &mut error) };
        self.functions.check(code, error)
    }

    /// Bytes of all sessions' caches.
    pub fn cache_bytes(&self) -> usize {
        // SAFETY: the handle is open.
        unsafe { (self.functions.cache_bytes)(self.handle) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: opened once and closed once; sessions hold the model.
        unsafe { (self.functions.close)(self.handle) };
    }
}

impl Session {
    pub fn position(&self) -> usize {
        // SAFETY: the handle is open.
        unsafe { (self.model.functions.session_position)(self.handle) }
    }

    /// Another session at an earlier position of this one, which shares what they have in common.
    pub fn fork(&mut self, position: usize) -> Result<Session, Failure> {
        let (mut handle, mut error) = (ptr::null_mut(), ptr::null_mut());
        let functions = &self.model.functions;
        // SAFETY: all pointers are valid for the call.
        functions.check(unsafe { (functions.session_fork)(self.handle, position, &mut handle, &mut error) }, error)?;
        Ok(Session { model: self.model.clone(), handle })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: made once and freed once, while its model is open.
        unsafe { (self.model.functions.session_free)(self.handle) };
    }
}

type Open = unsafe extern "C" fn(*const c_char, *const RawOptions, *mut Handle, *mut Handle) -> c_int;

impl Functions {
    /// # Safety
    /// The library must be one that `moec build` made of a model of this name.
    unsafe fn of(library: &Library, name: &str) -> Result<(Functions, Open), libloading::Error> {
        // SAFETY: each place below has the type that the header declares for its function.
        unsafe fn get<T: Copy>(library: &Library, name: &str, function: &str) -> Result<T, libloading::Error> {
            unsafe { library.get::<T>(format!("{name}_{function}").as_bytes()) }.map(|symbol| *symbol)
        }
        // SAFETY: passed on to the caller.
        unsafe {
            let functions = Functions {
                close: get(library, name, "close")?,
                session_new: get(library, name, "session_new")?,
                session_fork: get(library, name, "session_fork")?,
                session_free: get(library, name, "session_free")?,
                session_position: get(library, name, "session_position")?,
                step_batch: get(library, name, "step_batch")?,
                cache_bytes: get(library, name, "cache_bytes")?,
                error_message: get(library, name, "error_message")?,
                error_free: get(library, name, "error_free")?,
            };
            Ok((functions, get(library, name, "open")?))
        }
    }

    /// Turns what a call returned into a result, and frees the error.
    fn check(&self, code: c_int, error: Handle) -> Result<(), Failure> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the error is ours to read and to free.
        let message = unsafe {
            let message = CStr::from_ptr((self.error_message)(error)).to_string_lossy().into_owned();
            (self.error_free)(error);
            message
        };
        Err(Failure { code, message })
    }
}
