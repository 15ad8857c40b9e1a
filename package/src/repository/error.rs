//! What can go wrong with repositories, as facts.

use std::io;
use std::path::PathBuf;

use super::config::{InvalidConfig, RepositoryName};
use super::http::NetworkProblem;
use super::key::KeyProblem;
use super::root_index::RootIndexProblem;
use super::signature::{Identity, SignatureProblem};
use super::url::InvalidUrl;
use crate::{catalog, stone};

/// Shorthand for what the functions here return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation with repositories failed.
///
/// Whatever is wrong with a new index, the last good one stays in use.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot access {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The configuration of a repository does not have the documented form.
    #[error("cannot read {}", path.display())]
    Config { path: PathBuf, source: InvalidConfig },
    /// There is no repository with this name.
    #[error("there is no repository {0}")]
    Unknown(RepositoryName),
    /// There is one already.
    #[error("there is a repository {0} already")]
    Exists(RepositoryName),
    /// A text is no address.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// Something cannot be downloaded.
    #[error("cannot download {url}")]
    Network { url: String, source: Box<NetworkProblem> },
    /// The root index of a repository does not lead to an index.
    #[error("cannot use the root index {url}")]
    RootIndex { url: String, source: RootIndexProblem },
    /// The index of a repository cannot be used.
    #[error("cannot use the index {at}")]
    Index { at: String, source: stone::Error },
    /// What is kept of an index cannot be used.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The index of a pinned repository is not signed.
    #[error("the index of {repository} is not signed: there is no {url}")]
    Unsigned { repository: RepositoryName, url: String },
    /// The signature of the index of a pinned repository is not believed.
    #[error("the signature {url} of {repository} is not believed")]
    Signature { repository: RepositoryName, url: String, source: SignatureProblem },
    /// The index is signed, and that of another repository.
    #[error("the index of {repository} is signed as that of {found}, and not of {expected}")]
    OtherRepository { repository: RepositoryName, expected: Identity, found: Identity },
    /// The index is signed, and older than what was taken over before.
    #[error(
        "the index of {repository} is older than the one before: number {offered} after {seen}"
    )]
    Rollback { repository: RepositoryName, seen: u64, offered: u64 },
    /// The index is signed, and has the number of another one.
    #[error("the index of {repository} has the number {sequence}, which another one had before")]
    SameNumber { repository: RepositoryName, sequence: u64 },
    /// The index is signed, and too old to be believed.
    #[error("the index of {repository} expired {} ago", Age(*.since))]
    Expired { repository: RepositoryName, since: u64 },
    /// A package of a directory cannot be used.
    #[error("cannot use the stone {}", path.display())]
    Stone { path: PathBuf, source: stone::Error },
    /// A directory has two packages with one name and one release.
    #[error("{} and {} are the same release of {name}", first.display(), second.display())]
    Twice { name: String, first: PathBuf, second: PathBuf },
    /// An index that is signed would not be any more.
    #[error("{} is signed, and the new index would not be", path.display())]
    WasSigned { path: PathBuf },
    /// A key cannot be used.
    #[error("cannot use the key {}", path.display())]
    Key { path: PathBuf, source: KeyProblem },
    /// The URI of a package leads somewhere else than to a file.
    #[error("the index of {repository} places {package} at {uri:?}, which is not allowed")]
    Location { repository: RepositoryName, package: String, uri: String },
    /// A stone is not the one that the index announces.
    #[error("{at} is not the file that the index of {repository} announces: {problem}")]
    Mismatch { repository: RepositoryName, at: String, problem: &'static str },
}

impl Error {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Whether a file is missing, rather than that it cannot be had now.
    pub(super) fn is_missing_file(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Network { source, .. } => source.is_missing(),
            _ => false,
        }
    }
}

/// A time of so many seconds, roughly.
struct Age(u64);

impl std::fmt::Display for Age {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (number, unit) = match self.0 {
            seconds @ 0..=119 => (seconds, "second"),
            seconds @ 120..=7_199 => (seconds / 60, "minute"),
            seconds @ 7_200..=172_799 => (seconds / 3_600, "hour"),
            seconds => (seconds / 86_400, "day"),
        };
        write!(f, "{number} {unit}{}", if number == 1 { "" } else { "s" })
    }
}
