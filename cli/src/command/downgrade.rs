//! `cairn downgrade`: packages become older.

use cairn_package::solve::Request;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::transact::{Mode, To, transact};

/// Replace packages by the next older builds that repositories have
///
/// What they need is replaced with them. The next upgrade of all packages brings the
/// newer ones again. To go back to all packages of an earlier state: cairn
/// rollback.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of installed packages
    #[arg(value_name = "PACKAGE", required = true)]
    packages: Vec<String>,
    #[command(flatten)]
    mode: Mode,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let text = format!("downgrade {}", args.packages.join(" "));
    let request = Request { downgrade: args.packages.clone(), ..Request::default() };
    transact(&request, &text, &[], &To::default(), &args.mode, context, output)
}
