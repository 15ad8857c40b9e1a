//! A live switch: from what a mount shows to something else, in place.
//!
//! While nothing is being asked, the table is brought from the old tree to the
//! new one: a walk over what differs and the kernel knows. What it returns is
//! what the kernel must be told afterwards. The order makes it right:
//!
//! 1. Every answer from the old tree has been given when the switch begins, and
//!    every later one is from the new tree.
//! 2. A change is told with the directory's lock held by the kernel, so that it
//!    waits for look-ups and listings that still work on an old answer.
//! 3. In a directory names are told before the directory itself, so that no
//!    listing that began before can end up in the kernel's cache.
//!
//! A file's content never changes under its number, so that no mixture of two
//! contents can be read, whatever the kernel still holds.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use cairn_store::{Attributes, Entry, Name, Tree, TreeId};

use crate::filesystem::Filesystem;
use crate::node::NodeId;
use crate::shape::Shown;
use crate::source::Source;
use crate::table::{Location, Position, Table};

/// A directory that the kernel must look at anew, and names in it that no
/// longer stand for what they did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) directory: NodeId,
    pub(crate) names: Vec<Name>,
}

/// What a switch came to.
#[derive(Debug, Default)]
pub(crate) struct Switched {
    /// What the kernel must be told, in this order.
    pub(crate) changes: Vec<Change>,
    /// Directories of which it could not be found out how they differ.
    pub(crate) unreadable: Vec<cairn_store::Error>,
}

/// Roots that are no longer shown, each with trees in which there are files
/// that somebody still uses.
pub(crate) type Held = HashMap<TreeId, HashSet<TreeId>>;

/// One directory to bring from what it shows to something else.
struct Step {
    id: NodeId,
    /// What it shows from now on; `None` takes it away.
    new: Option<TreeId>,
    /// The directory at the same path in which files that are in use live on.
    heir: Option<TreeId>,
    /// The root of the state that it showed.
    root: Option<TreeId>,
}

impl<S: Source> Filesystem<S> {
    /// Shows `next` from now on, and returns what the kernel must be told.
    ///
    /// Waits for requests in progress and keeps new ones waiting, for as long
    /// as it takes to compare the directories that differ and are known.
    pub(crate) fn switch(&self, next: Shown) -> Switched {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.table();
        let mut walk = Walk {
            source: &self.source,
            old: &shown,
            new: &next,
            table: &mut table,
            changes: Vec::new(),
            held: Vec::new(),
            unreadable: Vec::new(),
        };
        walk.run();
        let Walk { changes, held: left, unreadable, .. } = walk;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (root, tree) in left {
            held.entry(root).or_default().insert(tree);
        }
        held.retain(|root, _| !next.roots.contains(root));
        *shown = next;
        Switched { changes, unreadable }
    }

    /// The roots that gc must keep: those shown, and those of which files are
    /// still in use.
    pub(crate) fn roots(&self) -> Vec<TreeId> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let table = self.table();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, trees| {
            trees.retain(|tree| table.has_files_of(*tree));
            !trees.is_empty()
        });
        shown.roots.iter().chain(held.keys()).copied().collect()
    }

    /// Whether something is kept only because it is in use.
    pub(crate) fn holds_old_roots(&self) -> bool {
        !self.held.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

struct Walk<'a, S> {
    source: &'a S,
    old: &'a Shown,
    new: &'a Shown,
    table: &'a mut Table,
    changes: Vec<Change>,
    held: Vec<(TreeId, TreeId)>,
    unreadable: Vec<cairn_store::Error>,
}

