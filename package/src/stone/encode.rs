//! Writes payloads: header, checksum, compressed body.

use std::io::{Seek, SeekFrom, Write};
use std::num::NonZeroUsize;

use cairn_store::{BlobRef, Checksum};
use xxhash_rust::xxh3::Xxh3Default;

use super::error::{Error, Result};
use super::frames::{self, FRAME_LEN, FrameSize, SeekTable};
use super::header::{Compression, PayloadHeader, PayloadKind};
use super::parallel;
use super::source::{Concatenation, Source};

/// How the payloads of a file are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As the tools of AerynOS do: one frame a payload, zstd level 18, the
    /// largest window, the size announced. Small and slow; a content is
    /// compressed, and later decompressed, by one thread with a window as
    /// large as itself.
    Canonical,
    /// The content in frames of 2 MiB that are compressed and decompressed side
    /// by side.
    Fast {
        /// Of zstd, 1 to 22.
        level: i32,
        /// How many threads compress; the output does not depend on it.
        threads: NonZeroUsize,
    },
    /// Without compression.
    Plain,
}

impl Encoding {
    fn compression(self) -> Compression {
        match self {
            Self::Canonical | Self::Fast { .. } => Compression::Zstd,
            Self::Plain => Compression::Plain,
        }
    }
}

/// The plain records of a payload that is not Content.
pub(super) struct Table {
    pub(super) kind: PayloadKind,
    pub(super) records: u32,
    pub(super) plain: Vec<u8>,
}

impl Table {
    /// A table for `records` records, without any yet.
    pub(super) fn new(kind: PayloadKind, records: usize) -> Result<Self> {
        let too_many = Error::TooMany { what: "entries", count: records };
        Ok(Self { kind, records: u32::try_from(records).map_err(|_| too_many)?, plain: Vec::new() })
    }

    /// The whole payload with its header.
    pub(super) fn encode(&self, encoding: Encoding) -> Result<Vec<u8>> {
        let compressed = match encoding {
            Encoding::Canonical => Some(frames::compress_canonical(&self.plain)),
            Encoding::Fast { level, .. } => Some(zstd::bulk::compress(&self.plain, level)),
            Encoding::Plain => None,
        };
        let compressed = compressed.transpose().map_err(Error::Write)?;
        let body = compressed.as_ref().unwrap_or(&self.plain);
        let header = PayloadHeader {
            stored_size: body.len() as u64,
            plain_size: self.plain.len() as u64,
            checksum: Checksum::of(body),
            ..PayloadHeader::new(self.kind, self.records, encoding.compression())
        };
        Ok([&header.encode()[..], body].concat())
    }
}

/// Writes the Content payload, whose header is filled in at the end.
pub(super) fn write_content<W: Write + Seek>(
    contents: &[(BlobRef, &Source)],
    encoding: Encoding,
    mut to: W,
) -> Result<()> {
    let mut header = PayloadHeader::new(PayloadKind::Content, 0, encoding.compression());
    let header_at = to.stream_position().map_err(Error::Write)?;
    to.write_all(&header.encode()).map_err(Error::Write)?;

    let mut plain = Concatenation::new(contents);
    header.plain_size = plain.size();
    let mut body = Hashing { to: &mut to, hasher: Xxh3Default::new(), len: 0 };
    match encoding {
        Encoding::Plain => while plain.copy_piece(&mut body)? {},
        Encoding::Canonical => {
            let encoder = frames::canonical_encoder(&mut body, header.plain_size);
            let mut encoder = encoder.map_err(Error::Write)?;
            while plain.copy_piece(&mut encoder)? {}
            encoder.finish().map_err(Error::Write)?;
        }
        Encoding::Fast { level, threads } => write_frames(&mut plain, level, threads, &mut body)?,
    }
    header.stored_size = body.len;
    header.checksum = Checksum(body.hasher.digest());

    let end = to.stream_position().map_err(Error::Write)?;
    to.seek(SeekFrom::Start(header_at)).map_err(Error::Write)?;
    to.write_all(&header.encode()).map_err(Error::Write)?;
    to.seek(SeekFrom::Start(end)).map_err(Error::Write)?;
    Ok(())
}

fn write_frames(
    plain: &mut Concatenation<'_>,
    level: i32,
    threads: NonZeroUsize,
    to: &mut impl Write,
) -> Result<()> {
    let mut table = SeekTable::default();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a frame is not much over 2 MiB");
    parallel::in_order(
        threads,
        || {
            let piece = plain.read_piece(FRAME_LEN)?;
            Ok((!piece.is_empty()).then_some(piece))
        },
        |piece| (len(&piece), zstd::bulk::compress(&piece, level)),
        |(plain, frame)| {
            let frame = frame.map_err(Error::Write)?;
            table.frames.push(FrameSize { stored: len(&frame), plain });
            to.write_all(&frame).map_err(Error::Write)
        },
    )?;
    if table.frames.is_empty() {
        let empty = zstd::bulk::compress(&[], level).map_err(Error::Write)?;
        table.frames.push(FrameSize { stored: len(&empty), plain: 0 });
        to.write_all(&empty).map_err(Error::Write)?;
    }
    let count = table.frames.len();
    let table = table.encode().ok_or(Error::TooMany { what: "frames", count })?;
    to.write_all(&table).map_err(Error::Write)
}

/// Counts and hashes what is written through it.
struct Hashing<W> {
    to: W,
    hasher: Xxh3Default,
    len: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let len = self.to.write(buf)?;
        self.hasher.update(&buf[..len]);
        self.len += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
