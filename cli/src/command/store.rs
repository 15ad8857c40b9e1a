//! `cairn store`: the store as a whole.

mod compact;
mod info;
mod rebuild;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;

/// Show the store, make it smaller, and rebuild its index and its list of states
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Compact(compact::Args),
    Info(info::Args),
    Rebuild(rebuild::Args),
}

pub(crate) fn run(
    command: &Command,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::Compact(args) => compact::run(args, context, output),
        Command::Info(args) => info::run(args, context, output),
        Command::Rebuild(args) => rebuild::run(args, context, output),
    }
}
