//! What a system was at one moment, and the names that keep it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::hash::{Digest, TreeId};
use crate::pack::ObjectId;

/// Number of a state: 1 for the first, never used twice in a store.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct StateId(pub u64);

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for StateId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The record of a state.
///
/// It is written to refs/log, which makes the state exist, and into the pack
/// of its transaction, from which refs can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its number.
    pub id: StateId,
    /// The state that it was made from.
    pub parent: Option<StateId>,
    /// When it was committed, in nanoseconds since 1970-01-01 00:00 UTC.
    pub time: u64,
    /// What was asked for, as people said it: `install nano`.
    pub request: String,
    /// The root directory.
    pub tree: TreeId,
    /// The selected packages, as a tree that the package floor lays out.
    pub packages: TreeId,
}

impl State {
    /// When it was committed.
    #[must_use]
    pub fn committed(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.time)
    }

    /// What names the record in a pack, and the record.
    pub(crate) fn record(&self) -> (ObjectId, Vec<u8>) {
        let record = self.encode();
        (ObjectId::State(Self::digest(&record)), record)
    }

    /// The record as it lies in a pack.
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the record has no map with odd keys")
    }

    /// What names the record in a pack.
    pub(crate) fn digest(encoded: &[u8]) -> Digest {
        Digest::from_bytes(blake3::derive_key("cairn 2026 state v1", encoded))
    }
}

/// A name that keeps a state.
///
/// Invariant: a name of a directory of 1 to 255 bytes without control
/// characters that is not a number, so that it can stand wherever a state's
/// number can.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// A text that cannot be a [`Tag`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a tag: a tag is the name of a directory and not a number")]
pub struct InvalidTag(String);

impl Tag {
    /// Checks `text`; the only way to make a `Tag`.
    pub fn new(text: &str) -> Result<Self, InvalidTag> {
        let is_name = crate::Name::new(text.as_bytes()).is_ok();
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let is_reserved = text == "current" || text.contains(':');
        if !is_name || is_number || is_reserved || text.chars().any(char::is_control) {
            return Err(InvalidTag(text.into()));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        Self::new(text)
    }
}

impl TryFrom<String> for Tag {
    type Error = InvalidTag;

    fn try_from(text: String) -> Result<Self, InvalidTag> {
        Self::new(&text)
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_can_stand_where_a_number_can() {
        for text in ["", "12", "a/b", "..", "current", "a:b", "a\nb"] {
            assert!(Tag::new(text).is_err(), "{text:?}");
        }
        for text in ["stable", "2026-11-23", "before upgrade", "v1.2", "ä"] {
            assert!(Tag::new(text).is_ok(), "{text:?}");
        }
    }
}
