//! What can go wrong with a build, as facts.

use std::io;
use std::path::PathBuf;

use crate::problem::Located;
use crate::recipe::Hash;

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
    /// The packages of a build root cannot be had.
    #[error("cannot make the build root")]
    Packages(#[from] cairn_package::Error),
    /// The build root cannot be entered.
    #[error("cannot enter the build root")]
    Enter { source: io::Error },
    /// The script of a phase failed.
    #[error("the phase {phase} failed with exit code {code}; its log is {}", log.display())]
    PhaseFailed { phase: &'static str, code: i32, log: PathBuf },
    /// What ran in the build root ended outside of a phase.
    #[error("the build ended with exit code {code}: {said}")]
    Interrupted { code: i32, said: String },
    /// An address tells neither name nor version.
    #[error("{url} tells neither the name nor the version of the package")]
    NoName { url: String },
    /// Recipes need each other in a circle.
    #[error("these recipes need each other in a circle: {}", names.join(", "))]
    Circle { names: Vec<String> },
    /// There is nothing to enter.
    #[error("{recipe} was not built here yet")]
    NotBuilt { recipe: String },
    /// Somebody else builds the same recipe.
    #[error("another process builds in {}", path.display())]
    InUse { path: PathBuf },
    /// An upstream cannot be downloaded.
    #[error("cannot download {url}")]
    Download { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// An upstream is another file than the recipe says.
    #[error("{url} is another file than the recipe says: its SHA-256 is {found}, not {wanted}")]
    WrongHash { url: String, wanted: Hash, found: Hash },
    /// Git does not give what the recipe wants.
    #[error("cannot get {url}: {message}")]
    Git { url: String, message: String },
    /// An upstream cannot be unpacked.
    #[error("cannot unpack {name}")]
    Unpack { name: String, source: crate::archive::Error },
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
