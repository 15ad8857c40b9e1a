//! `cairn snapshot`: a workspace becomes a state.

use std::time::{Duration, Instant};

use cairn_fs::workspace::{self, Becomes};
use cairn_store::WorkspaceName;
use serde::Serialize;

use crate::command::import::Phases;
use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::escape::Escaped;
use crate::interrupt;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::units::{counted, duration, size};

/// Publish what has changed in a workspace as a new state
///
/// The new state has the packages of the one that the workspace is on. It becomes
/// current if that one is: else what was done since would go missing. The workspace
/// goes on from the new state.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the workspace
    #[arg(value_name = "WORKSPACE")]
    name: WorkspaceName,
    /// Say in the list of states what this is (default: the command)
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Make the new state the current one in any case
    #[arg(long)]
    switch: bool,
    /// Leave the current state as it is
    #[arg(long, conflicts_with = "switch")]
    no_switch: bool,
}

#[derive(Serialize)]
struct Done {
    workspace: String,
    /// The new state; null when nothing had changed.
    state: Option<u64>,
    /// The state that it was made from.
    parent: u64,
    /// Whether the new state is current.
    current: bool,
    /// The state that is current, if it is another one.
    other_current: Option<u64>,
    /// Whether the workspace has an empty layer now; else it is in use.
    emptied: bool,
    files_read: u64,
    bytes_read: u64,
    /// Files that somebody went on changing while they were read.
    unsettled: Vec<String>,
    /// Why the workspace does not know of the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    seconds: f64,
    mounts: Mounts,
    #[serde(skip)]
    time: Duration,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let begun = Instant::now();
    let becomes = match (args.switch, args.no_switch) {
        (true, _) => Becomes::Current,
        (_, true) => Becomes::Nothing,
        _ => Becomes::CurrentIfBaseIs,
    };
    let request = match &args.message {
        Some(text) => text.clone(),
        None => format!("snapshot {}", args.name),
    };
    workspace::become_owner(&args.name, &store.workspace(&args.name)?)?;
    interrupt::note()?;
    let phases = Phases::new(output.progress());
    let snapshot = workspace::snapshot(&store, &args.name, &request, becomes, &phases);
    drop(phases);
    let snapshot = snapshot.map_err(|err| match err {
        cairn_fs::Error::Store(err) => interrupt::explain(err),
        err => err.into(),
    })?;
    let mounts = match snapshot.state {
        Some(_) => Mounts::refresh(&store),
        None => Mounts::default(),
    };
    let current = store.refs().current.map(|id| id.0);
    let state = snapshot.state.map(|state| state.id.0);
    let time = begun.elapsed();
    let done = Done {
        workspace: args.name.to_string(),
        state,
        parent: snapshot.parent.id.0,
        current: snapshot.is_current,
        other_current: current.filter(|_| !snapshot.is_current),
        emptied: snapshot.continues,
        files_read: snapshot.read.files,
        bytes_read: snapshot.read.bytes,
        unsettled: snapshot
            .unsettled
            .iter()
            .map(|path| Escaped(&path.to_bytes()).to_string())
            .collect(),
        problem: snapshot.problem.as_ref().map(|problem| in_one_line(problem)),
        seconds: time.as_secs_f64(),
        mounts,
        time,
    };
    output.data(&done)?;
    done.mounts.check()
}

impl View for Done {
    fn show(&self, page: &mut Page) {
        for path in &self.unsettled {
            let text = format_args!("{path} changed all the time while it was read");
            page.marked_line(Style::Note, "unsettled: ", text);
        }
        if let Some(problem) = &self.problem {
            let text = format_args!("the workspace was not told of the state: {problem}");
            page.marked_line(Style::Bad, "warning: ", text);
        }
        self.mounts.show_failures(page);
        let Some(state) = self.state else {
            page.line(format_args!(
                "Nothing has changed since state {}: no state was made.",
                self.parent
            ));
            return;
        };
        let is = if self.current { "current" } else { "published" };
        page.line(format_args!(
            "State {state} is {is}: state {} with the changes of {}; {} read ({}, {}).",
            self.parent,
            self.workspace,
            counted(self.files_read, "file"),
            size(self.bytes_read),
            duration(self.time),
        ));
        if let Some(other) = self.other_current {
            if other == self.parent {
                page.line(format_args!("State {other} stays current (cairn switch {state})."));
            } else {
                page.line(format_args!(
                    "State {other} stays current: it is not the one that the workspace was on, \
                     and may hold what state {state} has not."
                ));
                page.line(format_args!(
                    "What differs: cairn state diff {other} {state}; to go there all the same: \
                     cairn switch {state}"
                ));
            }
        }
    }
}
