//! Where the entries of known files lie: in which tree, as which directory.
//!
//! A file is kept as a place and a position in its tree, not as its attributes.
//! A place belongs to a directory of the mount, so that a switch, which walks
//! over directories, meets every place whose tree is no longer shown. What a
//! directory shows is a place as well, also if no file is known in it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use cairn_store::TreeId;

use crate::serve::node::NodeId;

/// Entry number `entry` (the first is 0) of the tree that `directory` shows or
/// once showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) directory: NodeId,
    pub(crate) tree: TreeId,
    pub(crate) entry: u32,
}

/// Which place it is. The number is free again when the place is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlaceId(NonZeroU32);

impl PlaceId {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("2^32 places do not fit into memory"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A tree in which files are known, or which a directory shows.
#[derive(Clone, Copy, Debug)]
struct Place {
    tree: TreeId,
    directory: NodeId,
    /// How many files are known here.
    files: u32,
    /// Whether the directory showed it when it was last looked at.
    is_shown: bool,
}

/// All places, each counted and numbered. Whoever keeps a directory keeps the
/// place of what it shows, and says so where a function asks for `shown`.
#[derive(Debug, Default)]
pub(crate) struct Places {
    slots: Vec<Place>,
    free: Vec<PlaceId>,
    /// Those that are not shown.
    others: HashMap<(NodeId, TreeId), PlaceId>,
    /// The root that gc must keep for the files of a place, once nothing that is shown
    /// has them.
    held: BTreeMap<PlaceId, TreeId>,
    /// Each root that is held, and by how many places.
    roots: BTreeMap<TreeId, usize>,
}

impl Places {
    /// Directory and tree of a place.
    pub(crate) fn get(&self, id: PlaceId) -> (NodeId, TreeId) {
        let place = self.slots[id.index()];
        (place.directory, place.tree)
    }

    /// The tree that is shown.
    pub(crate) fn tree(&self, shown: Option<PlaceId>) -> Option<TreeId> {
        Some(self.get(shown?).1)
    }

    /// The place of `tree`, as `directory` showed it, if it has files or is shown.
    pub(crate) fn find(
        &self,
        directory: NodeId,
        shown: Option<PlaceId>,
        tree: TreeId,
    ) -> Option<PlaceId> {
        shown
            .filter(|id| self.slots[id.index()].tree == tree)
            .or_else(|| self.others.get(&(directory, tree)).copied())
    }

    /// Notes that `directory`, of which `shown` was shown, shows `tree`; gives the place
    /// of that.
    pub(crate) fn show(
        &mut self,
        directory: NodeId,
        shown: Option<PlaceId>,
        tree: Option<TreeId>,
    ) -> Option<PlaceId> {
        if self.tree(shown) == tree {
            return shown;
        }
        if let Some(id) = shown {
            self.hide(id);
        }
        let tree = tree?;
        let id = match self.others.remove(&(directory, tree)) {
            Some(id) => id,
            None => self.make(Place { tree, directory, files: 0, is_shown: true }),
        };
        self.slots[id.index()].is_shown = true;
        Some(id)
    }

    /// Notes that a place is not shown any more; it is gone then if it has no files.
    pub(crate) fn hide(&mut self, id: PlaceId) {
        let place = &mut self.slots[id.index()];
        place.is_shown = false;
        if place.files > 0 {
            self.others.insert((place.directory, place.tree), id);
        } else {
            self.free.push(id);
        }
    }

    /// Counts one file more in `tree`, as `directory` showed it; says whether it is the
    /// first one there.
    pub(crate) fn add(
        &mut self,
        directory: NodeId,
        shown: Option<PlaceId>,
        tree: TreeId,
    ) -> (PlaceId, bool) {
        let id = self.find(directory, shown, tree).unwrap_or_else(|| {
            let id = self.make(Place { tree, directory, files: 0, is_shown: false });
            self.others.insert((directory, tree), id);
            id
        });
        let files = &mut self.slots[id.index()].files;
        *files += 1;
        (id, *files == 1)
    }

    /// Counts one file less; gives the directory of a place that has none left.
    pub(crate) fn release(&mut self, id: PlaceId) -> Option<NodeId> {
        let place = &mut self.slots[id.index()];
        place.files -= 1;
        if place.files > 0 {
            return None;
        }
        let Place { tree, directory, is_shown, .. } = *place;
        self.hold(id, None);
        if !is_shown {
            self.others.remove(&(directory, tree));
            self.free.push(id);
        }
        Some(directory)
    }

    fn make(&mut self, place: Place) -> PlaceId {
        match self.free.pop() {
            Some(id) => {
                self.slots[id.index()] = place;
                id
            }
            None => {
                self.slots.push(place);
                PlaceId::new(self.slots.len() - 1)
            }
        }
    }

    /// Whether files are known here.
    pub(crate) fn has_files(&self, id: PlaceId) -> bool {
        self.slots[id.index()].files > 0
    }

    /// Holds `root` for the files of a place, or lets it go; says whether that
    /// is new.
    pub(crate) fn hold(&mut self, id: PlaceId, root: Option<TreeId>) -> bool {
        let before = match root {
            Some(root) => self.held.insert(id, root),
            None => self.held.remove(&id),
        };
        if let Some(root) = root {
            *self.roots.entry(root).or_default() += 1;
        }
        if let Some(before) = before
            && let Some(count) = self.roots.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.roots.remove(&before);
            }
        }
        before != root
    }

    /// Each place for which a root is held, with that root.
    pub(crate) fn held(&self) -> impl Iterator<Item = (PlaceId, TreeId)> {
        self.held.iter().map(|(id, root)| (*id, *root))
    }

    /// Whether a root is held for the files of a place.
    pub(crate) fn is_held(&self, id: PlaceId) -> bool {
        self.held.contains_key(&id)
    }

    /// The roots that are held, each once.
    pub(crate) fn roots(&self) -> impl Iterator<Item = TreeId> {
        self.roots.keys().copied()
    }

    /// Each place that has files, and its directory.
    pub(crate) fn with_files(&self) -> impl Iterator<Item = (PlaceId, NodeId)> {
        let numbered = self.slots.iter().enumerate().filter(|(_, place)| place.files > 0);
        numbered.map(|(index, place)| (PlaceId::new(index), place.directory))
    }
}
