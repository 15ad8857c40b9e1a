//! `cairn workspace discard`: the end of workspaces.

use cairn_fs::workspace;
use cairn_store::WorkspaceName;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;

/// Remove workspaces with all that has changed in them
///
/// What was published by a snapshot is kept by its state. The workspaces must not
/// be in use.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of the workspaces
    #[arg(value_name = "NAME", required = true)]
    names: Vec<WorkspaceName>,
}

#[derive(Serialize)]
struct Discarded {
    discarded: Vec<String>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let mut names = args.names.clone();
    names.sort();
    names.dedup();
    // All of them or none: what is in use is found out before anything goes.
    let mut held = Vec::new();
    for name in &names {
        if held.is_empty() {
            workspace::become_owner(name, &store.workspace(name)?)?;
        }
        store.workspace(name)?;
        held.push(workspace::hold(&store, name)?);
    }
    let list = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    output.confirm(&format!("Discard {} with all changes?", list.join(", ")))?;
    for held in &held {
        workspace::discard(held)?;
    }
    output.data(&Discarded { discarded: list })
}

impl View for Discarded {
    fn show(&self, page: &mut Page) {
        for name in &self.discarded {
            page.line(format_args!("The workspace {name} is discarded."));
        }
    }
}
