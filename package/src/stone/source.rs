//! Where the bytes of a file come from when a package is made.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_store::{BlobKey, BlobRef};
use xxhash_rust::xxh3::Xxh3Default;

use super::error::{Error, Result};

const PIECE_LEN: usize = 128 << 10;

/// Where the bytes of a file come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Memory.
    Bytes(Arc<[u8]>),
    /// A whole file, opened when its bytes are needed.
    Path(PathBuf),
    /// A piece of an open file, such as an unpacked archive.
    Piece {
        /// Read at offsets; its position does not matter.
        file: Arc<File>,
        /// Offset of the first byte.
        start: u64,
        /// Length in bytes.
        size: u64,
    },
}

impl Source {
    /// Hands all bytes to `take`, some at a time.
    pub(super) fn for_each_piece(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut from = self.open()?;
        if let Source::Bytes(bytes) = self {
            take(bytes);
            return Ok(());
        }
        let mut buf = vec![0; PIECE_LEN];
        loop {
            let len = read_full(&mut from, &mut buf).map_err(|err| self.failed(err))?;
            take(&buf[..len]);
            if len < buf.len() {
                return Ok(());
            }
        }
    }

    fn open(&self) -> Result<Opened<'_>> {
        Ok(match self {
            Self::Bytes(bytes) => Opened::Bytes(bytes),
            Self::Path(path) => {
                Opened::File(File::open(path).map_err(|source| self.failed(source))?)
            }
            Self::Piece { file, start, size } => Opened::Piece { file, at: *start, left: *size },
        })
    }

    fn failed(&self, source: io::Error) -> Error {
        match self {
            Self::Path(path) => Error::File { path: path.clone(), source },
            Self::Bytes(_) | Self::Piece { .. } => Error::Read(source),
        }
    }
}

enum Opened<'a> {
    Bytes(&'a [u8]),
    File(File),
    Piece { file: &'a File, at: u64, left: u64 },
}

impl Read for Opened<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(buf),
            Self::File(file) => file.read(buf),
            Self::Piece { file, at, left } => {
                let len = usize::try_from(*left).map_or(buf.len(), |left| left.min(buf.len()));
                let len = file.read_at(&mut buf[..len], *at)?;
                *at += len as u64;
                *left -= len as u64;
                Ok(len)
            }
        }
    }
}

/// Reads until `buf` is full or the bytes end.
fn read_full(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buf.len() {
        match from.read(&mut buf[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(len)
}

/// The bytes of several files one after the other, each compared with the
/// hash and the size that it had before.
pub(super) struct Concatenation<'a> {
    contents: &'a [(BlobRef, &'a Source)],
    current: Option<Current<'a>>,
    buf: Vec<u8>,
}

struct Current<'a> {
    blob: BlobRef,
    source: &'a Source,
    from: Opened<'a>,
    hasher: Xxh3Default,
    left: u64,
}

impl<'a> Concatenation<'a> {
    pub(super) fn new(contents: &'a [(BlobRef, &'a Source)]) -> Self {
        Self { contents, current: None, buf: vec![0; PIECE_LEN] }
    }

    /// How many bytes there are from the first on.
    pub(super) fn size(&self) -> u64 {
        self.contents.iter().map(|(blob, _)| blob.size).sum()
    }

    /// Writes some bytes to `to`; `false` if there are no more.
    pub(super) fn copy_piece(&mut self, to: &mut impl Write) -> Result<bool> {
        let mut buf = std::mem::take(&mut self.buf);
        let len = self.read(&mut buf)?;
        to.write_all(&buf[..len]).map_err(Error::Write)?;
        self.buf = buf;
        Ok(len > 0)
    }

    /// The next `len` bytes; fewer, or none, only at the end.
    pub(super) fn read_piece(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut piece = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.read(&mut piece[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        piece.truncate(filled);
        Ok(piece)
    }

    /// Fills `buf` from one file; 0 only after the last.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(((blob, source), rest)) = self.contents.split_first() else {
                    return Ok(0);
                };
                self.contents = rest;
                let (blob, from, left) = (*blob, source.open()?, blob.size);
                self.current =
                    Some(Current { blob, source, from, hasher: Xxh3Default::new(), left });
                continue;
            };
            let len =
                read_full(&mut current.from, buf).map_err(|err| current.source.failed(err))?;
            current.hasher.update(&buf[..len]);
            let changed = Error::ChangedSource(current.blob.key);
            current.left = current.left.checked_sub(len as u64).ok_or(changed)?;
            if len < buf.len() {
                current.check_end()?;
                self.current = None;
            }
            if len > 0 {
                return Ok(len);
            }
        }
    }
}

impl Current<'_> {
    fn check_end(&self) -> Result<()> {
        let key = BlobKey::from_bytes(self.hasher.digest128().to_be_bytes());
        if self.left == 0 && key == self.blob.key {
            Ok(())
        } else {
            Err(Error::ChangedSource(self.blob.key))
        }
    }
}
