//! `cairn recipe`: the files from which packages are made.

mod check;
mod macros;

use crate::error::Error;
use crate::output::Output;

/// Check recipes, and explain what they can use
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Check(check::Args),
    Macros(macros::Args),
}

pub(crate) fn run(command: &Command, output: &mut Output<'_>) -> Result<(), Error> {
    match command {
        Command::Check(args) => check::run(args, output),
        Command::Macros(args) => macros::run(args, output),
    }
}
