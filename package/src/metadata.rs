//! What a package says of itself, and what an index adds to it.

use std::collections::BTreeSet;

use cairn_store::Digest;
use serde::{Deserialize, Serialize};

use crate::dependency::{Dependency, Kind};

/// What a package says of itself.
///
/// Format: stone v1, "Meta payload".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Unique within a repository.
    pub name: String,
    /// Free text for people; never compared.
    pub version: String,
    /// Grows with each change of the recipe; what upgrades compare first.
    pub release: u64,
    /// Grows with each rebuild of a release; what upgrades compare next.
    pub build_release: u64,
    /// Such as `x86_64`.
    pub architecture: String,
    /// One line.
    pub summary: String,
    /// Some paragraphs.
    pub description: String,
    /// The recipe that it was built from.
    pub source_id: String,
    /// A web page.
    pub homepage: String,
    /// SPDX identifiers.
    pub licenses: BTreeSet<String>,
    /// What must be installed beside it.
    pub depends: BTreeSet<Dependency>,
    /// What it offers, without its own name, which is implied.
    pub provides: BTreeSet<Dependency>,
    /// What must not be installed beside it.
    pub conflicts: BTreeSet<Dependency>,
    /// Only in a build manifest: what building it needs.
    pub build_depends: BTreeSet<Dependency>,
    /// Only in an index: where the package is.
    pub location: Option<Location>,
}

/// Where a repository keeps a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Relative to the directory of the index; may begin with `../`.
    pub uri: String,
    /// SHA-256 of the stone as 64 lower-case hexadecimal digits.
    pub hash: String,
    /// Length of the stone in bytes.
    pub size: u64,
    /// BLAKE3 of the stone. Indices of other tools have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Bytes of the package's files. Indices of other tools do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_size: Option<u64>,
}

impl Metadata {
    /// `nano-8.7-38-1-x86_64.stone`: the usual name of the file.
    #[must_use]
    pub fn file_name(&self) -> String {
        let Self { name, version, release, build_release, architecture, .. } = self;
        format!("{name}-{version}-{release}-{build_release}-{architecture}.stone")
    }

    /// `nano 8.7-38`: how people are told of it.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {}", self.name, self.full_version())
    }

    /// `8.7-38`: the version as people are told of it.
    ///
    /// The release is left out where it is no count but, as in packages
    /// converted from other formats, a large number that only sorts.
    #[must_use]
    pub fn full_version(&self) -> String {
        let is_count = self.release < 1_000_000_000;
        if is_count { format!("{}-{}", self.version, self.release) } else { self.version.clone() }
    }

    /// SHA-256 of the stone, where it is known.
    #[must_use]
    pub fn hash(&self) -> Option<&str> {
        self.location.as_ref().map(|location| location.hash.as_str())
    }

    /// What upgrades compare.
    #[must_use]
    pub fn age(&self) -> (u64, u64) {
        (self.release, self.build_release)
    }

    /// Whether the package offers `wanted`; its own name is always offered.
    #[must_use]
    pub fn offers(&self, wanted: &Dependency) -> bool {
        let by_name = wanted.kind == Kind::Name && wanted.text == self.name;
        by_name || self.provides.contains(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_of_a_release_that_is_a_count() {
        let nano = |release| Metadata {
            name: "nano".into(),
            version: "8.7".into(),
            release,
            ..Metadata::default()
        };
        assert_eq!(nano(38).label(), "nano 8.7-38");
        assert_eq!(nano(449_412_512_775_838_568).label(), "nano 8.7");
    }
}
