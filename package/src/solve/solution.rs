//! What a request comes to: the packages that are there afterwards, and what
//! changes on the way.

use super::problem::Cause;
use super::universe::Candidate;
use crate::dependency::Dependency;

/// What a request comes to. Every list is sorted by name.
///
/// In [`Solution::packages`] every dependency is met, nothing conflicts and no
/// name is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Solution {
    /// Everything that is there afterwards.
    pub packages: Vec<Package>,
    /// What is new.
    pub installs: Vec<Install>,
    /// What makes way for another build of the same name.
    pub replacements: Vec<Replacement>,
    /// What goes.
    pub removals: Vec<Removal>,
    /// Packages that stay and that somebody asks for now.
    pub marked: Vec<Candidate>,
    /// What cannot be upgraded now.
    pub held: Vec<Held>,
}

/// A package that is there afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The package; its origin tells whether it is there already.
    pub candidate: Candidate,
    /// Whether somebody asked for it.
    pub explicit: bool,
}

/// A package that is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The package.
    pub new: Candidate,
    /// Who needs it; nobody, if it was only asked for.
    pub needed_by: Option<Need>,
}

/// That a package needs something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The name of the package.
    pub package: String,
    /// What it needs.
    pub dependency: Dependency,
}

/// A package that makes way for another build of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// What goes.
    pub old: Candidate,
    /// What comes.
    pub new: Candidate,
    /// Which of them is newer.
    pub direction: Direction,
}

/// How the new build of a package relates to the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It is newer.
    Upgrade,
    /// It is older.
    Downgrade,
    /// It is as old, and another one.
    Sideways,
}

/// A package that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The package.
    pub old: Candidate,
    /// Why it goes.
    pub reason: Reason,
}

/// Why a package goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request says so.
    Asked,
    /// It needs something that goes.
    Needs(Dependency),
    /// It conflicts with the package of this name.
    Conflicts(String),
    /// Nobody asked for it, and nobody needs it any more.
    Unneeded,
}

/// A package that cannot be upgraded now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What stays.
    pub installed: Candidate,
    /// What would have come.
    pub available: Candidate,
    /// Why it does not.
    pub cause: Cause,
}

impl Solution {
    /// Whether nothing changes, also not what is known to be asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.installs.is_empty()
            && self.replacements.is_empty()
            && self.removals.is_empty()
            && self.marked.is_empty()
    }
}
