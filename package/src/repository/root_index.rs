//! The root index of a distribution: which snapshots it has, and which of them
//! a stream or a tag stands for.
//!
//! Format: stone v1, "Where clients find it".

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::url::{INDEX, Url};

/// The file, below the directory of a channel.
const ROOT_INDEX: &str = "moss-root-index.json";

/// A root index may not be longer.
pub(super) const MAX_LEN: u64 = 16 << 20;

/// The name of a channel, stream, tag, snapshot or architecture.
///
/// Invariant: letters, digits, `-` and, beyond the specification, `_`, as in
/// `x86_64`; the first one is a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identifier(String);

/// A text that is no [`Identifier`], or no [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidIdentifier {
    text: String,
    expected: &'static str,
}

impl FromStr for Identifier {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, InvalidIdentifier> {
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let allowed = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
        if begins && text.chars().all(allowed) {
            return Ok(Self(text.into()));
        }
        let expected = "a word of letters, digits and '-'";
        Err(InvalidIdentifier { text: text.into(), expected })
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Identifier {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Which snapshot of a channel is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// The one that a stream has come to: `stream/<id>`.
    Stream(Identifier),
    /// The one that a tag stands for: `tag/<id>`.
    Tag(Identifier),
    /// This very one: `history/<id>`.
    History(Identifier),
}

impl FromStr for Snapshot {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, InvalidIdentifier> {
        let expected = "stream/ID, tag/ID or history/ID";
        let invalid = || InvalidIdentifier { text: text.into(), expected };
        let (scope, id) = text.split_once('/').ok_or_else(invalid)?;
        let id = id.parse().map_err(|_| invalid())?;
        match scope {
            "stream" => Ok(Self::Stream(id)),
            "tag" => Ok(Self::Tag(id)),
            "history" => Ok(Self::History(id)),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(id) => write!(f, "stream/{id}"),
            Self::Tag(id) => write!(f, "tag/{id}"),
            Self::History(id) => write!(f, "history/{id}"),
        }
    }
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Why a root index does not lead to an index.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum RootIndexProblem {
    /// It is not JSON of the specified form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It has no such stream, tag or snapshot.
    #[error("it has no {wanted}; it has {}", list(known))]
    Unknown { wanted: String, known: Vec<String> },
    /// It leads to a name that cannot be a part of a URL.
    #[error(transparent)]
    Identifier(#[from] InvalidIdentifier),
    /// What it leads to has a form that is not known here.
    #[error(
        "{wanted} has the format {format:?}, which needs a newer version of Cairn{}",
        last(upgrade)
    )]
    Format { wanted: String, format: String, upgrade: Option<String> },
}

fn list(known: &[String]) -> String {
    if known.is_empty() { "nothing".into() } else { known.join(", ") }
}

fn last(upgrade: &Option<String>) -> String {
    upgrade.as_ref().map(|it| format!("; the last one without is {it}")).unwrap_or_default()
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    formats: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    streams: BTreeMap<String, Pointer>,
    #[serde(default)]
    tags: BTreeMap<String, Pointer>,
    #[serde(default)]
    history: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Pointer {
    history: String,
}

#[derive(Deserialize)]
struct Entry {
    format: String,
}

/// Where the root index of a channel is.
pub(super) fn url(base: &Url, channel: &Identifier) -> Url {
    base.below(&format!("{channel}/{ROOT_INDEX}"))
}

/// The path of the index, below the directory of all channels, that the root
/// index in `bytes` says is wanted.
pub(super) fn resolve(
    bytes: &[u8],
    channel: &Identifier,
    version: &Snapshot,
    architecture: &Identifier,
) -> Result<String, RootIndexProblem> {
    let file: File = serde_json::from_slice(bytes)?;
    let names = |scope: &str, ids: Vec<&String>| -> Vec<String> {
        ids.into_iter().map(|id| format!("{scope}/{id}")).collect()
    };
    let unknown = |known| RootIndexProblem::Unknown { wanted: version.to_string(), known };
    let follow = |scope, all: &BTreeMap<String, Pointer>, id: &Identifier| {
        let found = all.get(&id.0).map(|pointer| pointer.history.clone());
        found.ok_or_else(|| unknown(names(scope, all.keys().collect())))
    };
    let id = match version {
        Snapshot::Stream(id) => follow("stream", &file.streams, id)?,
        Snapshot::Tag(id) => follow("tag", &file.tags, id)?,
        Snapshot::History(id) => id.0.clone(),
    };
    let entry = file
        .history
        .get(&id)
        .ok_or_else(|| unknown(names("history", file.history.keys().collect())))?;
    if entry.format != "v0" && entry.format != "legacy" {
        let upgrade = file.formats.get("v0").and_then(|it| it.get("upgrade_via"));
        return Err(RootIndexProblem::Format {
            wanted: version.to_string(),
            format: entry.format.clone(),
            upgrade: upgrade.and_then(|it| it.as_str()).map(Into::into),
        });
    }
    let id: Identifier = id.parse()?;
    Ok(format!("{channel}/history/{id}/{architecture}/{INDEX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "formats": { "v0": { "upgrade_via": "tag/last" }, "v9": 1 },
        "streams": { "daily": { "format": "v0", "history": "2026-01-05", "tag": "q1" },
                     "next": { "format": "v9", "history": "2027-01-01" },
                     "evil": { "format": "v0", "history": "../../x" } },
        "tags": { "q1": { "format": "v0", "history": "2026-01-01" } },
        "history": { "2026-01-01": { "format": "legacy" }, "2026-01-05": { "format": "v0" },
                     "2027-01-01": { "format": "v9" }, "../../x": { "format": "v0" } }
    }"#;

    fn found(version: &str) -> Result<String, String> {
        let id = |text: &str| -> Identifier { text.parse().unwrap() };
        let version = version.parse().unwrap();
        let path = resolve(FILE.as_bytes(), &id("main"), &version, &id("x86_64"));
        path.map_err(|problem| problem.to_string())
    }

    #[test]
    fn streams_and_tags_lead_to_an_index_of_the_history() {
        let index = |day| Ok(format!("main/history/{day}/x86_64/stone.index"));
        assert_eq!(found("stream/daily"), index("2026-01-05"));
        assert_eq!(found("tag/q1"), index("2026-01-01"));
        assert_eq!(found("history/2026-01-05"), index("2026-01-05"));
    }

    #[test]
    fn what_leads_nowhere_is_told_with_what_there_is() {
        let check = |version, expected: &str| assert_eq!(found(version), Err(expected.into()));
        check("tag/x", "it has no tag/x; it has tag/q1");
        check(
            "stream/next",
            "stream/next has the format \"v9\", which needs a newer version of Cairn; \
             the last one without is tag/last",
        );
        check("stream/evil", "\"../../x\" is not a word of letters, digits and '-'");
    }

    #[test]
    fn a_version_names_its_scope() {
        for text in ["stream/a", "tag/a-b", "history/2026-01-05"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        for text in ["", "a", "stream/", "stream/-a", "stream/a/b", "branch/a", "tag/.."] {
            assert!(text.parse::<Snapshot>().is_err(), "{text:?}");
        }
    }
}
