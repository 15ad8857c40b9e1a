//! What a mount shows: all states as directories, one of them, or the current.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cairn_store::{
    Attributes, Entry, Error, Name, Refs, Result, StateId, Subtree, Summary, Timestamp, Tree,
    TreeId,
};
use serde::{Deserialize, Serialize};

use crate::node::PathHash;
use crate::table::Position;

/// What the root of a mount is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A directory of states: `current`, `states/<number>`, `tags/<name>`.
    Folder,
    /// One state, for ever.
    Pinned(StateId),
    /// The current state, whichever that is.
    Follow,
}

impl Shape {
    pub(crate) fn position(self) -> Position {
        match self {
            Self::Folder => Position::Top,
            Self::Pinned(_) | Self::Follow => Position::Inside(PathHash::ROOT),
        }
    }
}

/// What a mount shows at a time, as one tree from its root on.
///
/// The directories above the states are trees like any other, only made here,
/// so that a switch of a mount of all states is a difference of two trees.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) root: TreeId,
    /// The state that is followed or pinned, if there is one.
    pub(crate) state: Option<StateId>,
    /// Its root.
    pub(crate) main: Option<TreeId>,
    /// The roots of all states that can be seen.
    pub(crate) roots: BTreeSet<TreeId>,
    /// The directories above the states.
    pub(crate) made: HashMap<TreeId, Arc<Tree>>,
    /// The number of the switch that led here, 1 for what was shown first: 0 means
    /// that nobody has looked yet.
    pub(crate) switch: u64,
}

impl Shown {
    /// # Errors
    /// [`Error::NoState`], [`Error::UnknownState`].
    pub(crate) fn new(shape: Shape, refs: &Refs) -> Result<Self> {
        let tree_of = |id| refs.states.get(&id).map(|state| state.tree);
        let current = refs.current.and_then(|id| Some((id, tree_of(id)?)));
        let (id, root) = match shape {
            Shape::Folder => return Ok(Self::folder(refs, current)),
            Shape::Pinned(id) => (id, tree_of(id).ok_or(Error::UnknownState(id))?),
            Shape::Follow => current.ok_or(Error::NoState)?,
        };
        Ok(Self {
            root,
            state: Some(id),
            main: Some(root),
            roots: BTreeSet::from([root]),
            made: HashMap::new(),
            switch: 1,
        })
    }

    fn folder(refs: &Refs, current: Option<(StateId, TreeId)>) -> Self {
        let newest = refs.states.values().map(|state| state.time).max().unwrap_or(0);
        let mut attributes = Attributes::of_root(0o755);
        attributes.mtime = timestamp(newest);
        let mut made = HashMap::new();
        let mut make = |entries: Vec<(Name, TreeId)>| {
            let directory = |(name, id)| {
                // What lies below a state is not summed up: that would cost a
                // look at each.
                (name, Entry::Directory(Subtree { id, summary: Summary::default() }))
            };
            let entries = entries.into_iter().map(directory).collect();
            let tree = Tree::new(attributes.clone(), entries)
                .expect("numbers of states and tags are unique");
            let id = tree.encode().id;
            made.insert(id, Arc::new(tree));
            id
        };
        let states = refs.states.iter().map(|(id, state)| (name(&id.to_string()), state.tree));
        let states = make(states.collect());
        let tags = refs
            .tags
            .iter()
            .filter_map(|(tag, id)| Some((name(tag.as_str()), refs.states.get(id)?.tree)));
        let tags = make(tags.collect());
        let mut top = vec![(name("states"), states), (name("tags"), tags)];
        top.extend(current.map(|(_, tree)| (name("current"), tree)));
        let root = make(top);
        Self {
            root,
            state: current.map(|(id, _)| id),
            main: current.map(|(_, tree)| tree),
            roots: refs.states.values().map(|state| state.tree).collect(),
            made,
            switch: 1,
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a number or a tag is the name of a directory")
}

fn timestamp(nanoseconds: u64) -> Timestamp {
    let seconds = i64::try_from(nanoseconds / 1_000_000_000).expect("2^64 / 10^9 fits");
    let rest = u32::try_from(nanoseconds % 1_000_000_000).expect("it is below a billion");
    Timestamp::new(seconds, rest).expect("it is below a billion")
}
