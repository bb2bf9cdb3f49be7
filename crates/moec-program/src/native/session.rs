//! One sequence of a model: tokens or named tensors in, logits or others out, and what routes chose meanwhile.

use std::{
    collections::BTreeMap,
    ffi::{CString, c_char, c_void},
    ptr,
    sync::Arc,
};

use super::{Model, NativeError, RawSession, TokenFunctions, Tokens};

const MAX_RANK: usize = 8;

pub(super) type Trace = extern "C" fn(*mut c_void, i32, i32, *const i32, *const f32, i64, i64);

/// `NAME_tensor`.
#[repr(C)]
pub(super) struct RawTensor {
    name: *const c_char,
    data: *mut c_void,
    dtype: i32,
    rank: i32,
    shape: [i64; MAX_RANK],
    reserved: [u64; 5],
}

/// One sequence.
pub struct Session {
    pub(super) model: Arc<Model>,
    pub(super) handle: RawSession,
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
        let TokenFunctions { forward, .. } = self.model.functions.tokens.ok_or(NativeError::NoTokens)?;
        let mut logits = vec![0.0; ids.len() * vocabulary];
        self.call(forward, ids, &mut logits)?;
        Ok(logits)
    }

    /// Appends tokens; logits of what follows the last.
    pub fn step(&mut self, ids: &[i32], logits: &mut [f32]) -> Result<(), NativeError> {
        let TokenFunctions { step, .. } = self.model.functions.tokens.ok_or(NativeError::NoTokens)?;
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

    /// How many positions the sequence has so far.
    pub fn position(&self) -> usize {
        // SAFETY: the handle is open.
        unsafe { (self.model.functions.session_position)(self.handle) }
    }

    /// Another session at an earlier position of this one, which shares what they have in common; of a model that keeps states,
    /// at the present one only.
    pub fn fork(&mut self, position: usize) -> Result<Session, NativeError> {
        let (mut handle, mut error) = (ptr::null_mut(), ptr::null_mut());
        let functions = &self.model.functions;
        // SAFETY: all pointers are valid for the call.
        functions.check(unsafe { (functions.session_fork)(self.handle, position, &mut handle, &mut error) }, error)?;
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
