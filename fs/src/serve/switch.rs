//! A live switch: from what a mount shows to something else, in place.
//!
//! While nothing is being asked, the old tree is compared with the new one: a
//! walk over what differs and the kernel knows. What it returns is what the
//! kernel must be told afterwards. The order makes it right:
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

use std::io;
use std::sync::{Arc, PoisonError};

use cairn_store::{Attributes, Entry, Name, Tree, TreeId, pairs};

use crate::serve::filesystem::Filesystem;
use crate::serve::ledger::Record;
use crate::serve::node::NodeId;
use crate::serve::table::{Position, Table};
use crate::shape::Shown;
use crate::source::Source;

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
    /// Why it could not be noted for a successor.
    pub(crate) not_kept: Option<io::Error>,
}

impl<S: Source> Filesystem<S> {
    /// Shows `next` from now on, and returns what the kernel must be told.
    ///
    /// Waits for requests in progress and keeps new ones waiting, for as long
    /// as it takes to compare the directories that differ and are known.
    pub(crate) fn switch(&self, mut next: Shown) -> Switched {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.table();
        next.switch = shown.switch.wrapping_add(1);
        let what = serde_json::to_vec(&next.selection).expect("a selection has plain keys");
        table.note(Record::Showing(&what));
        let mut walk = Walk {
            source: &self.source,
            old: &shown,
            new: &next,
            table: &mut table,
            switched: Switched::default(),
        };
        walk.run();
        let mut switched = walk.switched;
        switched.not_kept = table.keep().err();
        table.show(next.root, next.switch);
        *shown = next;
        switched
    }

    /// The roots that gc must keep: those shown, and those of which files are
    /// still in use.
    pub(crate) fn roots(&self) -> Vec<TreeId> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let mut roots = shown.roots.clone();
        roots.extend(self.table().held());
        roots.into_iter().collect()
    }

    /// Whether something is kept only because it is in use.
    pub(crate) fn holds_old_roots(&self) -> bool {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        self.table().held().any(|root| !shown.roots.contains(&root))
    }
}

/// A directory that showed `old` and shows `new`: nothing where it is gone or
/// not there yet.
struct Step {
    id: NodeId,
    old: Option<TreeId>,
    new: Option<TreeId>,
    /// The root of the state that it showed.
    root: Option<TreeId>,
}

struct Walk<'a, S> {
    source: &'a S,
    old: &'a Shown,
    new: &'a Shown,
    table: &'a mut Table,
    switched: Switched,
}

impl<S: Source> Walk<'_, S> {
    fn run(&mut self) {
        let mut steps = vec![Step {
            id: NodeId::ROOT,
            old: Some(self.old.root),
            new: Some(self.new.root),
            root: Some(self.old.root),
        }];
        // Not recursive: how deep a tree is, is up to whoever made it.
        while let Some(step) = steps.pop() {
            if step.old != step.new {
                self.take(&step, &mut steps);
            }
        }
    }

    fn take(&mut self, step: &Step, steps: &mut Vec<Step>) {
        let Some(position) = self.table.position(step.id) else { return };
        let (old, new) = match self.differing(step) {
            (Ok(old), Ok(new)) => (old, new),
            (old, new) => return self.give_up(step, old, new),
        };
        let mut names = Vec::new();
        for (name, old, new) in pairs(&old, &new) {
            let (was, is) = (subtree(old), subtree(new));
            // What is below a directory that stays is told as a change of it.
            if (was.is_none() || is.is_none()) && old != new {
                names.push(name.clone());
            }
            if was != is
                && let Some(id) = self.table.known_directory(step.id, name)
            {
                let root = match position {
                    Position::Inside(_) => step.root,
                    Position::Top | Position::Group => was,
                };
                steps.push(Step { id, old: was, new: is, root });
            }
        }
        self.switched.changes.push(Change { directory: step.id, names });
        if let (Some(tree), Position::Inside(_)) = (step.old, position) {
            self.table.hold(step.id, tree, step.root);
        }
        if let Some(tree) = step.new {
            self.table.hold(step.id, tree, None);
        }
    }

    /// Tells as much as is known of a directory of which it cannot be found out
    /// how it differs, so that it is asked for anew with all below it.
    fn give_up(
        &mut self,
        step: &Step,
        old: cairn_store::Result<Arc<Tree>>,
        new: cairn_store::Result<Arc<Tree>>,
    ) {
        let trees = [&old, &new].into_iter().flatten();
        let names = trees.flat_map(|tree| tree.entries()).map(|(name, _)| name.clone()).collect();
        let above = self.table.directory(step.id);
        if let Some((parent, Some(name))) = above.map(|known| (known.parent, known.name)) {
            self.switched.changes.push(Change { directory: parent, names: vec![name] });
        }
        self.switched.changes.push(Change { directory: step.id, names });
        self.table.hold_below(step.id, step.root);
        self.switched.unreadable.extend([old, new].into_iter().filter_map(Result::err));
    }

    /// What a directory showed and what it shows; of entries in both some may be missing.
    fn differing(
        &self,
        step: &Step,
    ) -> (cairn_store::Result<Arc<Tree>>, cairn_store::Result<Arc<Tree>>) {
        if let (Some(old), Some(new)) = (step.old, step.new)
            && self.made(old).is_none()
            && self.made(new).is_none()
            && let Ok((old, new)) = self.source.differing(old, new)
        {
            return (Ok(old), Ok(new));
        }
        (self.tree(step.old), self.tree(step.new))
    }

    /// The tree `id`, an empty one for none.
    fn tree(&self, id: Option<TreeId>) -> cairn_store::Result<Arc<Tree>> {
        let Some(id) = id else {
            return Ok(Arc::new(Tree::empty(Attributes::implied_directory())));
        };
        self.made(id).map_or_else(|| self.source.tree(id), |made| Ok(made.clone()))
    }

    /// A directory above the states.
    fn made(&self, id: TreeId) -> Option<&Arc<Tree>> {
        self.new.made.get(&id).or_else(|| self.old.made.get(&id))
    }
}

fn subtree(entry: Option<&Entry>) -> Option<TreeId> {
    entry?.as_directory().map(|subtree| subtree.id)
}
