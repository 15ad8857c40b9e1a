//! `cairn workspace diff`: what has changed in a workspace.

use std::ops::ControlFlow;

use cairn_fs::workspace;
use cairn_store::{WorkspaceName, diff};
use serde::Serialize;

use crate::command::diff::{Change, show_changes};
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;

/// Show what has changed in a workspace since its state
///
/// After a snapshot of a workspace that is in use, what has changed since the
/// snapshot. Of a directory that has come or gone, only the top is shown.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the workspace
    name: WorkspaceName,
}

#[derive(Serialize)]
struct Differences {
    workspace: String,
    /// The state that it is compared with.
    state: u64,
    changes: Vec<Change>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    workspace::become_owner(&args.name, &store.workspace(&args.name)?)?;
    let found = workspace::changes(&store, &args.name)?;
    let mut changes = Vec::new();
    diff(&found, found.reference.tree, found.tree, &mut |path, difference| {
        changes.push(Change::new(path, difference));
        ControlFlow::Continue(())
    })?;
    let (workspace, state) = (args.name.to_string(), found.reference.id.0);
    output.list(&Differences { workspace, state, changes })
}

impl View for Differences {
    fn show(&self, page: &mut Page) {
        let heading = format!("State {} to workspace {}", self.state, self.workspace);
        show_changes(page, &self.changes, &heading);
    }
}
