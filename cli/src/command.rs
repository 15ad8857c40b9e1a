//! The commands, each in its own file with its arguments.

mod apply;
mod bisect;
mod boot;
mod build;
mod cache;
mod cat;
mod check;
mod completions;
mod convert;
mod depends;
pub(crate) mod diff;
mod doctor;
mod downgrade;
mod du;
mod enter_build_root;
mod export;
mod export_model;
mod extract;
mod fetch;
mod files;
mod find;
pub(crate) mod gc;
mod history;
mod import;
mod info;
mod inspect;
mod install;
mod keep_mount;
mod key;
mod list;
mod log;
mod ls;
mod man;
mod mount;
mod owner;
mod pull;
mod push;
mod recipe;
mod reinstall;
mod remove;
mod repo;
mod rollback;
mod run;
mod sandbox;
mod search;
mod serve_store;
mod snapshot;
mod state;
mod stats;
mod store;
mod switch;
mod umount;
mod upgrade;
mod verify;
mod why;
mod workspace;

use std::process::ExitCode;

use clap::Subcommand;
use depends::Direction;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
pub(crate) use mount::InvalidOption;

/// What the program is asked to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "it")]
    Install(install::Args),
    #[command(visible_alias = "rm")]
    Remove(remove::Args),
    #[command(visible_alias = "up", alias = "sync")]
    Upgrade(upgrade::Args),
    Reinstall(reinstall::Args),
    Apply(apply::Args),
    ExportModel(export_model::Args),
    #[command(visible_alias = "sr")]
    Search(search::Args),
    Info(info::Args),
    List(list::Args),
    Files(files::Args),
    Owner(owner::Args),
    Depends(depends::Args),
    /// Show who needs a package, as a tree
    #[command(
        long_about = "Show who needs a package, as a tree\n\nOf a package that is not installed, what repositories have is shown."
    )]
    Rdepends(depends::Args),
    Why(why::Args),
    Check(check::Args),
    History(history::Args),
    Downgrade(downgrade::Args),
    #[command(visible_alias = "fe")]
    Fetch(fetch::Args),
    #[command(subcommand)]
    Repo(repo::Command),
    #[command(subcommand)]
    Key(key::Command),
    #[command(subcommand)]
    Cache(cache::Command),
    #[command(subcommand)]
    State(state::Command),
    Switch(switch::Args),
    Rollback(rollback::Args),
    #[command(subcommand)]
    Boot(boot::Command),
    Export(export::Args),
    Import(import::Args),
    Pull(pull::Args),
    Push(push::Args),
    Ls(ls::Args),
    Find(find::Args),
    Diff(diff::Args),
    Log(log::Args),
    Du(du::Args),
    Cat(cat::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Stats(stats::Args),
    Run(run::Args),
    Bisect(bisect::Args),
    #[command(subcommand)]
    Workspace(workspace::Command),
    Snapshot(snapshot::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Doctor(doctor::Args),
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
    #[command(hide = true)]
    KeepMount(keep_mount::Args),
    #[command(hide = true)]
    ServeStore(serve_store::Serve),
    #[command(hide = true)]
    TakeStates(serve_store::Take),
    Completions(completions::Args),
    Man(man::Args),
    #[command(name = crate::context::SANDBOX_HELPER, hide = true)]
    Sandbox(sandbox::Args),
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
            Self::Reinstall(args) => reinstall::run(args, context, output),
            Self::Apply(args) => apply::run(args, context, output),
            Self::ExportModel(args) => export_model::run(args, context, output),
            Self::Search(args) => search::run(args, context, output),
            Self::Info(args) => info::run(args, context, output),
            Self::List(args) => list::run(args, context, output),
            Self::Files(args) => files::run(args, context, output),
            Self::Owner(args) => owner::run(args, context, output),
            Self::Depends(args) => depends::run(args, Direction::Needs, context, output),
            Self::Rdepends(args) => depends::run(args, Direction::NeededBy, context, output),
            Self::Why(args) => why::run(args, context, output),
            Self::Check(args) => check::run(args, context, output),
            Self::History(args) => history::run(args, context, output),
            Self::Bisect(args) => bisect::run(args, context, output),
            Self::Downgrade(args) => downgrade::run(args, context, output),
            Self::Fetch(args) => fetch::run(args, context, output),
            Self::Key(command) => key::run(command, context, output),
            Self::Cache(command) => cache::run(command, context, output),
            Self::Repo(command) => repo::run(command, context, output),
            Self::State(command) => state::run(command, context, output),
            Self::Switch(args) => switch::run(args, context, output),
            Self::Rollback(args) => rollback::run(args, context, output),
            Self::Boot(command) => boot::run(command, context, output),
            Self::Export(args) => export::run(args, context, output),
            Self::Pull(args) => pull::run(args, context, output),
            Self::Push(args) => push::run(args, context, output),
            Self::ServeStore(_) => serve_store::serve_store(context),
            Self::TakeStates(args) => serve_store::take_states(args, context),
            Self::Import(args) => import::run(args, context, output),
            Self::Find(args) => find::run(args, context, output),
            Self::Diff(args) => diff::run(args, context, output),
            Self::Log(args) => log::run(args, context, output),
            Self::Du(args) => du::run(args, context, output),
            Self::Ls(args) => ls::run(args, context, output),
            Self::Cat(args) => cat::run(args, context, output),
            Self::Mount(args) => mount::run(args, context, output),
            Self::Umount(args) => umount::run(args, output),
            Self::Stats(args) => stats::run(args, context, output),
            Self::Run(args) => return run::run(args, context),
            Self::Sandbox(_) => return Ok(sandbox::run()),
            Self::Workspace(command) => workspace::run(command, context, output),
            Self::Snapshot(args) => snapshot::run(args, context, output),
            Self::Gc(args) => gc::run(args, context, output),
            Self::Verify(args) => verify::run(args, context, output),
            Self::Doctor(args) => doctor::run(args, context, output),
            Self::Store(command) => store::run(command, context, output),
            Self::Convert(args) => convert::run(args, output),
            Self::Inspect(args) => inspect::run(args, context, output),
            Self::Extract(args) => extract::run(args, context, output),
            Self::Build(args) => return build::run(args, context, output),
            Self::Recipe(command) => recipe::run(command, context, output),
            Self::KeepMount(args) => return keep_mount::run(args, context),
            Self::EnterBuildRoot(args) => return enter_build_root::run(args, context),
            Self::Completions(args) => completions::run(args, output),
            Self::Man(args) => man::run(args, output),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}
