//! A package as it is read: everything but the bytes of its files.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use cairn_store::{BlobKey, Digest};

use super::bytes::{Cursor, Problem, records};
use super::content::{Content, ContentOptions};
use super::error::{Error, Result};
use super::header::{FileType, PayloadKind};
use super::layout::{self, Extra, Layout, LayoutContent};
use super::reader::{Payload, Reader};
use super::{content, extras, meta};
use crate::metadata::Metadata;

/// A package as it is read: everything but the bytes of its files, which
/// [`Package::content`] gives.
#[derive(Debug)]
pub struct Package<R> {
    /// What the package says of itself.
    pub metadata: Metadata,
    /// Its entries in the order of the file. No path is there twice, none lies
    /// below an entry that is not a directory, the key of each regular file is
    /// in the index, and hard links are equal in all but their path.
    pub layout: Vec<Layout>,
    /// Where its unique files lie in the content. No key is there twice, and
    /// the files do not overlap.
    pub index: Vec<IndexRecord>,
    /// Pairs of key and value, reserved by the format.
    pub attributes: Vec<Attribute>,
    /// What was odd and did no harm.
    pub warnings: Vec<Warning>,
    reader: Reader<R>,
    content: Option<Payload>,
}

/// Where one unique file lies in the plain content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRecord {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset after its last byte; never below `start`.
    pub end: u64,
    /// XXH3-128 of the bytes.
    pub key: BlobKey,
    /// BLAKE3 of the bytes, where the package has Cairn's payload for it.
    pub digest: Option<Digest>,
}

/// A pair that the format reserves for uses to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Any bytes.
    pub key: Box<[u8]>,
    /// Any bytes.
    pub value: Box<[u8]>,
}

/// Something odd in a file that was read all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Warning {
    /// A payload of an unknown kind was skipped.
    #[error("payload {number} is of an unknown kind ({kind}) and was skipped")]
    UnknownPayload { number: u16, kind: u8 },
    /// There are bytes after the last payload.
    #[error("{0} bytes after the last payload were skipped")]
    TrailingBytes(u64),
    /// A dependency, provider or conflict of an unknown kind was left out.
    #[error("a dependency of an unknown kind ({kind}) was skipped: {text:?}")]
    UnknownDependency { kind: u8, text: String },
    /// The metadata say something twice that can be said once.
    #[error("there is more than one {0}; the first was taken")]
    RepeatedField(&'static str),
    /// No entry has this content.
    #[error("no file has the content {0}")]
    UnusedContent(BlobKey),
}

impl Package<BufReader<File>> {
    /// Opens and reads the package at `path`; see [`Package::read`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::File { path: path.into(), source })?;
        Self::read(BufReader::new(file))
    }
}

impl<R: Read + Seek> Package<R> {
    /// Reads and checks everything but the content, whose stored bytes are
    /// skipped.
    ///
    /// The payloads may be in any order; those of unknown kinds are skipped.
    ///
    /// # Errors
    /// Everything about which readers could disagree, that cannot be
    /// installed, or that is damaged. Each error names the payload, the record
    /// or the path.
    pub fn read(source: R) -> Result<Self> {
        let mut reader = Reader::new(source)?;
        reader.expect(FileType::Package)?;
        let mut warnings = Vec::new();
        for payload in reader.payloads() {
            if let PayloadKind::Unknown(kind) = payload.header.kind {
                warnings.push(Warning::UnknownPayload { number: payload.number, kind });
            }
        }
        if reader.trailing() > 0 {
            warnings.push(Warning::TrailingBytes(reader.trailing()));
        }

        let (count, plain) = table(&mut reader, PayloadKind::Meta)?
            .ok_or(Error::MissingPayload(PayloadKind::Meta))?;
        let metadata = meta::decode(count, &plain, &mut warnings)?;
        let layout = read_layout(&mut reader)?;
        let index = read_index(&mut reader)?;
        let attributes = match table(&mut reader, PayloadKind::Attributes)? {
            Some((count, plain)) => {
                records(PayloadKind::Attributes, count, &plain, Attribute::decode)
                    .collect::<Result<Vec<Attribute>>>()?
            }
            None => Vec::new(),
        };
        let content = reader.find(PayloadKind::Content)?;
        // Nothing covers the headers of payloads: a flipped bit makes one
        // unknown, and an unknown one is skipped.
        if !index.is_empty() {
            let layout = reader.find(PayloadKind::Layout)?;
            layout.ok_or(Error::MissingPayload(PayloadKind::Layout))?;
            content.ok_or(Error::MissingPayload(PayloadKind::Content))?;
        }
        check_uses(&layout, &index, &mut warnings)?;
        let package = Self { metadata, layout, index, attributes, warnings, reader, content };
        package.check_content_size()?;
        Ok(package)
    }

