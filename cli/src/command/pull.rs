//! `cairn pull`: states of another store.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_package::repository::ServedStore;
use cairn_store::transfer::{PullExtent, PullPhase, PullProgress, PullSource, Pulled};
use cairn_store::{Refs, Standing, State, Store, Tag};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::Error;
use crate::interrupt;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::Page;
use crate::place::StateName;
use crate::progress::{Phase, Progress, Unit};
use crate::remote::{SourcePlace, StorePlace};
use crate::units::{counted, duration, size};

/// Take states from another store
///
/// Only what this store lacks travels, as it is stored there, and all of it is
/// hashed when it has arrived. A pull that was interrupted goes on where it
/// stopped. Each state gets a number of its own here; the last one becomes current
/// with --switch, or if there is no state yet.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory of the other store, ssh://[USER@]HOST[:PORT]/DIR, where cairn is
    /// installed as well, or the http(s):// address at which a web server serves it
    #[arg(value_name = "STORE")]
    place: SourcePlace,
    /// Numbers or tags of states there
    #[arg(value_name = "STATE", default_value = "current")]
    states: Vec<StateName>,
    #[command(flatten)]
    how: How,
}

/// What becomes of the states.
#[derive(Clone, clap::Args)]
pub(crate) struct How {
    /// Make the last one the current state
    #[arg(long)]
    pub switch: bool,
    /// Give the last one this tag, which keeps it
    #[arg(long)]
    pub tag: Option<Tag>,
    /// Show what is missing, and take nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What has gone from one store to another.
#[derive(Serialize, Deserialize)]
pub(super) struct Done {
    states: Vec<One>,
    dry_run: bool,
    seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct One {
    /// Its number there.
    theirs: u64,
    /// Its number here.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<u64>,
    tree: String,
    was_there: bool,
    current: bool,
    objects: u64,
    bytes: u64,
    bytes_transferred: u64,
    bytes_stored: u64,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    interrupt::note()?;
    let done = match &args.place {
        SourcePlace::Store(StorePlace::Directory(path)) => {
            crate::context::check_owner(path)?;
            let from = Store::open(path)?;
            let to = context.store_or_new()?;
            check_different(&from, &to)?;
            take(&from, &args.states, &to, &args.how, &Phases::new(output.progress()))?
        }
        SourcePlace::Store(StorePlace::Ssh(place)) => {
            let to = context.store_or_new()?;
            let other = place.run(context.ssh().as_deref(), &["serve-store".into()])?;
            let source = match other.source() {
                Ok(source) => source,
                Err(err) => return Err(other.not_begun(err)),
            };
            let phases = Phases::new(output.progress());
            let done = take(&source, &args.states, &to, &args.how, &phases)?;
            source.done(serde_json::Value::Null)?;
            drop(source);
            other.end()?;
            done
        }
        SourcePlace::Served(url) => {
            let from = ServedStore::new(url.clone(), context.network());
            let to = context.store_or_new()?;
            take(&from, &args.states, &to, &args.how, &Phases::new(output.progress()))?
        }
    };
    let (done, mounts) = done;
    output.data(&done)?;
    mounts.check()
}

/// A store that took from itself would have nothing to do.
pub(super) fn check_different(from: &Store, to: &Store) -> Result<(), Error> {
    let [from, to] = [from, to].map(|store| store.path().canonicalize().ok());
    if from.is_some() && from == to { Err(Error::SameStore) } else { Ok(()) }
}

/// Takes states into `to`.
pub(super) fn take(
    from: &dyn PullSource,
    names: &[StateName],
    to: &Store,
    how: &How,
    progress: &dyn PullProgress,
) -> Result<(Done, Mounts), Error> {
    let begun = Instant::now();
    let refs = from.refs()?;
    let states = names.iter().map(|name| name.find_in(&refs)).collect::<Result<Vec<State>, _>>()?;
    let standing = if how.switch { Standing::Current } else { Standing::Aside };
    let extent = if how.dry_run { PullExtent::Preview } else { PullExtent::Publish(standing) };
    let pulled = to.pull(from, &states, extent, progress).map_err(interrupt::explain)?;
    let last = pulled.last().and_then(|pulled| pulled.state.as_ref());
    if let (Some(tag), Some(last), false) = (&how.tag, last, how.dry_run) {
        to.tag(tag.clone(), last.id)?;
    }
    let mounts = if how.dry_run { Mounts::default() } else { Mounts::refresh(to) };
    let ours = to.refs();
    let done = Done {
        states: pulled.iter().map(|pulled| One::new(pulled, &ours)).collect(),
        dry_run: how.dry_run,
        seconds: begun.elapsed().as_secs_f64(),
    };
    Ok((done, mounts))
}

impl One {
    fn new(pulled: &Pulled, ours: &Refs) -> Self {
        let Pulled { theirs, state, was_there, objects, bytes, transferred, stored } = pulled;
        let id = state.as_ref().map(|state| state.id);
        Self {
            theirs: theirs.id.0,
            state: id.map(|id| id.0),
            tree: theirs.tree.to_string(),
            was_there: *was_there,
            current: id.is_some() && ours.current == id,
            objects: *objects,
            bytes: *bytes,
            bytes_transferred: *transferred,
            bytes_stored: *stored,
        }
    }
}

impl View for Done {
    fn show(&self, page: &mut Page) {
        let time = duration(Duration::try_from_secs_f64(self.seconds).unwrap_or_default());
        for one in &self.states {
            let is = if one.current { " and current" } else { "" };
            let missing = format_args!("{} ({})", counted(one.objects, "object"), size(one.bytes));
            let transferred = size(one.bytes_transferred);
            match one.state {
                Some(id) if one.was_there => {
                    page.line(format_args!("State {} is there as {id}{is} already.", one.theirs));
                }
                Some(id) => page.line(format_args!(
                    "State {} is there as {id}{is}: {missing} taken, {transferred} travelled, {} stored ({time}).",
                    one.theirs,
                    size(one.bytes_stored),
                )),
                None => page.line(format_args!(
                    "State {} lacks {missing} there, {transferred} would travel.",
                    one.theirs,
                )),
            }
        }
    }
}

/// Shows the phases of a pull one after the other.
pub(super) struct Phases {
    progress: Progress,
    current: Mutex<Option<Phase>>,
}

impl Phases {
    pub(super) fn new(progress: Progress) -> Self {
        Self { progress, current: Mutex::default() }
    }
}

impl PullProgress for Phases {
    fn begin(&self, phase: PullPhase, total: Option<u64>) {
        let (name, unit) = match phase {
            PullPhase::Compare => ("Looking for what is missing", Unit::Pieces),
            PullPhase::Copy => ("Copying", Unit::Bytes),
            PullPhase::Check => ("Hashing what has arrived", Unit::Bytes),
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // The bar before it goes first.
        *current = None;
        *current = Some(self.progress.phase(name, total, unit));
    }

    fn advance(&self, number: u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(phase) = &*current {
            phase.advance(number);
        }
    }

    fn is_cancelled(&self) -> bool {
        interrupt::has_come()
    }
}
