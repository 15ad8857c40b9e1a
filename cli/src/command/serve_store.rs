//! `cairn serve-store` and `cairn take-states`: the other sides of a pull and a push.

use std::fs::File;
use std::os::fd::AsFd;

use cairn_store::transfer::pipe::{Pipe, serve};

use super::pull::{How, take};
use crate::context::Context;
use crate::error::Error;
use crate::interrupt;
use crate::place::StateName;

/// Give states to the program at the other end of standard input and output
#[derive(clap::Args)]
pub(crate) struct Serve {}

/// Take states from the program at the other end of standard input and output
#[derive(clap::Args)]
pub(crate) struct Take {
    states: Vec<StateName>,
    #[command(flatten)]
    how: How,
}

/// Both, without the buffers of the standard library.
fn ends() -> Result<(File, File), Error> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(Error::Input)?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().map_err(Error::Output)?;
    Ok((stdin.into(), stdout.into()))
}

pub(crate) fn serve_store(context: &Context) -> Result<(), Error> {
    let (from, to) = ends()?;
    Ok(serve(&context.store()?, from, to, &()).map(drop)?)
}

pub(crate) fn take_states(args: &Take, context: &Context) -> Result<(), Error> {
    interrupt::note()?;
    let (from, to) = ends()?;
    let store = context.store_or_new()?;
    let source = Pipe::open("the store that pushes".into(), from, to)?;
    let (done, mounts) = take(&source, &args.states, &store, &args.how, &())?;
    source.done(serde_json::to_value(&done).map_err(Error::Json)?)?;
    mounts.check()
}
