//! `cairn push`: states for another store.

use cairn_store::Store;
use cairn_store::transfer::pipe::{ServeProgress, serve};

use super::pull::{Done, How, Phases, check_different, take};
use crate::context::Context;
use crate::error::Error;
use crate::interrupt;
use crate::output::Output;
use crate::place::StateName;
use crate::progress::{Phase, Unit};
use crate::remote::StorePlace;

/// Give states to another store
///
/// Only what the other store lacks travels, as it is stored here, and the other
/// side hashes all of it when it has arrived. A store is made where there is none.
#[derive(clap::Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct Args {
    /// Numbers or tags of states
    #[arg(value_name = "STATE", default_value = "current")]
    states: Vec<StateName>,
    /// Directory of the other store, or ssh://[USER@]HOST[:PORT]/DIR, where cairn
    /// is installed as well
    #[arg(value_name = "STORE", required = true)]
    place: StorePlace,
    #[command(flatten)]
    how: How,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    interrupt::note()?;
    let from = context.store()?;
    let place = match &args.place {
        StorePlace::Directory(path) => {
            crate::context::check_owner(path)?;
            let to = match Store::open(path) {
                Err(cairn_store::Error::NotAStore { .. }) => Store::create(path)?,
                opened => opened?,
            };
            check_different(&from, &to)?;
            let phases = Phases::new(output.progress());
            let (done, mounts) = take(&from, &args.states, &to, &args.how, &phases)?;
            output.data(&done)?;
            return mounts.check();
        }
        StorePlace::Ssh(place) => place,
    };
    let mut words = vec!["take-states".to_owned()];
    words.extend(args.how.switch.then(|| "--switch".into()));
    words.extend(args.how.dry_run.then(|| "--dry-run".into()));
    words.extend(args.how.tag.iter().map(|tag| format!("--tag={tag}")));
    words.push("--".into());
    // Names are looked up here: the other side may know others.
    for name in &args.states {
        words.push(name.find(&from)?.id.to_string());
    }
    let other = place.run(context.ssh().as_deref(), &words)?;
    let phase = output.phase("Sending", None, Unit::Bytes);
    let result = serve(&from, &other.from, &other.to, &phase);
    drop(phase);
    // It knows better than this side why it has gone.
    let ended = other.end();
    if interrupt::has_come() {
        return Err(interrupt::explain(cairn_store::Error::Cancelled));
    }
    ended?;
    let result = result?.ok_or(Error::NoAnswer)?;
    let done: Done = serde_json::from_value(result).map_err(|_| Error::NoAnswer)?;
    output.data(&done)
}

impl ServeProgress for Phase {
    fn expect(&self, bytes: u64) {
        self.expect_bytes(bytes);
    }

    fn advance(&self, bytes: u64) {
        Phase::advance(self, bytes);
    }
}
