//! Why a stone could not be read, written or extracted.

use std::io;
use std::path::PathBuf;

use cairn_store::{BlobKey, InvalidPath, TreePath};

use super::bytes::Problem;
use super::header::{FileType, PayloadKind};

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a stone could not be read, written or extracted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// The stone could not be read.
    #[error("cannot read the stone")]
    Read(#[source] io::Error),
    /// The stone could not be written.
    #[error("cannot write the stone")]
    Write(#[source] io::Error),
    /// Another file could not be read or written.
    #[error("cannot access {}", path.display())]
    File { path: PathBuf, source: io::Error },

    /// It is another file than the one that was verified, or has been changed since.
    #[error("it has been changed since it was verified")]
    Replaced,

    /// It does not begin as stones do.
    #[error("not a stone")]
    NotAStone,
    /// Its layout is that of another version.
    #[error("a stone of version {0}, which this program does not know")]
    UnsupportedVersion(u32),
    /// Its constant bytes differ.
    #[error("the first bytes of the stone are damaged")]
    DamagedPrelude,
    /// It is a stone, but not what was asked for.
    #[error("a stone of type {found} where one of type {expected} is needed")]
    WrongType { expected: FileType, found: FileType },
    /// It ends before payload `found`; the first is 0.
    #[error("the stone announces {announced} payloads, but ends after {found}")]
    MissingPayloads { announced: u16, found: u16 },
    /// The body of payload `number` runs past the end of the file.
    #[error("the stone ends within payload {number} ({kind})")]
    TruncatedPayload { number: u16, kind: PayloadKind },
    /// The stored bytes of payload `number` fail their checksum.
    #[error("payload {number} ({kind}) is damaged: its checksum differs")]
    DamagedPayload { number: u16, kind: PayloadKind },
    /// Payload `number` is needed and stored in an unknown way.
    #[error("payload {number} ({kind}) is compressed in a way ({compression}) unknown here")]
    UnknownCompression { number: u16, kind: PayloadKind, compression: u8 },
    /// A payload that the file needs is not there.
    #[error("the stone has no {0} payload")]
    MissingPayload(PayloadKind),
    /// A payload that may be there once is there twice.
    #[error("the stone has more than one {0} payload")]
    RepeatedPayload(PayloadKind),
    /// The frames of a payload do not decompress.
    #[error("cannot decompress the {kind} payload")]
    Decompress { kind: PayloadKind, source: io::Error },
    /// A payload has not the plain size that its header, or for Content the
    /// index, announces; or cannot have it, so that nothing was decompressed.
    #[error("the {kind} payload has not the {announced} bytes that are announced")]
    PlainSize { kind: PayloadKind, announced: u64 },
    /// The tables of the file together have more plain bytes than any real
    /// file.
    #[error("the {kind} payload is larger than what is left of the {limit} bytes for tables")]
    TooLarge { kind: PayloadKind, limit: u64 },
    /// Record `number` of a payload cannot be decoded; the first is 0.
    #[error("record {number} of the {kind} payload is invalid: {problem}")]
    InvalidRecord { kind: PayloadKind, number: u32, problem: Problem },
    /// The records of a payload do not fill it.
    #[error("the {kind} payload has {bytes} bytes after its last record")]
    BytesAfterRecords { kind: PayloadKind, bytes: usize },
    /// A payload has not one record for each of another one.
    #[error("the {kind} payload has {found} records for {expected} entries")]
    RecordCount { kind: PayloadKind, expected: usize, found: u32 },

    /// A package does not say something that it must.
    #[error("the metadata of {package:?} lack the {field}")]
    MissingField { package: String, field: &'static str },
    /// A package says something that it must not.
    #[error("the metadata of {package:?} have an invalid {field}: {text:?}")]
    InvalidField { package: String, field: &'static str, text: String },
    /// An index or a manifest has two packages of this name.
    #[error("package {0:?} is there twice")]
    RepeatedPackage(String),
    /// A stone cannot hold so many of something.
    #[error("{count} {what} are more than a stone can hold")]
    TooMany { what: &'static str, count: usize },
    /// The text of a manifest is not as it should be.
    #[error("the readable manifest is invalid")]
    InvalidManifest(#[source] serde_json::Error),

    /// The path of an entry is not one, or leads out of the root.
    #[error("an entry has an impossible path")]
    HostilePath(#[source] InvalidPath),
    /// Two entries have one path.
    #[error("{0} is there twice")]
    RepeatedPath(TreePath),
    /// An entry lies below one that is not a directory.
    #[error("{path} lies below {parent}, which is not a directory")]
    BelowNonDirectory { path: TreePath, parent: TreePath },
    /// An entry is not possible, or not expressible.
    #[error("the entry {path} is invalid: {problem}")]
    InvalidEntry { path: TreePath, problem: Problem },
    /// An entry is of a kind that this version does not know.
    #[error("the entry {path} is of an unknown kind ({kind})")]
    UnknownEntry { path: TreePath, kind: u8 },
    /// The content of a regular file is not in the package.
    #[error("the content of {path}, {key}, is not in the package")]
    MissingContent { path: TreePath, key: BlobKey },

    /// The index gives the file with this key an impossible place.
    #[error("the index has the content {key} at an impossible place, {start} to {end}")]
    InvalidRange { key: BlobKey, start: u64, end: u64 },
    /// The index has this key twice.
    #[error("the index has the content {0} twice")]
    RepeatedContent(BlobKey),
    /// The files that the index cuts out of the content overlap.
    #[error("the index cuts {cut} bytes of files out of {size} bytes of content")]
    OverlappingContent { cut: u64, size: u64 },
    /// The bytes of a file have another key.
    #[error("the content {0} is damaged: its bytes have another hash")]
    DamagedContent(BlobKey),
    /// The bytes of a file have this key, but another BLAKE3.
    #[error("the content {0} is not what the package was made of: its BLAKE3 differs")]
    ForgedContent(BlobKey),

    /// Two contents that differ have one key.
    #[error("two different files have the key {0}")]
    Collision(BlobKey),
    /// The content of a file was hashed, and then changed.
    #[error("the content {0} changed while it was packed")]
    ChangedSource(BlobKey),
    /// The directory to extract into has entries.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
}
