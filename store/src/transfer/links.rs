//! Whether each group of hard links has as many members as they say.
//!
//! st_nlink of a file is what its entry says, so that a tree from elsewhere could tell anything.
//! Only directories that hold hard links are looked into.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Noted;

use crate::edit::TreeReader;
use crate::error::Result;
use crate::hash::TreeId;
use crate::tree::{Entry, LinkGroup, Tree};

/// What directories say of hard links.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<TreeId, Said>);

/// What one directory says of them.
#[derive(Debug)]
struct Said {
    /// Group of each member, and how many members it has.
    members: Vec<(LinkGroup, u32)>,
    /// Directories below it that hold some.
    below: Vec<TreeId>,
}

impl Said {
    fn of(tree: &Tree) -> Self {
        let mut links = Self { members: Vec::new(), below: Vec::new() };
        for (_, entry) in tree.entries() {
            match entry {
                Entry::Directory(subtree) if subtree.summary.linked > 0 => {
                    links.below.push(subtree.id);
                }
                Entry::Leaf(leaf) => {
                    links.members.extend(leaf.link.map(|link| (link.group, link.count)));
                }
                Entry::Directory(_) => {}
            }
        }
        links
    }
}

impl Links {
    /// Notes what a directory says.
    pub(super) fn note(&mut self, id: TreeId, tree: &Tree) {
        if tree.summary().linked > 0 {
            self.0.insert(id, Said::of(tree));
        }
    }

    /// Finds a directory of the tree below `root`, which holds some, in which something else is said than there is;
    /// directories that were not noted are read from `here`.
    pub(super) fn wrong(&mut self, root: TreeId, here: &impl TreeReader) -> Result<Option<TreeId>> {
        // Each behind those below it; a directory is never below itself.
        let mut order = Vec::new();
        let mut stack = vec![(root, false)];
        let mut paths: HashMap<TreeId, u64> = HashMap::new();
        while let Some((id, is_done)) = stack.pop() {
            if is_done {
                order.push(id);
                continue;
            }
            if paths.insert(id, 0).is_some() {
                continue;
            }
            let said = match self.0.entry(id) {
                Noted::Occupied(said) => said.into_mut(),
                Noted::Vacant(new) => new.insert(Said::of(&*here.read_tree(id)?)),
            };
            stack.push((id, true));
            stack.extend(said.below.iter().map(|below| (*below, false)));
        }
        // At how many paths each directory lies, from above to below.
        paths.insert(root, 1);
        let mut found: HashMap<LinkGroup, u64> = HashMap::new();
        for id in order.iter().rev() {
            let of_this = paths[id];
            let Said { members, below } = &self.0[id];
            for below in below {
                let of_it = paths.entry(*below).or_default();
                *of_it = of_it.saturating_add(of_this);
            }
            for (group, _) in members {
                let count = found.entry(*group).or_default();
                *count = count.saturating_add(of_this);
            }
        }
        let is_wrong = |id: &TreeId| {
            let mut members = self.0[id].members.iter();
            members.any(|(group, count)| found[group] != u64::from(*count))
        };
        Ok(order.into_iter().find(is_wrong))
    }
}
