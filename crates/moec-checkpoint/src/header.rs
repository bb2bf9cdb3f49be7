//! The header of a safetensors file: eight bytes of length, then a JSON object of tensors by name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use crate::stored::StoredType;

/// The format allows no longer header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// No tensor has more axes; who claims so is not believed, so that a header cannot ask for more memory than it takes itself.
const MAX_AXES: usize = 64;

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
    shape: Shape,
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
    let listing = Listing::default();
    let mut json = serde_json::Deserializer::from_slice(text);
    (&listing).deserialize(&mut json).and_then(|()| json.end()).map_err(|error| listing.fault(&error))?;

    let mut header = Header { metadata: listing.metadata.into_inner().unwrap_or_default(), ..Header::default() };
    for (name, entry) in listing.tensors.into_inner() {
        let entry = checked(&name, entry, 8 + length, data.len() as u64)?;
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
    let Shape(shape) = raw.shape;
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let Some(elements) = elements else {
        return Err(Fault::tensor(name, format!("its shape {shape:?} has more elements than can be counted")));
    };
    if let Some(size) = dtype.bytes()
        && elements.checked_mul(size) != Some(end - begin)
    {
        let reason = format!("{dtype} of shape {shape:?} does not take {} bytes", end - begin);
        return Err(Fault::tensor(name, reason));
    }
    Ok(Entry { dtype, shape, range: data_at + begin as usize..data_at + end as usize })
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

/// The header's object as it is read, entry by entry.
#[derive(Default)]
struct Listing {
    tensors: RefCell<BTreeMap<String, RawEntry>>,
    metadata: RefCell<Option<BTreeMap<String, String>>>,
    /// The key whose value is being read.
    reading: RefCell<Option<String>>,
}

const METADATA: &str = "__metadata__";

impl Listing {
    /// What is wrong, and with which entry: of JSON that is none, only where.
    fn fault(&self, error: &serde_json::Error) -> Fault {
        match (error.classify(), self.reading.take()) {
            (Category::Data, Some(key)) if key == METADATA => Fault::file(format!("its metadata: {error}")),
            (Category::Data, Some(name)) => Fault { tensor: Some(name), reason: error.to_string() },
            (Category::Data | Category::Syntax | Category::Eof | Category::Io, _) => {
                Fault::file(format!("its header is not a JSON object: {error}"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for &Listing {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &Listing {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            self.reading.replace(Some(key.clone()));
            let again = if key == METADATA {
                self.metadata.replace(Some(map.next_value()?)).is_some()
            } else {
                self.tensors.borrow_mut().insert(key, map.next_value()?).is_some()
            };
            if again {
                return Err(A::Error::custom("the header lists it twice"));
            }
            self.reading.take();
        }
        Ok(())
    }
}

/// Sizes of a tensor's axes.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;

        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a list of at most {MAX_AXES} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = sequence.next_element()? {
                    if sizes.len() == MAX_AXES {
                        return Err(A::Error::invalid_length(MAX_AXES + 1, &self));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }

        deserializer.deserialize_seq(Sizes)
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
        assert!(fault(&pair("a", "[2, 4]"), 4).starts_with("a: the header lists it twice"));
        assert!(fault(r#"{"__metadata__": {"a": 1}}"#, 0).starts_with("its metadata: invalid type"));
        assert!(fault(&one("F32", "[18446744073709551616]", "[0, 4]"), 4).starts_with("a: invalid"));
        assert!(fault(&one("F32", "[1]", "[0, 9223372036854775808]"), 4).contains("its bytes end at"));
        assert!(fault(&one("F32", &format!("[{}1]", "1,".repeat(64)), "[0, 4]"), 4).contains("at most 64 sizes"));
        let deep = format!("{{\"a\": {{\"b\": {}", "[".repeat(100_000));
        assert!(fault(&deep, 0).starts_with("its header is not a JSON object: EOF"));
        assert!(fault("{} {}", 0).starts_with("its header is not a JSON object: trailing"));
        assert!(read(&[&3u64.to_le_bytes()[..], b"{\xff}"].concat()).expect_err("no text").reason.contains("JSON"));
    }
}
