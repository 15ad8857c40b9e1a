//! Owners of files shown as others: idmapped mounts.
//!
//! What a map means, and who can use it: docs/mount.md, "Views for other users".

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sys;

/// What the kernel makes of the owners that a mount tells it of.
#[derive(Clone, Debug, Default)]
pub enum Owners {
    /// They stay as they are, and nobody else can map them on the mount either.
    Fixed,
    /// They stay as they are on this mount; where the kernel is able to (Linux 6.12), it
    /// maps them on others of the same, as container managers make them.
    #[default]
    Mappable,
    /// They are shown as this map says.
    Mapped(IdMap),
}

impl Owners {
    /// The map by which they are shown.
    pub(crate) fn map(&self) -> Option<&IdMap> {
        match self {
            Self::Mapped(map) => Some(map),
            Self::Fixed | Self::Mappable => None,
        }
    }
}

/// Which owners a mount shows as which, as a user namespace that lives as long.
#[derive(Clone, Debug)]
pub struct IdMap {
    ranges: Vec<IdRange>,
    namespace: Arc<OwnedFd>,
}

/// Owners in a row that are shown as as many others: `b:0:100000:65536` shows 0 to 65535 of
/// the state as 100000 to 165535.
///
/// Written as `X-mount.idmap` of mount(8) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    whose: Whose,
    /// The first one in the state.
    stored: u32,
    /// What that is shown as.
    shown: u32,
    count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Users,
    Groups,
    Both,
}

/// The user or group that the kernel gives for none, which is therefore never mapped.
const NOBODY: u32 = u32::MAX;

/// So many ranges the kernel takes for users, and for groups (user_namespaces(7)).
const MAX_RANGES: usize = 340;

/// Why a text or a list is no map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdMap {
    /// A word does not have the form that is wanted.
    #[error("{0:?} does not have the form KIND:FIRST:SHOWN-AS:COUNT, with u, g or b as KIND")]
    Form(String),
    /// A range goes beyond the last number.
    #[error("{0} goes beyond the last user or group, 4294967294")]
    TooLarge(IdRange),
    /// Two ranges say something of the same owner.
    #[error("{0} and {1} overlap")]
    Overlap(IdRange, IdRange),
    /// Nothing is said of users, or of groups.
    #[error("the map of owners has no range for {0}")]
    Missing(&'static str),
    /// The kernel does not take as many.
    #[error("the map of owners has more than {MAX_RANGES} ranges")]
    TooMany,
}

impl IdRange {
    fn is_for(&self, whose: Whose) -> bool {
        self.whose == whose || self.whose == Whose::Both
    }

    fn overlaps(&self, other: &Self) -> bool {
        let share = |one: u32, two: u32| {
            // Both ends are known to be numbers.
            one < two + other.count && two < one + self.count
        };
        let together =
            [Whose::Users, Whose::Groups].iter().any(|it| self.is_for(*it) && other.is_for(*it));
        together && (share(self.stored, other.stored) || share(self.shown, other.shown))
    }
}

impl FromStr for IdRange {
    type Err = InvalidIdMap;

    fn from_str(text: &str) -> Result<Self, InvalidIdMap> {
        let read = || {
            let mut words = text.split(':');
            let whose = match words.next()? {
                "u" => Whose::Users,
                "g" => Whose::Groups,
                "b" => Whose::Both,
                _ => return None,
            };
            let mut number = || words.next()?.parse().ok();
            let range = Self { whose, stored: number()?, shown: number()?, count: number()? };
            (words.next().is_none() && range.count > 0).then_some(range)
        };
        let range = read().ok_or_else(|| InvalidIdMap::Form(text.into()))?;
        let last = |first: u32| first.checked_add(range.count - 1).filter(|last| *last != NOBODY);
        match (last(range.stored), last(range.shown)) {
            (Some(_), Some(_)) => Ok(range),
            _ => Err(InvalidIdMap::TooLarge(range)),
        }
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.whose {
            Whose::Users => 'u',
            Whose::Groups => 'g',
            Whose::Both => 'b',
        };
        write!(f, "{whose}:{}:{}:{}", self.stored, self.shown, self.count)
    }
}

