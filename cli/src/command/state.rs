//! `cairn state`: the states of a store, and what commands tell of one.

mod list;
mod prune;
mod remove;
mod show;
mod tag;
mod untag;

use cairn_store::{Refs, State, Store};
use serde::Serialize;

pub(crate) use crate::command::diff;
use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::units;

/// List, show, compare, tag, remove and prune states
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Show(show::Args),
    Diff(diff::Args),
    #[command(visible_alias = "pin")]
    Tag(tag::Args),
    #[command(visible_alias = "unpin")]
    Untag(untag::Args),
    #[command(visible_alias = "rm")]
    Remove(remove::Args),
    Prune(prune::Args),
}

pub(crate) fn run(
    command: &Command,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::List(args) => list::run(args, context, output),
        Command::Show(args) => show::run(args, context, output),
        Command::Diff(args) => diff::run(args, context, output),
        Command::Tag(args) => tag::run(args, context, output),
        Command::Untag(args) => untag::run(args, context, output),
        Command::Remove(args) => remove::run(args, context, output),
        Command::Prune(args) => prune::run(args, context, output),
    }
}

/// A state as every command tells of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StateView {
    pub state: u64,
    pub current: bool,
    pub parent: Option<u64>,
    pub created: String,
    pub request: String,
    pub tags: Vec<String>,
    pub tree: String,
    /// Files, directories and all else below the root.
    pub entries: u64,
    /// Sizes of the regular files.
    pub bytes: u64,
    #[serde(skip)]
    seconds: i64,
}

impl StateView {
    /// What the store knows of `state`.
    pub(crate) fn new(store: &Store, refs: &Refs, state: &State) -> Result<Self, Error> {
        let summary = store.tree(state.tree)?.summary();
        let seconds = i64::try_from(state.time / 1_000_000_000).unwrap_or(i64::MAX);
        let tags = refs.tags.iter().filter(|(_, id)| **id == state.id);
        Ok(Self {
            state: state.id.0,
            current: refs.current == Some(state.id),
            parent: state.parent.map(|id| id.0),
            created: units::utc_time(seconds),
            request: state.request.clone(),
            tags: tags.map(|(tag, _)| tag.to_string()).collect(),
            tree: state.tree.to_string(),
            entries: summary.entries,
            bytes: summary.bytes,
            seconds,
        })
    }

    /// When it was committed, in local time.
    pub(crate) fn local_time(&self) -> String {
        units::local_time(self.seconds)
    }
}
