//! A state in preparation: it commits, or nothing happened.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use crate::edit::{TreeReader, TreeWriter};
use crate::error::{Error, Result};
use crate::hash::{BlobRef, PackId, TreeId};
use crate::index::Batch;
use crate::ingest::{Claims, Ingest, IngestProgress, Source};
use crate::lock::{Lock, Purpose};
use crate::log::Change;
use crate::pack::{Density, FinishedPack, ObjectId, PACK_LEN, PackWriter, Packer};
use crate::state::{State, StateId};
use crate::store::{IndexWriter, Store};
use crate::tree::{EncodedTree, Entry, Subtree, Tree};

/// What a new state is to be.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The state that it is made from.
    pub parent: Option<StateId>,
    /// What was asked for, as people said it.
    pub request: String,
    /// The root directory.
    pub tree: TreeId,
    /// The selected packages, as a tree.
    pub packages: TreeId,
}

/// Whether live roots follow a new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It becomes the current one.
    Current,
    /// The current one stays, if there is one.
    Aside,
    /// The current one stays, and if there is none, there stays none: it is not a
    /// state of the system.
    Apart,
}

/// The right to change a store, and the changes so far.
///
/// Dropping it without [`Transaction::commit`] leaves no trace but temporary
/// files, which the next transaction removes.
#[derive(Debug)]
pub struct Transaction {
    store: Store,
    index: IndexWriter,
    claims: Claims,
    trees: HashMap<TreeId, Arc<Tree>>,
    open_pack: Option<PackWriter>,
    packs: Vec<FinishedPack>,
    temporaries: AtomicU64,
    // Released last: fields are dropped in this order.
    _lock: Lock,
}

impl Store {
    /// Begins a transaction.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has one.
    pub fn begin(&self) -> Result<Transaction> {
        self.begin_with(self.inner().lock()?)
    }

    /// Begins a transaction as soon as no other process has one.
    pub(crate) fn begin_when_free(&self) -> Result<Transaction> {
        self.begin_with(self.inner().wait_for_lock(Purpose::Change)?)
    }

    fn begin_with(&self, lock: Lock) -> Result<Transaction> {
        let inner = self.inner();
        let leftovers = inner.path.join("packs/new");
        for entry in fs::read_dir(&leftovers).map_err(Error::io(&leftovers))? {
            let path = entry.map_err(Error::io(&leftovers))?.path();
            inner.disk.remove(&path).map_err(Error::io(&path))?;
        }
        let index = IndexWriter::new(inner, inner.open_writer(&inner.log())?);
        Ok(Transaction {
            store: self.clone(),
            index,
            claims: Mutex::default(),
            trees: HashMap::new(),
            open_pack: None,
            packs: Vec::new(),
            temporaries: AtomicU64::new(0),
            _lock: lock,
        })
    }
}

impl Transaction {
    /// The store that is changed, as it was before.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes in contents, and returns their names in the same order.
    ///
    /// Contents that the store has are compared by digest and not kept again.
    ///
    /// # Errors
    /// [`Error::Collision`] when two contents share a key,
    /// [`Error::SourceChanged`] when a source does not have the promised size.
    /// After an error the transaction can only be dropped.
    pub fn ingest<S: Source>(
        &mut self,
        sources: &[S],
        progress: &dyn IngestProgress,
    ) -> Result<Vec<BlobRef>> {
        let inner = self.store.inner().clone();
        let ingest = Ingest {
            disk: &*inner.disk,
            index: &self.index,
            claims: &self.claims,
            temporary: &|| temporary(&self.store, &self.temporaries),
            progress,
        };
        let (open_pack, packs) = (&mut self.open_pack, &mut self.packs);
        let next_path = || temporary(&self.store, &self.temporaries);
        let (blobs, own_packs) = ingest.run(sources, |frames, placed| {
            if frames.is_empty() {
                return Ok(());
            }
            let pack = match open_pack {
                Some(pack) => pack,
                None => {
                    let density = Density::Ordinary;
                    open_pack.insert(PackWriter::create(&*inner.disk, &next_path(), density)?)
                }
            };
            let first = pack.frame_count();
            for frame in frames {
                pack.push_frame(frame)?;
            }
            for (frame, offset, blob) in placed {
                let id = ObjectId::Blob(blob.key, blob.digest);
                pack.place(id, first + frame, *offset, blob.size);
            }
            if pack.len() >= PACK_LEN {
                packs.extend(open_pack.take().map(PackWriter::finish).transpose()?);
            }
            Ok(())
        })?;
        self.packs.extend(own_packs);
        Ok(blobs)
    }

