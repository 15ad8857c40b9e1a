//! `cairn downgrade`: packages become older.

use cairn_package::solve::{Downgrade, Request};

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::transact::{Mode, To, transact};

/// Replace packages by older builds that repositories have: the next older ones, or NAME=VERSION
///
/// What they need is replaced with them. The next upgrade of all packages brings the
/// newer ones again. To go back to all packages of an earlier state: cairn
/// rollback.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of installed packages, each with the version that it is to become or without
    #[arg(value_name = "PACKAGE[=VERSION]", required = true)]
    packages: Vec<String>,
    #[command(flatten)]
    mode: Mode,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let text = format!("downgrade {}", args.packages.join(" "));
    let downgrade = args.packages.iter().map(|it| Downgrade::from(it.as_str())).collect();
    let request = Request { downgrade, ..Request::default() };
    transact(&request, &text, &[], &To::default(), &args.mode, context, output)
}
