//! The build manifest for people, `manifest.<arch>.jsonc`: JSON below a
//! comment.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::layout::Layout;
use crate::dependency::{Dependency, Kind};
use crate::metadata::Metadata;

/// A build manifest for people. Only for review: nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReadableManifest {
    /// `0.2`, the only version that is known.
    pub manifest_version: String,
    /// By name.
    pub packages: BTreeMap<String, ReadablePackage>,
    /// Name of the recipe.
    pub source_name: String,
    /// Release of the recipe in digits.
    pub source_release: String,
    /// Version of the recipe.
    pub source_version: String,
}

/// One package of a [`ReadableManifest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReadablePackage {
    /// As written in the recipe.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub build_depends: BTreeSet<String>,
    /// `kind(text)`, or as written in the recipe.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub depends: BTreeSet<String>,
    /// Absolute paths.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub files: BTreeSet<String>,
    /// Name of the package.
    pub name: String,
    /// `kind(text)`, without names of packages.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub provides: BTreeSet<String>,
}

const COMMENT: &str = "/** Human readable report. This is not consumed by boulder */";

impl ReadableManifest {
    /// A manifest of the recipe `name` without packages.
    #[must_use]
    pub fn new(name: &str, version: &str, release: u64) -> Self {
        Self {
            manifest_version: "0.2".into(),
            packages: BTreeMap::new(),
            source_name: name.into(),
            source_release: release.to_string(),
            source_version: version.into(),
        }
    }

    /// Reads the text of a file, with or without the comment before it.
    ///
    /// # Errors
    /// [`Error::InvalidManifest`].
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim_start();
        let json = text.strip_prefix("/*").and_then(|rest| rest.split_once("*/"));
        let json = json.map_or(text, |(_, json)| json);
        serde_json::from_str(json).map_err(Error::InvalidManifest)
    }

    /// The text of the file, byte for byte as boulder writes it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("{COMMENT}\n").into_bytes();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut to = serde_json::Serializer::with_formatter(&mut out, tabs);
        self.serialize(&mut to).expect("texts and maps of texts are JSON");
        out.push(b'\n');
        String::from_utf8(out).expect("JSON is UTF-8")
    }
}

impl ReadablePackage {
    /// What people see of a package with these entries.
    #[must_use]
    pub fn new(metadata: &Metadata, layout: &[Layout]) -> Self {
        let text = |set: &BTreeSet<Dependency>| set.iter().map(Dependency::to_string).collect();
        let provides = metadata.provides.iter().filter(|it| it.kind != Kind::Name);
        let path = |entry: &Layout| String::from_utf8_lossy(&entry.path.to_bytes()).into_owned();
        Self {
            build_depends: text(&metadata.build_depends),
            depends: text(&metadata.depends),
            files: layout.iter().map(path).collect(),
            name: metadata.name.clone(),
            provides: provides.map(Dependency::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_boulder_and_reads_back() {
        let mut manifest = ReadableManifest::new("tiny", "1.0", 7);
        let metadata = Metadata {
            name: "tiny".into(),
            depends: BTreeSet::from([Dependency::new(Kind::Binary, "bash")]),
            provides: BTreeSet::from([Dependency::on_package("other")]),
            ..Metadata::default()
        };
        manifest.packages.insert("tiny".into(), ReadablePackage::new(&metadata, &[]));
        let expected = "\
/** Human readable report. This is not consumed by boulder */
{
\t\"manifest-version\": \"0.2\",
\t\"packages\": {
\t\t\"tiny\": {
\t\t\t\"depends\": [
\t\t\t\t\"binary(bash)\"
\t\t\t],
\t\t\t\"name\": \"tiny\"
\t\t}
\t},
\t\"source-name\": \"tiny\",
\t\"source-release\": \"7\",
\t\"source-version\": \"1.0\"
}
";
        assert_eq!(manifest.to_text(), expected);
        assert_eq!(ReadableManifest::parse(expected).expect("as written"), manifest);
        for text in ["", "/**", "{}", "/* */ []"] {
            assert!(ReadableManifest::parse(text).is_err(), "{text}");
        }
    }
}
