//! Why a command failed, how it is said, and the exit code it makes.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use cairn_package::boot;
use cairn_package::repository::{self, KeyProblem};
use cairn_package::{Error as PackageError, stone};
use cairn_store::{Error as StoreError, StateId};
use serde::{Deserialize, Serialize};

use crate::command::InvalidOption;

mod advice;

/// Exit code: damaged data was found.
const DAMAGED: u8 = 3;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store says why.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Packages could not be planned or changed.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A text does not name a package or provider.
    #[error(transparent)]
    Dependency(#[from] cairn_package::InvalidDependency),
    /// A build says why.
    #[error(transparent)]
    Build(#[from] cairn_build::Error),
    /// There is a file already.
    #[error("{} exists", path.display())]
    Exists { path: PathBuf },
    /// Nothing says what a recipe is to become.
    #[error("nothing says what the recipe is to become")]
    NothingToUpdate,
    /// There is one shell at a time.
    #[error("a shell is opened for one recipe")]
    OneRecipe,
    /// Two packages would mix there.
    #[error("one package at a time can be unpacked into a directory itself")]
    OneDirectory,
    /// Macros could not be read.
    #[error(transparent)]
    Macros(#[from] cairn_build::macros::Error),
    /// Some recipes have errors, and it has been told which.
    #[error("{failed} of {all} recipes cannot be built")]
    BadRecipes { failed: usize, all: usize },
    /// There is no action, definition or tuning group of this name.
    #[error("there is no action, definition or tuning group {0:?}")]
    NoSuchMacro(String),
    /// A mount says why.
    #[error(transparent)]
    Mount(#[from] cairn_fs::Error),
    /// The process of a mount says why.
    #[error("{}", .0.error)]
    InBackground(Failure),
    /// A mount option cannot be understood.
    #[error(transparent)]
    MountOption(#[from] InvalidOption),
    /// The program could not be executed once more.
    #[error("cannot begin anew as the process of a root")]
    Again(#[source] io::Error),
    /// The change is committed, and some mounts do not show it.
    #[error("done, but mounts do not show it: {failed}")]
    NotShown { failed: usize },
    /// A signal came, and the work was stopped before it changed anything.
    #[error("it was interrupted; nothing was changed")]
    Interrupted { signal: i32 },
    /// Another program that was needed is missing or has failed.
    #[error("{program} failed")]
    Program { program: &'static str, source: io::Error },
    /// Two stores are needed and only one was named.
    #[error("that is the same store")]
    SameStore,
    /// The other side has ended without a result.
    #[error("the other side has not said what it did")]
    NoAnswer,
    /// An archive is taken in as a whole.
    #[error("--exclude, --one-file-system and --no-cache are for directories, not for archives")]
    NotForArchives,
    /// An option of an export would do nothing.
    #[error("{option} does nothing for {format}")]
    NotForFormat { option: &'static str, format: &'static str },
    /// Bytes that are not for people would go to a terminal.
    #[error("standard output is a terminal")]
    ToTerminal,
    /// A text is not a pattern of paths.
    #[error("cannot understand a pattern")]
    Pattern(#[source] globset::Error),
    /// The change is committed, and system triggers have failed.
    #[error("done, but triggers have failed in live roots: {failed}")]
    NotTriggered { failed: usize },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The supervisor does not listen.
    #[error("cannot tell the supervisor that the mount is ready")]
    Supervisor(#[source] io::Error),
    /// A repository says why.
    #[error(transparent)]
    Repository(#[from] repository::Error),
    /// Some repositories were not updated, and it has been told which.
    #[error("{failed} of {all} repositories could not be updated; what was known of them stays")]
    NotUpdated { failed: usize, all: usize },
    /// A key cannot be used.
    #[error("cannot use the key {text}")]
    Key { text: String, source: KeyProblem },
    /// The menu of the boot loader could not be made.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// Two answers should have been the same.
    #[error("the two passwords differ")]
    PasswordsDiffer,
    /// A stone cannot be read or extracted.
    #[error("cannot use {}", path.display())]
    Stone { path: PathBuf, source: stone::Error },
    /// Some packages were not converted, and it has been told which.
    #[error("{failed} of {all} packages could not be converted")]
    NotConverted { failed: usize, all: usize },
    /// A directory has no packages of the wanted kind.
    #[error("{} has no *.{extension} files", directory.display())]
    NoPackages { directory: PathBuf, extension: &'static str },
    /// Damage was found, and has been told.
    #[error("damage was found in {found} places")]
    DamageFound { found: usize },
    /// Something has to be done, and it has been told what.
    #[error("problems found: {found}")]
    ProblemsFound { found: usize },
    /// A state was made from nothing.
    #[error("state {0} has no parent")]
    NoParent(StateId),
    /// A text does not name a file of a state.
    #[error("{0:?} does not name a file of a state")]
    NotAPlace(String),
    /// A path of which no state could have anything.
    #[error("{0:?} does not name a file of a state")]
    NotAPath(String),
    /// A text names no state.
    #[error("{0:?} does not name a state")]
    NotAState(String),
    /// A state is named in two ways, or there is nothing to run in it.
    #[error("{0:?} stands where a state can stand; write -- before it if it is the command")]
    StateTwice(String),
    /// No state ever had it.
    #[error("no state has {0}")]
    InNoState(String),
    /// No name or path is like the pattern.
    #[error("state {state} has nothing like {pattern:?}")]
    NothingFound { pattern: String, state: StateId },
    /// There is nothing at the path.
    #[error("state {state} has no {path}")]
    NoSuchFile { state: StateId, path: String },
    /// There is nothing at the path in either of two trees.
    #[error("neither {} nor {} has {path}", .names[0], .names[1])]
    InNeither { path: String, names: [String; 2] },
    /// The path leads in a circle.
    #[error("too many symbolic links lead to {path} in state {state}")]
    TooManyLinks { state: StateId, path: String },
    /// There is something else at the path.
    #[error("{path} in state {state} is not a regular file")]
    NotAFile { state: StateId, path: String },
    /// The command prints bytes that are not for people.
    #[error("{command} prints bytes as they are, not JSON")]
    NoJson { command: &'static str },
    /// There is no such package.
    #[error("there is no package {0}")]
    UnknownPackage(String),
    /// The package is not installed.
    #[error("{0} is not installed")]
    NotInstalled(String),
    /// Files of packages are not as they were brought, and it has been told which.
    #[error("files that are not as their packages have them: {found}")]
    Deviations { found: usize },
    /// There is no state to try.
    #[error("there is no state between {good} and {bad}")]
    NothingBetween { good: StateId, bad: StateId },
    /// A file is no model.
    #[error("cannot use the model {}", path.display())]
    Model { path: PathBuf, source: cairn_package::model::Problem },
    /// A configuration file cannot be used.
    #[error("cannot use the configuration {}: {problem}", path.display())]
    Config { path: PathBuf, problem: String },
    /// A model cannot be planned before its repositories are known.
    #[error("the packages can be planned when the repositories are as the model says")]
    OtherRepositories,
    /// Nothing names the directory of the store.
    #[error("cannot choose a directory for the store: HOME is not set")]
    NoStorePath,
    /// A store belongs to somebody else, who could lead its users astray.
    #[error("{} belongs to user {owner}", path.display())]
    ForeignStore { path: PathBuf, owner: u32 },
    /// A question needs an answer, and there is no terminal to ask at.
    #[error("cannot ask for confirmation without a terminal")]
    CannotAsk,
    /// The user said no.
    #[error("nothing was changed")]
    Declined,
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A directory cannot be written to.
    #[error("cannot write into {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// Standard input cannot be read.
    #[error("cannot read the answer from standard input")]
    Input(#[source] io::Error),
    /// A value has no form in JSON.
    #[error("cannot write the data as JSON")]
    Json(#[source] serde_json::Error),
}

/// What people and programs are told of an error.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What was attempted.
    pub error: String,
    /// Why it failed, each the cause of the one before.
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<Cow<'static, str>>,
}

impl Failure {
    /// `what was attempted: why: why that`.
    pub(crate) fn line(&self) -> String {
        let mut parts = vec![self.error.as_str()];
        parts.extend(self.causes.iter().map(String::as_str));
        parts.join(": ")
    }
}

/// The causes of an error, each that of the one before.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(err) = cause {
        causes.push(err.to_string());
        cause = err.source();
    }
    causes
}

/// An error with its causes, where it is a part of the data.
pub(crate) fn in_one_line(error: &dyn std::error::Error) -> String {
    std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ")
}

/// An error of a process in the background, in the words in which it comes to the
/// command that has started it.
#[derive(Debug)]
pub(crate) struct InBackground(pub(crate) Error);

impl fmt::Display for InBackground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(&self.0.failure());
        f.write_str(&text.expect("strings make a document"))
    }
}

impl std::error::Error for InBackground {}

impl From<cairn_package::catalog::Error> for Error {
    fn from(error: cairn_package::catalog::Error) -> Self {
        Self::Package(error.into())
    }
}

impl Error {
    /// For `map_err` where `path` is read.
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    /// For `map_err` where `path` is written.
    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }

    /// The error with its causes and advice.
    pub(crate) fn failure(&self) -> Failure {
        if let Self::InBackground(failure) = self {
            return failure.clone();
        }
        let help = self.advice().map(Cow::Borrowed);
        Failure { error: self.to_string(), causes: causes(self), help }
    }

    /// The error that a process in the background has put into words with
    /// [`InBackground`].
    pub(crate) fn of_background(error: cairn_fs::Error) -> Self {
        if let cairn_fs::Error::Background { message } = &error
            && let Ok(failure) = serde_json::from_str(message)
        {
            return Self::InBackground(failure);
        }
        error.into()
    }

    /// The exit code: 1 failed, 2 usage, 3 damaged data found.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Store(err)
            | Self::Package(PackageError::Store(err))
            | Self::Boot(boot::Error::Store(err))
            | Self::Mount(cairn_fs::Error::Store(err))
                if err.is_damage() =>
            {
                DAMAGED.into()
            }
            Self::Stone { source, .. } | Self::Package(PackageError::Stone { source, .. })
                if is_damage(source) =>
            {
                DAMAGED.into()
            }
            Self::DamageFound { .. } => DAMAGED.into(),
            Self::Repository(repository::Error::Url(_)) => 2.into(),
            // As shells say it of a program that a signal has ended.
            Self::Interrupted { signal } => u8::try_from(128 + signal).unwrap_or(1).into(),
            Self::Dependency(_)
            | Self::MountOption(_)
            | Self::NotAPlace(_)
            | Self::NotAPath(_)
            | Self::NotAState(_)
            | Self::StateTwice(_)
            | Self::NoJson { .. }
            | Self::NotForArchives
            | Self::NotForFormat { .. }
            | Self::SameStore
            | Self::ToTerminal
            | Self::Pattern(_) => 2.into(),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Whether a stone was made otherwise than it is now.
fn is_damage(error: &stone::Error) -> bool {
    matches!(
        error,
        stone::Error::DamagedPrelude
            | stone::Error::MissingPayloads { .. }
            | stone::Error::TruncatedPayload { .. }
            | stone::Error::DamagedPayload { .. }
            | stone::Error::Decompress { .. }
            | stone::Error::PlainSize { .. }
            | stone::Error::DamagedContent(_)
            | stone::Error::ForgedContent(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_what_was_attempted_why_and_what_helps() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = Error::from(StoreError::Io { path: "/store/refs/log".into(), source });
        let failure = error.failure();
        assert_eq!(failure.line(), "cannot access /store/refs/log: permission denied");
        let help = "run it as root, or name a store of your own with --store";
        assert_eq!(failure.help, Some(Cow::Borrowed(help)));
    }
}
