//! Finds the payloads of a file and gives their verified bytes.

use std::io::{self, Read, Seek, SeekFrom};

use cairn_store::Checksum;
use xxhash_rust::xxh3::Xxh3Default;

use super::error::{Error, Result};
use super::frames::{Decompressor, Failure};
use super::header::{Compression, FileType, HEADER_LEN, PayloadHeader, PayloadKind, Prelude};

/// How many plain bytes the tables of a file, all payloads but Content, may
/// have together, however large the file is.
///
/// A package of a million files has about 100 MB, an index of 60,000 packages
/// about 60 MB. Smaller files may have 4 MiB and 64 times their own size:
/// real tables compress to a tenth.
pub const MAX_TABLES: u64 = 256 << 20;

/// The payloads of a file, each with its place.
///
/// Only headers are read until somebody asks for a body.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    file_type: FileType,
    payloads: Vec<Payload>,
    trailing: u64,
    size: u64,
    /// How many plain bytes the tables may have together.
    limit: u64,
    /// How many of them are left.
    budget: u64,
    decompressor: Decompressor,
}

/// One payload of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its place among the payloads; the first is 0.
    pub number: u16,
    /// What is written before its body.
    pub header: PayloadHeader,
    /// Offset of its body in the file.
    pub offset: u64,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the prelude and all payload headers.
    ///
    /// # Errors
    /// What is not a stone of version 1, or has fewer bytes than it announces.
    pub fn new(mut source: R) -> Result<Self> {
        let size = source.seek(SeekFrom::End(0)).map_err(Error::Read)?;
        if size < HEADER_LEN as u64 {
            return Err(Error::NotAStone);
        }
        let prelude = Prelude::decode(&header_at(&mut source, 0)?)?;
        let mut payloads = Vec::new();
        let mut offset = HEADER_LEN as u64;
        for number in 0..prelude.payloads {
            if size - offset < HEADER_LEN as u64 {
                let announced = prelude.payloads;
                return Err(Error::MissingPayloads { announced, found: number });
            }
            let header = PayloadHeader::decode(&header_at(&mut source, offset)?);
            offset += HEADER_LEN as u64;
            if size - offset < header.stored_size {
                return Err(Error::TruncatedPayload { number, kind: header.kind });
            }
            payloads.push(Payload { number, header, offset });
            offset += header.stored_size;
        }
        let (file_type, trailing) = (prelude.file_type, size - offset);
        let limit = MAX_TABLES.min((4 << 20) + size.saturating_mul(64));
        let (budget, decompressor) = (limit, Decompressor::default());
        Ok(Self { source, file_type, payloads, trailing, size, limit, budget, decompressor })
    }

    /// What the file is for.
    pub fn file_type(&self) -> FileType {
        self.file_type
    }

    /// The payloads in the order of the file.
    pub fn payloads(&self) -> &[Payload] {
        &self.payloads
    }

    /// Length of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes follow the last payload; no writer leaves any.
    pub fn trailing(&self) -> u64 {
        self.trailing
    }

    /// Refuses a file of another type.
    pub(super) fn expect(&self, expected: FileType) -> Result<()> {
        let found = self.file_type;
        if found == expected { Ok(()) } else { Err(Error::WrongType { expected, found }) }
    }

    /// The only payload of this kind.
    pub(super) fn find(&self, kind: PayloadKind) -> Result<Option<Payload>> {
        let mut of_kind = self.payloads.iter().filter(|payload| payload.header.kind == kind);
        let first = of_kind.next().copied();
        if of_kind.next().is_some() {
            return Err(Error::RepeatedPayload(kind));
        }
        Ok(first)
    }

    /// The stored bytes of a payload.
    pub(super) fn body(&mut self, payload: &Payload) -> Result<io::Take<&mut R>> {
        self.source.seek(SeekFrom::Start(payload.offset)).map_err(Error::Read)?;
        Ok((&mut self.source).take(payload.header.stored_size))
    }

    /// Checks the stored bytes of a payload, of which only a piece is in
    /// memory at any time.
    ///
    /// # Errors
    /// [`Error::DamagedPayload`] if they are not those that were written.
    pub fn verify(&mut self, payload: &Payload) -> Result<()> {
        let mut body = self.body(payload)?;
        let mut hasher = Xxh3Default::new();
        let mut buf = vec![0; 128 << 10];
        let mut left = payload.header.stored_size;
        while left > 0 {
            let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
            body.read_exact(&mut buf[..len]).map_err(Error::Read)?;
            hasher.update(&buf[..len]);
            left -= len as u64;
        }
        payload.verify(Checksum(hasher.digest()))
    }

    /// The plain bytes of a payload that is not Content, after its checksum
    /// was found right.
    ///
    /// Costs memory for the stored and the plain bytes, together at most twice
    /// [`MAX_TABLES`], and all that is read from one file has a common limit.
    ///
    /// # Errors
    /// - [`Error::DamagedPayload`]: the stored bytes fail their checksum.
    /// - [`Error::Decompress`]: they are not whole Zstandard frames.
    /// - [`Error::PlainSize`]: they are not what the header announces. Meta
    ///   and Attributes may be shorter, since writers exist that count wrong.
    /// - [`Error::TooLarge`], [`Error::UnknownCompression`].
    pub fn table(&mut self, payload: &Payload) -> Result<Vec<u8>> {
        let PayloadHeader { kind, stored_size, plain_size, compression, .. } = payload.header;
        let too_large = Error::TooLarge { kind, limit: self.limit };
        if stored_size > self.budget {
            return Err(too_large);
        }
        let mut stored = Vec::new();
        self.body(payload)?.read_to_end(&mut stored).map_err(Error::Read)?;
        if stored.len() as u64 != stored_size {
            return Err(Error::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        payload.verify(Checksum::of(&stored))?;

        let counted_wrong = matches!(kind, PayloadKind::Meta | PayloadKind::Attributes);
        if plain_size > self.budget && !counted_wrong {
            return Err(too_large);
        }
        let limit = if counted_wrong { self.budget } else { plain_size };
        let wrong_size = Error::PlainSize { kind, announced: plain_size };
        let plain = match compression {
            Compression::Plain => stored,
            Compression::Zstd => match self.decompressor.decompress(&stored, plain_size, limit) {
                Ok(plain) => plain,
                Err(Failure::Longer) => {
                    // Who goes on after the error pays for what was tried.
                    self.budget -= limit;
                    return Err(if counted_wrong { too_large } else { wrong_size });
                }
                Err(Failure::Damaged(source)) => {
                    return Err(Error::Decompress { kind, source });
                }
            },
            Compression::Unknown(compression) => {
                let number = payload.number;
                return Err(Error::UnknownCompression { number, kind, compression });
            }
        };
        if !counted_wrong && plain.len() as u64 != plain_size {
            return Err(wrong_size);
        }
        self.budget -= plain.len() as u64;
        Ok(plain)
    }
}

impl Payload {
    fn verify(&self, found: Checksum) -> Result<()> {
        if found == self.header.checksum {
            return Ok(());
        }
        Err(Error::DamagedPayload { number: self.number, kind: self.header.kind })
    }
}

fn header_at<R: Read + Seek>(source: &mut R, offset: u64) -> Result<[u8; HEADER_LEN]> {
    let mut bytes = [0; HEADER_LEN];
    source.seek(SeekFrom::Start(offset)).map_err(Error::Read)?;
    source.read_exact(&mut bytes).map_err(Error::Read)?;
    Ok(bytes)
}
