//! Why a Debian package could not be converted.

use std::io;
use std::path::PathBuf;

use super::control::InvalidParagraph;
use super::version::InvalidVersion;
use crate::stone;

/// A Debian package that could not be converted, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot convert {}", deb.display())]
pub struct Error {
    /// The package.
    pub deb: PathBuf,
    /// Why.
    #[source]
    pub problem: Problem,
}

/// Why a Debian package could not be converted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Problem {
    /// The package could not be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Something in the output directory could not be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The ar archive around everything is broken at byte `offset`.
    #[error("not a Debian package: {fault} at byte {offset}")]
    Container { offset: u64, fault: &'static str },
    /// The ar archive has another member than one expects there.
    #[error("not a Debian package: member \"{}\" where {expected} belongs", found.escape_ascii())]
    Member { found: Vec<u8>, expected: &'static str },
    /// The `debian-binary` member names a format that this version cannot read.
    #[error("format \"{}\" of Debian packages is unknown", .0.escape_ascii())]
    Format(Vec<u8>),
    /// The bytes of a member are damaged, too many, or not those of a tar
    /// archive.
    #[error("cannot unpack {member}")]
    Unpack { member: String, source: io::Error },
    /// An entry of a member cannot be taken over.
    #[error("{member}: \"{}\"", entry.escape_ascii())]
    Entry { member: String, entry: Vec<u8>, source: EntryProblem },
    /// There is no `control` file.
    #[error("it has no control file")]
    NoControl,
    /// The `control` file is not one paragraph.
    #[error("its control file is damaged")]
    Control(#[source] InvalidParagraph),
    /// The `control` file lacks a field that it must have.
    #[error("its control file has no field {0}")]
    MissingField(&'static str),
    /// A field of the `control` file has a value that it cannot have.
    #[error("its control file has {value:?} as {field}")]
    InvalidField { field: &'static str, value: String },
    /// The version cannot be ordered.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
    /// Two packages of one run would be written to the same stone.
    #[error("{} would be the same stone", .0.display())]
    SameStone(PathBuf),
    /// The stone could not be made.
    #[error("cannot make the stone")]
    Stone(#[from] stone::Error),
}

/// Why an entry of a Debian package cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum EntryProblem {
    /// It cannot be taken over from any archive.
    #[error(transparent)]
    Archive(#[from] cairn_store::archive::EntryProblem),
    /// Its name or its link is not UTF-8, which stones demand.
    #[error("its name or the text of its link is not UTF-8")]
    NotUtf8,
    /// A hard link to something that is not a regular file before it.
    #[error("\"{}\" is not a regular file before it in the archive", .0.escape_ascii())]
    LinkTarget(Vec<u8>),
    /// Another entry, which differs, lies in the same place once /bin, /lib
    /// and so on are part of /usr.
    #[error("\"{}\" differs from it and would lie in the same place", .0.escape_ascii())]
    Collision(Vec<u8>),
}
