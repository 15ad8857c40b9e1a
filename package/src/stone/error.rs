//! Why a stone could not be read, written or extracted.

use std::io;
use std::path::PathBuf;

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
}
