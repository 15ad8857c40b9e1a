//! Where the entries of known files lie: in which tree, as which directory.
//!
//! A file is kept as a place and a position in its tree, not as its attributes.
//! A place belongs to a directory of the mount, so that a switch, which walks
//! over directories, meets every place whose tree is no longer shown.

use std::collections::{BTreeMap, HashMap};

use cairn_store::TreeId;

use crate::node::NodeId;

/// Entry number `entry` (the first is 0) of the tree that `directory` shows or
/// once showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) directory: NodeId,
    pub(crate) tree: TreeId,
    pub(crate) entry: u32,
}

/// A tree in which files are known.
#[derive(Clone, Copy, Debug)]
struct Place {
    directory: NodeId,
    tree: TreeId,
    /// How many files are known here.
    files: u32,
    /// The root that gc must keep for them, once nothing that is shown has them.
    held: Option<TreeId>,
}

/// All places, each counted and numbered.
#[derive(Debug, Default)]
pub(crate) struct Places {
    slots: Vec<Place>,
    free: Vec<u32>,
    numbers: HashMap<(NodeId, TreeId), u32>,
    /// Each root that is held, and by how many places.
    held: BTreeMap<TreeId, usize>,
}

impl Places {
    /// Directory and tree of place `number`.
    pub(crate) fn get(&self, number: u32) -> (NodeId, TreeId) {
        let place = self.slots[number as usize];
        (place.directory, place.tree)
    }

    pub(crate) fn number(&self, directory: NodeId, tree: TreeId) -> Option<u32> {
        self.numbers.get(&(directory, tree)).copied()
    }

    /// Counts one file more; says whether the place is new.
    pub(crate) fn add(&mut self, directory: NodeId, tree: TreeId) -> (u32, bool) {
        if let Some(number) = self.number(directory, tree) {
            self.slots[number as usize].files += 1;
            return (number, false);
        }
        let place = Place { directory, tree, files: 1, held: None };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = place;
                number
            }
            None => {
                self.slots.push(place);
                u32::try_from(self.slots.len() - 1).expect("2^32 places do not fit into memory")
            }
        };
        self.numbers.insert((directory, tree), number);
        (number, true)
    }

    /// Counts one file less; gives the directory of a place that has none left,
    /// and is gone with it.
    pub(crate) fn release(&mut self, number: u32) -> Option<NodeId> {
        let place = &mut self.slots[number as usize];
        place.files -= 1;
        if place.files > 0 {
            return None;
        }
        let (directory, tree) = (place.directory, place.tree);
        self.hold(number, None);
        self.numbers.remove(&(directory, tree));
        self.free.push(number);
        Some(directory)
    }

    /// Holds `root` for the files of a place, or lets it go; says whether that
    /// is new.
    pub(crate) fn hold(&mut self, number: u32, root: Option<TreeId>) -> bool {
        let before = std::mem::replace(&mut self.slots[number as usize].held, root);
        if let Some(root) = root {
            *self.held.entry(root).or_default() += 1;
        }
        if let Some(before) = before
            && let Some(count) = self.held.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&before);
            }
        }
        before != root
    }

    /// The roots that are held, each once.
    pub(crate) fn held(&self) -> impl Iterator<Item = TreeId> {
        self.held.keys().copied()
    }

    /// Each place that has files: its number, its directory and what it holds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, NodeId, Option<TreeId>)> {
        let numbered = self.numbers.values().map(|number| (*number, self.slots[*number as usize]));
        numbered.map(|(number, place)| (number, place.directory, place.held))
    }

    pub(crate) fn shrink(&mut self) {
        if self.numbers.is_empty() {
            *self = Self::default();
        }
    }
}
