//! What can go wrong in a store, as facts.

use std::io;
use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::hash::{BlobKey, Digest, PackId, PageId, TreeId};
use crate::name::TreePath;
use crate::state::{StateId, Tag};
use crate::tree::InvalidTree;
use crate::workspace::WorkspaceName;

/// Shorthand for what nearly every function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// A file of the store could not be read or written.
    #[error("cannot access {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// There is no store at `path`.
    #[error("{} is not a store", path.display())]
    NotAStore { path: PathBuf },
    /// `path` holds files and no store, so that none is made there.
    #[error("cannot make a store in {}: it is not empty", path.display())]
    NotEmpty { path: PathBuf },
    /// The store was written by another version of Cairn.
    #[error("{} has store format {found:?}; this program knows {known:?}", path.display())]
    UnknownFormat { path: PathBuf, found: String, known: &'static str },
    /// Another process is changing the store.
    #[error("{} is being changed by process {pid} ({command})", store.display())]
    Locked { store: PathBuf, pid: u32, command: String },
    /// Line `line` (the first is 1) of refs/log is damaged.
    #[error("{} is damaged in line {line}: {problem}", path.display())]
    DamagedLog { path: PathBuf, line: usize, problem: &'static str },
    /// There is no refs/log.
    #[error("{} is gone", path.display())]
    MissingLog { path: PathBuf },
    /// The log ends before a record that the index has seen.
    #[error(
        "{} is damaged: it ends at record {found}, but record {expected} was committed",
        path.display()
    )]
    LostRecords { path: PathBuf, found: u64, expected: u64 },
    /// A pack that the index knows is not there.
    #[error("pack {pack} is gone")]
    MissingPack { pack: PackId },
    /// A pack does not have the form of one.
    #[error("pack {} is damaged: {problem}", path.display())]
    DamagedPack { path: PathBuf, problem: &'static str },
    /// Frame `frame` (the first is 0) of a pack fails its check.
    #[error("frame {frame} of pack {pack} is damaged: {problem}")]
    DamagedFrame { pack: PackId, frame: u32, problem: &'static str },
    /// The bytes found for a blob are not those that its digest names.
    #[error("blob {key} is damaged")]
    DamagedBlob { key: BlobKey },
    /// The bytes found for a tree are not those that its id names.
    #[error("tree {id} is damaged")]
    DamagedTree { id: TreeId },
    /// The bytes of a tree have its hash, but not the form of a tree.
    #[error("a tree is malformed")]
    InvalidTree(#[from] InvalidTree),
    /// The bytes found for a page of a tree are not those that its id names.
    #[error("page {id} of a tree is damaged")]
    DamagedPage { id: PageId },
    /// No pack holds the page.
    #[error("page {id} of a tree is not in the store")]
    MissingPage { id: PageId },
    /// No pack holds the blob.
    #[error("blob {key} is not in the store")]
    MissingBlob { key: BlobKey },
    /// No pack holds the tree.
    #[error("tree {id} is not in the store")]
    MissingTree { id: TreeId },
    /// No pack holds the record of a state, from which refs/log could be restored.
    #[error("the record of state {state} is in no pack")]
    MissingRecord { state: StateId },
    /// Another store does not give what it is asked for.
    #[error("cannot read from {name}")]
    Remote { name: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// What another store gives is not what its hashes name, or not all of it.
    #[error("{name} gives damaged data; nothing of it was taken")]
    DamagedSource { name: String, source: Box<Error> },
    /// Two contents have the same key; the store keeps the first.
    #[error("two contents share the key {key}: {stored} is in the store, {offered} was offered")]
    Collision { key: BlobKey, stored: Digest, offered: Digest },
    /// A source of bytes for the store could not be read.
    #[error("cannot read {name}")]
    Source { name: String, source: io::Error },
    /// A source gave other bytes than before or than promised.
    #[error("{name} changed while it was read")]
    SourceChanged { name: String },
    /// An image of containers is damaged, or there is no such image.
    #[error("cannot use the image {}: {problem}", path.display())]
    Image { path: PathBuf, problem: String },
    /// What is made outside of the store could not be written.
    #[error("cannot write {name}")]
    Target { name: String, source: io::Error },
    /// The directory that was to be filled has something in it.
    #[error("{} is not empty", path.display())]
    OccupiedTarget { path: PathBuf },
    /// An archive that was to be taken in is damaged, or has what no tree can have.
    #[error("cannot take in the archive")]
    Archive(#[source] ArchiveError),
    /// Whoever watches the progress wants it to end.
    #[error("it was cancelled")]
    Cancelled,
    /// A directory lies deeper than a tree can hold.
    #[error("{path} is deeper than {} directories", TreePath::MAX_DEPTH)]
    TooDeep { path: TreePath },
    /// The index could not be used.
    #[error("cannot use the index {}", path.display())]
    Index { path: PathBuf, source: rocksdb::Error },
    /// An entry of the index does not have the form of one.
    #[error("the index {} has a malformed entry", path.display())]
    MalformedIndex { path: PathBuf },
    /// Objects do not lie where the index says.
    #[error("the index {} differs from the packs in {entries} entries", path.display())]
    WrongIndex { path: PathBuf, entries: u64 },
    /// There is no such state.
    #[error("there is no state {0}")]
    UnknownState(StateId),
    /// There is no such tag.
    #[error("there is no tag {0}")]
    UnknownTag(Tag),
    /// The state cannot be removed while it is current.
    #[error("state {0} is current")]
    StateIsCurrent(StateId),
    /// The state cannot be removed while a tag keeps it.
    #[error("state {state} is kept by the tag {tag}")]
    StateIsTagged { state: StateId, tag: Tag },
    /// The store has no state yet.
    #[error("the store has no state yet")]
    NoState,
    /// There is no such workspace.
    #[error("there is no workspace {0}")]
    UnknownWorkspace(WorkspaceName),
    /// A workspace of this name exists.
    #[error("there is a workspace {0} already")]
    WorkspaceExists(WorkspaceName),
    /// Another process uses the workspace.
    #[error("the workspace {name} is in use by process {pid}")]
    WorkspaceInUse { name: WorkspaceName, pid: u32 },
    /// The record of a workspace is damaged.
    #[error("{} is damaged: it is not the record of a workspace", path.display())]
    DamagedWorkspace { path: PathBuf },
    /// A change needs a directory where the tree has something else, or nothing.
    #[error("{0} is not a directory of the tree")]
    NotADirectory(TreePath),
    /// There is nothing at this path of the tree.
    #[error("there is no {0} in the tree")]
    NoSuchPath(TreePath),
}

impl Error {
    /// For `map_err` at a system call on `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Whether the index cannot be used for a reason that making it anew would
    /// not mend: the disk is full, or this process may not write.
    pub(crate) fn is_of_the_machine(&self) -> bool {
        let Self::Index { source, .. } = self else { return false };
        // The wrapper gives the errno of a failed system call only as text.
        let text = source.as_ref();
        let missing = text.contains("No such file") || text.contains("Is a directory");
        source.kind() == rocksdb::ErrorKind::IOError && !missing
            || source.kind() == rocksdb::ErrorKind::Busy
    }

    /// Whether the index itself is damaged, which making it anew mends.
    pub(crate) fn is_of_damaged_index(&self) -> bool {
        match self {
            Self::MalformedIndex { .. } => true,
            Self::Index { .. } => !self.is_of_the_machine(),
            _ => false,
        }
    }

    /// Whether there was no room on the disk, or none left of what the user may
    /// have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source),
            // The wrapper gives the errno of a failed system call only as text.
            Self::Index { source, .. } => {
                let text = source.as_ref();
                text.contains("No space left") || text.contains("quota exceeded")
            }
            _ => false,
        }
    }

    /// Whether stored bytes are damaged, in contrast to absent or unreadable.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::DamagedLog { .. }
                | Self::MissingLog { .. }
                | Self::LostRecords { .. }
                | Self::MissingPack { .. }
                | Self::DamagedPack { .. }
                | Self::DamagedFrame { .. }
                | Self::DamagedBlob { .. }
                | Self::DamagedTree { .. }
                | Self::InvalidTree(_)
                | Self::DamagedPage { .. }
                | Self::MissingPage { .. }
                | Self::MissingBlob { .. }
                | Self::MissingTree { .. }
                | Self::MissingRecord { .. }
                | Self::MalformedIndex { .. }
                | Self::WrongIndex { .. }
                | Self::DamagedWorkspace { .. }
                | Self::DamagedSource { .. }
        )
    }
}

/// Whether a system call found no room on the disk, or none left of what the user
/// may have.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
