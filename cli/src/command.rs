//! The commands, each in its own file with its arguments.

mod build;
mod cat;
mod completions;
mod convert;
mod enter_build_root;
mod extract;
mod import;
mod inspect;
mod install;
mod ls;
mod man;
mod mount;
mod recipe;
mod remove;
mod repo;
mod rollback;
mod run;
mod state;
mod store;
mod switch;
mod umount;
mod upgrade;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;

/// What the program is asked to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "it")]
    Install(install::Args),
    #[command(visible_alias = "rm")]
    Remove(remove::Args),
    #[command(visible_alias = "up")]
    Upgrade(upgrade::Args),
    #[command(subcommand)]
    Repo(repo::Command),
    #[command(subcommand)]
    State(state::Command),
    Switch(switch::Args),
    Rollback(rollback::Args),
    Import(import::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Run(run::Args),
    Verify(verify::Args),
    #[command(subcommand)]
    Store(store::Command),
    Convert(convert::Args),
    Inspect(inspect::Args),
    Extract(extract::Args),
    Build(build::Args),
    #[command(subcommand)]
    Recipe(recipe::Command),
    #[command(hide = true)]
    EnterBuildRoot(enter_build_root::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    /// Does it; returns the exit code of the process.
    pub(crate) fn run(
        &self,
        context: &Context,
        output: &mut Output<'_>,
    ) -> Result<ExitCode, Error> {
        match self {
            Self::Install(args) => install::run(args, context, output),
            Self::Remove(args) => remove::run(args, context, output),
            Self::Upgrade(args) => upgrade::run(args, context, output),
            Self::Repo(command) => repo::run(command, context, output),
            Self::State(command) => state::run(command, context, output),
            Self::Switch(args) => switch::run(args, context, output),
            Self::Rollback(args) => rollback::run(args, context, output),
            Self::Import(args) => import::run(args, context, output),
            Self::Ls(args) => ls::run(args, context, output),
            Self::Cat(args) => cat::run(args, context, output),
            Self::Mount(args) => mount::run(args, context, output),
            Self::Umount(args) => umount::run(args, output),
            Self::Run(args) => return run::run(args, context),
            Self::Verify(args) => verify::run(args, context, output),
            Self::Store(command) => store::run(command, context, output),
            Self::Convert(args) => convert::run(args, output),
            Self::Inspect(args) => inspect::run(args, context, output),
            Self::Extract(args) => extract::run(args, context, output),
            Self::Build(args) => return build::run(args, context, output),
            Self::Recipe(command) => recipe::run(command, context, output),
            Self::EnterBuildRoot(args) => return enter_build_root::run(args, context),
            Self::Completions(args) => completions::run(args, output),
            Self::Man(args) => man::run(args, output),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}
