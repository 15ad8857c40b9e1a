//! `cairn rollback`: back to the state before the current one.

use crate::command::switch::{How, switch};
use crate::context::Context;
use crate::error::Error;
use crate::output::Output;

/// Make the state current that the current one was made from
///
/// The current state stays: cairn switch goes forward to it again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out what triggers of live roots would do
    #[arg(long)]
    skip_triggers: bool,
    /// Show which running processes still use files that have been replaced, and
    /// the services that own them
    #[arg(long)]
    list_affected: bool,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let current = store.current()?;
    let parent = current.parent.ok_or(Error::NoParent(current.id))?;
    let how = How { skip_triggers: args.skip_triggers, list_affected: args.list_affected };
    switch(&store, &store.state(parent)?, how, context, output)
}
