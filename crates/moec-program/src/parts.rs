//! A program with a model inside: an executable, after it the model's files, and at the end a table of where they are.
//!
//! ```text
//! executable | 0 to a multiple of 4096 | part | 0 to a multiple of 4096 | part … | table | end
//! table: for each part its name (16 bytes, zeros behind), offset (u64), bytes (u64)
//! end:   "MOECPRG" and a zero byte, version (u32: 1), parts (u32), offset of the table (u64)
//! ```
//!
//! All numbers are little-endian. The run time finds the weights by the same table (kernels/runtime/weights.c), and maps
//! them where they are.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"MOECPRG\0";
const VERSION: u32 = 1;
const ALIGNMENT: u64 = 4096;
const END_BYTES: u64 = 24;
const ENTRY_BYTES: u64 = 32;
const NAME_BYTES: usize = 16;
/// More there never are.
const MOST_PARTS: u32 = 16;

pub const LIBRARY: &str = "library";
/// The run time knows this one.
pub const WEIGHTS: &str = "weights";
pub const TOKENIZER: &str = "tokenizer";
pub const MANIFEST: &str = "manifest";

/// Where a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub offset: u64,
    pub bytes: u64,
}

/// Writes a program of `executable` and the files given by their names as parts.
pub fn write(out: &mut (impl Write + Seek), executable: &Path, files: &[(&str, PathBuf)]) -> io::Result<()> {
    let mut table = Vec::new();
    io::copy(&mut File::open(executable)?, out)?;
    for (name, path) in files {
        let at = out.stream_position()?;
        let offset = at.next_multiple_of(ALIGNMENT);
        io::copy(&mut io::repeat(0).take(offset - at), out)?;
        let bytes = io::copy(&mut File::open(path)?, out)?;
        let mut padded = [0; NAME_BYTES];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        table.extend(padded);
        table.extend(offset.to_le_bytes());
        table.extend(bytes.to_le_bytes());
    }
    let offset = out.stream_position()?;
    out.write_all(&table)?;
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&(files.len() as u32).to_le_bytes())?;
    out.write_all(&offset.to_le_bytes())
}

/// The parts of a program; none where it is another file.
pub fn read(file: &mut File) -> io::Result<Vec<Part>> {
    let whole = file.seek(SeekFrom::End(0))?;
    let Some(end_at) = whole.checked_sub(END_BYTES) else { return Ok(Vec::new()) };
    let end: [u8; END_BYTES as usize] = read_at(file, end_at)?;
    if end[..8] != *MAGIC || number(&end[8..12]) != u64::from(VERSION) {
        return Ok(Vec::new());
    }
    let count = number(&end[12..16]);
    let table = number(&end[16..24]);
    if count > u64::from(MOST_PARTS) || table.checked_add(count * ENTRY_BYTES) != Some(end_at) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the table of its parts makes no sense"));
    }
    let mut parts = Vec::new();
    for entry in 0..count {
        let entry: [u8; ENTRY_BYTES as usize] = read_at(file, table + entry * ENTRY_BYTES)?;
        let name = entry[..NAME_BYTES].split(|byte| *byte == 0).next().unwrap_or_default();
        let part = Part {
            name: String::from_utf8_lossy(name).into_owned(),
            offset: number(&entry[16..24]),
            bytes: number(&entry[24..32]),
        };
        if part.offset.checked_add(part.bytes).is_none_or(|end| end > table) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the table of its parts makes no sense"));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// All bytes of a part.
pub fn bytes(file: &mut File, part: &Part) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(part.offset))?;
    let mut bytes = Vec::new();
    file.take(part.bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_at<const N: usize>(file: &mut File, at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
