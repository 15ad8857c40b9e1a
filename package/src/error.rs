//! What can go wrong with packages, as facts.

use std::path::PathBuf;

use cairn_store::Name;

use crate::system::FileConflict;

/// Shorthand for what nearly every function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation with packages failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// The store could not be read or changed.
    #[error(transparent)]
    Store(#[from] cairn_store::Error),
    /// A stone could not be read.
    #[error("cannot use the stone {}", path.display())]
    Stone { path: PathBuf, source: crate::stone::Error },
    /// The layout of a package does not fit its content.
    #[error(transparent)]
    Layout(#[from] crate::stone::Error),
    /// A directory of a package has this name twice.
    #[error("a package has {name} twice in a directory")]
    RepeatedName { name: Name },
    /// The repositories could not be used.
    #[error(transparent)]
    Repository(#[from] crate::repository::Error),
    /// A file of this machine could not be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A package of a repository could not be read.
    #[error(transparent)]
    Catalog(#[from] crate::catalog::Error),
    /// A request has no solution.
    #[error(transparent)]
    Problem(#[from] crate::solve::Problem),
    /// The stone of a package is not there, or is that of another package.
    #[error("the stone of {package} is not available")]
    Unavailable { package: String },
    /// Another state became current while the plan was made.
    #[error("the system has changed since the plan was made")]
    Outdated,
    /// Packages want different things at the same path.
    #[error("{}", crate::system::FileConflict::list(conflicts))]
    FileConflicts { conflicts: Vec<FileConflict> },
    /// A trigger file cannot be used.
    #[error(transparent)]
    TriggerFile(#[from] crate::trigger::LoadError),
    /// The root in which triggers run could not be made.
    #[error("cannot make the root in which triggers run")]
    Sandbox { source: cairn_fs::Error },
    /// A trigger has failed.
    #[error("{}", crate::trigger::failure(job, *outcome, output))]
    Trigger { job: crate::trigger::Job, outcome: cairn_fs::sandbox::Outcome, output: String },
}
