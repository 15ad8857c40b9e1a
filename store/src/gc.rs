//! Collection: what nothing reaches goes, while others read and write.
//!
//! ```text
//! mark ── the writer's lock ──> mark what is new, sweep ──> copy ── lock ──> replace
//! ```
//!
//! Marking and copying take long and need no lock. Under the lock are short steps: what
//! transactions published meanwhile is marked as well, the index forgets what nothing
//! reaches, and packs that hold nothing else go. Later transactions find in the
//! index only what is kept, and take in anew what is not.
//!
//! Then packs of which little is needed are copied and replaced, a few at a time, the
//! smallest first, so that a full disk is emptied step by step. Of such a pack goes on
//! to live exactly what the index says lies in it.
//!
//! Order of each step: new pack durable, index, record of refs/log, old packs removed.
//! Readers with an older view of the index look again when a pack is gone.

mod census;
mod cold;
mod compact;
mod mark;
mod rewrite;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::Arc;

pub use self::census::Amount;
use self::census::{Census, PackCensus};
pub use self::compact::Compacted;
use self::mark::Marks;
pub(crate) use self::mark::{ByMark, Mark};
use crate::error::{Error, Result};
use crate::hash::{PackId, TreeId};
use crate::hold::Holder;
use crate::index::{Batch, Index};
use crate::lock::{Lock, Purpose};
use crate::log::{Change, Refs};
use crate::pack::{ObjectId, Pack};
use crate::plain::Unneeded;
use crate::state::StateId;
use crate::store::{IndexWriter, Inner, Store};

/// How thorough a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Packs of which less than so many percent are needed are rewritten: 0 rewrites
    /// none, 100 each that holds anything unneeded.
    pub rewrite_below: u64,
}

impl Default for GcOptions {
    /// A rewrite then frees at least as much as it copies.
    fn default() -> Self {
        Self { rewrite_below: 50 }
    }
}

/// What a collection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcPhase {
    /// Reading directories; they are counted.
    Mark,
    /// Removing packs; nothing is counted.
    Sweep,
    /// Copying what is needed out of packs; its bytes are counted.
    Rewrite,
}

/// Is told how far a collection has come; called from several threads.
pub trait GcProgress: Sync {
    /// A phase begins, with so much to do if that is known.
    fn begin(&self, phase: GcPhase, total: Option<u64>);
    /// So much more is done of the phase.
    fn advance(&self, count: u64);
}

impl GcProgress for () {
    fn begin(&self, _: GcPhase, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}

/// What a collection did, or would do.
#[derive(Debug, Default)]
pub struct Collected {
    /// States that are kept.
    pub states: u64,
    /// What is reached, and stays.
    pub kept: Amount,
    /// What nothing reached, and is gone.
    pub removed: Amount,
    /// What nothing reached, and stays in packs that are mostly needed.
    pub left: Amount,
    /// Packs that were removed whole.
    pub packs_removed: u64,
    /// Packs that were replaced by what was needed of them.
    pub packs_rewritten: u64,
    /// Bytes of packs that the disk got back.
    pub freed: u64,
    /// Bytes of the packs that there are now.
    pub stored: u64,
    /// Plain files that were removed.
    pub plain: Unneeded,
    /// Packs that were left alone, since they or what refers to them cannot be read.
    pub unreadable: Vec<Error>,
}

impl Store {
    /// Removes what no state, tag, running mount or workspace reaches.
    ///
    /// Waits for a transaction that is at work, and keeps others from beginning only
    /// for short times.
    ///
    /// Costs the directories that are reached, each once, the object tables of all
    /// packs, and copying what is needed of packs that are mostly garbage.
    ///
    /// # Errors
    /// A directory that cannot be read is an error, and then nothing is removed: what
    /// it holds is not known. [`Error::Locked`] when another process collects.
    pub fn gc(&self, options: GcOptions, progress: &dyn GcProgress) -> Result<Collected> {
        let inner = self.inner();
        let _collector = Lock::take_collector(&inner.path)?;
        inner.remove_leftovers()?;
        self.refresh()?;
        let marks = Marks::default();
        mark::mark(inner, &marks, roots(self, &inner.log().refs)?, progress)?;
        let plain = self.sweep_plain(true)?;
        let Swept { mut collected, sparse, records } = self.sweep(&marks, options, progress)?;
        collected.plain = plain;
        rewrite::rewrite(inner, &marks, sparse, &records, progress, &mut collected)?;
        Ok(collected)
    }

