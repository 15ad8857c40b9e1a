//! Repair: what is sound is kept, what is lost is taken from elsewhere, and what is
//! damaged is put aside.
//!
//! Under the writer's lock: all packs are read. What is sound in damaged ones is
//! copied into new ones, together with what sources give for the rest, and with records of
//! states as refs/log has them. Order: damaged
//! packs get a second name in STORE/quarantine, new packs durable, index, record of
//! refs/log, the damaged packs' first names removed. A power cut leaves the store as it
//! was, or repaired.

use std::borrow::Cow;
use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};

use crate::edit::TreeReader;
use crate::error::{Error, Result};
use crate::gc::roots;
use crate::hash::{BlobRef, PackId, TreeId};
use crate::index::Batch;
use crate::ingest::Source;
use crate::pack::{Density, FRAME_LEN, ObjectId, Pack, Packer};
use crate::state::{State, StateId};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::tree::Entry;
use crate::verify::{PackScan, Tables, VerifyProgress};

/// Where lost objects may be had.
pub trait RepairSource {
    /// What people call it.
    fn name(&self) -> String;
    /// Adds what it can of what is missing to the transaction, by ingesting contents and
    /// putting trees. What it adds beyond that does no harm.
    ///
    /// # Errors
    /// Are told, and end nothing.
    fn restore(
        &mut self,
        transaction: &mut Transaction,
        missing: &Missing,
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// What states need and the store does not have.
#[derive(Debug, Default)]
pub struct Missing {
    /// Contents and directories; what lies below a directory that is missing is not known.
    pub objects: Vec<ObjectId>,
    /// States that need some of it.
    pub states: Vec<State>,
}

/// What a repair did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Packs that were put aside, with what was wrong.
    pub quarantined: Vec<(PackId, Vec<Error>)>,
    /// Entries of the index that differed from the packs.
    pub corrected: u64,
    /// Sound objects of damaged packs that were copied.
    pub salvaged: u64,
    /// Records of states that were lost, and are made anew from refs/log.
    pub records: u64,
    /// Objects that each source gave, by its name.
    pub restored: BTreeMap<String, u64>,
    /// What is still missing.
    pub missing: Vec<ObjectId>,
    /// Sources that failed, and why.
    pub failures: Vec<(String, Box<dyn std::error::Error + Send + Sync>)>,
}

impl Store {
    /// Restores what is damaged from what is sound and from `sources`, in this order.
    ///
    /// What no source has stays lost, and is told; everything else of the store can be
    /// used. Costs reading all packs, and writing what damaged ones hold.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process changes the store. After an error the store is
    /// as it was.
    pub fn repair(
        &self,
        sources: &mut [&mut dyn RepairSource],
        progress: &dyn VerifyProgress,
    ) -> Result<Repaired> {
        let mut transaction = self.begin()?;
        self.inner().forget_all();
        let mut damaged = Vec::new();
        let mut tables = Tables::default();
        self.scan(progress, |scan| {
            tables.note(&scan);
            if !scan.damage.is_empty() {
                damaged.push(scan);
            }
        })?;
        damaged.sort_by_key(|scan| scan.id);
        let mut repaired = Repaired::default();
        let wrong = tables.wrong_entries(self.inner(), &transaction.index().get())?;
        repaired.corrected = wrong.len() as u64;
        if transaction.index().get().is_damaged() {
            repaired.corrected = repaired.corrected.max(1);
            transaction.index().remake()?;
        } else {
            tables.correct(wrong, &transaction.index().get())?;
            // What lay in packs that are gone is forgotten, so that it is missed.
            self.inner().reconcile(&transaction.index().get())?;
        }
        if !transaction.missing()?.objects.is_empty() {
            repaired.corrected += tables.complete(&transaction.index().get())?;
            self.inner().forget_all();
        }
        let states = self.inner().log().refs.states.into_values();
        let lost: Vec<State> = states.filter(|state| !tables.has(state.record().0)).collect();
        drop(tables);
        transaction.give_up(&mut damaged)?;
        repaired.salvaged = transaction.salvage(&damaged)?;
        transaction.pack_records(&lost)?;
        repaired.records = lost.len() as u64;

        let mut missing = transaction.missing()?;
        loop {
            let mut has_more = false;
            for source in &mut *sources {
                if missing.objects.is_empty() {
                    break;
                }
                let name = source.name();
                if let Err(err) = source.restore(&mut transaction, &missing) {
                    repaired.failures.retain(|(other, _)| *other != name);
                    repaired.failures.push((name.clone(), err));
                }
                let after = transaction.missing()?;
                let still: HashSet<&ObjectId> = after.objects.iter().collect();
                let given = missing.objects.iter().filter(|object| !still.contains(object)).count();
                has_more |= given > 0;
                *repaired.restored.entry(name).or_default() += given as u64;
                missing = after;
            }
            // A directory that was restored may have shown what lies below it.
            if missing.objects.is_empty() || !has_more {
                break;
            }
        }
        let ids: Vec<PackId> = damaged.iter().map(|scan| scan.id).collect();
        transaction.replace(&ids)?;
        // What a source that failed left unfinished is not believed.
        repaired.missing = self.begin()?.missing()?.objects;
        let damage = damaged.into_iter().map(|scan| (scan.id, scan.damage));
        repaired.quarantined = damage.collect();
        Ok(repaired)
    }
}

impl Transaction {
    /// Has the index forget what is lost, or say where else it lies.
    fn give_up(&mut self, damaged: &mut [PackScan]) -> Result<()> {
        let bad: HashSet<PackId> = damaged.iter().map(|scan| scan.id).collect();
        let index = self.index().get();
        let mut lost = HashSet::new();
        for scan in &mut *damaged {
            if scan.sound.is_empty() && scan.lost.is_empty() {
                scan.lost = index.objects_in(scan.id)?;
            }
            for object in &scan.lost {
                if index.location_of(*object)?.is_some_and(|at| bad.contains(&at.pack)) {
                    lost.insert(*object);
                }
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        let mut changes = Batch::default();
        let inner = self.store().inner().clone();
        for id in inner.list_packs()?.into_iter().filter(|id| !bad.contains(id)) {
            for (object, at) in Pack::open(&inner.pack_path(id), id)?.objects()? {
                if lost.remove(&object) {
                    changes.relocate(object, at);
                }
            }
        }
        lost.into_iter().for_each(|object| changes.forget(object));
        index.write(&changes)?;
        inner.forget_all();
        Ok(())
    }

    /// Copies what is sound in damaged packs, and lies nowhere else, into a new one.
    fn salvage(&mut self, damaged: &[PackScan]) -> Result<u64> {
        let inner = self.store().inner().clone();
        let states = inner.log().refs.states;
        let records: HashSet<ObjectId> = states.values().map(|state| state.record().0).collect();
        let mut copied = 0;
        let mut packers: BTreeMap<Density, Packer> = BTreeMap::new();
        for scan in damaged {
            let mut sound = scan.sound.clone();
            sound.sort_by_key(|(_, at)| (at.frame, at.offset));
            let mut open = None;
            for (object, at) in sound {
                let is_needed = match object {
                    ObjectId::State(_) => records.contains(&object),
                    _ => self.index().get().location_of(object)? == Some(at),
                };
                if !is_needed {
                    continue;
                }
                let pack = match &open {
                    Some(pack) => pack,
                    None => open.insert(Pack::open(&inner.pack_path(scan.id), scan.id)?),
                };
                let packer = match packers.entry(pack.density()) {
                    MapEntry::Occupied(packer) => packer.into_mut(),
                    MapEntry::Vacant(new) => {
                        new.insert(Packer::new(self.create_pack(pack.density())?)?)
                    }
                };
                let frames = pack.frames_of(&at)?;
                if frames.len() > 1 {
                    let frames = frames.map(|number| pack.stored_frame(number));
                    let frames = frames.collect::<Result<Vec<_>>>()?;
                    packer.push_frames(&frames, [(object, 0, at.offset, at.len)])?;
                } else {
                    let plain = pack.frame(at.frame)?;
                    let from = at.offset as usize;
                    let to = from + usize::try_from(at.len).unwrap_or(usize::MAX - from);
                    let short = "it is shorter than an object in it";
                    let bytes = plain.get(from..to).ok_or(Error::DamagedFrame {
                        pack: scan.id,
                        frame: at.frame,
                        problem: short,
                    })?;
                    packer.push(object, bytes)?;
                }
                copied += 1;
            }
        }
        for packer in packers.into_values() {
            let finished = packer.into_pack()?.finish()?;
            self.add_pack(finished);
        }
        Ok(copied)
    }

    /// What the states and whatever else is kept need, and neither the store nor this
    /// transaction has.
    fn missing(&self) -> Result<Missing> {
        let refs = self.store().inner().log().refs;
        let mut missing = Missing::default();
        let mut seen = HashSet::new();
        let mut found = HashSet::new();
        let of_states = refs
            .states
            .values()
            .flat_map(|state| [(Some(state.id), state.tree), (Some(state.id), state.packages)]);
        let others = roots(self.store(), &refs)?.into_iter().map(|root| (None, root));
        let mut states: Vec<StateId> = Vec::new();
        for (state, root) in of_states.chain(others) {
            let before = found.len();
            self.find_missing(root, &mut seen, &mut found, &mut missing.objects)?;
            if let Some(id) = state.filter(|_| found.len() > before) {
                states.push(id);
            }
        }
        states.dedup();
        missing.states =
            states.into_iter().filter_map(|id| refs.states.get(&id).cloned()).collect();
        Ok(missing)
    }

    fn find_missing(
        &self,
        root: TreeId,
        seen: &mut HashSet<TreeId>,
        found: &mut HashSet<ObjectId>,
        missing: &mut Vec<ObjectId>,
    ) -> Result<()> {
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let tree = match self.read_tree(id) {
                Err(err) if err.is_damage() => {
                    if found.insert(ObjectId::Tree(id)) {
                        missing.push(ObjectId::Tree(id));
                    }
                    continue;
                }
                tree => tree?,
            };
            for (_, entry) in tree.entries() {
                match entry {
                    Entry::Directory(subtree) => stack.push(subtree.id),
                    Entry::Leaf(leaf) => {
                        let Some(blob) = leaf.blob() else { continue };
                        let object = ObjectId::Blob(blob.key, blob.digest);
                        if !self.has_blob(blob)? && found.insert(object) {
                            missing.push(object);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Another store as a source.
impl RepairSource for Store {
    fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn restore(
        &mut self,
        transaction: &mut Transaction,
        missing: &Missing,
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut blobs = Vec::new();
        let mut first_error = None;
        for object in &missing.objects {
            match *object {
                ObjectId::Blob(key, digest) => {
                    let found = self.find_blob(key)?.filter(|blob| blob.digest == digest);
                    blobs.extend(found.map(|blob| Stored { store: self, blob }));
                }
                ObjectId::Tree(id) => match self.tree(id) {
                    Ok(tree) => drop(transaction.put_tree((*tree).clone())?),
                    Err(Error::MissingTree { .. }) => {}
                    Err(err) => first_error = first_error.or(Some(err)),
                },
                ObjectId::Page(_) | ObjectId::State(_) => {}
            }
        }
        // One at a time: a damaged one must not keep the others away.
        for blob in blobs {
            if blob.is_sound() {
                transaction.ingest(&[blob], &())?;
            }
        }
        first_error.map_or(Ok(()), |err| Err(err.into()))
    }
}

/// A blob of another store.
struct Stored<'a> {
    store: &'a Store,
    blob: BlobRef,
}

impl Stored<'_> {
    /// Whether it can be read and is what its digest says.
    fn is_sound(&self) -> bool {
        let mut hasher = crate::hash::BlobHasher::default();
        let mut reader = StoredReader { of: self, offset: 0 };
        let mut buf = vec![0; FRAME_LEN];
        loop {
            match reader.read(&mut buf) {
                Ok(0) => return hasher.finish() == self.blob,
                Ok(len) => hasher.update(&buf[..len]),
                Err(_) => return false,
            }
        }
    }
}

impl Source for Stored<'_> {
    fn name(&self) -> Cow<'_, str> {
        format!("blob {} of {}", self.blob.key, self.store.path().display()).into()
    }

    fn size(&self) -> u64 {
        self.blob.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(StoredReader { of: self, offset: 0 }))
    }
}

struct StoredReader<'a> {
    of: &'a Stored<'a>,
    offset: u64,
}

impl Read for StoredReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.of.store.read_at(&self.of.blob, self.offset, buf);
        let len = read.map_err(io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}
