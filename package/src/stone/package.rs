//! A package as it is read: everything but the bytes of its files.

use std::io::{Read, Seek};

use cairn_store::{BlobKey, Digest};

use super::content::{Content, ContentOptions};
use super::error::Result;
use super::layout::Layout;
use crate::metadata::Metadata;

/// A package as it is read: everything but the bytes of its files, which
/// [`Package::content`] gives.
#[derive(Debug)]
pub struct Package<R> {
    /// What the package says of itself.
    pub metadata: Metadata,
    /// Its entries in the order of the file. No path is there twice, none lies
    /// below an entry that is not a directory, and the key of each regular
    /// file is in the index.
    pub layout: Vec<Layout>,
    /// Where its unique files lie in the content.
    pub index: Vec<IndexRecord>,
    /// Pairs of key and value, reserved by the format.
    pub attributes: Vec<Attribute>,
    /// What was odd and did no harm.
    pub warnings: Vec<Warning>,
    source: R,
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
#[error("odd")]
pub enum Warning {}

impl<R: Read + Seek> Package<R> {
    /// Reads and checks everything but the content, whose stored bytes are
    /// skipped.
    pub fn read(source: R) -> Result<Self> {
        let _ = source;
        unimplemented!()
    }

    /// The bytes of all unique files together, once decompressed.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        self.index.iter().map(|record| record.end).max().unwrap_or(0)
    }

    /// Decompresses and verifies the bytes of all files: the checksum of the
    /// stored bytes first, then each file's XXH3-128, and its BLAKE3 where the
    /// package tells it.
    ///
    /// Costs [`Self::content_size`] bytes of memory or, above the limit in
    /// `options`, of an unlinked temporary file.
    pub fn content(&mut self, options: &ContentOptions<'_>) -> Result<Content> {
        let _ = (options, &mut self.source);
        unimplemented!()
    }
}
