//! Blobs, packs, trees, states, transactions.
//!
//! Knows files and hashes, nothing about packages. A [`Store`] is read; a
//! [`Transaction`] changes it, by one record of refs/log or not at all.

pub mod archive;
mod cache;
mod diff;
pub mod disk;
mod edit;
mod error;
pub mod export;
mod follow;
mod gc;
pub mod hash;
mod hold;
pub mod host;
mod import;
mod index;
mod ingest;
mod lock;
mod log;
pub mod name;
mod pack;
mod plain;
mod proc;
mod reads;
mod recovery;
mod repair;
mod retention;
mod scratch;
mod staged;
mod state;
mod store;
mod sys;
mod transaction;
pub mod transfer;
pub mod tree;
mod usage;
mod verify;
pub mod workspace;

pub use diff::{Difference, diff, pairs};
pub use edit::{
    BlobReader, Claims, Conflict, Edit, Merged, Shared, Subtracted, TreeReader, TreeWriter, edit,
    merge, recount_links, resolve, subtract,
};
pub use error::{Error, Result};
pub use follow::{Followed, LastLink, follow};
pub use gc::{Amount, Collected, Compacted, GcOptions, GcPhase, GcProgress};
pub use hash::{BlobHasher, BlobKey, BlobRef, Checksum, Digest, PackId, PageId, TreeId};
pub use hold::Holder;
pub use import::{ImportOptions, ImportProgress, Imported, import_directory};
pub use ingest::{BytesSource, FileSource, IngestProgress, Source};
pub use lock::{Writer, writer};
pub use log::Refs;
pub use name::{InvalidName, InvalidPath, Name, TreePath};
pub use pack::{FRAME_LEN, ObjectId};
pub use plain::{Plain, Unneeded};
pub use proc::NoProc;
pub use reads::Reads;
pub use recovery::Recovered;
pub use repair::{Missing, RepairSource, Repaired};
pub use retention::{Day, Keep, Reason};
pub use scratch::Scratch;
pub use staged::Staged;
pub use state::{InvalidTag, State, StateId, Tag};
pub use store::Store;
pub use transaction::{Draft, Standing, Transaction};
pub use tree::{Attributes, Content, Entry, Leaf, Subtree, Summary, Timestamp, Tree, Xattr};
pub use usage::{StateUsage, Usage};
pub use verify::{Damage, Holding, Report, VerifyProgress};
pub use workspace::{InvalidWorkspaceName, Workspace, WorkspaceName};