impl<S: Source> Walk<'_, S> {
    fn run(&mut self) {
        let mut steps = vec![Step {
            id: NodeId::ROOT,
            new: Some(self.new.root),
            heir: Some(self.new.root),
            root: Some(self.old.root),
        }];
        // Not recursive: how deep a tree is, is up to whoever made it.
        while let Some(step) = steps.pop() {
            self.take(&step, &mut steps);
        }
    }

    fn take(&mut self, step: &Step, steps: &mut Vec<Step>) {
        let Some(directory) = self.table.directory_mut(step.id) else { return };
        let before = (!directory.is_gone).then_some(directory.tree);
        let (shown, position) = (directory.tree, directory.position);
        if before == step.new && step.heir == before {
            return;
        }
        directory.show(step.new);

        let (parent, name) = (directory.parent, directory.name.clone());
        let (old, new) = match (self.tree(before), self.tree(step.new)) {
            (Ok(old), Ok(new)) => (old, new),
            (old, new) => {
                // Which names differ cannot be found out, so all are told, and
                // the directory itself, below which everything goes.
                let names = [&old, &new].into_iter().flatten();
                let names = names.flat_map(|tree| tree.entries()).map(|(name, _)| name.clone());
                let names = names.collect();
                self.changes
                    .extend(name.map(|name| Change { directory: parent, names: vec![name] }));
                self.changes.push(Change { directory: step.id, names });
                self.unreadable.extend([old, new].into_iter().filter_map(Result::err));
                return;
            }
        };
        let heir = if step.heir == step.new { Ok(new.clone()) } else { self.tree(step.heir) };
        let heir = heir.unwrap_or_else(|_| nothing());

        let mut names = Vec::new();
        for (name, old, new) in side_by_side(&old, &new) {
            let (was, is) = (subtree(old), subtree(new));
            if was.is_some() || is.is_some() {
                let root = match position {
                    Position::Inside { .. } => step.root,
                    Position::Top | Position::Group => was,
                };
                let heir = match position {
                    Position::Inside { .. } => subtree(heir.get(name)),
                    Position::Top | Position::Group => is.or(self.new.main),
                };
                if was == is && heir == was {
                    continue;
                }
                let home = NodeId::of_directory(step.id, name);
                if let Some(id) = self.table.known_directory(home, step.id, name) {
                    steps.push(Step { id, new: is, heir, root });
                }
            }
            let is_same_directory = was.is_some() && is.is_some();
            if !is_same_directory && old != new {
                names.push(name.clone());
            }
        }
        if before != step.new {
            self.changes.push(Change { directory: step.id, names });
        }
        if let Position::Inside { path, is_lasting } = position
            && before.is_some()
            && step.heir != before
            && self.table.has_files_of(shown)
        {
            let is_lasting = is_lasting || step.new != step.heir;
            for (at, (name, entry)) in old.entries().iter().enumerate() {
                let Entry::Leaf(leaf) = entry else { continue };
                let home = NodeId::of_leaf(path, name, leaf);
                let Some(id) = self.table.known_file(home, location(shown, at)) else { continue };
                let Some(at) = heir.position(name) else { continue };
                if let (Some(tree), true) = (step.heir, heir.entries()[at].1 == *entry) {
                    self.table.relocate(id, location(tree, at), is_lasting);
                }
            }
            if let (Some(root), true) = (step.root, self.table.has_files_of(shown)) {
                self.held.push((root, shown));
            }
        }
    }

    /// The tree `id`, an empty one for none.
    fn tree(&self, id: Option<TreeId>) -> cairn_store::Result<Arc<Tree>> {
        let Some(id) = id else { return Ok(nothing()) };
        match self.new.made.get(&id).or_else(|| self.old.made.get(&id)) {
            Some(made) => Ok(made.clone()),
            None => self.source.tree(id),
        }
    }
}

fn nothing() -> Arc<Tree> {
    Arc::new(Tree::empty(Attributes::implied_directory()))
}

fn subtree(entry: Option<&Entry>) -> Option<TreeId> {
    entry?.as_directory().map(|subtree| subtree.id)
}

fn location(tree: TreeId, entry: usize) -> Location {
    let entry = u32::try_from(entry).expect("a tree has fewer than 2^32 entries");
    Location { tree, entry }
}

/// The entries of two trees by name.
fn side_by_side<'a>(
    old: &'a Tree,
    new: &'a Tree,
) -> impl Iterator<Item = (&'a Name, Option<&'a Entry>, Option<&'a Entry>)> {
    let mut old = old.entries().iter().peekable();
    let mut new = new.entries().iter().peekable();
    std::iter::from_fn(move || {
        let name = match (old.peek(), new.peek()) {
            (Some((left, _)), Some((right, _))) => left.min(right),
            (Some((name, _)), None) | (None, Some((name, _))) => name,
            (None, None) => return None,
        };
        let left = old.next_if(|(other, _)| other == name).map(|(_, entry)| entry);
        let right = new.next_if(|(other, _)| other == name).map(|(_, entry)| entry);
        Some((name, left, right))
    })
}
