//! `cairn upgrade`: packages follow the repositories.

use cairn_package::solve::{Request, Upgrade};

use super::repo::update_first;
use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::transact::{Mode, transact};

/// Upgrade packages to what the repositories have
///
/// What cannot be upgraded now stays as it is, and the plan says why.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names (default: all packages)
    #[arg(value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Read the indices of all repositories before
    #[arg(short, long)]
    update: bool,
    #[command(flatten)]
    mode: Mode,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    if args.update {
        let store = context.store()?;
        update_first(&context.repositories(&store), output)?;
    }
    let mut text = vec!["upgrade"];
    text.extend(args.packages.iter().map(String::as_str));
    let upgrade = match args.packages.as_slice() {
        [] => Upgrade::All,
        names => Upgrade::Only(names.to_vec()),
    };
    let request = Request { upgrade, ..Request::default() };
    transact(&request, &text.join(" "), &[], &args.mode, context, output)
}
