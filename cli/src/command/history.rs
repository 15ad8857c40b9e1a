//! `cairn history`: what each state changed, and by which command.

use std::collections::BTreeSet;

use cairn_package::system::{Installed, InstalledPackage};
use cairn_store::{State, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::units;
use crate::unknown::not_installed;

/// Tell what each state changed, and by which command, the newest first
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tell of so many states
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Tell only of states that changed one of these packages
    #[arg(value_name = "PACKAGE")]
    packages: Vec<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct History(Vec<Event>);

/// What made a state, and what it changed.
#[derive(Serialize)]
pub(crate) struct Event {
    state: u64,
    parent: Option<u64>,
    current: bool,
    created: String,
    request: String,
    packages: Vec<Change>,
    #[serde(skip)]
    seconds: i64,
}

#[derive(Serialize)]
struct Change {
    name: String,
    old: Option<String>,
    new: Option<String>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let mut events = Vec::new();
    let mut unknown: BTreeSet<&String> = args.packages.iter().collect();
    for state in store.refs().states.values().rev() {
        let event = Event::new(&store, state)?;
        unknown.retain(|name| event.packages.iter().all(|change| change.name != **name));
        let is_wanted = |change: &Change| args.packages.contains(&change.name);
        if args.packages.is_empty() || event.packages.iter().any(is_wanted) {
            events.push(event);
        }
        if Some(events.len()) == args.limit {
            unknown.clear();
            break;
        }
    }
    if let Some(name) = unknown.first() {
        let mut installed = Installed::default();
        for state in store.refs().states.values() {
            installed.extend(InstalledPackage::load_all(&store, state.packages)?);
        }
        return Err(not_installed(&installed, name));
    }
    output.list(&History(events))
}

impl Event {
    /// What `state` changed of its parent.
    pub(crate) fn new(store: &Store, state: &State) -> Result<Self, Error> {
        let refs = store.refs();
        let parent = state.parent.and_then(|id| refs.states.get(&id));
        let packages = match parent {
            Some(parent) if parent.packages == state.packages => Vec::new(),
            _ => {
                let load = |state: &State| InstalledPackage::load_all(store, state.packages);
                let before = parent.map(load).transpose()?.unwrap_or_default();
                changes(&before, &load(state)?)
            }
        };
        let seconds = i64::try_from(state.time / 1_000_000_000).unwrap_or(i64::MAX);
        Ok(Self {
            state: state.id.0,
            parent: state.parent.map(|id| id.0),
            current: refs.current == Some(state.id),
            created: units::utc_time(seconds),
            request: state.request.clone(),
            packages,
            seconds,
        })
    }

    /// Tells of it.
    pub(crate) fn show(&self, page: &mut Page) {
        let mark = if self.current { " (current)" } else { "" };
        page.title(format_args!(
            "{}{mark}  {}  {}",
            self.state,
            units::local_time(self.seconds),
            self.request
        ));
        const SHOWN: usize = 12;
        for Change { name, old, new } in self.packages.iter().take(SHOWN) {
            match (old, new) {
                (Some(old), Some(new)) => {
                    page.marked_line(Style::Note, "  ~ ", format_args!("{name} {old} -> {new}"));
                }
                (Some(old), None) => {
                    page.marked_line(Style::Bad, "  - ", format_args!("{name} {old}"));
                }
                (None, new) => {
                    let new = new.as_deref().unwrap_or_default();
                    page.marked_line(Style::Good, "  + ", format_args!("{name} {new}"));
                }
            }
        }
        if let Some(more @ 1..) = self.packages.len().checked_sub(SHOWN) {
            page.styled_line(
                Style::Faint,
                format_args!("  and {more} more: cairn state diff {}", self.span()),
            );
        }
    }

    fn span(&self) -> String {
        match self.parent {
            Some(parent) => format!("{parent} {}", self.state),
            None => self.state.to_string(),
        }
    }
}

fn changes(before: &Installed, after: &Installed) -> Vec<Change> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let version = |package: &InstalledPackage| package.metadata.full_version();
    names
        .into_iter()
        .map(|name| (name, before.get(name), after.get(name)))
        .filter(|(_, old, new)| old.map(|it| &it.metadata) != new.map(|it| &it.metadata))
        .map(|(name, old, new)| Change {
            name: name.clone(),
            old: old.map(version),
            new: new.map(version),
        })
        .collect()
}

impl View for History {
    fn show(&self, page: &mut Page) {
        if self.0.is_empty() {
            page.line("There is nothing to tell.");
        }
        for event in &self.0 {
            event.show(page);
        }
    }
}