/// Checks that ranges can be one map.
///
/// # Errors
/// [`InvalidIdMap`].
pub fn check_ranges(ranges: &[IdRange]) -> Result<(), InvalidIdMap> {
    for (at, range) in ranges.iter().enumerate() {
        if let Some(other) = ranges[..at].iter().find(|other| range.overlaps(other)) {
            return Err(InvalidIdMap::Overlap(*other, *range));
        }
    }
    for (whose, name) in [(Whose::Users, "users"), (Whose::Groups, "groups")] {
        match ranges.iter().filter(|range| range.is_for(whose)).count() {
            0 => return Err(InvalidIdMap::Missing(name)),
            1..=MAX_RANGES => {}
            _ => return Err(InvalidIdMap::TooMany),
        }
    }
    Ok(())
}

impl IdMap {
    /// The map of `ranges`, which [`check_ranges`] has checked. The process must have one thread.
    ///
    /// # Errors
    /// [`Error::OwnersMap`], as when somebody else than root asks; [`Error::Threads`].
    pub fn new(ranges: Vec<IdRange>) -> Result<Self> {
        let failed = |source| Error::OwnersMap { source };
        if !sys::is_alone().map_err(failed)? {
            return Err(Error::Threads);
        }
        let lines = |whose| -> String {
            let ranges = ranges.iter().filter(|range| range.is_for(whose));
            ranges.map(|it| format!("{} {} {}\n", it.stored, it.shown, it.count)).collect()
        };
        let namespace = sys::user_namespace(&lines(Whose::Users), &lines(Whose::Groups));
        Ok(Self { namespace: Arc::new(namespace.map_err(failed)?), ranges })
    }

    /// The user namespace that maps owners as it says.
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges.iter().enumerate() {
            write!(f, "{}{range}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str]) -> Result<(), InvalidIdMap> {
        let ranges: Result<Vec<IdRange>, _> = words.iter().map(|word| word.parse()).collect();
        check_ranges(&ranges?)
    }

    #[test]
    fn a_map_is_read_or_refused() {
        let good: [&[&str]; 4] = [
            &["b:0:100000:65536"],
            &["u:1000:0:1", "g:1001:1:2"],
            &["b:0:0:4294967295"],
            &["u:0:10:10", "u:10:0:10", "g:0:10:10"],
        ];
        for words in good {
            assert_eq!(check(words), Ok(()), "{words:?}");
            let range: IdRange = words[0].parse().unwrap();
            assert_eq!(range.to_string(), words[0]);
        }
        let words = ["", "b", "b:0:1", "b:0:1:0", "b:0:1:2:3", "x:0:1:1", "b:-1:0:1", "b: 0:1:1"];
        for word in words {
            assert_eq!(word.parse::<IdRange>(), Err(InvalidIdMap::Form(word.into())));
        }
        for word in ["b:0:4294967295:1", "b:1:0:4294967295", "b:4294967290:0:10"] {
            assert!(matches!(word.parse::<IdRange>(), Err(InvalidIdMap::TooLarge(_))), "{word}");
        }
        let overlapping: [&[&str]; 3] =
            [&["b:0:0:10", "u:9:20:1"], &["b:0:0:10", "g:20:9:1"], &["b:0:100:1", "b:0:100:1"]];
        for words in overlapping {
            assert!(matches!(check(words), Err(InvalidIdMap::Overlap(..))), "{words:?}");
        }
        assert_eq!(check(&["u:0:0:1"]), Err(InvalidIdMap::Missing("groups")));
        assert_eq!(check(&["g:0:0:1"]), Err(InvalidIdMap::Missing("users")));
        let many: Vec<_> = (0..341).map(|it| format!("b:{it}:{it}:1")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(check(&many), Err(InvalidIdMap::TooMany));
        assert_eq!(check(&many[1..]), Ok(()));
    }
}
