//! Why a Debian package could not be converted.

use std::io;
use std::path::PathBuf;

use cairn_store::name::InvalidPath;

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
    /// Its name is empty.
    #[error("it has no name")]
    Nameless,
    /// Its name leads out of the root or is too long.
    #[error("its name cannot be a path of a package")]
    Name(#[source] InvalidPath),
    /// Its name begins with a slash.
    #[error("its name is absolute")]
    Absolute,
    /// Its name or its link is not UTF-8, which stones demand.
    #[error("its name or the text of its link is not UTF-8")]
    NotUtf8,
    /// The archive has two entries of that name.
    #[error("the archive has it twice")]
    Twice,
    /// What the archive says of it is no number, or none that this can be.
    #[error("{0} is not a number that it can be")]
    Number(&'static str),
    /// The archive has a kind of entry that a package cannot have.
    #[error("entries of type {:?} are not for packages", char::from(*.0))]
    Type(u8),
    /// An entry that is not a regular file has bytes.
    #[error("it is not a regular file and has {0} bytes")]
    Bytes(u64),
    /// The archive ends before the file does.
    #[error("the archive ends within it")]
    Truncated,
    /// The text of the symbolic link is empty, too long or has a NUL.
    #[error("the text of the link cannot be that of a link")]
    LinkText,
    /// A hard link to something that is not a regular file before it.
    #[error("\"{}\" is not a regular file before it in the archive", .0.escape_ascii())]
    LinkTarget(Vec<u8>),
    /// An extended header that is damaged, too long, or says what cannot be
    /// kept.
    #[error("its extended header is unusable: {0}")]
    Extended(&'static str),
    /// It lies below something that is not a directory.
    #[error("\"{}\" above it is not a directory", .0.escape_ascii())]
    NotBelowDirectory(Vec<u8>),
    /// Another entry, which differs, lies in the same place once /bin, /lib
    /// and so on are part of /usr.
    #[error("\"{}\" differs from it and would lie in the same place", .0.escape_ascii())]
    Collision(Vec<u8>),
    /// There are more entries than any package has.
    #[error("it is one entry more than the {0} that a package may have")]
    TooMany(usize),
}
