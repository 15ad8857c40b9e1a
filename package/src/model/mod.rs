//! A system as a file: which repositories, packages and local files it has.
//!
//! Format: docs/model.md.

mod kdl;
mod local;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cairn_store::{InvalidTag, Tag, TreePath};

use crate::dependency::{Dependency, InvalidDependency};
use crate::repository::{Config, InvalidName};

pub(crate) use local::{Local, local_files, put_local};

/// What a system is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// All repositories; `None` leaves them as they are.
    pub repositories: Option<Vec<Config>>,
    /// What is asked for.
    pub packages: BTreeSet<Dependency>,
    /// Files that no package brings, by path.
    pub files: BTreeMap<TreePath, LocalFile>,
    /// Tags that the state gets.
    pub tags: BTreeSet<Tag>,
}

/// A file that no package brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// What it is.
    pub content: LocalContent,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

/// What a local file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalContent {
    /// A regular file with these bytes.
    Bytes(Vec<u8>),
    /// A regular file with the bytes of this file of the machine.
    Source(PathBuf),
    /// A symbolic link with this text.
    Link(String),
}

/// Why a file is no model.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not the YAML that it should be.
    #[error("it is not a model in YAML")]
    Yaml(#[source] serde_yaml::Error),
    /// It is not the KDL that it should be.
    #[error("it is not a model in KDL: {0}")]
    Kdl(String),
    /// It is not text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A repository has no name that it can have.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A repository does not have the documented form.
    #[error("the repository {name} is not as documented: {problem}")]
    Repository {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A package is not the name of one.
    #[error(transparent)]
    Package(#[from] InvalidDependency),
    /// A tag cannot be one.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// A local file cannot be what it should be.
    #[error("the file {path}: {problem}")]
    File {
        /// Its path as it is written.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl Model {
    /// Reads a model in YAML; sources of files are relative to `directory`.
    pub fn from_yaml(text: &str, directory: &std::path::Path) -> Result<Self, Problem> {
        yaml::parse(text, directory)
    }

    /// Writes it in YAML. Sources of files are written as their bytes.
    ///
    /// # Errors
    /// A source that cannot be read.
    pub fn to_yaml(&self) -> std::io::Result<String> {
        yaml::write(self)
    }

    /// Reads a system model of moss.
    pub fn from_kdl(text: &str) -> Result<Self, Problem> {
        kdl::parse(text)
    }

    /// Writes a system model of moss, which cannot say anything of files and tags.
    #[must_use]
    pub fn to_kdl(&self) -> String {
        kdl::write(self)
    }
}
