//! Files of metadata alone: indices of repositories and build manifests.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};

use serde::{Deserialize, Serialize};

use super::error::Result;
use crate::metadata::Metadata;

/// Reads the index of a repository. Each package has a location, and no two
/// have one name.
pub fn read_index<R: Read + Seek>(from: R) -> Result<Vec<Metadata>> {
    let _ = from;
    unimplemented!()
}

/// Writes the index of a repository, sorted by name.
pub fn write_index<W: Write>(packages: &[Metadata], to: W) -> Result<()> {
    let _ = (packages, to);
    unimplemented!()
}

/// Reads a build manifest (`manifest.<arch>.bin`).
pub fn read_manifest<R: Read + Seek>(from: R) -> Result<Vec<Metadata>> {
    let _ = from;
    unimplemented!()
}

/// Writes a build manifest, sorted by name, with build releases of 0 and
/// without the packages of debug information (`-dbginfo`).
pub fn write_manifest<W: Write>(packages: &[Metadata], to: W) -> Result<()> {
    let _ = (packages, to);
    unimplemented!()
}

/// A build manifest for people (`manifest.<arch>.jsonc`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReadableManifest {
    /// Always `0.2`.
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
    /// As written in the recipe, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_depends: Vec<String>,
    /// Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<String>,
    /// Absolute paths, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Name of the package.
    pub name: String,
    /// Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provides: Vec<String>,
}

impl ReadableManifest {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        unimplemented!()
    }
}
