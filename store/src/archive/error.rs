//! Why an archive cannot be taken in.

use std::io;

use crate::name::InvalidPath;

/// Why an archive cannot be taken in.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum ArchiveError {
    /// The bytes are damaged, too many, or not those of a tar archive.
    #[error("cannot unpack the archive")]
    Unpack(#[source] io::Error),
    /// An entry cannot be taken over.
    #[error("\"{}\"", entry.escape_ascii())]
    Entry { entry: Vec<u8>, source: EntryProblem },
}

/// Why an entry of an archive cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum EntryProblem {
    /// Its name is empty.
    #[error("it has no name")]
    Nameless,
    /// Its name leads out of the root or is too long.
    #[error("its name cannot be a path below the root")]
    Name(#[source] InvalidPath),
    /// Its name begins with a slash.
    #[error("its name is absolute")]
    Absolute,
    /// The archive has two entries of that name.
    #[error("the archive has it twice")]
    Twice,
    /// What the archive says of it is no number, or none that this can be.
    #[error("{0} is not a number that it can be")]
    Number(&'static str),
    /// The archive has a kind of entry on which readers disagree.
    #[error("entries of type {:?} cannot be taken over", char::from(*.0))]
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
    /// A hard link to something that is not a file before it.
    #[error("\"{}\" is not a file before it in the archive", .0.escape_ascii())]
    LinkTarget(Vec<u8>),
    /// An extended header that is damaged, too long, or says what cannot be
    /// kept.
    #[error("its extended header is unusable: {0}")]
    Extended(&'static str),
    /// What the archive says of where in a sparse file its bytes belong is damaged, too long, or
    /// in a form that is not known.
    #[error("its map of a sparse file cannot be used: {0}")]
    Sparse(&'static str),
    /// There is no number to a name of a user or group in its access control list.
    #[error(
        "its ACL names \"{}\", and the archive does not tell the number: make it with --numeric-owner",
        .0.escape_ascii()
    )]
    AclName(Vec<u8>),
    /// It lies below something that is not a directory.
    #[error("\"{}\" above it is not a directory", .0.escape_ascii())]
    NotBelowDirectory(Vec<u8>),
    /// Something that is not a directory, with entries below it.
    #[error("it is not a directory, but other entries lie below it")]
    NotADirectory,
    /// There are more entries than any system has.
    #[error("it is one entry more than the {0} that an archive may have")]
    TooMany(usize),
}