    /// What [`Store::gc`] would do if the states `without` were not there; changes
    /// nothing.
    pub fn preview_gc(
        &self,
        options: GcOptions,
        without: &[StateId],
        progress: &dyn GcProgress,
    ) -> Result<Collected> {
        let inner = self.inner();
        self.refresh()?;
        let mut refs = inner.log().refs;
        refs.states.retain(|id, _| !without.contains(id));
        let marks = Marks::default();
        mark_records(&marks, &refs);
        mark::mark(inner, &marks, roots(self, &refs)?, progress)?;
        let mut census = Census::take(inner, &marks)?;
        inner.with_whole_index(|index| census.settle_copies(Some(index)))?;
        let mut collected = Collected::new(&refs, &census);
        for pack in census.packs {
            if pack.is_dead() {
                collected.goes(&pack);
            } else if pack.is_sparse(options.rewrite_below) {
                collected.is_replaced(&pack, pack.live_len());
            }
        }
        collected.plain = self.sweep_plain(false)?;
        collected.unreadable = census.unreadable;
        Ok(collected)
    }

    /// Finds the plain files that no mount shows whose kernel reads such, and removes them
    /// if told to.
    ///
    /// Costs the directories that those mounts show.
    fn sweep_plain(&self, remove: bool) -> Result<Unneeded> {
        let inner = self.inner();
        // Before it is known what is shown: what is expanded later is not looked at.
        if inner.plain_files()?.is_empty() {
            return Ok(Unneeded::default());
        }
        let run = self.path().join("run");
        let mut roots = Vec::new();
        for holder in Holder::list(&run)? {
            roots.extend(holder.plain_trees(&run)?);
        }
        let marks = Marks::default();
        mark::mark(inner, &marks, roots, &())?;
        inner.sweep_plain(|blob| marks.contains(Mark::of(blob)), remove)
    }

    /// Has the index forget what is not marked, and removes the packs that hold
    /// nothing else.
    fn sweep(&self, marks: &Marks, options: GcOptions, progress: &dyn GcProgress) -> Result<Swept> {
        let inner = self.inner();
        let _lock = inner.wait_for_lock(Purpose::Upkeep)?;
        let mut writer = Writer::open(inner)?;
        let refs = inner.log().refs;
        mark_records(marks, &refs);
        mark::mark(inner, marks, roots(self, &refs)?, progress)?;
        progress.begin(GcPhase::Sweep, None);
        let mut census = Census::take(inner, marks)?;
        let settled = writer.with_whole(|index| census.settle_copies(index))?;
        let mut collected = Collected::new(&refs, &census);
        let (dead, packs): (Vec<_>, Vec<_>) =
            census.packs.into_iter().partition(|pack| pack.is_dead());
        dead.iter().for_each(|pack| collected.goes(pack));
        let dead: Vec<PackId> = dead.into_iter().map(|pack| pack.id).collect();
        let forgotten =
            writer.with_whole(|index| forget(inner, index, &census.garbage, &settled, &dead));
        match forgotten {
            Err(err) if err.is_full() => {
                writer.index = None;
                inner.give_up_index()?;
                inner.remove_packs(&dead)?;
                // Now there is room for it, unless little was removed: then whoever needs
                // one keeps it in memory. Made anew, it knows of garbage again.
                let forgotten = inner.open_writer(&inner.log()).and_then(|index| {
                    writer.index = Some(IndexWriter::new(inner, index));
                    writer.with_whole(|index| forget(inner, index, &census.garbage, &settled, &[]))
                });
                match forgotten {
                    Err(err) if !err.is_full() => return Err(err),
                    _ => {}
                }
            }
            result => {
                result?;
                inner.remove_packs(&dead)?;
            }
        }
        collected.unreadable = census.unreadable;
        let is_sparse = |pack: &PackCensus| pack.is_sparse(options.rewrite_below);
        let sparse = packs.into_iter().filter(is_sparse).collect();
        Ok(Swept { collected, sparse, records: census.records })
    }
}

struct Swept {
    collected: Collected,
    sparse: Vec<PackCensus>,
    records: HashMap<ObjectId, PackId>,
}

impl Collected {
    /// Before anything is removed.
    fn new(refs: &Refs, census: &Census) -> Self {
        Self {
            states: refs.states.len() as u64,
            kept: census.packs.iter().map(|pack| pack.live).sum(),
            left: census.packs.iter().map(|pack| pack.dead).sum(),
            stored: census.packs.iter().map(|pack| pack.len).sum(),
            ..Self::default()
        }
    }

    fn goes(&mut self, pack: &PackCensus) {
        self.packs_removed += 1;
        self.frees(pack, 0);
    }

    fn is_replaced(&mut self, pack: &PackCensus, new_len: u64) {
        self.packs_rewritten += 1;
        self.frees(pack, new_len);
    }

    /// By one of `new_len` bytes. It may be longer than they were, since what is needed of
    /// them is compressed anew.
    fn are_replaced(&mut self, packs: &[PackCensus], new_len: u64) {
        let len: u64 = packs.iter().map(|pack| pack.len).sum();
        self.packs_rewritten += packs.len() as u64;
        packs.iter().for_each(|pack| self.left.move_to(&mut self.removed, pack.dead));
        self.freed = (self.freed + len).saturating_sub(new_len);
        self.stored = self.stored - len + new_len;
    }

