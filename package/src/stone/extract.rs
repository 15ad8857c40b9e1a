//! Unpacks a package below a directory.

use std::io::{Read, Seek};
use std::path::Path;

use cairn_store::TreePath;

use super::content::ContentOptions;
use super::error::Result;

/// How far [`extract()`] is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The entry that was just made.
    pub path: &'a TreePath,
    /// How many entries are made.
    pub entries: usize,
    /// How many there are.
    pub entries_total: usize,
    /// How many bytes of files are written.
    pub bytes: u64,
    /// How many there are.
    pub bytes_total: u64,
}

/// What [`extract()`] did and left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries that were made.
    pub entries: usize,
    /// Bytes of files that were written.
    pub bytes: u64,
    /// What this user or this filesystem could not make, with the reason.
    pub skipped: Vec<(TreePath, &'static str)>,
}

/// Unpacks a package into `directory`, which must be empty or not exist.
pub fn extract<R: Read + Seek>(
    from: R,
    directory: &Path,
    options: &ContentOptions<'_>,
    progress: impl FnMut(Progress<'_>),
) -> Result<Extracted> {
    let _ = (from, directory, options, progress);
    unimplemented!()
}