    /// Bytes of the packs that this transaction has written so far, so compressed
    /// contents that are new to the store.
    #[must_use]
    pub fn packed_len(&self) -> u64 {
        let finished: u64 = self.packs.iter().map(|pack| pack.len).sum();
        finished + self.open_pack.as_ref().map_or(0, PackWriter::len)
    }

    /// Adds a directory, whose subdirectories were added before.
    pub fn put_tree(&mut self, tree: Tree) -> Result<TreeId> {
        let encoded = tree.encode();
        if !self.trees.contains_key(&encoded.id) && !self.has_whole(&tree, &encoded)? {
            self.trees.insert(encoded.id, Arc::new(tree));
        }
        Ok(encoded.id)
    }

    /// Whether the store has a directory with all below it.
    ///
    /// An index that was made anew also knows garbage, and gc may have taken some of
    /// what lies below that: then it was added again before this.
    fn has_whole(&self, tree: &Tree, encoded: &EncodedTree) -> Result<bool> {
        let mut below = tree.entries().iter().filter_map(|(_, entry)| entry.as_directory());
        if below.any(|subtree| self.trees.contains_key(&subtree.id)) {
            return Ok(false);
        }
        for (page, _) in &encoded.pages {
            if self.index.with(|index| index.page(*page))?.is_none() {
                return Ok(false);
            }
        }
        Ok(self.index.with(|index| index.tree(encoded.id))?.is_some())
    }

    /// Like [`Self::put_tree`], as an entry for the directory above.
    pub fn put_subtree(&mut self, tree: Tree) -> Result<Entry> {
        let summary = tree.summary();
        Ok(Entry::Directory(Subtree { id: self.put_tree(tree)?, summary }))
    }

    pub(crate) fn index(&self) -> &IndexWriter {
        &self.index
    }

    /// Adds a pack that was written below packs/new.
    pub(crate) fn add_pack(&mut self, pack: FinishedPack) {
        self.packs.push(pack);
    }

