//! The index in the hands of whoever has the writer's lock.

use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use super::Inner;
use crate::error::Result;
use crate::index::Index;

/// The index, open for writing while the lock is held. It can prove to be damaged at any time,
/// also when it is written: RocksDB reads its tables in the background as well. Nobody has to
/// fail for that, since the packs tell all that it should say.
#[derive(Debug)]
pub(crate) struct IndexWriter {
    inner: Arc<Inner>,
    index: RwLock<Arc<Index>>,
}

impl IndexWriter {
    /// Readers of this process use it as well from now on.
    pub(crate) fn new(inner: &Arc<Inner>, index: Index) -> Self {
        let index = Arc::new(index);
        inner.set_index(Some(index.clone()));
        Self { inner: inner.clone(), index: RwLock::new(index) }
    }

    /// The index as it is, for one that would have to begin anew with another.
    pub(crate) fn get(&self) -> Arc<Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does something with the index; once more with one that was made anew if it proves to be
    /// damaged. That one knows of all that lies in the packs, garbage as well.
    pub(crate) fn with<T>(&self, mut work: impl FnMut(&Index) -> Result<T>) -> Result<T> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        match work(&index) {
            Err(err) if err.is_of_damaged_index() => {}
            result => return result,
        }
        drop(index);
        let mut slot = self.index.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have done so meanwhile.
        if slot.is_damaged() {
            self.replace(&mut slot)?;
        }
        work(&slot)
    }

    /// Makes the index anew from the packs.
    pub(crate) fn remake(&self) -> Result<()> {
        self.replace(&mut self.index.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, slot: &mut Arc<Index>) -> Result<()> {
        let inner = &self.inner;
        inner.set_index(None);
        let placeholder = Arc::new(Index::in_memory(&inner.index_path())?);
        let damaged = std::mem::replace(slot, placeholder);
        // It is closed before: nothing opens an index twice for changes. A reader has it for
        // one look-up; a second one fails if somebody does not let it go.
        for _ in 0..1000 {
            if Arc::strong_count(&damaged) == 1 {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        drop(damaged);
        *slot = Arc::new(inner.rebuild(&inner.log())?.0);
        inner.set_index(Some(slot.clone()));
        Ok(())
    }
}

impl Drop for IndexWriter {
    /// One that is open for writing would keep other writers out.
    fn drop(&mut self) {
        self.inner.set_index(None);
    }
}
