//! What a mount shows: all states as directories, one of them, or the current.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cairn_store::{
    Attributes, Entry, Error, Name, Refs, Result, StateId, Subtree, Summary, Tag, Timestamp, Tree,
    TreeId,
};
use serde::{Deserialize, Serialize};

use crate::serve::node::PathHash;
use crate::serve::table::Position;

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

/// Which states a mount shows at a time: what [`Shown`] is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Selection {
    pub(crate) shape: Shape,
    current: Option<StateId>,
    /// Each with its root, and when it was committed in nanoseconds since 1970.
    states: BTreeMap<StateId, (TreeId, u64)>,
    tags: BTreeMap<Tag, StateId>,
}

impl Selection {
    /// What `shape` shows of `refs`.
    pub(crate) fn new(shape: Shape, refs: &Refs) -> Self {
        let only = match shape {
            Shape::Folder => None,
            Shape::Pinned(id) => Some(id),
            Shape::Follow => refs.current,
        };
        let is_shown = |id: &StateId| shape == Shape::Folder || only == Some(*id);
        let states = refs.states.iter().filter(|(id, _)| is_shown(id));
        let tags = refs.tags.iter().filter(|_| shape == Shape::Folder);
        Self {
            shape,
            current: refs.current,
            states: states.map(|(id, state)| (*id, (state.tree, state.time))).collect(),
            tags: tags.map(|(tag, id)| (tag.clone(), *id)).collect(),
        }
    }

    /// The state that a tag keeps which is shown.
    pub(crate) fn state_of_tag(&self, tag: &str) -> Option<StateId> {
        self.tags.get(&Tag::new(tag).ok()?).copied()
    }
}

/// What a mount shows at a time, as one tree from its root on.
///
/// The directories above the states are trees like any other, only made here,
/// so that a switch of a mount of all states is a difference of two trees.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) selection: Selection,
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
    pub(crate) switch: u32,
}

impl Shown {
    /// What `shape` shows of `refs`.
    ///
    /// # Errors
    /// [`Error::NoState`], [`Error::UnknownState`].
    pub(crate) fn of(shape: Shape, refs: &Refs) -> Result<Self> {
        Self::new(Selection::new(shape, refs))
    }

    /// # Errors
    /// [`Error::NoState`], [`Error::UnknownState`].
    pub(crate) fn new(selection: Selection) -> Result<Self> {
        let tree_of = |id| Some(selection.states.get(&id)?.0);
        let current = selection.current.and_then(|id| Some((id, tree_of(id)?)));
        let (id, root) = match selection.shape {
            Shape::Folder => return Ok(Self::folder(selection, current)),
            Shape::Pinned(id) => (id, tree_of(id).ok_or(Error::UnknownState(id))?),
            Shape::Follow => current.ok_or(Error::NoState)?,
        };
        Ok(Self {
            selection,
            root,
            state: Some(id),
            main: Some(root),
            roots: BTreeSet::from([root]),
            made: HashMap::new(),
            switch: 1,
        })
    }

    fn folder(selection: Selection, current: Option<(StateId, TreeId)>) -> Self {
        let Selection { states, tags, .. } = &selection;
        let roots = states.values().map(|(tree, _)| *tree).collect();
        let newest = states.values().map(|(_, time)| *time).max().unwrap_or(0);
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
        let numbered = states.iter().map(|(id, (tree, _))| (name(&id.to_string()), *tree));
        let tagged =
            tags.iter().filter_map(|(tag, id)| Some((name(tag.as_str()), states.get(id)?.0)));
        let (states, tags) = (make(numbered.collect()), make(tagged.collect()));
        let mut top = vec![(name("states"), states), (name("tags"), tags)];
        top.extend(current.map(|(_, tree)| (name("current"), tree)));
        let root = make(top);
        Self {
            selection,
            root,
            state: current.map(|(id, _)| id),
            main: current.map(|(_, tree)| tree),
            roots,
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