    /// The bytes of all unique files together, once decompressed.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        self.index.iter().map(|record| record.end).max().unwrap_or(0)
    }

    /// The bytes of all files as they are installed: those that several paths share
    /// count for each.
    #[must_use]
    pub fn installed_size(&self) -> u64 {
        let sizes = self.index.iter().map(|record| (record.key, record.end - record.start));
        let sizes: HashMap<BlobKey, u64> = sizes.collect();
        let size = |entry: &Layout| match &entry.content {
            LayoutContent::Regular(key) => sizes.get(key).copied().unwrap_or(0),
            _ => 0,
        };
        self.layout.iter().map(size).fold(0, u64::saturating_add)
    }

    /// Decompresses and verifies the bytes of all files: the checksum of the
    /// stored bytes first, then each file's XXH3-128, and its BLAKE3 where the
    /// package tells it.
    ///
    /// Costs [`Self::content_size`] bytes of memory or, above the limit in
    /// `options`, of an unlinked temporary file; a content in one frame, as
    /// other tools write it, as much memory again (up to 2 GiB) while it is
    /// decompressed.
    ///
    /// # Errors
    /// - [`Error::DamagedPayload`], [`Error::Decompress`],
    ///   [`Error::PlainSize`], [`Error::UnknownCompression`]: no file of the
    ///   package can be had. Decompression stops at the first byte that the
    ///   index does not announce.
    /// - [`Error::DamagedContent`], [`Error::ForgedContent`].
    /// - [`Error::File`]: the temporary file.
    pub fn content(&mut self, options: &ContentOptions<'_>) -> Result<Content> {
        let size = self.content_size();
        match &self.content {
            Some(payload) => content::read(&mut self.reader, payload, &self.index, size, options),
            None => Ok(Content::default()),
        }
    }

    fn check_content_size(&self) -> Result<()> {
        let announced = self.content_size();
        let wrong_size = Error::PlainSize { kind: PayloadKind::Content, announced };
        match &self.content {
            Some(payload) if payload.header.plain_size != announced => Err(wrong_size),
            _ => {
                let cut = self.index.iter().map(|it| u128::from(it.end - it.start)).sum::<u128>();
                match u64::try_from(cut) {
                    Ok(cut) if cut <= announced => Ok(()),
                    cut => Err(Error::OverlappingContent {
                        cut: cut.unwrap_or(u64::MAX),
                        size: announced,
                    }),
                }
            }
        }
    }
}

/// The count of records and the plain bytes of the only payload of this kind.
fn table<R: Read + Seek>(
    reader: &mut Reader<R>,
    kind: PayloadKind,
) -> Result<Option<(u32, Vec<u8>)>> {
    let Some(payload) = reader.find(kind)? else { return Ok(None) };
    Ok(Some((payload.header.records, reader.table(&payload)?)))
}

fn read_layout<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Vec<Layout>> {
    let mut layout = Vec::new();
    if let Some((count, plain)) = table(reader, PayloadKind::Layout)? {
        layout = records(PayloadKind::Layout, count, &plain, layout::Record::decode)
            .map(|record| record?.check())
            .collect::<Result<Vec<Layout>>>()?;
    }
    if let Some((found, plain)) = table(reader, PayloadKind::Extras)? {
        let (kind, expected) = (PayloadKind::Extras, layout.len());
        let extras: Vec<Extra> =
            records(kind, found, &plain, Extra::decode).collect::<Result<_>>()?;
        if extras.len() != expected {
            return Err(Error::RecordCount { kind, expected, found });
        }
        for (entry, extra) in layout.iter_mut().zip(extras) {
            entry.extra = extra;
        }
    }
    layout::check(&layout)?;
    Ok(layout)
}

fn read_index<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Vec<IndexRecord>> {
    let mut index = Vec::new();
    if let Some((count, plain)) = table(reader, PayloadKind::Index)? {
        index = records(PayloadKind::Index, count, &plain, IndexRecord::decode)
            .collect::<Result<Vec<IndexRecord>>>()?;
    }
    if let Some((found, plain)) = table(reader, PayloadKind::Digests)? {
        let (kind, expected) = (PayloadKind::Digests, index.len());
        let digests: Vec<Digest> =
            records(kind, found, &plain, extras::decode_digest).collect::<Result<_>>()?;
        if digests.len() != expected {
            return Err(Error::RecordCount { kind, expected, found });
        }
        for (record, digest) in index.iter_mut().zip(digests) {
            record.digest = Some(digest);
        }
    }
    let mut keys = HashSet::new();
    for &IndexRecord { start, end, key, .. } in &index {
        if start > end {
            return Err(Error::InvalidRange { key, start, end });
        }
        if !keys.insert(key) {
            return Err(Error::RepeatedContent(key));
        }
    }
    Ok(index)
}

/// Looks for the content of each regular file, and for a file of each content.
fn check_uses(layout: &[Layout], index: &[IndexRecord], warnings: &mut Vec<Warning>) -> Result<()> {
    let mut used: HashMap<BlobKey, bool> = index.iter().map(|record| (record.key, false)).collect();
    for entry in layout {
        if let LayoutContent::Regular(key) = entry.content {
            let Some(used) = used.get_mut(&key) else {
                return Err(Error::MissingContent { path: entry.path.clone(), key });
            };
            *used = true;
        }
    }
    let unused = index.iter().filter(|record| !used[&record.key]);
    warnings.extend(unused.map(|record| Warning::UnusedContent(record.key)));
    Ok(())
}

impl IndexRecord {
    pub(super) fn decode(from: &mut Cursor<'_>) -> Result<Self, Problem> {
        let (start, end) = (from.u64()?, from.u64()?);
        Ok(Self { start, end, key: BlobKey::from_bytes(from.array()?), digest: None })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start.to_be_bytes());
        out.extend_from_slice(&self.end.to_be_bytes());
        out.extend_from_slice(self.key.as_bytes());
    }
}

impl Attribute {
    pub(super) fn decode(from: &mut Cursor<'_>) -> Result<Self, Problem> {
        let (key_len, value_len) = (from.u64()?, from.u64()?);
        Ok(Self { key: from.take(key_len)?.into(), value: from.take(value_len)?.into() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.key.len() as u64).to_be_bytes());
        out.extend_from_slice(&(self.value.len() as u64).to_be_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.value);
    }
}
