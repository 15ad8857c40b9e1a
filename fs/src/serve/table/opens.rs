//! Which large files the kernel has open, and what it reads them from, on a mount that
//! passes through.
//!
//! The kernel knows a file of this machine by a number, its backing id, under which it
//! keeps that open. All opens of one node that there are at a time must be answered alike,
//! with one backing id or with none: the kernel fails another one with EIO. So an id stays
//! as long as a node may be open that was answered with it; which that is outlives the
//! process in the ledger. Counts of opens may be too high after that, never too low; what
//! is too high ends when the kernel forgets the node, since it forgets none that is open.

use std::collections::{BTreeMap, HashMap};

use cairn_store::BlobRef;

use super::Table;
use crate::serve::ledger::Record;
use crate::serve::node::NodeId;

/// What the kernel reads an open file from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// From this mount: it asks for what it does not have.
    Asked,
    /// From the file of this machine that has this backing id.
    Passed(u32),
}

/// Backing ids that are kept though nothing is open that is read through them: so many
/// files are open in the kernel, and their inodes in memory.
const MAX_UNUSED: usize = if cfg!(test) { 4 } else { 4096 };

#[derive(Clone, Copy, Debug)]
struct Open {
    reading: Reading,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Backing {
    blob: BlobRef,
    /// Nodes that are open and read through it.
    nodes: u32,
    /// When the last of them was closed, or it was made.
    unused_since: u64,
}

/// Open files and backing ids.
#[derive(Debug, Default)]
pub(super) struct Opens {
    nodes: HashMap<NodeId, Open>,
    backings: HashMap<u32, Backing>,
    ids: HashMap<BlobRef, u32>,
    /// Backing ids that nothing is read through, by when that was so.
    unused: BTreeMap<u64, u32>,
    clock: u64,
}

impl Opens {
    /// What an open node is read from, and how often it is open.
    pub(super) fn get(&self, id: NodeId) -> Option<(Reading, u32)> {
        self.nodes.get(&id).map(|open| (open.reading, open.count))
    }

    /// The backing id of a content.
    pub(super) fn id_of(&self, blob: &BlobRef) -> Option<u32> {
        self.ids.get(blob).copied()
    }

    /// Notes that the kernel has the node open so often; nothing if it was told to read it
    /// through a backing id that there is not.
    pub(super) fn set(&mut self, id: NodeId, reading: Reading, count: u32) -> Option<()> {
        let before = self.nodes.remove(&id);
        if count > 0 {
            if let Reading::Passed(backing) = reading {
                self.add_node(backing)?;
            }
            self.nodes.insert(id, Open { reading, count });
        }
        if let Some(Open { reading: Reading::Passed(backing), .. }) = before {
            self.remove_node(backing);
        }
        Some(())
    }

    /// Notes a backing id, which nothing is read through yet.
    pub(super) fn back(&mut self, id: u32, blob: BlobRef) {
        self.backings.insert(id, Backing { blob, nodes: 0, unused_since: 0 });
        self.ids.insert(blob, id);
        self.rest(id);
    }

    pub(super) fn drop_backing(&mut self, id: u32) {
        if let Some(backing) = self.backings.remove(&id) {
            self.ids.remove(&backing.blob);
            self.unused.remove(&backing.unused_since);
        }
    }

    /// A backing id to let go of, if there are too many that nothing is read through: the
    /// one of which that has been so for the longest time.
    pub(super) fn surplus(&self) -> Option<u32> {
        let (_, oldest) = self.unused.first_key_value()?;
        (self.unused.len() > MAX_UNUSED).then_some(*oldest)
    }

    /// The backing ids that nothing is read through, with what they have.
    pub(super) fn unused(&self) -> impl Iterator<Item = (u32, BlobRef)> {
        self.unused.values().filter_map(|id| Some((*id, self.backings.get(id)?.blob)))
    }

    pub(super) fn is_unused(&self, id: u32) -> bool {
        self.backings.get(&id).is_some_and(|backing| backing.nodes == 0)
    }

    /// How many nodes are open, and how many backing ids there are.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.nodes.len(), self.backings.len())
    }

