//! `cairn completions`: what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::Error;
use crate::output::Output;

/// Print a completion script for a shell
///
/// For bash: cairn completions bash > /etc/bash_completion.d/cairn
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Shell that will read the script
    shell: Shell,
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "cairn", &mut script);
    output.bytes(&script)?;
    Ok(())
}
