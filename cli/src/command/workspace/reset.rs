//! `cairn workspace reset`: a workspace without its changes.

use cairn_fs::workspace;
use cairn_store::WorkspaceName;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::place::StateName;

/// Drop what has changed in a workspace, or put it on another state
///
/// What was published by a snapshot is kept by its state. The workspace must not
/// be in use.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the workspace
    name: WorkspaceName,
    /// State to put it on (default: that of its last snapshot, else the one it is
    /// on)
    #[arg(long)]
    state: Option<StateName>,
}

#[derive(Serialize)]
struct Reset {
    workspace: String,
    state: u64,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.as_ref().map(|state| state.find(&store)).transpose()?;
    workspace::become_owner(&args.name, &store.workspace(&args.name)?)?;
    let held = workspace::hold(&store, &args.name)?;
    output.confirm(&format!("Drop what has changed in the workspace {}?", args.name))?;
    let record = workspace::reset(&held, state.map(|state| state.id))?;
    output.data(&Reset { workspace: args.name.to_string(), state: record.base.id.0 })
}

impl View for Reset {
    fn show(&self, page: &mut Page) {
        page.line(format_args!(
            "The workspace {} is as state {}, and nothing else.",
            self.workspace, self.state
        ));
    }
}
