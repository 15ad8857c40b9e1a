//! `cairn recipe`: the files from which packages are made.

mod check;
mod macros;
mod new;
mod update;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;

/// Write, check and update recipes, and explain what they can use
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Check(check::Args),
    Macros(macros::Args),
    New(new::Args),
    Update(update::Args),
}

pub(crate) fn run(
    command: &Command,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::Check(args) => check::run(args, output),
        Command::Macros(args) => macros::run(args, output),
        Command::New(args) => new::run(args, context, output),
        Command::Update(args) => update::run(args, context, output),
    }
}