    /// Whether the store has a blob, or this has taken it in.
    pub(crate) fn has_blob(&self, blob: &BlobRef) -> Result<bool> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.get(&blob.key) == Some(&blob.digest) {
            return Ok(true);
        }
        drop(claims);
        let found = self.index.with(|index| index.blob(blob.key))?;
        Ok(found.is_some_and(|(digest, at)| (digest, at.len) == (blob.digest, blob.size)))
    }

    /// Puts what was taken in, with all trees that were added, in the place of damaged
    /// packs, which are kept in STORE/quarantine. No state is published.
    pub(crate) fn replace(mut self, damaged: &[PackId]) -> Result<()> {
        let inner = self.store.inner().clone();
        if !self.trees.is_empty() {
            let mut packer = self.packer()?;
            let mut ids: Vec<TreeId> = self.trees.keys().copied().collect();
            ids.sort_unstable();
            self.pack_trees(&mut packer, ids)?;
            self.open_pack = Some(packer.into_pack()?);
        }
        let mut packs = std::mem::take(&mut self.packs);
        packs.extend(self.open_pack.take().map(PackWriter::finish).transpose()?);
        if packs.is_empty() && damaged.is_empty() {
            return Ok(());
        }
        self.quarantine(damaged)?;
        // One that is made of the same objects has the name of the damaged one.
        let new: HashSet<PackId> = packs.iter().map(|pack| pack.id).collect();
        let removed: Vec<PackId> = damaged.iter().copied().filter(|id| !new.contains(id)).collect();
        self.make_durable(&mut packs)?;
        let mut batch = Batch::default();
        for pack in packs {
            batch.add(pack.id, pack.len, pack.objects);
        }
        removed.iter().for_each(|id| batch.remove(*id));
        let index = self.index.get();
        index.write(&batch)?;
        inner.note_repack(&index)?;
        inner.remove_packs(&removed)?;
        inner.forget_all();
        // One that a power cut brought back would be found damaged again.
        let directory = inner.path.join("packs");
        inner.disk.sync_directory(&directory).map_err(Error::io(&directory))
    }

    /// Gives packs a second name in STORE/quarantine.
    fn quarantine(&self, packs: &[PackId]) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let inner = self.store.inner();
        let (disk, directory) = (&inner.disk, inner.path.join("quarantine"));
        disk.create_directory(&directory).map_err(Error::io(&directory))?;
        for id in packs {
            for number in 0.. {
                let name = if number == 0 { id.to_string() } else { format!("{id}-{number}") };
                let path = directory.join(format!("{name}.pack"));
                match disk.link(&inner.pack_path(*id), &path) {
                    Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                    result => {
                        result.map_err(Error::io(&path))?;
                        break;
                    }
                }
            }
        }
        disk.sync_directory(&directory).map_err(Error::io(&directory))?;
        disk.sync_directory(&inner.path).map_err(Error::io(&inner.path))
    }

    pub(crate) fn packs(&self) -> &[FinishedPack] {
        &self.packs
    }

    pub(crate) fn open_pack(&mut self) -> Option<&mut PackWriter> {
        self.open_pack.as_mut()
    }

    pub(crate) fn trees(&self) -> &HashMap<TreeId, Arc<Tree>> {
        &self.trees
    }

    /// Keeps a note for an upper floor in the index, or forgets it. Notes may
    /// vanish at any time and are not part of the transaction.
    pub fn set_note(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.index.with(|index| index.set_note(key, value))
    }

    /// Publishes the new state and makes it current.
    ///
    /// When this returns, the state survives a power cut; when it fails, or if
    /// the power fails before, the store is as it was. Three barriers.
    pub fn commit(mut self, draft: Draft) -> Result<State> {
        self.publish(draft, Standing::Current)
    }

    /// Publishes the new state like [`Self::commit`], but the current state stays
    /// current if there is one.
    pub fn commit_aside(mut self, draft: Draft) -> Result<State> {
        self.publish(draft, Standing::Aside)
    }

    /// Publishes a state that is not one of the system, such as the root of a
    /// build: it never becomes current by itself.
    pub fn commit_apart(mut self, draft: Draft) -> Result<State> {
        self.publish(draft, Standing::Apart)
    }

    pub(crate) fn publish(&mut self, draft: Draft, standing: Standing) -> Result<State> {
        let inner = self.store.inner().clone();
        let mut log = inner.log();
        let now = inner.disk.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = State {
            id: StateId(log.refs.newest.0 + 1),
            parent: draft.parent,
            time: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            request: draft.request,
            tree: draft.tree,
            packages: draft.packages,
        };
        self.pack_trees_and(&state)?;

        let mut packs = std::mem::take(&mut self.packs);
        packs.extend(self.open_pack.take().map(PackWriter::finish).transpose()?);
        self.make_durable(&mut packs)?;
        let mut batch = Batch::default();
        for pack in packs {
            batch.add(pack.id, pack.len, pack.objects);
        }
        self.index.with(|index| index.write(&batch))?;

        let mut changes = vec![Change::Publish(state.clone())];
        let becomes_current = match standing {
            Standing::Current => true,
            Standing::Aside => log.refs.current.is_none(),
            Standing::Apart => false,
        };
        if becomes_current {
            changes.push(Change::Current(state.id));
        }
        log.append(&*inner.disk, changes)?;
        // The state is committed: a failure from here on costs the next
        // opening a look at the packs, no more.
        let _ = self.index.get().set_generation(log.published);
        inner.set_log(log);
        Ok(state)
    }

    /// Syncs the packs, gives them their names, and syncs those: two barriers,
    /// however many packs there are.
    fn make_durable(&self, packs: &mut [FinishedPack]) -> Result<()> {
        let inner = self.store.inner();
        let directory = inner.path.join("packs");
        let mut unsynced = packs.iter_mut().filter(|pack| !pack.is_synced);
        match (unsynced.next(), unsynced.next()) {
            (None, _) => {}
            (Some(only), None) => only.sync()?,
            _ => inner.disk.sync_filesystem(&directory).map_err(Error::io(&directory))?,
        }
        for pack in packs.iter() {
            let path = inner.pack_path(pack.id);
            inner.disk.rename(&pack.temporary, &path).map_err(Error::io(&path))?;
        }
        inner.disk.sync_directory(&directory).map_err(Error::io(&directory))?;
        // Before the state is published, so that whoever knows of it finds its packs.
        inner.note_packs(&[]);
        Ok(())
    }

    /// Packs the new trees that the state reaches, each before those below it,
    /// and then the record of the state.
    fn pack_trees_and(&mut self, state: &State) -> Result<()> {
        let mut packer = self.packer()?;
        self.pack_trees(&mut packer, vec![state.packages, state.tree])?;
        let (id, record) = state.record();
        packer.push(id, &record)?;
        self.open_pack = Some(packer.into_pack()?);
        Ok(())
    }

    /// Packs the records of these states, which have been published before.
    pub(crate) fn pack_records(&mut self, states: &[State]) -> Result<()> {
        if states.is_empty() {
            return Ok(());
        }
        let mut packer = self.packer()?;
        for (id, record) in states.iter().map(State::record) {
            packer.push(id, &record)?;
        }
        self.open_pack = Some(packer.into_pack()?);
        Ok(())
    }

    /// Goes on with the pack that is open, or with a new one.
    fn packer(&mut self) -> Result<Packer> {
        Packer::new(match self.open_pack.take() {
            Some(pack) => pack,
            None => self.create_pack(Density::Ordinary)?,
        })
    }

    /// Packs the new trees that `stack` reaches, the last one first, each before those
    /// below it.
    fn pack_trees(&mut self, packer: &mut Packer, mut stack: Vec<TreeId>) -> Result<()> {
        let mut pages = HashSet::new();
        while let Some(id) = stack.pop() {
            let Some(tree) = self.trees.remove(&id) else { continue };
            let encoded = tree.encode();
            packer.push(ObjectId::Tree(id), &encoded.bytes)?;
            for (id, page) in &encoded.pages {
                if pages.insert(*id) && self.index.with(|index| index.page(*id))?.is_none() {
                    packer.push(ObjectId::Page(*id), page)?;
                }
            }
            let below = tree.entries().iter().rev();
            stack.extend(below.filter_map(|(_, entry)| Some(entry.as_directory()?.id)));
        }
        Ok(())
    }

    pub(crate) fn create_pack(&self, density: Density) -> Result<PackWriter> {
        let path = temporary(&self.store, &self.temporaries);
        PackWriter::create(&*self.store.inner().disk, &path, density)
    }
}

impl TreeReader for Transaction {
    fn read_tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        match self.trees.get(&id) {
            Some(tree) => Ok(tree.clone()),
            None => self.store.tree(id),
        }
    }
}

impl TreeWriter for Transaction {
    fn write_tree(&mut self, tree: Tree) -> Result<TreeId> {
        self.put_tree(tree)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let inner = self.store.inner();
        self.open_pack = None;
        if let Ok(leftovers) = fs::read_dir(inner.path.join("packs/new")) {
            for entry in leftovers.flatten() {
                // What stays is removed by the next transaction.
                let _ = inner.disk.remove(&entry.path());
            }
        }
    }
}

fn temporary(store: &Store, count: &AtomicU64) -> PathBuf {
    let number = count.fetch_add(1, Ordering::Relaxed);
    store.path().join("packs/new").join(format!("{number}.pack"))
}
