//! Makes a package.

use std::fs::File;
use std::io::{Seek, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_store::BlobRef;

use super::error::Result;
use super::layout::Layout;
use super::package::Attribute;
use crate::metadata::Metadata;

/// How the payloads of a file are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As the tools of AerynOS do: one frame a payload, zstd level 18, the
    /// largest window, the size announced. Small, slow, one core.
    Canonical,
    /// The content in frames of their own that decompress in parallel.
    Fast {
        /// Of zstd: 1 to 22.
        level: i32,
        /// How many threads compress; the output does not depend on it.
        threads: NonZeroUsize,
    },
    /// Without compression.
    Plain,
}

/// Where the bytes of a file come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Memory.
    Bytes(Arc<[u8]>),
    /// A whole file.
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

/// Makes a package.
#[derive(Debug)]
pub struct Builder {
    /// What the package says of itself.
    pub metadata: Metadata,
    /// Its entries, which are written in this order. `tag` is written as it is.
    pub layout: Vec<Layout>,
    /// Pairs of key and value, reserved by the format.
    pub attributes: Vec<Attribute>,
}

impl Builder {
    /// Begins a package without entries.
    #[must_use]
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata, layout: Vec::new(), attributes: Vec::new() }
    }

    /// Reads and hashes the bytes of a file, and keeps `source` until
    /// [`Self::write`] unless it has the same bytes already.
    ///
    /// The key of what is returned goes into
    /// [`LayoutContent::Regular`](super::LayoutContent::Regular).
    pub fn add_source(&mut self, source: Source) -> Result<BlobRef> {
        let _ = source;
        unimplemented!()
    }

    /// Like [`Self::add_source`] for bytes that the caller has hashed.
    pub fn add_hashed(&mut self, blob: BlobRef, source: Source) -> Result<()> {
        let _ = (blob, source);
        unimplemented!()
    }

    /// Writes the package from the position of `to` on, and leaves the
    /// position at its end.
    pub fn write<W: Write + Seek>(&self, encoding: Encoding, to: W) -> Result<()> {
        let _ = (encoding, to);
        unimplemented!()
    }
}
