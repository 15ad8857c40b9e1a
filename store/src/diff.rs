//! What differs between two trees, found by walking only what differs.

use std::ops::ControlFlow;

use crate::edit::TreeReader;
use crate::error::Result;
use crate::hash::TreeId;
use crate::name::{Name, TreePath};
use crate::tree::{Attributes, Entry, Tree};

/// One difference between an old and a new tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Only the new tree has it; of a directory, only the top is told.
    Added(&'a Entry),
    /// Only the old tree has it; of a directory, only the top is told.
    Removed(&'a Entry),
    /// Both have it, and at least one is not a directory.
    Changed(&'a Entry, &'a Entry),
    /// Both are directories, whose own attributes differ.
    Attributes(&'a Attributes, &'a Attributes),
}

/// Tells `visit` each difference, sorted by path, until it breaks off.
///
/// Costs the directories that differ and nothing else; of a large one in a store, only
/// the pages that differ.
pub fn diff(
    from: &impl TreeReader,
    old: TreeId,
    new: TreeId,
    visit: &mut dyn FnMut(&TreePath, Difference<'_>) -> ControlFlow<()>,
) -> Result<()> {
    walk(from, old, new, &mut TreePath::root(), visit).map(drop)
}

fn walk(
    from: &impl TreeReader,
    old: TreeId,
    new: TreeId,
    path: &mut TreePath,
    visit: &mut dyn FnMut(&TreePath, Difference<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    if old == new {
        return Ok(ControlFlow::Continue(()));
    }
    let (old, new) = from.read_differing(old, new)?;
    if old.attributes != new.attributes {
        let difference = Difference::Attributes(&old.attributes, &new.attributes);
        if visit(path, difference).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    for (name, old, new) in pairs(&old, &new) {
        path.push(name.clone());
        let flow = match (old, new) {
            (Some(Entry::Directory(old)), Some(Entry::Directory(new))) => {
                walk(from, old.id, new.id, path, visit)?
            }
            (Some(old), Some(new)) if old == new => ControlFlow::Continue(()),
            (Some(old), Some(new)) => visit(path, Difference::Changed(old, new)),
            (Some(old), None) => visit(path, Difference::Removed(old)),
            (None, Some(new)) => visit(path, Difference::Added(new)),
            (None, None) => ControlFlow::Continue(()),
        };
        path.pop();
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The entries of two trees side by side, sorted by name: each name with what
/// the old and what the new tree has of it.
pub fn pairs<'a>(
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
