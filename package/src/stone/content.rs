//! The bytes of a package's files, verified.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cairn_store::{BlobHasher, BlobKey, BlobRef};

use super::error::{Error, Result};
use super::frames::{self, FOOTER_LEN, FrameSize, SeekTable};
use super::header::{Compression, PayloadHeader, PayloadKind};
use super::package::IndexRecord;
use super::parallel;
use super::reader::{Payload, Reader};

const PIECE_LEN: usize = 128 << 10;

/// Where the plain bytes of a content may go, and how many threads make them.
#[derive(Clone, Copy, Debug)]
pub struct ContentOptions<'a> {
    /// Up to so many plain bytes stay in memory.
    pub memory: u64,
    /// Where a larger content has its temporary file, which has no name.
    pub directory: &'a Path,
    /// How many threads decompress and hash. Contents in one frame are
    /// decompressed by one.
    pub threads: NonZeroUsize,
}

/// The bytes of all unique files of a package. Each was hashed after it was
/// decompressed, so that what [`Blob::id`] says is true.
#[derive(Debug)]
pub struct Content {
    bytes: Bytes,
    /// Each with its offset in the bytes.
    blobs: Vec<(u64, BlobRef)>,
    by_key: HashMap<BlobKey, usize>,
}

#[derive(Debug)]
enum Bytes {
    Memory(Vec<u8>),
    File(File),
}

/// One unique file of a [`Content`].
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    bytes: &'a Bytes,
    start: u64,
    id: BlobRef,
}

/// A content without files.
impl Default for Content {
    fn default() -> Self {
        Self { bytes: Bytes::Memory(Vec::new()), blobs: Vec::new(), by_key: HashMap::new() }
    }
}

impl Content {
    /// All unique files in the order of the package's index.
    pub fn blobs(&self) -> impl ExactSizeIterator<Item = Blob<'_>> {
        self.blobs.iter().map(|&(start, id)| Blob { bytes: &self.bytes, start, id })
    }

    /// The file with this key.
    #[must_use]
    pub fn get(&self, key: &BlobKey) -> Option<Blob<'_>> {
        let (start, id) = self.blobs[*self.by_key.get(key)?];
        Some(Blob { bytes: &self.bytes, start, id })
    }
}

impl<'a> Blob<'a> {
    /// Key, digest and size, computed from the bytes.
    #[must_use]
    pub fn id(&self) -> BlobRef {
        self.id
    }

    /// The bytes, if the content is in memory.
    #[must_use]
    pub fn as_slice(&self) -> Option<&'a [u8]> {
        match self.bytes {
            Bytes::Memory(bytes) => slice(bytes, self.start, self.id.size),
            Bytes::File(_) => None,
        }
    }

    /// Reads bytes from `offset` on; fewer than `buf.len()` only at the end of
    /// the file, 0 at or past it. Any thread may do so at any time.
    ///
    /// # Errors
    /// Those of pread(2) on the temporary file; none in memory.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let offset = offset.min(self.id.size);
        let left = self.id.size - offset;
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let buf = &mut buf[..len];
        read_exact_at(self.bytes, self.start + offset, buf)?;
        Ok(len)
    }

    /// Reads the file from its start.
    #[must_use]
    pub fn reader(self) -> BlobReader<'a> {
        BlobReader { blob: self, offset: 0 }
    }
}

/// Reads a [`Blob`] from its start.
#[derive(Debug)]
pub struct BlobReader<'a> {
    blob: Blob<'a>,
    offset: u64,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.blob.read_at(self.offset, buf)?;
        self.offset += len as u64;
        Ok(len)
    }
}

fn slice(bytes: &[u8], start: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
}

fn read_exact_at(bytes: &Bytes, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    match bytes {
        Bytes::Memory(bytes) => {
            let from = slice(bytes, offset, buf.len() as u64);
            buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
        Bytes::File(file) => file.read_exact_at(buf, offset),
    }
}

/// Verifies, decompresses and hashes a content of `size` plain bytes.
pub(super) fn read<R: Read + Seek>(
    reader: &mut Reader<R>,
    payload: &Payload,
    index: &[IndexRecord],
    size: u64,
    options: &ContentOptions<'_>,
) -> Result<Content> {
    reader.verify(payload)?;
    let PayloadHeader { kind, stored_size, compression, .. } = payload.header;
    let possible = match compression {
        Compression::Plain => stored_size == size,
        Compression::Zstd => frames::can_hold(stored_size, size),
        Compression::Unknown(compression) => {
            let number = payload.number;
            return Err(Error::UnknownCompression { number, kind, compression });
        }
    };
    if !possible {
        return Err(Error::PlainSize { kind, announced: size });
    }
    let mut sink = Sink::new(size, options)?;
    if compression == Compression::Plain {
        sink.fill(reader.body(payload)?, Error::Read)?;
    } else if let Some(table) = seek_table(reader, payload, size)? {
        decompress_parallel(reader, payload, table, options.threads, &mut sink)?;
    } else {
        let damaged = |source| Error::Decompress { kind, source };
        let stored = BufReader::with_capacity(PIECE_LEN, reader.body(payload)?);
        let decoder = frames::decoder(stored, size).map_err(damaged)?;
        sink.fill(decoder, damaged)?;
    }
    let bytes = sink.finish()?;
    let blobs = hash_all(&bytes, index, options)?;
    let by_key = blobs.iter().enumerate().map(|(at, (_, id))| (id.key, at)).collect();
    Ok(Content { bytes, blobs, by_key })
}

/// Takes exactly the announced number of bytes.
struct Sink<'a> {
    bytes: Bytes,
    left: u64,
    size: u64,
    directory: &'a Path,
}

