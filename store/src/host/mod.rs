//! Files of this machine, read to be taken into a store.
//!
//! [`scan()`] walks a directory in parallel and reads everything but the bytes
//! of regular files; [`Scan::take_in`] has a transaction read those, each once;
//! [`Scan::put`] makes a tree of it all. Whoever needs something else than the
//! tree as it is, such as the upper layer of a workspace, goes through
//! [`Scan::directories`] itself.
//!
//! Everything is reached by descriptors of directories and never through a
//! symbolic link, so that nobody who changes the tree meanwhile leads the
//! reader out of it.

mod directory;
mod file;
mod known;
mod put;
mod scan;
mod status;

pub use directory::HostDirectory;
pub use known::Known;
pub use put::Unread;
pub(crate) use scan::full_path;
pub use scan::{
    Scan, ScanOptions, ScanProgress, ScannedDirectory, ScannedEntry, ScannedLeaf, scan, scan_opened,
};
pub use status::{Kind, Status};
