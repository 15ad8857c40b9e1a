//! What is kept of a directory, and where it stands.

use cairn_store::{Name, TreeId};

use super::lookups::Lookups;
use crate::serve::node::{NodeId, PathHash};
use crate::serve::places::PlaceId;

/// Where a directory stands on the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// The root of a mount of all states.
    Top,
    /// `states` or `tags`.
    Group,
    /// In a state's tree, at the path of this hash.
    Inside(PathHash),
}

impl Position {
    /// Where the directory `name` of a directory here stands.
    pub(crate) fn child(self, name: &Name) -> Self {
        match self {
            Self::Top if name.as_bytes() != b"current" => Self::Group,
            Self::Top | Self::Group => Self::Inside(PathHash::ROOT),
            Self::Inside(path) => Self::Inside(path.child(name)),
        }
    }
}

/// A name, in place if it is as short as most are: each piece of the heap takes 32 bytes.
#[derive(Debug)]
pub(super) enum CompactName {
    Short(u8, [u8; CompactName::SHORT]),
    Long(Box<Name>),
}

impl CompactName {
    const SHORT: usize = 14;

    fn new(name: &Name) -> Self {
        let mut bytes = [0; Self::SHORT];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(short), Ok(len)) => {
                short.copy_from_slice(name);
                Self::Short(len, bytes)
            }
            _ => Self::Long(Box::new(name.clone())),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len)],
            Self::Long(name) => name.as_bytes(),
        }
    }

    pub(super) fn to_name(&self) -> Name {
        Name::new(self.as_bytes()).expect("it was one")
    }
}

/// A position in half of its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompactPosition(u64);

impl CompactPosition {
    const TOP: u64 = u64::MAX;
    const GROUP: u64 = u64::MAX - 1;

    fn new(position: Position) -> Self {
        match position {
            Position::Top => Self(Self::TOP),
            Position::Group => Self(Self::GROUP),
            // A hash that means something else already, of 2^64, is taken for another one,
            // with which it could collide as well.
            Position::Inside(path) => Self(path.get().min(Self::GROUP - 1)),
        }
    }

    pub(super) fn get(self) -> Position {
        match self.0 {
            Self::TOP => Position::Top,
            Self::GROUP => Position::Group,
            path => Position::Inside(PathHash::from_bits(path)),
        }
    }
}

/// A directory that the kernel knows, or that is on the way to something that
/// it knows.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) parent: NodeId,
    pub(crate) name: Option<Name>,
    pub(crate) position: Position,
    /// What it showed when it was last looked at; nothing if a switch had taken
    /// it away.
    pub(crate) tree: Option<TreeId>,
    /// What it showed before, the latest last: cookies of readdir(2) may still
    /// refer to it.
    pub(crate) earlier: Vec<TreeId>,
}

/// What is kept of a directory: there may be hundreds of thousands.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) parent: NodeId,
    /// None of the root.
    pub(super) name: Option<CompactName>,
    pub(super) position: CompactPosition,
    /// Of what it shows.
    pub(super) shown: Option<PlaceId>,
    /// The switch after which it was last looked at.
    pub(super) seen: u32,
    pub(super) lookups: Lookups,
    /// Known directories in it, and places of known files.
    pub(super) dependents: u32,
}

/// The trees of switches that a readdir(2) in progress may sleep through.
#[derive(Debug, Default)]
pub(super) struct Earlier(pub(super) Vec<TreeId>);

impl Earlier {
    const KEPT: usize = 4;

    pub(super) fn push(&mut self, tree: TreeId) {
        if self.0.len() == Self::KEPT {
            self.0.remove(0);
        }
        self.0.push(tree);
    }
}

impl Known {
    pub(super) fn new(parent: NodeId, name: Option<&Name>, position: Position) -> Self {
        Self {
            parent,
            name: name.map(CompactName::new),
            position: CompactPosition::new(position),
            shown: None,
            seen: 0,
            lookups: Lookups::default(),
            dependents: 0,
        }
    }

    pub(super) fn has_name(&self, name: &Name) -> bool {
        self.name.as_ref().is_some_and(|kept| kept.as_bytes() == name.as_bytes())
    }
}
