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
    #[command(flatten)]
    how: How,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let current = store.current()?;
    let parent = current.parent.ok_or(Error::NoParent(current.id))?;
    switch(&store, &store.state(parent)?, args.how, context, output)
}
