//! `cairn repo list`: all repositories.

use cairn_package::repository::{Config, Repositories};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};

/// List the repositories, the highest priority first
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
#[serde(transparent)]
struct List(Vec<Config>);

pub(crate) fn run(_: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    output.data(&List(Repositories::of(store.path()).list()?))
}

impl View for List {
    fn show(&self, page: &mut Page) {
        if self.0.is_empty() {
            page.line("There is no repository yet.");
            return;
        }
        let faint = |cell: Cell| cell.style(Style::Faint);
        let head = ["Name", "Priority", "", "URL"].map(|text| faint(Cell::new(text))).to_vec();
        let rows = self.0.iter().map(|config| {
            vec![
                Cell::new(&config.name).style(Style::Strong),
                Cell::right(config.priority),
                Cell::new(if config.enabled { "" } else { "disabled" }).style(Style::Note),
                Cell::new(&config.url),
            ]
        });
        page.table(0, &std::iter::once(head).chain(rows).collect::<Vec<_>>());
    }
}
