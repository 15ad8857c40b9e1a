//! `cairn remove`: packages go from the system.

use cairn_package::Dependency;
use cairn_package::solve::Request;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::transact::{Mode, To, transact};

/// Remove packages, what needs them, and what nobody needs any more
///
/// The result is a new state, which becomes the current one; those before it
/// keep the packages.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names, or providers such as 'binary(nano)'
    #[arg(value_name = "PACKAGE", required = true)]
    packages: Vec<Dependency>,
    #[command(flatten)]
    mode: Mode,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let request = Request { remove: args.packages.clone(), ..Request::default() };
    let names: Vec<String> = args.packages.iter().map(ToString::to_string).collect();
    let text = format!("remove {}", names.join(" "));
    transact(&request, &text, &[], &To::default(), &args.mode, context, output)
}
