//! `cairn store rebuild`: the index, made anew from the packs; and the list of states.

use std::path::Path;
use std::sync::Arc;

use cairn_store::disk::{Disk, RealDisk};
use cairn_store::{Recovered, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::Unit;
use crate::units::counted;

/// Make the index anew from the packs, or also the list of states
///
/// The index only says where things are: losing it loses nothing. Exit code 3
/// says that some packs cannot be read.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Make refs/log anew as well, the list of states, from what is left of it and from what packs
    /// tell of states. Tags, and which state is current, are told by that list alone: where it
    /// lost the latter, that is the newest state. The list as it was stays beside it
    #[arg(long)]
    states: bool,
    /// Say which states there are, and change nothing
    #[arg(short = 'n', long, requires = "states")]
    dry_run: bool,
}

#[derive(Serialize)]
struct Rebuilt {
    unreadable: Vec<String>,
}

#[derive(Serialize)]
struct States {
    dry_run: bool,
    states: usize,
    current: Option<u64>,
    tags: usize,
    /// States that only packs tell of.
    found: Vec<u64>,
    /// States that are left out, since they are not whole.
    incomplete: Vec<u64>,
    /// Whether the list was made anew.
    is_new: bool,
    /// Where the list as it was is kept, if there was one.
    kept: Option<String>,
    unreadable: Vec<String>,
    mounts: Mounts,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let found = if args.states {
        rebuild_states(&context.store_path()?, args.dry_run, output)?
    } else {
        rebuild_index(&context.store()?, output)?
    };
    if found > 0 { Err(Error::DamageFound { found }) } else { Ok(()) }
}

const READING: &str = "Reading the tables of all packs";

/// Returns how many packs cannot be read.
fn rebuild_index(store: &Store, output: &mut Output<'_>) -> Result<usize, Error> {
    let phase = output.phase(READING, None, Unit::Pieces);
    let damaged = store.rebuild_index()?;
    drop(phase);
    let unreadable = damaged.iter().map(|err| in_one_line(err)).collect();
    output.data(&Rebuilt { unreadable })?;
    Ok(damaged.len())
}

/// The same for the list of states and the index, of a store that cannot be opened perhaps.
fn rebuild_states(path: &Path, dry_run: bool, output: &mut Output<'_>) -> Result<usize, Error> {
    let phase = output.phase(READING, None, Unit::Pieces);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let recovered = Store::recover_states(&disk, path, dry_run)?;
    drop(phase);
    let mounts =
        if recovered.is_new { Mounts::refresh(&Store::open(path)?) } else { Mounts::default() };
    output.data(&States::new(&recovered, mounts, dry_run))?;
    Ok(recovered.unreadable.len())
}

impl States {
    fn new(recovered: &Recovered, mounts: Mounts, dry_run: bool) -> Self {
        Self {
            dry_run,
            states: recovered.refs.states.len(),
            current: recovered.refs.current.map(|id| id.0),
            tags: recovered.refs.tags.len(),
            found: recovered.found.iter().map(|id| id.0).collect(),
            incomplete: recovered.incomplete.iter().map(|state| state.id.0).collect(),
            is_new: recovered.is_new,
            kept: recovered.kept.as_ref().map(|path| path.display().to_string()),
            unreadable: recovered.unreadable.iter().map(|err| in_one_line(err)).collect(),
            mounts,
        }
    }
}

impl View for Rebuilt {
    fn show(&self, page: &mut Page) {
        for problem in &self.unreadable {
            page.marked_line(Style::Bad, "damaged: ", problem);
        }
        page.line("The index is rebuilt.");
    }
}

impl View for States {
    fn show(&self, page: &mut Page) {
        self.mounts.show_failures(page);
        for problem in &self.unreadable {
            page.marked_line(Style::Bad, "damaged: ", problem);
        }
        for id in &self.found {
            page.line(format_args!("State {id} was not listed, and is in the packs."));
        }
        for id in &self.incomplete {
            page.line(format_args!("State {id} is left out: not all of it is there."));
        }
        let (states, tags) = (counted(self.states, "state"), counted(self.tags, "tag"));
        let current = self.current.map_or("none".into(), |id| id.to_string());
        if self.dry_run {
            page.line(format_args!(
                "The list would have {states} and {tags}; {current} would be current."
            ));
        } else if self.is_new {
            page.line(format_args!("The list has {states} and {tags}; {current} is current."));
        } else {
            page.line(format_args!("The list is whole: {states}."));
        }
        if let Some(path) = &self.kept {
            page.line(format_args!("As it was, it is {path}."));
        }
    }
}
