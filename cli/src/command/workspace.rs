//! `cairn workspace`: writable layers over states.

mod diff;
mod discard;
mod list;
mod reset;
mod show;

use cairn_fs::Registration;
use cairn_store::workspace::Record;
use cairn_store::{Store, WorkspaceName};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;

/// List, show, compare, reset and discard workspaces
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Show(show::Args),
    Diff(diff::Args),
    Reset(reset::Args),
    Discard(discard::Args),
}

pub(crate) fn run(
    command: &Command,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::List(args) => list::run(args, context, output),
        Command::Show(args) => show::run(args, context, output),
        Command::Diff(args) => diff::run(args, context, output),
        Command::Reset(args) => reset::run(args, context, output),
        Command::Discard(args) => discard::run(args, context, output),
    }
}

/// A workspace as every command tells of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WorkspaceView {
    pub workspace: String,
    /// The state below its layer.
    pub base: u64,
    /// The state that was published last from the layer, if it has gone on since.
    pub published: Option<u64>,
    /// Where it is mounted; `/` where a program runs in it.
    pub mounts: Vec<String>,
    /// Where its layer lies.
    pub path: String,
}

impl WorkspaceView {
    pub(crate) fn new(
        store: &Store,
        name: &WorkspaceName,
        record: &Record,
        mounts: &[Registration],
    ) -> Self {
        let its = mounts.iter().filter(|it| it.workspace.as_deref() == Some(name.as_str()));
        Self {
            workspace: name.to_string(),
            base: record.base.id.0,
            published: record.published.as_ref().map(|state| state.id.0),
            mounts: its.map(|mount| mount.target.clone()).collect(),
            path: store.workspace_path(name).display().to_string(),
        }
    }

    /// The state that its changes are told against.
    pub(crate) fn reference(&self) -> u64 {
        self.published.unwrap_or(self.base)
    }

    pub(crate) fn mounts_in_words(&self) -> String {
        self.mounts.join(", ")
    }
}

/// The running mounts of a store.
fn mounts(store: &Store) -> Result<Vec<Registration>, Error> {
    Ok(cairn_fs::list(&store.path().join("run"))?)
}
