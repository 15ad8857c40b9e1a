//! `cairn man`: the manual pages, made from the help.

use std::path::PathBuf;

use clap::CommandFactory;

use crate::error::Error;
use crate::output::Output;

/// Write the manual pages of all commands into a directory
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory that exists, such as /usr/local/share/man/man1
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Error> {
    clap_mangen::generate_to(crate::Cli::command(), &args.dir)
        .map_err(|source| Error::Write { path: args.dir.clone(), source })?;
    output.status(format_args!("Manual pages are in {}.", args.dir.display()));
    Ok(())
}