    fn frees(&mut self, pack: &PackCensus, new_len: u64) {
        self.left.move_to(&mut self.removed, pack.dead);
        let freed = pack.len.saturating_sub(new_len);
        self.freed += freed;
        self.stored -= freed;
    }
}

/// Everything that must be kept, with all below it.
pub(crate) fn roots(store: &Store, refs: &Refs) -> Result<Vec<TreeId>> {
    let mut roots: Vec<TreeId> =
        refs.states.values().flat_map(|state| [state.tree, state.packages]).collect();
    for (_, record) in store.workspaces()? {
        roots.extend(record.trees());
    }
    let run = store.path().join("run");
    for holder in Holder::list(&run)? {
        roots.extend(holder.trees(&run)?);
    }
    Ok(roots)
}

/// The records of states in packs are kept as long as the states.
fn mark_records(marks: &Marks, refs: &Refs) {
    for state in refs.states.values() {
        marks.insert(state.record().0);
    }
}

/// The index, open for writing while the lock is held; `None` on a full disk.
struct Writer {
    index: Option<IndexWriter>,
}

impl Writer {
    fn open(inner: &Arc<Inner>) -> Result<Self> {
        let log = inner.log();
        // What an interrupted collection left is counted as what it is.
        let opened = inner.open_writer(&log).and_then(|index| {
            inner.or_anew(index, &log, |index| inner.index_packs(index).map(drop))
        });
        let index = match opened {
            Err(err) if err.is_full() => None,
            opened => Some(IndexWriter::new(inner, opened?)),
        };
        Ok(Self { index })
    }

    /// Does something with it, as [`IndexWriter::with`] does.
    fn with_whole<T>(&self, mut work: impl FnMut(Option<&Index>) -> Result<T>) -> Result<T> {
        match &self.index {
            Some(index) => index.with(|index| work(Some(index))),
            None => work(None),
        }
    }
}

/// Has the index forget garbage, name of copies those that are `settled`, and has readers look
/// again when packs are about to go.
fn forget(
    inner: &Inner,
    index: Option<&Index>,
    garbage: &[ObjectId],
    settled: &[(ObjectId, PackId)],
    dead: &[PackId],
) -> Result<()> {
    let Some(index) = index else {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        return Err(Error::io(inner.index_path())(full));
    };
    let mut batch = Batch::default();
    // One that was made anew since may name others, in packs that go.
    let mut elsewhere: HashMap<PackId, HashSet<ObjectId>> = HashMap::new();
    for (object, pack) in settled {
        if index.location_of(*object)?.is_none_or(|at| at.pack != *pack) {
            elsewhere.entry(*pack).or_default().insert(*object);
        }
    }
    for (pack, objects) in elsewhere {
        let all = Pack::open(&inner.pack_path(pack), pack)?.objects()?.into_iter();
        all.filter(|(object, _)| objects.contains(object))
            .for_each(|(object, at)| batch.relocate(object, at));
    }
    for object in garbage {
        if index.location_of(*object)?.is_some() {
            batch.forget(*object);
        }
    }
    dead.iter().for_each(|pack| batch.remove(*pack));
    index.write(&batch)?;
    if dead.is_empty() { Ok(()) } else { inner.note_repack(index) }
}

impl Inner {
    /// Records that packs are about to go, so that nobody trusts an index that does not
    /// know it.
    pub(crate) fn note_repack(&self, index: &Index) -> Result<()> {
        self.append(vec![Change::Repack])?;
        // If this fails, the next opening compares the index with the packs.
        let _ = index.set_generation(self.log().published);
        Ok(())
    }

    /// Removes packs; the caller holds the lock.
    pub(crate) fn remove_packs(&self, ids: &[PackId]) -> Result<()> {
        // Before they go: whoever pulls then asks for none that is gone.
        self.note_packs(ids);
        for id in ids {
            let path = self.pack_path(*id);
            match self.disk.remove(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(path)(err));
                }
                _ => {}
            }
        }
        self.forget_packs();
        // Without a sync: a pack that a power cut brings back is garbage for the next
        // collection.
        Ok(())
    }

    /// Where packs grow that are to replace others.
    fn rewrite_directory(&self) -> std::path::PathBuf {
        self.path.join("packs/gc")
    }

    /// Removes what an interrupted collection left.
    fn remove_leftovers(&self) -> Result<()> {
        let directory = self.rewrite_directory();
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::io(&directory))?,
        };
        for entry in entries {
            let path = entry.map_err(Error::io(&directory))?.path();
            self.disk.remove(&path).map_err(Error::io(&path))?;
        }
        Ok(())
    }
}
