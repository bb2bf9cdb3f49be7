//! The header of a safetensors file: eight bytes of length, then a JSON object of tensors by name.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::stored::StoredType;

/// The format allows no longer header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What a header says of one tensor; the range is within the file and as long as the shape says.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub dtype: StoredType,
    pub shape: Vec<u64>,
    pub range: Range<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Header {
    pub tensors: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

/// What is wrong with a header, and with which tensor.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub tensor: Option<String>,
    pub reason: String,
}

impl Fault {
    fn file(reason: impl Into<String>) -> Self {
        Fault { tensor: None, reason: reason.into() }
    }

    fn tensor(name: &str, reason: impl Into<String>) -> Self {
        Fault { tensor: Some(name.to_string()), reason: reason.into() }
    }
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Reads and checks the header of a file's bytes.
pub(crate) fn read(file: &[u8]) -> Result<Header, Fault> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(Fault::file(format!("it is {} bytes long, too short for a header", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(Fault::file(format!(
            "its header claims to be {length} bytes long, the format allows {MAX_HEADER_BYTES}"
        )));
    }
    let length = length as usize;
    if length > rest.len() {
        return Err(Fault::file(format!(
            "its header claims to be {length} bytes long, but only {} follow",
            rest.len()
        )));
    }
    let (text, data) = rest.split_at(length);
    let fields: Fields = serde_json::from_slice(text)
        .map_err(|error| Fault::file(format!("its header is not a JSON object: {error}")))?;

    let mut header = Header::default();
    for (name, value) in fields.0 {
        if name == "__metadata__" {
            header.metadata = serde_json::from_value(value)
                .map_err(|error| Fault::file(format!("its metadata is not an object of strings: {error}")))?;
            continue;
        }
        let entry = serde_json::from_value(value).map_err(|error| Fault::tensor(&name, error.to_string()))?;
        let entry = checked(&name, entry, 8 + length, data.len() as u64)?;
        if header.tensors.contains_key(&name) {
            return Err(Fault::tensor(&name, "the header lists it twice"));
        }
        header.tensors.insert(name, entry);
    }
    covered(&header, 8 + length..file.len())?;
    Ok(header)
}

fn checked(name: &str, raw: RawEntry, data_at: usize, available: u64) -> Result<Entry, Fault> {
    let (begin, end) = raw.data_offsets;
    if begin > end {
        return Err(Fault::tensor(name, format!("its bytes {begin} to {end} run backwards")));
    }
    if end > available {
        return Err(Fault::tensor(
            name,
            format!("its bytes end at {end}, but the file holds {available} bytes of data"),
        ));
    }
    let dtype = StoredType::from_name(&raw.dtype);
    let elements = raw.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let Some(elements) = elements else {
        return Err(Fault::tensor(name, format!("its shape {:?} has more elements than can be counted", raw.shape)));
    };
    if let Some(size) = dtype.bytes()
        && elements.checked_mul(size) != Some(end - begin)
    {
        let reason = format!("{dtype} of shape {:?} does not take {} bytes", raw.shape, end - begin);
        return Err(Fault::tensor(name, reason));
    }
    Ok(Entry { dtype, shape: raw.shape, range: data_at + begin as usize..data_at + end as usize })
}

/// Every byte of the data belongs to exactly one tensor, as the format demands.
fn covered(header: &Header, data: Range<usize>) -> Result<(), Fault> {
    let mut tensors: Vec<_> = header.tensors.iter().filter(|(_, entry)| !entry.range.is_empty()).collect();
    tensors.sort_by_key(|(_, entry)| entry.range.start);
    let (mut next, mut before) = (data.start, "the header");
    for (name, entry) in tensors {
        if entry.range.start < next {
            return Err(Fault::tensor(name, format!("it shares bytes with `{before}`")));
        }
        if entry.range.start > next {
            return Err(Fault::tensor(
                name,
                format!("{} bytes before it belong to no tensor", entry.range.start - next),
            ));
        }
        (next, before) = (entry.range.end, name);
    }
    if next != data.end {
        return Err(Fault::file(format!("its last {} bytes belong to no tensor", data.end - next)));
    }
    Ok(())
}

/// A JSON object with every key it has, repeated ones too.
struct Fields(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    }

    fn fault(header: &str, data: usize) -> String {
        let fault = read(&file(header, data)).expect_err("a fault");
        fault.tensor.map_or(String::new(), |tensor| format!("{tensor}: ")) + &fault.reason
    }

    #[test]
    fn a_sound_header_is_read() {
        let text = r#"{"__metadata__": {"format": "pt"}, "b": {"dtype": "BF16", "shape": [2], "data_offsets": [4, 8]},
                       "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
                       "none": {"dtype": "F32", "shape": [0, 7], "data_offsets": [8, 8]},
                       "odd": {"dtype": "F4", "shape": [6], "data_offsets": [8, 11]}}   "#;
        let header = read(&file(text, 11)).expect("sound");
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(header.tensors["b"].shape, [2]);
        assert_eq!(header.tensors["b"].range, 8 + text.len() + 4..8 + text.len() + 8);
        assert_eq!(header.tensors["odd"].dtype, StoredType::Other("F4".to_string()));
    }

    #[test]
    fn every_fault_is_named() {
        assert_eq!(read(&[1, 2, 3]).expect_err("short").reason, "it is 3 bytes long, too short for a header");
        assert!(read(&[255; 20]).expect_err("absurd").reason.contains("the format allows"));
        assert!(read(&50u64.to_le_bytes()).expect_err("cut").reason.contains("only 0 follow"));
        assert!(fault("[1]", 0).starts_with("its header is not a JSON object"));
        assert!(fault("{\"a\"", 0).starts_with("its header is not a JSON object"));
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
        };
        assert_eq!(fault(&one("F32", "[1]", "[0, 4]"), 3), "a: its bytes end at 4, but the file holds 3 bytes of data");
        assert_eq!(fault(&one("F32", "[1]", "[4, 0]"), 4), "a: its bytes 4 to 0 run backwards");
        assert_eq!(fault(&one("F32", "[2]", "[0, 4]"), 4), "a: F32 of shape [2] does not take 4 bytes");
        assert_eq!(fault(&one("F32", "[1]", "[0, 4]"), 6), "its last 2 bytes belong to no tensor");
        assert!(fault(&one("F32", "[-1]", "[0, 4]"), 4).starts_with("a: invalid value"));
        let absurd = "[4294967296, 4294967296, 4294967296]";
        assert!(fault(&one("F32", absurd, "[0, 4]"), 4).contains("more elements than can be counted"));
        let pair = |second: &str, offsets: &str| {
            format!(
                r#"{{"a": {{"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}},
                    "{second}": {{"dtype": "U8", "shape": [2], "data_offsets": {offsets}}}}}"#
            )
        };
        assert_eq!(fault(&pair("b", "[1, 3]"), 3), "b: it shares bytes with `a`");
        assert_eq!(fault(&pair("b", "[3, 5]"), 5), "b: 1 bytes before it belong to no tensor");
        assert_eq!(fault(&pair("a", "[2, 4]"), 4), "a: the header lists it twice");
    }
}
