//! What a file and each of its payloads begin with.

/// What a stone file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A package.
    Package,
    /// Reserved for the difference of two packages; nobody writes it.
    Delta,
    /// The index of a repository.
    Index,
    /// A build manifest.
    Manifest,
    /// A number that this version does not know.
    Unknown(u8),
}

/// What a payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// What a package says of itself.
    Meta,
    /// The bytes of all unique files.
    Content,
    /// Paths and what lies there.
    Layout,
    /// Where each unique file lies in the content.
    Index,
    /// Reserved pairs of key and value.
    Attributes,
    /// Cairn's: the BLAKE3 of each unique file.
    Digests,
    /// Cairn's: times, extended attributes, hard links, device numbers.
    Extras,
    /// A number that this version does not know; such payloads are skipped.
    Unknown(u8),
}

/// How the body of a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    Plain,
    /// As Zstandard frames.
    Zstd,
    /// A number that this version does not know; such payloads are skipped.
    Unknown(u8),
}
