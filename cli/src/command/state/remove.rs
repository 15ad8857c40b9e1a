//! `cairn state remove`: states that nobody needs any more.

use std::str::FromStr;

use cairn_store::{StateId, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::Page;
use crate::place::StateName;
use crate::units::counted;

/// Remove states for good
///
/// The current state and states with tags are refused.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Numbers of the states, or ranges of them such as 8-12, of which those are meant
    /// that exist
    #[arg(value_name = "STATE", required = true)]
    states: Vec<Selection>,
}

/// States as the command line names them.
#[derive(Clone, Debug)]
enum Selection {
    One(StateName),
    Range(StateId, StateId),
}

impl FromStr for Selection {
    type Err = cairn_store::InvalidTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ends = text.split_once('-').and_then(|(first, last)| {
            Some((first.parse::<StateId>().ok()?, last.parse::<StateId>().ok()?))
        });
        match ends {
            Some((first, last)) => Ok(Self::Range(first, last)),
            None => text.parse().map(Self::One),
        }
    }
}

impl Selection {
    fn find(&self, store: &Store) -> Result<Vec<StateId>, Error> {
        match self {
            Self::One(name) => Ok(vec![name.find(store)?.id]),
            Self::Range(first, last) => {
                let states = store.refs().states;
                let ids: Vec<StateId> =
                    states.keys().copied().filter(|id| (first..=last).contains(&id)).collect();
                match ids.as_slice() {
                    [] => Err(cairn_store::Error::UnknownState(*first).into()),
                    _ => Ok(ids),
                }
            }
        }
    }
}

#[derive(Serialize)]
struct Removed {
    removed: Vec<u64>,
    mounts: Mounts,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let mut ids: Vec<StateId> = Vec::new();
    for selection in &args.states {
        for id in selection.find(&store)? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    output.confirm(&format!("Remove {} ({list}) for good?", counted(ids.len(), "state")))?;
    store.remove_states(&ids)?;
    let done =
        Removed { removed: ids.iter().map(|id| id.0).collect(), mounts: Mounts::refresh(&store) };
    output.data(&done)?;
    done.mounts.check()
}

impl View for Removed {
    fn show(&self, page: &mut Page) {
        self.mounts.show_failures(page);
        page.line(format_args!("{} removed.", counted(self.removed.len(), "state")));
    }
}
