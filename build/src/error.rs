//! What can go wrong with a build, as facts.

use std::io;
use std::path::PathBuf;

use crate::problem::Located;

/// Shorthand for what nearly every function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something about a build failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot access {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A recipe cannot be built.
    #[error("{}", show(path, problems))]
    Recipe { path: PathBuf, problems: Vec<Located> },
    /// Macros could not be read.
    #[error(transparent)]
    Macros(#[from] crate::macros::Error),
    /// What was installed has a name that no package can have.
    #[error("a package cannot have {}: its name is not UTF-8, or too deep", path.display())]
    Name { path: PathBuf },
    /// The recipe installed nothing.
    #[error("the recipe has installed nothing that can be packaged")]
    NothingInstalled,
    /// A stone could not be made.
    #[error("cannot make the package {package}")]
    Stone { package: String, source: cairn_package::stone::Error },
    /// A manifest could not be read or written.
    #[error("cannot use the manifest {}", path.display())]
    Manifest { path: PathBuf, source: cairn_package::stone::Error },
    /// The packages are others than the manifest says.
    #[error("the packages are not those of {}:\n{}", path.display(), differences.join("\n"))]
    Differs { path: PathBuf, differences: Vec<String> },
}

impl Error {
    /// For `map_err` where `path` is used.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

fn show(path: &std::path::Path, problems: &[Located]) -> String {
    let lines: Vec<String> =
        problems.iter().map(|problem| format!("{}:{problem}", path.display())).collect();
    lines.join("\n")
}
