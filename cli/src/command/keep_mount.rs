//! `cairn keep-mount`: the keeper or the process of a mount that was another program before.
//! The keeper starts it; people have no use for it.

use std::process::ExitCode;

use cairn_fs::Role;

use super::mount;
use crate::context::Context;
use crate::error::Error;

/// Go on with a mount of another program; for `cairn mount --restart` alone
///
/// These words are what a program of another version says.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mount, as its log names it
    #[arg(long)]
    target: String,
    /// It is the root of the running system
    #[arg(long)]
    system_root: bool,
    /// Be the process that answers the kernel
    #[arg(long, conflicts_with = "as_keeper")]
    as_process: bool,
    /// Be the keeper
    #[arg(long, required_unless_present = "as_process")]
    as_keeper: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Error> {
    let role = if args.as_keeper { Role::Keeper } else { Role::Process };
    let store = context.store_path()?;
    mount::succeed(&store, &args.target, args.system_root, role)
}
