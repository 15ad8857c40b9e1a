//! `cairn bisect`: the state with which something began to be wrong.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use cairn_store::{Refs, StateId, Store};
use serde::Serialize;

use super::history::Event;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::place::StateName;

/// Find the state with which something began to be wrong
///
/// Runs a command inside states between a good and a bad one, as cairn run does.
/// Its exit code says what the state is: 0 good, 125 unknown, anything else bad.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A state in which all was well
    good: StateName,
    /// A state in which it is not
    bad: StateName,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

#[derive(Serialize)]
struct Bisected {
    /// What made the first bad state, and what it changed.
    first_bad: Event,
    last_good: u64,
    /// States that may be the first bad one as well, since nothing is known of
    /// them.
    unknown: Vec<u64>,
    tried: Vec<Trial>,
}

#[derive(Clone, Serialize)]
struct Trial {
    state: u64,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Bad,
    Unknown,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let (good, bad) = (args.good.find(&store)?.id, args.bad.find(&store)?.id);
    let states = between(&store.refs(), good, bad);
    if states.len() < 2 {
        return Err(Error::NothingBetween { good, bad });
    }
    let mut tried = Vec::new();
    let found = search(states.len(), |at| {
        let id = states[at];
        let verdict = try_state(&store, id, &args.command)?;
        output.status(format_args!("State {id} is {}.", verdict.word()));
        tried.push(Trial { state: id.0, verdict });
        Ok(verdict)
    })?;
    let first_bad = store.state(states[found.bad])?;
    output.data(&Bisected {
        first_bad: Event::new(&store, &first_bad)?,
        last_good: states[found.good].0,
        unknown: states[found.good + 1..found.bad].iter().map(|id| id.0).collect(),
        tried,
    })
}

/// The states from `good` to `bad`: those that `bad` was made from, back to
/// `good`; if it was not made from that, those with numbers between.
fn between(refs: &Refs, good: StateId, bad: StateId) -> Vec<StateId> {
    let mut chain = vec![bad];
    while let Some(parent) = refs.states.get(&chain[chain.len() - 1]).and_then(|it| it.parent) {
        if !refs.states.contains_key(&parent) {
            break;
        }
        chain.push(parent);
        if parent == good {
            chain.reverse();
            return chain;
        }
    }
    let mut numbers: Vec<StateId> = if good < bad {
        refs.states.range(good..=bad).map(|(id, _)| *id).collect()
    } else {
        refs.states.range(bad..=good).map(|(id, _)| *id).rev().collect()
    };
    numbers.dedup();
    numbers
}

/// Where a search has ended: everything between is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    good: usize,
    bad: usize,
}

/// Halves the states between the first, which is good, and the last, which is bad.
fn search(
    count: usize,
    mut verdict: impl FnMut(usize) -> Result<Verdict, Error>,
) -> Result<Ends, Error> {
    let mut ends = Ends { good: 0, bad: count - 1 };
    let mut unknown = Vec::new();
    loop {
        let middle = ends.good + (ends.bad - ends.good) / 2;
        // The nearest to the middle of which something may be found out.
        let next = (ends.good + 1..ends.bad)
            .filter(|at| !unknown.contains(at))
            .min_by_key(|at| at.abs_diff(middle));
        let Some(next) = next else { return Ok(ends) };
        match verdict(next)? {
            Verdict::Good => ends.good = next,
            Verdict::Bad => ends.bad = next,
            Verdict::Unknown => unknown.push(next),
        }
    }
}

/// Runs the command inside a state, in a process of its own: one that has
/// answered a mount has threads, and cannot be copied for another.
fn try_state(store: &Store, id: StateId, command: &[OsString]) -> Result<Verdict, Error> {
    let status = Command::new("/proc/self/exe")
        .arg("--store")
        .arg(store.path())
        .args(["run", "--state", &id.to_string(), "--"])
        .args(command)
        .stdin(Stdio::null())
        // Data is what this command finds out.
        .stdout(std::io::stderr())
        .status()
        .map_err(Error::read("/proc/self/exe"))?;
    Ok(match status.code() {
        Some(0) => Verdict::Good,
        Some(125) | None => Verdict::Unknown,
        Some(_) => Verdict::Bad,
    })
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }
}

impl View for Bisected {
    fn show(&self, page: &mut Page) {
        let text = format_args!("State {} is the last good one.", self.last_good);
        page.marked_line(Style::Plain, "", text);
        if !self.unknown.is_empty() {
            let states: Vec<String> = self.unknown.iter().map(u64::to_string).collect();
            page.line(format_args!(
                "Nothing is known of {}; the first bad one may be among them.",
                states.join(", ")
            ));
        }
        page.line("The first bad one:");
        self.first_bad.show(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_ends_where_it_turns_bad_and_takes_few_steps() {
        for count in 2..40 {
            for first_bad in 1..count {
                let mut steps = 0;
                let ends = search(count, |at| {
                    steps += 1;
                    Ok(if at < first_bad { Verdict::Good } else { Verdict::Bad })
                });
                let expected = Ends { good: first_bad - 1, bad: first_bad };
                assert_eq!(ends.unwrap(), expected);
                assert!(steps <= 6, "{count} states took {steps} steps");
            }
        }
    }

    #[test]
    fn what_is_unknown_is_told() {
        let ends = search(9, |at| {
            Ok(match at {
                0..=3 => Verdict::Good,
                4 | 5 => Verdict::Unknown,
                _ => Verdict::Bad,
            })
        });
        assert_eq!(ends.unwrap(), Ends { good: 3, bad: 6 });
    }
}
