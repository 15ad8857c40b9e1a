//! Why a command failed, how it is said, and the exit code it makes.

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use serde::Serialize;

/// Done.
pub(crate) const DONE: ExitCode = ExitCode::SUCCESS;
/// Damaged data was found.
pub(crate) const DAMAGED: u8 = 3;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// Standard input cannot be read.
    #[error("cannot read the answer from standard input")]
    Input(#[source] io::Error),
    /// A value has no form in JSON.
    #[error("cannot write the data as JSON")]
    Json(#[source] serde_json::Error),
    /// A question needs an answer, and there is no terminal to ask at.
    #[error("cannot ask for confirmation without a terminal")]
    CannotAsk,
    /// The user said no.
    #[error("nothing was changed")]
    Declined,
    /// Nothing names the directory of the store.
    #[error("cannot choose a directory for the store: HOME is not set")]
    NoStorePath,
    /// A directory cannot be written to.
    #[error("cannot write into {}", path.display())]
    Write {
        /// The directory.
        path: std::path::PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What people and programs are told of an error.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    /// What was attempted.
    pub error: String,
    /// Why it failed, each the cause of the one before.
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Failure {
    /// `what was attempted: why: why that`.
    pub(crate) fn line(&self) -> String {
        let mut parts = vec![self.error.as_str()];
        parts.extend(self.causes.iter().map(String::as_str));
        parts.join(": ")
    }
}

impl Error {
    /// The error with its causes and advice.
    pub(crate) fn failure(&self) -> Failure {
        let mut causes = Vec::new();
        let mut cause = self.source();
        while let Some(err) = cause {
            causes.push(err.to_string());
            cause = err.source();
        }
        Failure { error: self.to_string(), causes, help: self.advice() }
    }

    /// The exit code: 1 failed, 3 damaged data found.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::FAILURE
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::CannotAsk => "pass --yes to answer every question with yes",
            Self::NoStorePath => "pass --store DIR or set CAIRN_STORE",
            Self::Output(_)
            | Self::Input(_)
            | Self::Json(_)
            | Self::Declined
            | Self::Write { .. } => return None,
        };
        Some(advice.into())
    }
}
