//! What is left to do after a switch, when nobody waits for it any more.
//!
//! A switch leaves known files in the trees in which they lie, and holds the roots of
//! these trees, which gc then keeps. Most of these files are shown elsewhere as well: in
//! the tree that their directory shows now, or at the same path of another state. Once
//! they are read there, nothing has to be held for them. What finds no other place is in
//! use or soon forgotten.

use std::sync::Arc;

use cairn_store::{Entry, Tree, TreeId, pairs};

use crate::serve::filesystem::{Filesystem, View};
use crate::serve::node::{NodeId, PathHash};
use crate::serve::places::Location;
use crate::serve::table::Position;
use crate::shape::Shape;
use crate::source::Source;

/// So many files are given other places before requests get their turn.
const AT_ONCE: usize = 256;

impl<S: Source> Filesystem<S> {
    /// Finds other places for the files of one directory; whether there was one.
    pub(crate) fn settle_some(&self) -> bool {
        let view = self.view();
        let unsettled = view.table().next_unsettled();
        if let Some((directory, tree)) = unsettled {
            view.settle(directory, tree);
        }
        unsettled.is_some()
    }

    /// Finds other places for the files of all directories.
    pub(crate) fn settle(&self) {
        while self.settle_some() {}
    }
}

/// Files that lie where they are no longer shown.
struct Leaving {
    directory: NodeId,
    path: PathHash,
    tree: TreeId,
    entries: Arc<Tree>,
}

impl<S: Source> View<'_, S> {
    /// Finds other places for the files in `tree`, which `directory` showed.
    fn settle(&self, directory: NodeId, tree: TreeId) {
        // What cannot be read stays where it is.
        let (Ok(known), Ok(entries)) = (self.directory(directory), self.tree_by_id(tree)) else {
            return;
        };
        let Position::Inside(path) = known.position else { return };
        let leaving = Leaving { directory, path, tree, entries };
        if let Some(now) = known.tree {
            self.relocate(&leaving, directory, now);
        }
        if self.shape() == Shape::Folder {
            for (directory, tree) in self.same_path_elsewhere(&leaving) {
                self.relocate(&leaving, directory, tree);
            }
        }
    }

    /// Notes which of the files are shown by `directory` in `tree`.
    fn relocate(&self, leaving: &Leaving, directory: NodeId, tree: TreeId) {
        let Ok(entries) = self.tree_by_id(tree) else { return };
        let (mut old_entry, mut new_entry) = (0, 0);
        let mut both = Vec::new();
        for (name, old, new) in pairs(&leaving.entries, &entries) {
            if let (Some(Entry::Leaf(leaf)), true) = (old, old == new) {
                both.push((NodeId::of_leaf(leaving.path, name, leaf), old_entry, new_entry));
            }
            old_entry += u32::from(old.is_some());
            new_entry += u32::from(new.is_some());
        }
        let Leaving { directory: from, tree: left, .. } = *leaving;
        for some in both.chunks(AT_ONCE) {
            let mut table = self.table();
            if !table.has_files_of(from, left) {
                return;
            }
            for (home, old_entry, new_entry) in some {
                let location = Location { directory: from, tree: left, entry: *old_entry };
                if let Some(id) = table.known_file(*home, location) {
                    table.relocate(id, Location { directory, tree, entry: *new_entry });
                }
            }
        }
    }

    /// The known directories that show in other states what `leaving` showed.
    fn same_path_elsewhere(&self, leaving: &Leaving) -> Vec<(NodeId, TreeId)> {
        let table = self.table();
        let mut path = Vec::new();
        let mut at = leaving.directory;
        while let Some(known) = table.directory(at)
            && known.position != Position::Inside(PathHash::ROOT)
            && let Some(name) = known.name
        {
            path.push(name);
            at = known.parent;
        }
        drop(table);
        path.reverse();
        let roots = self.roots_of_states().into_iter().filter(|(root, _)| *root != at);
        roots
            .filter_map(|(root, tree)| {
                path.iter().try_fold((root, tree), |(directory, tree), name| {
                    let below = subtree(self.tree_by_id(tree).ok()?.get(name))?;
                    Some((self.table().known_directory(directory, name)?, below))
                })
            })
            .collect()
    }

    /// The roots of all states that are shown and known.
    fn roots_of_states(&self) -> Vec<(NodeId, TreeId)> {
        let mut roots = Vec::new();
        let mut groups = vec![(NodeId::ROOT, self.root())];
        while let Some((group, tree)) = groups.pop() {
            let Ok(entries) = self.tree_by_id(tree) else { continue };
            for (name, entry) in entries.entries() {
                let table = self.table();
                let (Some(id), Some(below)) =
                    (table.known_directory(group, name), subtree(Some(entry)))
                else {
                    continue;
                };
                match table.position(id) {
                    Some(Position::Group) => groups.push((id, below)),
                    _ => roots.push((id, below)),
                }
            }
        }
        roots
    }
}

fn subtree(entry: Option<&Entry>) -> Option<TreeId> {
    entry?.as_directory().map(|subtree| subtree.id)
}
