//! `cairn workspace diff`: what has changed in a workspace.

use cairn_fs::workspace;
use cairn_store::WorkspaceName;
use serde::Serialize;

use crate::context::Context;
use crate::differences::{Changes, Side, What};
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;

/// Show what has changed in a workspace since its state
///
/// After a snapshot of a workspace that is in use, what has changed since the
/// snapshot. Of a directory that has come or gone, only the top is shown, with --patch all of it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the workspace
    name: WorkspaceName,
    #[command(flatten)]
    what: What,
}

#[derive(Serialize)]
struct Differences {
    workspace: String,
    /// The state that it is compared with.
    state: u64,
    changes: Changes,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    workspace::become_owner(&args.name, &store.workspace(&args.name)?)?;
    let found = workspace::changes(&store, &args.name)?;
    let (reference, workspace) = (&found.reference, args.name.to_string());
    let sides = [
        Side {
            name: format!("state {}", reference.id),
            tree: reference.tree,
            content: &|_, blob| Ok(store.read(blob)?),
        },
        Side {
            name: format!("workspace {workspace}"),
            tree: found.tree,
            content: &|path, blob| Ok(found.read(path, blob)?),
        },
    ];
    let changes = args.what.compare(&found, &sides)?;
    output.list(&Differences { workspace, state: reference.id.0, changes })
}

impl View for Differences {
    fn show(&self, page: &mut Page) {
        let heading = format!("State {} to workspace {}", self.state, self.workspace);
        self.changes.show(page, &heading);
    }
}
