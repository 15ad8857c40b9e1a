//! How much room states take, alone and together.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::io;

use crate::diff::pairs;
use crate::error::{Error, Result};
use crate::gc::Amount;
use crate::hash::TreeId;
use crate::pack::{ObjectId, Pack};
use crate::state::StateId;
use crate::store::Store;
use crate::tree::Entry;

/// What a state needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateUsage {
    /// Its contents and directories, each once; bytes are those of contents.
    pub all: Amount,
    /// Those of them that no other state needs.
    pub exclusive: Amount,
}

/// What states need, and what the store has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each state by itself.
    pub states: Vec<(StateId, StateUsage)>,
    /// Everything that any state needs, each once; bytes are those of contents.
    pub unique: Amount,
    /// Plain bytes of everything in packs, directories and garbage included.
    pub packed: u64,
    /// Bytes of the packs.
    pub stored: u64,
}

/// What is known of an object while one state after the other is looked at.
struct Known {
    size: u64,
    /// In how many places the state has it that is looked at.
    places: u64,
    /// The number of the state with which it came last.
    since: usize,
    /// Whether more than one state has it.
    is_shared: bool,
}

/// What becomes of something from one state to the next.
#[derive(Clone, Copy)]
enum Turn {
    Comes,
    Goes,
}

/// The states up to one of them, by number.
struct Sweep<'a> {
    store: &'a Store,
    number: usize,
    known: HashMap<ObjectId, Known>,
    /// What the state of that number has.
    all: Amount,
}

impl Store {
    /// Tells what the states need.
    ///
    /// Costs the oldest state, what differs between each state and the next one, and the
    /// frame tables of all packs.
    pub fn usage(&self) -> Result<Usage> {
        let refs = self.refs();
        let mut usage = Usage::default();
        let mut sweep =
            Sweep { store: self, number: 0, known: HashMap::new(), all: Amount::default() };
        let mut before: Option<[TreeId; 2]> = None;
        for (number, state) in refs.states.values().enumerate() {
            sweep.number = number;
            let roots = [state.tree, state.packages];
            match before.replace(roots) {
                None => roots.iter().try_for_each(|root| sweep.whole(*root, Turn::Comes))?,
                Some(before) => {
                    before.iter().zip(roots).try_for_each(|(old, new)| sweep.changes(*old, new))?;
                }
            }
            usage.states.push((state.id, StateUsage { all: sweep.all, ..StateUsage::default() }));
        }
        for known in sweep.known.values() {
            usage.unique.add(known.size);
            let outlasted = known.places > 0 && known.since < sweep.number;
            if !known.is_shared && !outlasted {
                usage.states[known.since].1.exclusive.add(known.size);
            }
        }
        let inner = self.inner();
        for id in inner.list_packs()? {
            let pack = match Pack::open(&inner.pack_path(id), id) {
                // It went meanwhile.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    continue;
                }
                // What is damaged is told by others.
                Err(err) if err.is_damage() => continue,
                opened => opened?,
            };
            usage.stored += pack.len();
            usage.packed += pack.plain_len();
        }
        Ok(usage)
    }
}

impl Sweep<'_> {
    /// A directory has another tree than in the state before.
    fn changes(&mut self, old: TreeId, new: TreeId) -> Result<()> {
        if old == new {
            return Ok(());
        }
        // First what comes: what only moves has then been there all the time.
        self.add(ObjectId::Tree(new), 0);
        self.take(ObjectId::Tree(old));
        let (old, new) = self.store.differing(old, new)?;
        for (_, old, new) in pairs(&old, &new) {
            match (old, new) {
                (Some(Entry::Directory(old)), Some(Entry::Directory(new))) => {
                    self.changes(old.id, new.id)?;
                }
                (old, new) if old == new => {}
                (old, new) => {
                    new.map_or(Ok(()), |entry| self.entry(entry, Turn::Comes))?;
                    old.map_or(Ok(()), |entry| self.entry(entry, Turn::Goes))?;
                }
            }
        }
        Ok(())
    }

    /// A directory comes or goes with all below it.
    fn whole(&mut self, id: TreeId, turn: Turn) -> Result<()> {
        self.note(ObjectId::Tree(id), 0, turn);
        let tree = self.store.tree(id)?;
        tree.entries().iter().try_for_each(|(_, entry)| self.entry(entry, turn))
    }

    fn entry(&mut self, entry: &Entry, turn: Turn) -> Result<()> {
        match entry {
            Entry::Directory(subtree) => self.whole(subtree.id, turn)?,
            Entry::Leaf(leaf) => {
                if let Some(blob) = leaf.blob() {
                    self.note(ObjectId::Blob(blob.key, blob.digest), blob.size, turn);
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, object: ObjectId, size: u64, turn: Turn) {
        match turn {
            Turn::Comes => self.add(object, size),
            Turn::Goes => self.take(object),
        }
    }

    fn add(&mut self, object: ObjectId, size: u64) {
        let number = self.number;
        match self.known.entry(object) {
            Vacant(place) => {
                place.insert(Known { size, places: 1, since: number, is_shared: false });
                self.all.add(size);
            }
            Occupied(mut known) => {
                let known = known.get_mut();
                if known.places == 0 {
                    // It went before this state, so that an earlier one has it as well.
                    (known.since, known.is_shared) = (number, true);
                    self.all.add(size);
                }
                known.places += 1;
            }
        }
    }

    fn take(&mut self, object: ObjectId) {
        let Some(known) = self.known.get_mut(&object) else { return };
        known.places = known.places.saturating_sub(1);
        if known.places == 0 {
            self.all.take(known.size);
            known.is_shared |= known.since + 1 < self.number;
        }
    }
}
