//! `cairn sandbox-helper`: the process from which a sandbox is made. Triggers
//! start it; people have no use for it.

use std::process::ExitCode;

/// Be the helper of a sandbox
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run() -> ExitCode {
    ExitCode::from(u8::try_from(cairn_fs::sandbox::inside()).unwrap_or(1))
}
