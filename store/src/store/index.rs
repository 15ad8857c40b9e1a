//! The index of a store: opened when it is needed, and healed when it lags behind the
//! packs or is damaged.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::{Inner, Store};
use crate::error::{Error, Result};
use crate::hash::PackId;
use crate::index::{Batch, Index};
use crate::lock::{Lock, Purpose};
use crate::log::Log;
use crate::pack::Pack;

impl Store {
    /// Makes the whole index anew from the packs alone.
    ///
    /// Packs that cannot be read are left out and returned with the reason.
    pub fn rebuild_index(&self) -> Result<Vec<Error>> {
        let _lock = self.inner.lock()?;
        self.inner.set_index(None);
        let (_, damaged) = self.inner.rebuild(&self.inner.log())?;
        Ok(damaged)
    }
}

impl Inner {
    fn index_slot(&self) -> MutexGuard<'_, Option<Arc<Index>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_index(&self, index: Option<Arc<Index>>) {
        *self.index_slot() = index;
    }

    /// Has the next look-up see the index as it is then.
    pub(crate) fn drop_view(&self) {
        let mut slot = self.index_slot();
        if slot.as_ref().is_some_and(|index| !index.is_writable()) {
            *slot = None;
        }
    }

    /// The index, opened if it is not yet.
    pub(crate) fn index(&self) -> Result<Arc<Index>> {
        let mut slot = self.index_slot();
        if let Some(index) = &*slot {
            return Ok(index.clone());
        }
        let index = Arc::new(self.open_view()?);
        *slot = Some(index.clone());
        Ok(index)
    }

    /// Opens a view of the index; one that lags or is damaged is healed first,
    /// unless a writer is at work, who has done so itself.
    fn open_view(&self) -> Result<Index> {
        let path = self.index_path();
        let lags = match Index::open_view(&path).and_then(|index| Ok((index.generation()?, index)))
        {
            Ok((generation, index)) if generation == self.log().published => return Ok(index),
            Ok((generation, index)) => {
                // What this store shows of the log may be older than the index:
                // it is as of the last refresh.
                let log = Log::read(&self.log_path())?;
                self.check_generation(&log, generation)?;
                if generation == log.published {
                    return Ok(index);
                }
                Some(index)
            }
            Err(_) => None,
        };
        let lock = Lock::take(&self.path, Purpose::Upkeep);
        let log = Log::read(&self.log_path())?;
        if lock.is_err() {
            // Another process commits just now, or this one may not write. An index that has
            // seen nothing is being made anew, and does not know yet what there is.
            return match lags.map_or_else(|| Index::open_view(&path), Ok) {
                Ok(index) if index.generation()? > 0 => Ok(index),
                _ => self.index_in_memory(&log),
            };
        }
        let healed = self.open_writer(&log).and_then(|writer| {
            drop(writer);
            Index::open_view(&path)
        });
        match healed {
            Err(err) if err.is_full() => self.index_in_memory(&log),
            healed => healed,
        }
    }

    /// What the index should say, for this process alone: on a full disk, one that cannot
    /// be written, or while another process makes it anew.
    ///
    /// Costs the object tables of all packs, in time and memory.
    fn index_in_memory(&self, log: &Log) -> Result<Index> {
        let index = Index::in_memory(&self.index_path())?;
        self.index_packs(&index)?;
        index.set_generation(log.published)?;
        Ok(index)
    }

    /// Removes the index, which can be made anew, for the sake of its room; the caller
    /// holds the lock.
    pub(crate) fn give_up_index(&self) -> Result<()> {
        self.set_index(None);
        self.remove_index()?;
        // Before anything else changes: an index that came back would be believed.
        self.disk.sync_directory(&self.path).map_err(Error::io(&self.path))
    }

    fn remove_index(&self) -> Result<()> {
        remove_all(&self.index_path())
    }

    /// Removes what was downloaded and noted, which can be had again, for the sake of its
    /// room.
    pub(super) fn give_up_cache(&self) -> Result<()> {
        remove_all(&self.path.join("cache"))
    }

    fn check_generation(&self, log: &Log, generation: u64) -> Result<()> {
        if generation > log.published {
            let (path, found) = (self.log_path(), log.published);
            return Err(Error::LostRecords { path, found, expected: generation });
        }
        Ok(())
    }

    /// Makes the index anew that `damaged` is a view of: on the disk, or for this process
    /// alone where [`Self::open_view`] does so.
    fn replace_view(&self, damaged: &Arc<Index>) -> Result<()> {
        let mut slot = self.index_slot();
        if slot.as_ref().is_some_and(|now| !Arc::ptr_eq(now, damaged)) {
            return Ok(());
        }
        *slot = None;
        let lock = Lock::take(&self.path, Purpose::Upkeep);
        let log = Log::read(&self.log_path())?;
        let made = match &lock {
            Ok(_) => self.rebuild(&log).and_then(|(made, _)| {
                drop(made);
                Index::open_view(&self.index_path())
            }),
            Err(_) => self.index_in_memory(&log),
        };
        *slot = Some(Arc::new(match made {
            Err(err) if err.is_full() => self.index_in_memory(&log)?,
            made => made?,
        }));
        Ok(())
    }

    /// Opens the index for writing, healed; the caller holds the lock and has
    /// read `log` since.
    pub(crate) fn open_writer(&self, log: &Log) -> Result<Index> {
        let opened = Index::open_writer(&self.index_path())
            .and_then(|index| Ok((index.generation()?, index)));
        let (generation, index) = match opened {
            Ok(opened) => opened,
            Err(err) if err.is_of_the_machine() => return Err(err),
            Err(_) => return Ok(self.rebuild(log)?.0),
        };
        self.check_generation(log, generation)?;
        if generation < log.published {
            return self.or_anew(index, log, |index| {
                self.reconcile(index)?;
                index.set_generation(log.published)
            });
        }
        Ok(index)
    }

    /// Changes an index that is open for writing, or makes it anew if it proves to be damaged.
    pub(crate) fn or_anew(
        &self,
        index: Index,
        log: &Log,
        change: impl FnOnce(&Index) -> Result<()>,
    ) -> Result<Index> {
        match change(&index) {
            Err(err) if err.is_of_damaged_index() => {
                drop(index);
                Ok(self.rebuild(log)?.0)
            }
            result => result.map(|()| index),
        }
    }

    /// Makes the index anew; the caller holds the lock.
    pub(crate) fn rebuild(&self, log: &Log) -> Result<(Index, Vec<Error>)> {
        self.remove_index()?;
        let index = Index::open_writer(&self.index_path())?;
        let damaged = self.index_packs(&index)?;
        index.set_generation(log.published)?;
        Ok((index, damaged))
    }

    /// Brings the index in line with the packs that are there: adds those that it
    /// does not know, and forgets what lay in those that are gone.
    ///
    /// Costs the new packs, and the whole index if any is gone.
    pub(crate) fn reconcile(&self, index: &Index) -> Result<()> {
        self.index_packs(index)?;
        let there: HashSet<PackId> = self.list_packs()?.into_iter().collect();
        let known = index.packs()?.into_iter();
        let gone: HashSet<PackId> = known.filter(|pack| !there.contains(pack)).collect();
        if gone.is_empty() { Ok(()) } else { index.forget_packs(&gone) }
    }

    /// Does the same to an index that is not open for writing.
    pub(super) fn heal(&self) -> Result<()> {
        let index = self.index()?;
        if index.is_writable() {
            return self.reconcile(&index);
        }
        drop(index);
        let _lock = Lock::take(&self.path, Purpose::Upkeep)?;
        self.set_index(None);
        let log = Log::read(&self.log_path())?;
        self.or_anew(self.open_writer(&log)?, &log, |index| self.reconcile(index)).map(drop)
    }

    /// Adds every pack that the index does not know, and returns why some
    /// could not be read.
    pub(crate) fn index_packs(&self, index: &Index) -> Result<Vec<Error>> {
        let mut damaged = Vec::new();
        for id in self.list_packs()? {
            if index.has_pack(id)? {
                continue;
            }
            let path = self.pack_path(id);
            match Pack::open(&path, id).and_then(|pack| pack.objects()) {
                Ok(objects) => {
                    let len = fs::metadata(&path).map_err(Error::io(&path))?.len();
                    let mut batch = Batch::default();
                    batch.add(id, len, objects);
                    index.write(&batch)?;
                }
                Err(err) => damaged.push(err),
            }
        }
        Ok(damaged)
    }

    /// The ids of all packs that lie in the store, sorted.
    pub(crate) fn list_packs(&self) -> Result<Vec<PackId>> {
        let directory = self.path.join("packs");
        let mut packs: Vec<PackId> = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let name = entry.map_err(Error::io(&directory))?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".pack"));
            packs.extend(id.and_then(|id| id.parse::<PackId>().ok()));
        }
        packs.sort_unstable();
        Ok(packs)
    }

    /// Looks something up; when it is not found, looks again in a new view,
    /// since it may have been committed after the present one was opened. An index that
    /// proves to be damaged is made anew.
    pub(crate) fn with_index<T>(
        &self,
        look_up: impl Fn(&Index) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let index = self.index()?;
        match look_up(&index) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) if self.is_current(&index) => return Ok(None),
            // A view may also meet a table that the writer has removed.
            Ok(None) | Err(_) => {}
        }
        let mut slot = self.index_slot();
        if slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, &index)) {
            *slot = None;
        }
        drop((slot, index));
        let index = self.index()?;
        match look_up(&index) {
            Err(err) if err.is_of_damaged_index() && !index.is_writable() => {
                self.replace_view(&index)?;
                look_up(&*self.index()?)
            }
            result => result,
        }
    }

    /// Does something with the index as it is now; once more with one that was made anew if
    /// it proves to be damaged. What is not found is not looked for again.
    pub(crate) fn with_whole_index<T>(
        &self,
        mut work: impl FnMut(&Index) -> Result<T>,
    ) -> Result<T> {
        let index = self.index()?;
        match work(&index) {
            Err(err) if err.is_of_damaged_index() && !index.is_writable() => {
                self.replace_view(&index)?;
                drop(index);
                work(&*self.index()?)
            }
            result => result,
        }
    }

    /// Looks up something that a tree or a state refers to. If it is not there,
    /// the index may have lost entries: packs that it does not know are read.
    pub(super) fn find<T>(
        &self,
        look_up: impl Fn(&Index) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let found = self.with_index(&look_up)?;
        if found.is_some() {
            return Ok(found);
        }
        // One reads them, and all others wait for what that finds.
        let mut knows_all = self.knows_all_packs.lock().unwrap_or_else(PoisonError::into_inner);
        if !*knows_all {
            let index = self.index()?;
            // What cannot be read is not known: then all of it is made anew.
            let mut packs = self.list_packs()?.into_iter();
            let is_whole = packs.all(|pack| index.has_pack(pack).unwrap_or(false));
            drop(index);
            match if is_whole { Ok(()) } else { self.heal() } {
                Err(Error::Locked { .. }) => {
                    let whole = self.index_in_memory(&Log::read(&self.log_path())?)?;
                    self.set_index(Some(Arc::new(whole)));
                }
                healed => {
                    healed?;
                    *knows_all = true;
                }
            }
        }
        drop(knows_all);
        self.with_index(look_up)
    }

    /// Whether nothing can have been published that `index` does not show.
    fn is_current(&self, index: &Index) -> bool {
        let Ok(log) = Log::read(&self.log_path()) else { return false };
        index.generation().is_ok_and(|generation| generation == log.published)
    }
}

/// Removes a directory with all below it, if it is there.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(err)),
        _ => Ok(()),
    }
}
