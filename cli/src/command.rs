//! The commands, each in its own file with its arguments.

mod completions;
mod man;

use std::process::ExitCode;

use clap::Subcommand;

use crate::context::Context;
use crate::error::{DONE, Error};
use crate::output::Output;

/// What the program is asked to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    /// Does it; the exit code says how it went.
    pub(crate) fn run(
        &self,
        _context: &Context,
        output: &mut Output<'_>,
    ) -> Result<ExitCode, Error> {
        match self {
            Self::Completions(args) => completions::run(args, output)?,
            Self::Man(args) => man::run(args, output)?,
        }
        Ok(DONE)
    }
}
