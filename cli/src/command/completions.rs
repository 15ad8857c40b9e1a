//! `cairn completions`: what a shell needs to complete the command line.

use clap_complete::Shell;

use crate::complete;
use crate::error::Error;
use crate::output::Output;

/// Print a completion script for a shell
///
/// For bash: cairn completions bash > /etc/bash_completion.d/cairn. The script asks the
/// program, so that it knows packages, states, tags, repositories and workspaces.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Shell that will read the script
    shell: Shell,
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Error> {
    output.bytes(&complete::script(&args.shell.to_string())?)?;
    Ok(())
}
