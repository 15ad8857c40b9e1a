//! `cairn state remove`: states that nobody needs any more.

use cairn_store::StateId;
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
    /// Numbers of the states
    #[arg(value_name = "STATE", required = true)]
    states: Vec<StateName>,
}

#[derive(Serialize)]
struct Removed {
    removed: Vec<u64>,
    mounts: Mounts,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let mut ids: Vec<StateId> = Vec::new();
    for name in &args.states {
        let id = name.find(&store)?.id;
        if !ids.contains(&id) {
            ids.push(id);
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