    /// Notes all, so that [`Opens::set`] and [`Opens::back`] make it again.
    pub(super) fn describe(&self, note: &mut dyn FnMut(Record<'_>)) {
        // Those are let go of first of which nobody has known for the longest time.
        let mut backings: Vec<_> = self.backings.iter().collect();
        backings.sort_unstable_by_key(|(_, backing)| backing.unused_since);
        for (id, backing) in backings {
            note(Record::Backed { id: *id, blob: backing.blob });
        }
        for (id, Open { reading, count }) in &self.nodes {
            note(Record::Opens { id: *id, reading: *reading, count: *count });
        }
    }

    fn add_node(&mut self, id: u32) -> Option<()> {
        let backing = self.backings.get_mut(&id)?;
        backing.nodes += 1;
        self.unused.remove(&backing.unused_since);
        Some(())
    }

    fn remove_node(&mut self, id: u32) {
        if let Some(backing) = self.backings.get_mut(&id) {
            backing.nodes -= 1;
            if backing.nodes == 0 {
                self.rest(id);
            }
        }
    }

    fn rest(&mut self, id: u32) {
        self.clock += 1;
        if let Some(backing) = self.backings.get_mut(&id) {
            backing.unused_since = self.clock;
            self.unused.insert(self.clock, id);
        }
    }
}

impl Table {
    /// Notes that the kernel opens the file `id`, with this content, once more, and
    /// returns what it is to read it from; nothing if there is no backing id for it yet.
    pub(crate) fn open(&mut self, id: NodeId, blob: &BlobRef) -> Option<Reading> {
        let (reading, count) = match self.opens.get(id) {
            Some(open) => open,
            None => (Reading::Passed(self.opens.id_of(blob)?), 0),
        };
        self.set_opens(id, reading, count.saturating_add(1));
        Some(reading)
    }

    /// The same where there is to be no backing id for it.
    pub(crate) fn open_asked(&mut self, id: NodeId, blob: &BlobRef) -> Reading {
        self.open(id, blob).unwrap_or_else(|| {
            self.set_opens(id, Reading::Asked, 1);
            Reading::Asked
        })
    }

    /// Notes that the kernel has closed a large file. To be called when that has been
    /// answered: before, a successor may be told of it once more.
    pub(crate) fn close(&mut self, id: NodeId) {
        if let Some((reading, count)) = self.opens.get(id) {
            self.set_opens(id, reading, count.saturating_sub(1));
        }
    }

    /// Whether a content has a backing id.
    pub(crate) fn is_backed(&self, blob: &BlobRef) -> bool {
        self.opens.id_of(blob).is_some()
    }

    fn set_opens(&mut self, id: NodeId, reading: Reading, count: u32) {
        self.opens.set(id, reading, count);
        self.note(Record::Opens { id, reading, count });
    }

    /// Notes a backing id of the kernel.
    pub(crate) fn back(&mut self, id: u32, blob: BlobRef) {
        self.opens.back(id, blob);
        self.note(Record::Backed { id, blob });
    }

    /// Drops a backing id of which there are too many; the kernel is to let go of it when
    /// that is kept.
    pub(crate) fn drop_surplus(&mut self) -> Option<u32> {
        let id = self.opens.surplus()?;
        self.drop_unused(id)
    }

    /// The backing ids that nothing is read through, with what they have.
    pub(crate) fn unused_backings(&self) -> Vec<(u32, BlobRef)> {
        self.opens.unused().collect()
    }

    /// Drops a backing id, if still nothing is read through it; the kernel is to let go of
    /// it when that is kept.
    pub(crate) fn drop_unused(&mut self, id: u32) -> Option<u32> {
        self.opens.is_unused(id).then(|| self.drop_backing(id))?;
        Some(id)
    }

    fn drop_backing(&mut self, id: u32) {
        self.opens.drop_backing(id);
        self.note(Record::Unbacked(id));
    }

    /// How many large files are open, and how many backing ids there are.
    pub(crate) fn opens(&self) -> (usize, usize) {
        self.opens.len()
    }
}
