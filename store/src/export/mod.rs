//! The way out: trees as directories, archives and images of other programs.

mod directory;
mod layers;
mod oci;
mod parallel;
mod tar;

pub use directory::{DirectoryOptions, export_directory};
pub use oci::{ImageConfig, ImageOptions, export_image};
pub use parallel::{Packing, ParallelWriter};
pub use tar::{ArchiveNames, export_archive};

use crate::name::TreePath;

/// Is told how far an export has come; called from several threads.
pub trait ExportProgress: Sync {
    /// So many more entries, with so many bytes of content, were written.
    fn advance(&self, entries: u64, bytes: u64);
    /// Whether to stop, which makes the export fail with
    /// [`crate::Error::Cancelled`].
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl ExportProgress for () {
    fn advance(&self, _: u64, _: u64) {}
}

/// What an export has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Entries that were written, without the root.
    pub entries: u64,
    /// Bytes of regular files that were written; hard links count once.
    pub bytes: u64,
    /// What the target cannot hold or this user may not make, and why.
    pub left_out: Vec<(TreePath, &'static str)>,
}
