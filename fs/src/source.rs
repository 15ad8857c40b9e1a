//! What a mount reads from: a store, or something that fails like one.

use std::sync::Arc;

use cairn_store::{BlobRef, Plain, Reads, Refs, Result, Store, Tree, TreeId};

/// Immutable trees and blobs, and the states that name them.
///
/// A mount calls it from several threads at once. [`Store`] is one; tests wrap
/// it to make it fail.
pub trait Source: Send + Sync + 'static {
    /// The directory `id`; cheap for one that was asked for lately.
    fn tree(&self, id: TreeId) -> Result<Arc<Tree>>;

    /// The directories `old` and `new`, of which entries that both have may be missing.
    fn differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        Ok((self.tree(old)?, self.tree(new)?))
    }

    /// Reads from `offset` on into `buf`; fewer bytes than fit into it mean
    /// that the blob ends there.
    fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// The states, the current one and the tags, as of the last
    /// [`Source::refresh`].
    fn refs(&self) -> Refs;

    /// Looks again at what was committed.
    fn refresh(&self) -> Result<()>;

    /// Whether [`Source::read_ahead`] would read something. Costs nothing.
    fn wants_to_read_ahead(&self) -> bool {
        false
    }

    /// Reads some of what is likely to be asked for next, if it knows of that.
    fn read_ahead(&self) {}

    /// What reading has cost so far, if that is counted.
    fn reads(&self) -> Reads {
        Reads::default()
    }

    /// Its blobs as files for the kernel to read by itself, if it has such.
    fn plain(&self) -> Option<Plain> {
        None
    }
}

impl Source for Store {
    fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        Self::tree(self, id)
    }

    fn differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        Self::differing(self, old, new)
    }

    fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
        Self::read_at(self, blob, offset, buf)
    }

    fn refs(&self) -> Refs {
        Self::refs(self)
    }

    fn refresh(&self) -> Result<()> {
        Self::refresh(self)
    }

    fn wants_to_read_ahead(&self) -> bool {
        Self::wants_to_read_ahead(self)
    }

    fn read_ahead(&self) {
        Self::read_ahead(self);
    }

    fn reads(&self) -> Reads {
        Self::reads(self)
    }

    fn plain(&self) -> Option<Plain> {
        Some(Self::plain(self))
    }
}

/// A source may be shared: by the mounts of one process, or with a test.
impl<S: Source> Source for Arc<S> {
    fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        S::tree(self, id)
    }

    fn differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        S::differing(self, old, new)
    }

    fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
        S::read_at(self, blob, offset, buf)
    }

    fn refs(&self) -> Refs {
        S::refs(self)
    }

    fn refresh(&self) -> Result<()> {
        S::refresh(self)
    }

    fn wants_to_read_ahead(&self) -> bool {
        S::wants_to_read_ahead(self)
    }

    fn read_ahead(&self) {
        S::read_ahead(self);
    }

    fn reads(&self) -> Reads {
        S::reads(self)
    }

    fn plain(&self) -> Option<Plain> {
        S::plain(self)
    }
}
