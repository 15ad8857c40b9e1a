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
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Error> {
    build_root::enter(&context.store_directory()?, &build_root::entry_of(&args.entry)?)
}
