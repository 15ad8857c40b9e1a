//! `cairn workspace show`: all that is known of one workspace.

use std::ops::ControlFlow;

use cairn_fs::workspace;
use cairn_store::{WorkspaceName, diff};
use serde::Serialize;

use super::{WorkspaceView, mounts};
use crate::context::Context;
use crate::differences::{Change, Kind};
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::units::{count, size_change};

/// Show a workspace: its state, where it is mounted, how much has changed
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the workspace
    name: WorkspaceName,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    workspace: WorkspaceView,
    added: u64,
    changed: u64,
    removed: u64,
    /// Bytes that have come, less those that have gone.
    bytes: i64,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let record = store.workspace(&args.name)?;
    workspace::become_owner(&args.name, &record)?;
    let mounts = mounts(&store)?;
    let changes = workspace::changes(&store, &args.name)?;
    let workspace = WorkspaceView::new(&store, &args.name, &record, &mounts);
    let mut whole = Whole { workspace, added: 0, changed: 0, removed: 0, bytes: 0 };
    diff(&changes, changes.reference.tree, changes.tree, &mut |path, difference| {
        let change = Change::new(path, difference);
        // Of a directory that comes or goes, all that is below counts.
        let entries = change.entries.map_or(1, |below| below + 1);
        match change.change {
            Kind::Added => whole.added += entries,
            Kind::Removed => whole.removed += entries,
            Kind::Changed => whole.changed += 1,
        }
        whole.bytes = whole.bytes.saturating_add(change.bytes);
        ControlFlow::Continue(())
    })?;
    output.data(&whole)
}

impl View for Whole {
    fn show(&self, page: &mut Page) {
        let view = &self.workspace;
        page.title(format_args!("Workspace {}", view.workspace));
        let mut fields = vec![("State", view.base.to_string())];
        if let Some(published) = view.published {
            fields.push(("Published", format!("as state {published}, and goes on")));
        }
        let mounted = view.mounts_in_words();
        fields.push(("Mounted on", if mounted.is_empty() { "nothing".into() } else { mounted }));
        fields.push((
            "Changes",
            format!(
                "{} added, {} changed, {} removed, {}",
                count(self.added),
                count(self.changed),
                count(self.removed),
                size_change(self.bytes)
            ),
        ));
        fields.push(("Directory", view.path.clone()));
        page.fields(2, &fields);
    }
}