impl<'a> Sink<'a> {
    fn new(size: u64, options: &ContentOptions<'a>) -> Result<Self> {
        let directory = options.directory;
        let bytes = match usize::try_from(size) {
            // The caller has allowed for so much, whatever the file says.
            Ok(len) if size <= options.memory => Bytes::Memory(Vec::with_capacity(len)),
            _ => {
                let file = tempfile::tempfile_in(directory);
                Bytes::File(file.map_err(|source| Error::File { path: directory.into(), source })?)
            }
        };
        Ok(Self { bytes, left: size, size, directory })
    }

    fn wrong_size(&self) -> Error {
        Error::PlainSize { kind: PayloadKind::Content, announced: self.size }
    }

    fn append(&mut self, piece: &[u8]) -> Result<()> {
        let left = self.left.checked_sub(piece.len() as u64);
        self.left = left.ok_or_else(|| self.wrong_size())?;
        match &mut self.bytes {
            Bytes::Memory(bytes) => bytes.extend_from_slice(piece),
            Bytes::File(file) => file
                .write_all(piece)
                .map_err(|source| Error::File { path: self.directory.into(), source })?,
        }
        Ok(())
    }

    fn fill(&mut self, mut from: impl Read, wrap: impl Fn(io::Error) -> Error) -> Result<()> {
        let mut buf = vec![0; PIECE_LEN];
        loop {
            match from.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(len) => self.append(&buf[..len])?,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(wrap(err)),
            }
        }
    }

    fn finish(self) -> Result<Bytes> {
        if self.left == 0 { Ok(self.bytes) } else { Err(self.wrong_size()) }
    }
}

/// The seek table at the end of a content that has a usable one.
fn seek_table<R: Read + Seek>(
    reader: &mut Reader<R>,
    payload: &Payload,
    size: u64,
) -> Result<Option<SeekTable>> {
    let stored = payload.header.stored_size;
    let mut tail = |len: u64| {
        let Some(start) = stored.checked_sub(len) else { return Ok(None) };
        let part = PayloadHeader { stored_size: len, ..payload.header };
        let part = Payload { header: part, offset: payload.offset + start, ..*payload };
        let mut bytes = Vec::new();
        reader.body(&part)?.read_to_end(&mut bytes).map_err(Error::Read)?;
        Ok(Some(bytes))
    };
    let Some(footer) = tail(FOOTER_LEN as u64)? else { return Ok(None) };
    let Some(len) = footer.as_slice().try_into().ok().and_then(SeekTable::len_from_footer) else {
        return Ok(None);
    };
    let table = tail(len)?;
    Ok(table.and_then(|table| SeekTable::decode(&table, stored, size)))
}

fn decompress_parallel<R: Read + Seek>(
    reader: &mut Reader<R>,
    payload: &Payload,
    table: SeekTable,
    threads: NonZeroUsize,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let kind = PayloadKind::Content;
    let mut body = reader.body(payload)?;
    let mut frames = table.frames.into_iter();
    let next = || {
        let Some(FrameSize { stored, plain }) = frames.next() else { return Ok(None) };
        let mut bytes = vec![0; stored as usize];
        body.read_exact(&mut bytes).map_err(Error::Read)?;
        Ok(Some((bytes, plain)))
    };
    let work = |(stored, plain): (Vec<u8>, u32)| {
        let bytes = zstd::bulk::decompress(&stored, plain as usize)
            .map_err(|source| Error::Decompress { kind, source })?;
        let announced = plain.into();
        if bytes.len() as u64 == announced {
            Ok(bytes)
        } else {
            Err(Error::PlainSize { kind, announced })
        }
    };
    parallel::in_order(threads, next, work, |bytes| sink.append(&bytes?))
}

/// Hashes all files, and compares with what the index says of them.
fn hash_all(
    bytes: &Bytes,
    index: &[IndexRecord],
    options: &ContentOptions<'_>,
) -> Result<Vec<(u64, BlobRef)>> {
    let mut blobs = Vec::with_capacity(index.len());
    let mut records = index.iter();
    parallel::in_order(
        options.threads,
        || Ok(records.next()),
        |record| {
            let id = hash(bytes, record)
                .map_err(|source| Error::File { path: options.directory.into(), source })?;
            if id.key != record.key {
                return Err(Error::DamagedContent(record.key));
            }
            match record.digest {
                Some(digest) if digest != id.digest => Err(Error::ForgedContent(record.key)),
                _ => Ok((record.start, id)),
            }
        },
        |blob: Result<(u64, BlobRef)>| {
            blobs.push(blob?);
            Ok(())
        },
    )?;
    Ok(blobs)
}

fn hash(bytes: &Bytes, record: &IndexRecord) -> io::Result<BlobRef> {
    let mut hasher = BlobHasher::default();
    if let Bytes::Memory(bytes) = bytes {
        let range = slice(bytes, record.start, record.end - record.start);
        hasher.update(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        return Ok(hasher.finish());
    }
    let mut buf = vec![0; PIECE_LEN];
    let mut offset = record.start;
    while offset < record.end {
        let left = usize::try_from(record.end - offset).unwrap_or(usize::MAX);
        let piece = &mut buf[..left.min(PIECE_LEN)];
        read_exact_at(bytes, offset, piece)?;
        hasher.update(piece);
        offset += piece.len() as u64;
    }
    Ok(hasher.finish())
}
