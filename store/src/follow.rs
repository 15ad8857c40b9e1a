//! Finding what lies at a path, through symbolic links.

use std::collections::VecDeque;

use crate::edit::TreeReader;
use crate::error::Result;
use crate::hash::TreeId;
use crate::name::{Name, TreePath};
use crate::tree::{Content, Entry, Subtree};

/// As many symbolic links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// Whether a symbolic link at the end of a path stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// It is what was meant.
    Keep,
    /// What it leads to was meant.
    Follow,
}

/// What [`follow`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// This, at a path without symbolic links on the way.
    Found(TreePath, Entry),
    /// There is nothing.
    Missing,
    /// More links lead there than Linux would follow.
    TooManyLinks,
}

impl Followed {
    /// What was found.
    #[must_use]
    pub fn found(self) -> Option<(TreePath, Entry)> {
        match self {
            Self::Found(path, entry) => Some((path, entry)),
            Self::Missing | Self::TooManyLinks => None,
        }
    }
}

/// Finds what lies at `path`, with or without a leading slash. Symbolic links
/// lead to where they would lead if `root` were the root directory.
///
/// Costs one tree a component.
pub fn follow(
    from: &impl TreeReader,
    root: TreeId,
    path: &[u8],
    last: LastLink,
) -> Result<Followed> {
    let summary = from.read_tree(root)?.summary();
    let root = Entry::Directory(Subtree { id: root, summary });
    let mut trail: Vec<(Name, Entry)> = Vec::new();
    let mut todo: VecDeque<Vec<u8>> = components(path);
    let mut links = 0;
    while let Some(component) = todo.pop_front() {
        if component == b".." {
            trail.pop();
            continue;
        }
        let here = trail.last().map_or(&root, |(_, entry)| entry);
        let (Ok(name), Some(directory)) = (Name::new(&component), here.as_directory()) else {
            return Ok(Followed::Missing);
        };
        let Some(entry) = from.read_tree(directory.id)?.get(&name).cloned() else {
            return Ok(Followed::Missing);
        };
        let Some(Content::Symlink(target)) = entry.as_leaf().map(|leaf| &leaf.content) else {
            trail.push((name, entry));
            continue;
        };
        if todo.is_empty() && last == LastLink::Keep {
            trail.push((name, entry));
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Ok(Followed::TooManyLinks);
        }
        if target.first() == Some(&b'/') {
            trail.clear();
        }
        for component in components(target).into_iter().rev() {
            todo.push_front(component);
        }
    }
    let entry = trail.last().map_or(root, |(_, entry)| entry.clone());
    Ok(Followed::Found(trail.into_iter().map(|(name, _)| name).collect(), entry))
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(name, [] | [b'.']));
    names.map(<[u8]>::to_vec).collect()
}
