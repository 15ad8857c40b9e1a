//! `cairn state list`: all states.

use serde::Serialize;

use super::StateView;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::units;

/// List all states, the newest first
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
#[serde(transparent)]
struct States(Vec<StateView>);

pub(crate) fn run(_: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let refs = store.refs();
    let states = refs.states.values().rev();
    let views = states.map(|state| StateView::new(&store, &refs, state));
    output.list(&States(views.collect::<Result<_, _>>()?))
}

impl View for States {
    fn show(&self, page: &mut Page) {
        if self.0.is_empty() {
            page.line("The store has no state yet.");
            return;
        }
        let faint = |text| Cell::new(text).style(Style::Faint);
        let right = |text| Cell::right(text).style(Style::Faint);
        let mut rows = vec![vec![
            faint(""),
            right("State"),
            faint("Created"),
            right("Entries"),
            right("Size"),
            faint("Tags"),
            faint("Request"),
        ]];
        for view in &self.0 {
            let style = if view.current { Style::Strong } else { Style::Plain };
            rows.push(vec![
                Cell::new(if view.current { "*" } else { "" }).style(Style::Good),
                Cell::right(view.state).style(style),
                Cell::new(view.local_time()),
                Cell::right(units::count(view.entries)),
                Cell::right(units::size(view.bytes)),
                Cell::new(view.tags.join(", ")).style(Style::Note),
                Cell::new(&view.request).style(style),
            ]);
        }
        page.table(0, &rows);
    }
}
