//! Archives of tar(5), compressed or not.
//!
//! Reading is strict: whatever two readers could see differently is refused, and
//! nothing is written anywhere but into a tree in memory and the store.

mod acl;
mod blocks;
mod builder;
mod compression;
mod error;
mod extended;
mod image;
mod import;
mod read;
mod sparse;
pub(crate) mod write;

pub use builder::{FileId, TreeBuilder};
pub use compression::Compression;
pub use error::{ArchiveError, EntryProblem};
pub use image::Image;
pub use import::{ArchiveOptions, Whiteouts, import_archives};
pub use read::{ArchiveEntry, ArchiveKind, Owners, ReadOptions, read_archive};
