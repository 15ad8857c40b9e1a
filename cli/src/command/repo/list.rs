//! `cairn repo list`: all repositories, and what is known of each.

use cairn_package::repository::{Config, Source, Status, Url};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::units::{counted, local_time};

/// List the repositories, the highest priority first
///
/// With --verbose all that is known of each: mirrors, keys, and what the
/// signature of its index says.
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    config: Config,
    /// What is known of its index; nothing before the first update.
    index: Option<Status>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct List {
    rows: Vec<Row>,
    #[serde(skip)]
    verbose: bool,
}

pub(crate) fn run(_: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let repositories = context.repositories(&store);
    let row = |config| Row { index: repositories.status(&config), config };
    let rows = repositories.list()?.into_iter().map(row).collect();
    output.data(&List { rows, verbose: context.verbose() })
}

impl View for List {
    fn show(&self, page: &mut Page) {
        if self.rows.is_empty() {
            page.line("There is no repository yet.");
        } else if self.verbose {
            self.rows.iter().for_each(|row| row.show(page));
        } else {
            self.show_table(page);
        }
    }
}

impl List {
    fn show_table(&self, page: &mut Page) {
        let faint = |cell: Cell| cell.style(Style::Faint);
        let head = ["Name", "Priority", "Packages", "State", "Updated", "URL"];
        let head = head.map(|text| faint(Cell::new(text))).to_vec();
        let rows = self.rows.iter().map(|row| {
            let Row { config, index } = row;
            let (state, style) = row.state();
            vec![
                Cell::new(&config.name).style(Style::Strong),
                Cell::right(config.priority),
                Cell::right(index.as_ref().map_or("?".into(), |index| index.packages.to_string())),
                Cell::new(state).style(style),
                Cell::new(index.as_ref().map_or("never".into(), |index| time(index.updated))),
                Cell::new(shown(config.source.url())),
            ]
        });
        page.table(0, &std::iter::once(head).chain(rows).collect::<Vec<_>>());
    }
}

/// A directory of this machine by its path.
fn shown(url: &Url) -> String {
    url.local().map_or_else(|| url.to_string(), |path| path.display().to_string())
}

fn time(seconds: u64) -> String {
    local_time(seconds.cast_signed())
}

impl Row {
    /// In one word what matters most.
    fn state(&self) -> (&'static str, Style) {
        let Row { config, index } = self;
        let signature = index.as_ref().and_then(|index| index.signature.as_ref());
        match (config.enabled, config.is_pinned()) {
            (false, _) => ("disabled", Style::Note),
            (true, _) if index.is_none() => ("not read", Style::Note),
            (true, true) if signature.is_some_and(|it| it.is_expired) => ("expired", Style::Bad),
            (true, true) => ("signed", Style::Good),
            (true, false) => ("not signed", Style::Plain),
        }
    }

    fn show(&self, page: &mut Page) {
        let Row { config, index } = self;
        page.title(&config.name);
        let mut fields: Vec<(&str, String)> = Vec::new();
        if !config.description.is_empty() {
            fields.push(("Comment", config.description.clone()));
        }
        fields.push(("URL", shown(config.source.url())));
        if let Source::Root { channel, version, architecture, .. } = &config.source {
            fields.push(("Root index", format!("channel {channel}, {version}, {architecture}")));
        }
        fields.extend(config.mirrors.iter().map(|url| ("Mirror", shown(url))));
        fields.push(("Priority", config.priority.to_string()));
        fields.push(("State", self.state().0.into()));
        fields.extend(config.keys.iter().map(|key| ("Key", format!("{key} ({})", key.id()))));
        if let Some(index) = index {
            fields.push(("Packages", counted(index.packages, "package")));
            fields.push(("Index from", index.from.clone()));
            fields.push(("Updated", time(index.updated)));
            fields.push(("Checked", time(index.checked)));
            if let Some(it) = &index.signature {
                let of = it.repository.as_ref().map_or("?".into(), ToString::to_string);
                fields.push(("Signed", format!("{}, by the key {}", time(it.signed), it.key)));
                fields.push(("Signed as", format!("{of}, number {}", it.sequence)));
                fields.push(("Expires", it.expires.map_or("never".into(), time)));
            }
        }
        page.fields(2, &fields);
    }
}
