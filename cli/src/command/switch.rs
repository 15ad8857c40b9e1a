//! `cairn switch`: another state becomes the current one.

use std::time::{Duration, Instant};

use cairn_store::{State, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
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
}

/// What a switch has done.
#[derive(Serialize)]
struct Switched {
    state: u64,
    previous: Option<u64>,
    seconds: f64,
    mounts: Mounts,
    #[serde(skip)]
    time: Duration,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let target = args.state.find(&store)?;
    switch(&store, &target, output)
}

/// Makes `target` current; when this returns, live roots show it.
pub(crate) fn switch(store: &Store, target: &State, output: &mut Output<'_>) -> Result<(), Error> {
    let begun = Instant::now();
    let previous = store.refs().current.map(|id| id.0);
    store.switch(target.id)?;
    let mounts = Mounts::refresh(store);
    let time = begun.elapsed();
    let switched =
        Switched { state: target.id.0, previous, seconds: time.as_secs_f64(), mounts, time };
    output.data(&switched)?;
    switched.mounts.check()
}

impl View for Switched {
    fn show(&self, page: &mut Page) {
        self.mounts.show_failures(page);
        let before = match self.previous {
            Some(id) if id == self.state => " already",
            Some(id) => &format!(" instead of {id}"),
            None => "",
        };
        let time = duration(self.time);
        page.line(format_args!("State {} is current{before} ({time}).", self.state));
    }
}
