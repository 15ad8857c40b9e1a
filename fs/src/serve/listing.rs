//! Where a listing of a directory goes on: cookies of readdir(2).
//!
//! A cookie says how many entries were told and of which tree. When a switch
//! comes in between, the old tree still says after which name to go on in the
//! new one, so that names that both have are told once: none is missed, none
//! comes twice.

use std::sync::Arc;

use cairn_store::{Tree, TreeId};

use crate::serve::node::NodeId;
use crate::serve::places::Location;
use crate::serve::table::{Directory, Position};

/// The entries of a directory, from somewhere on.
pub(crate) struct Listing {
    pub(crate) id: NodeId,
    pub(crate) directory: Directory,
    pub(crate) tree: Arc<Tree>,
    tree_id: TreeId,
    first: u32,
}

/// One line of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// `.`
    Itself,
    /// `..`
    Parent,
    /// An entry of the tree.
    Entry(usize),
}

impl Listing {
    /// `tree` is the tree `tree_id`, which `directory` shows.
    pub(crate) fn new(
        id: NodeId,
        directory: Directory,
        (tree_id, tree): (TreeId, Arc<Tree>),
        first: u32,
    ) -> Self {
        Self { id, directory, tree, tree_id, first }
    }

    /// The items, each with the cookie of the one behind it.
    pub(crate) fn items(&self) -> impl Iterator<Item = (Item, Cookie)> {
        let end = u32::try_from(self.tree.entries().len() + 2).unwrap_or(u32::MAX);
        (self.first..end).map(|position| {
            let item = match position {
                0 => Item::Itself,
                1 => Item::Parent,
                _ => Item::Entry(position as usize - 2),
            };
            (item, Cookie::new(self.tree_id, position + 1))
        })
    }

    /// Whether its entries are the roots of states.
    pub(crate) fn is_of_states(&self) -> bool {
        self.directory.position == Position::Group
    }

    /// Where an entry lies.
    pub(crate) fn location(&self, entry: usize) -> Location {
        let entry = u32::try_from(entry).expect("a tree has fewer than 2^32 entries");
        Location { directory: self.id, tree: self.tree_id, entry }
    }
}

/// A place in a listing, as the kernel gives it back: 31 bits that tell the
/// tree, 32 bits that count the items told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cookie(u64);

impl Cookie {
    /// The beginning of a listing.
    pub(crate) const START: Self = Self(0);

    fn new(tree: TreeId, position: u32) -> Self {
        Self(tag(tree) << 32 | u64::from(position))
    }

    pub(crate) const fn from_kernel(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The number of items to leave out of a listing of `tree`, which
    /// `directory` shows now.
    pub(crate) fn position(
        self,
        directory: &Directory,
        tree: &Tree,
        read: impl Fn(TreeId) -> Option<Arc<Tree>>,
    ) -> u32 {
        let told = u32::try_from(self.0 & u64::from(u32::MAX)).expect("it has 32 bits");
        let is_of = |tree: &TreeId| tag(*tree) == self.0 >> 32;
        if told <= 2 || directory.tree.as_ref().is_some_and(is_of) {
            return told;
        }
        let last_told = || {
            let earlier = directory.earlier.iter().rfind(|tree| is_of(tree))?;
            let tree = read(*earlier)?;
            Some(tree.entries().get(told as usize - 3)?.0.clone())
        };
        // Of a tree that is too old, only the count is left.
        let Some(name) = last_told() else { return told };
        let behind = tree.entries().partition_point(|(other, _)| *other <= name);
        u32::try_from(behind + 2).unwrap_or(u32::MAX)
    }
}

/// Upper half of the cookies of a tree; 31 bits, since a cookie is a positive
/// number of 64 bits to programs.
fn tag(tree: TreeId) -> u64 {
    let [a, b, c, d, ..] = *tree.as_bytes();
    u64::from(u32::from_le_bytes([a, b, c, d]) >> 1)
}
