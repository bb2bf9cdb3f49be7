//! A weight file that is not whole yet. It stands beside where it will be, and says in its first 64 bytes what it is part of
//! and how far it is, so that packing goes on after an interruption. The layout is in docs/weight-file.md.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use crate::{Checksum, weight_file::HEADER_BYTES};

const MAGIC: &[u8; 8] = b"MOECPART";
const VERSION: u32 = 1;

/// How far the file is gets written down when this much has come since: what a killed process loses.
const NOTED_EVERY: u64 = 256 << 20;

/// Data goes to the file in blocks of a huge page, at multiples of its size. What a file system keeps of a file in memory it
/// keeps in pieces as large as it was written in, so that such a file is mapped in huge pages (ext4 since Linux 6.16, XFS
/// longer): decoding, which reads weights from memory, gets a fifth more out of it.
const BLOCK: u64 = 2 << 20;

/// Where a weight file comes to be.
pub struct Place<'a> {
    /// The file until it is whole; on the file system that the whole one will be on.
    pub partial: &'a Path,
    /// Tells sources apart: of two with the same number, each instance is the same. Without it nothing is gone on with.
    pub origin: Option<u64>,
}

/// The file while it is written. It is locked: of two processes that pack into one place, one is refused.
pub(crate) struct Partial {
    file: File,
    origin: Option<u64>,
    fingerprint: u64,
    data_offset: u64,
    /// Of what is in the file, as is `done`.
    checksum: Checksum,
    done: u64,
    noted: u64,
    /// What comes behind that, of less than a block.
    pending: Vec<u8>,
}

impl Partial {
    /// Opens or makes it, at the end of the data that it has. `total` bytes of data will come; where there is no room for
    /// them, this says so now and not when the disk is full.
    ///
    /// The error is `WouldBlock` where another process has it.
    pub fn open(place: &Place, fingerprint: u64, data_offset: u64, total: u64) -> io::Result<Partial> {
        let file = locked(place.partial)?;
        let origin = place.origin;
        let checksum = Checksum::default();
        let pending = Vec::with_capacity(BLOCK as usize);
        let mut partial = Partial { file, origin, fingerprint, data_offset, checksum, done: 0, noted: 0, pending };
        let ready = partial.take_up(total).and_then(|()| reserve(&partial.file, data_offset + total));
        if let Err(error) = ready {
            // The error tells more than what comes of this.
            let _ = fs::remove_file(place.partial);
            return Err(error);
        }
        Ok(partial)
    }

    /// Bytes of data so far.
    pub fn done(&self) -> u64 {
        self.done + self.pending.len() as u64
    }

    /// Of the data so far, which is in the file then.
    pub fn checksum(&mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.checksum.finish())
    }

    /// What stands between the header and the data.
    pub fn write_head(&mut self, table: &[u8]) -> io::Result<()> {
        let mut head = self.note().to_vec();
        head.extend_from_slice(table);
        head.resize(self.data_offset as usize, b' ');
        self.file.write_all_at(&head, 0)
    }

    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = BLOCK - (self.data_offset + self.done()) % BLOCK;
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            self.pending.extend_from_slice(now);
            if now.len() as u64 == room {
                self.flush()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.checksum.update(&self.pending);
        self.done += self.pending.len() as u64;
        self.pending.clear();
        if self.done - self.noted >= NOTED_EVERY {
            self.write_note()?;
        }
        Ok(())
    }

    /// Leaves it so that another process can go on.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.flush()?;
        self.write_note()?;
        // Gives back the room that was reserved.
        self.file.set_len(self.data_offset + self.done)
    }

    /// Makes it a weight file with this header, safe from a loss of power.
    pub fn finish(&mut self, header: &[u8]) -> io::Result<()> {
        self.file.write_all_at(header, 0)?;
        self.file.set_len(self.data_offset + self.done)?;
        self.file.sync_all()
    }

    fn write_note(&mut self) -> io::Result<()> {
        self.noted = self.done;
        self.file.write_all_at(&self.note(), 0)
    }

    fn note(&self) -> [u8; HEADER_BYTES as usize] {
        let mut note = [0; HEADER_BYTES as usize];
        note[..8].copy_from_slice(MAGIC);
        note[8..12].copy_from_slice(&VERSION.to_le_bytes());
        note[12..16].copy_from_slice(&HEADER_BYTES.to_le_bytes());
        let words = [self.origin.unwrap_or(0), self.fingerprint, self.done, self.checksum.finish()];
        for (word, into) in words.iter().zip(note[16..48].as_chunks_mut::<8>().0) {
            *into = word.to_le_bytes();
        }
        let sum = Checksum::of(&note[..56]);
        note[56..].copy_from_slice(&sum.to_le_bytes());
        note
    }

    /// Goes to the end of what is there if it is a part of the same file and sound, else to the beginning of nothing.
    fn take_up(&mut self, total: u64) -> io::Result<()> {
        if self.origin.is_none() || !self.is_sound(total)? {
            (self.done, self.checksum) = (0, Checksum::default());
            self.file.set_len(0)?;
        }
        self.noted = self.done;
        self.file.seek(SeekFrom::Start(self.data_offset + self.done))?;
        Ok(())
    }

    /// Reads what is there into `done` and `checksum`; whether it is what this file's beginning must be.
    fn is_sound(&mut self, total: u64) -> io::Result<bool> {
        let mut note = [0; HEADER_BYTES as usize];
        if self.file.metadata()?.len() < self.data_offset {
            return Ok(false);
        }
        self.file.read_exact_at(&mut note, 0)?;
        self.done = u64::from_le_bytes(note[32..40].try_into().expect("eight bytes"));
        if self.done > total || self.file.metadata()?.len() < self.data_offset + self.done {
            return Ok(false);
        }
        self.file.seek(SeekFrom::Start(self.data_offset))?;
        let mut data = (&self.file).take(self.done);
        let mut piece = vec![0; 1 << 20];
        loop {
            let read = data.read(&mut piece)?;
            if read == 0 {
                break;
            }
            self.checksum.update(&piece[..read]);
        }
        // The same place, plan, origin, length and data make the same note.
        Ok(note == self.note())
    }
}

/// Opens or makes the file that stands there, alone.
fn locked(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Who had it until a moment ago has perhaps finished and renamed it: then it is no longer the file of this name.
    let there = fs::metadata(path)?;
    let here = file.metadata()?;
    let same = (there.dev(), there.ino()) == (here.dev(), here.ino());
    if same { Ok(file) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// Takes the room that a file will need, where the file system can.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let Ok(bytes) = libc::off_t::try_from(bytes) else { return Err(io::ErrorKind::FileTooLarge.into()) };
    // SAFETY: the descriptor is the file's, which is open.
    let failed = unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, bytes) } != 0;
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EFBIG | libc::EDQUOT) if failed => Err(error),
        _ => Ok(()),
    }
}
