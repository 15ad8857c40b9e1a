//! `cairn workspace list`: all workspaces.

use serde::Serialize;

use super::{WorkspaceView, mounts};
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};

/// List all workspaces
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
#[serde(transparent)]
struct List(Vec<WorkspaceView>);

pub(crate) fn run(_: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let mounts = mounts(&store)?;
    let workspaces = store.workspaces()?;
    let views = workspaces.iter();
    let views = views.map(|(name, record)| WorkspaceView::new(&store, name, record, &mounts));
    output.data(&List(views.collect()))
}

impl View for List {
    fn show(&self, page: &mut Page) {
        if self.0.is_empty() {
            page.line("There are no workspaces.");
            return;
        }
        let faint = |text| Cell::new(text).style(Style::Faint);
        let right = |text| Cell::right(text).style(Style::Faint);
        let mut rows = vec![vec![faint("Workspace"), right("On state"), faint("Mounted on")]];
        rows.extend(self.0.iter().map(|view| {
            vec![
                Cell::new(&view.workspace).style(Style::Strong),
                Cell::right(view.reference()),
                Cell::new(view.mounts_in_words()),
            ]
        }));
        page.table(0, &rows);
    }
}
