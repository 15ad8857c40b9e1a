//! `cairn switch`: another state becomes the current one.

use std::time::{Duration, Instant};

use cairn_store::{State, Store};
use serde::Serialize;

use crate::affected::Affected;
use crate::context::Context;
use crate::error::Error;
use crate::live::Live;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::Page;
use crate::place::StateName;
use crate::units::duration;

/// Make a state the current one
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number or tag of the state
    state: StateName,
    #[command(flatten)]
    how: How,
}

/// How a switch is carried out, as every command takes it that makes one.
#[derive(Clone, Copy, Default, clap::Args)]
pub(crate) struct How {
    /// Leave out what triggers of live roots would do
    #[arg(long)]
    skip_triggers: bool,
    /// Show which running processes still use files that have been replaced, and
    /// the services that own them
    #[arg(long)]
    list_affected: bool,
}

/// What a switch has done.
#[derive(Serialize)]
struct Switched {
    state: u64,
    previous: Option<u64>,
    seconds: f64,
    mounts: Mounts,
    live: Live,
    #[serde(skip_serializing_if = "Option::is_none")]
    affected: Option<Affected>,
    #[serde(skip)]
    time: Duration,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let target = args.state.find(&store)?;
    switch(&store, &target, args.how, context, output)
}

/// Makes `target` current; when this returns, live roots show it.
pub(crate) fn switch(
    store: &Store,
    target: &State,
    how: How,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let begun = Instant::now();
    let refs = store.refs();
    let previous = refs.current.and_then(|id| refs.states.get(&id));
    store.switch(target.id)?;
    let mounts = Mounts::refresh(store);
    let time = begun.elapsed();
    let triggers = context.triggers(how.skip_triggers);
    let live = Live::run(store, &mounts, previous.map(|state| state.tree), target.tree, &triggers);
    let affected = how.list_affected.then(|| Affected::find(store)).transpose()?;
    let switched = Switched {
        state: target.id.0,
        previous: previous.map(|state| state.id.0),
        seconds: time.as_secs_f64(),
        mounts,
        live,
        affected,
        time,
    };
    output.data(&switched)?;
    switched.mounts.check()?;
    switched.live.check()
}

impl View for Switched {
    fn show(&self, page: &mut Page) {
        self.mounts.show_failures(page);
        self.live.show_failures(page);
        let before = match self.previous {
            Some(id) if id == self.state => " already",
            Some(id) => &format!(" instead of {id}"),
            None => "",
        };
        let time = duration(self.time);
        page.line(format_args!("State {} is current{before} ({time}).", self.state));
        if let Some(affected) = &self.affected {
            affected.show(page);
        }
    }
}
