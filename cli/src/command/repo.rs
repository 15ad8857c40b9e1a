//! `cairn repo`: where packages come from.

mod add;
mod index;
mod list;
mod remove;
mod set;
mod settings;
mod update;

pub(crate) use update::update_first;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;

/// Add, list, update, remove and make repositories
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Add(add::Args),
    List(list::Args),
    Update(update::Args),
    #[command(visible_alias = "rm")]
    Remove(remove::Args),
    Set(set::Args),
    /// Offer the packages of repositories again
    Enable(set::Names),
    /// Offer the packages of repositories no more; what is installed stays
    Disable(set::Names),
    Index(index::Args),
}

pub(crate) fn run(
    command: &Command,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::Add(args) => add::run(args, context, output),
        Command::List(args) => list::run(args, context, output),
        Command::Update(args) => update::run(args, context, output),
        Command::Remove(args) => remove::run(args, context, output),
        Command::Set(args) => set::run(args, context, output),
        Command::Enable(args) => set::switch(args, true, context, output),
        Command::Disable(args) => set::switch(args, false, context, output),
        Command::Index(args) => index::run(args, context, output),
    }
}
