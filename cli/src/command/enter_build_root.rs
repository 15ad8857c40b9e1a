//! `cairn enter-build-root`: the other half of `cairn build`, which runs as a
//! process of its own.

use std::process::ExitCode;

use crate::build_root;
use crate::context::Context;
use crate::error::Error;

/// Run what a build wants in its root; for `cairn build` alone
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to run, as JSON
    entry: String,
    /// End when this process does, which has to be the one that runs this
    #[arg(long, value_name = "PROCESS")]
    parent: u32,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Error> {
    // What runs in there is silent for hours at times, and would not notice that
    // nobody listens any more.
    cairn_fs::end_with_parent().map_err(|source| cairn_build::Error::Enter { source })?;
    if std::os::unix::process::parent_id() != args.parent {
        return Ok(ExitCode::FAILURE);
    }
    build_root::enter(&context.store_directory()?, &build_root::entry_of(&args.entry)?)
}
