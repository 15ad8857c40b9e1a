//! The stone container, version 1: packages, indices and build manifests as
//! files.
//!
//! | want | use |
//! |---|---|
//! | what a package says and lists | [`Package::read`] |
//! | the bytes of its files | [`Package::content`] |
//! | its files in a directory | [`extract()`] |
//! | a new package | [`Builder`] |
//! | an index | [`read_index`], [`write_index`] |
//! | a build manifest | [`read_manifest`], [`write_manifest`], [`ReadableManifest`] |
//! | everything that a file holds, as data | [`describe()`] |
//!
//! Everything that comes out of a file is checked before it is used: the
//! checksum of a payload before it is decoded, counts against the bytes that
//! are there, paths before they become a [`TreePath`](cairn_store::TreePath),
//! and the bytes of each file against their hash before a caller sees them.
//!
//! Format: docs/stone.md.

mod bytes;
mod content;
mod describe;
mod encode;
mod error;
mod extract;
mod extras;
mod frames;
mod header;
mod layout;
pub(crate) mod meta;
mod package;
mod parallel;
mod proved;
mod readable;
mod reader;
mod repository;
mod source;
mod writer;

pub use content::{Blob, BlobReader, Content, ContentOptions};
pub use describe::{Description, EntryDescription, IndexDescription, PayloadDescription, describe};
pub use encode::Encoding;
pub use error::{Error, Result};
pub use extract::{Extracted, Progress, extract};
pub use header::{Compression, FileType, PayloadHeader, PayloadKind};
pub use layout::{Extra, Layout, LayoutContent};
pub use package::{Attribute, IndexRecord, Package, Warning};
pub use proved::{ProvedStone, Stamp};
pub use readable::{ReadableManifest, ReadablePackage};
pub use reader::{MAX_TABLES, Payload, Reader};
pub use repository::{read_index, read_manifest, write_index, write_manifest};
pub use source::Source;
pub use writer::Builder;
