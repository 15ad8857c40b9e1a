//! `cairn store compact`: what only old states need, made smaller.

use cairn_store::Compacted;
use serde::Serialize;

use crate::command::gc::Phases;
use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::units::{counted, size};

/// Make what only old states need smaller
///
/// Old is what neither the current state nor a tag, a mount or a workspace needs. It
/// goes to packs that take longer to read: larger pieces, compressed thoroughly, with
/// the versions of a file side by side. Runs beside mounts and other commands; needs
/// room for the new packs before the old ones go.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Estimate what would be saved, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Done {
    dry_run: bool,
    states: u64,
    objects: u64,
    bytes: u64,
    packs_replaced: u64,
    packs_made: u64,
    bytes_before: u64,
    bytes_after: u64,
    stored: u64,
    unreadable: Vec<String>,
    mounts: Mounts,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let phases = Phases::new(output.progress());
    let (compacted, mounts) = if args.dry_run {
        (store.preview_compact(&phases)?, Mounts::default())
    } else {
        let compacted = store.compact(&phases)?;
        // They hold removed packs open, whose room the disk gets back only then.
        (compacted, Mounts::refresh(&store))
    };
    drop(phases);
    let found = compacted.unreadable.len();
    output.data(&Done::new(&compacted, mounts, args.dry_run))?;
    if found > 0 { Err(Error::DamageFound { found }) } else { Ok(()) }
}

impl Done {
    fn new(compacted: &Compacted, mounts: Mounts, dry_run: bool) -> Self {
        Self {
            dry_run,
            states: compacted.states,
            objects: compacted.moved.objects,
            bytes: compacted.moved.bytes,
            packs_replaced: compacted.packs_replaced,
            packs_made: compacted.packs_made,
            bytes_before: compacted.before,
            bytes_after: compacted.after,
            stored: compacted.stored,
            unreadable: compacted.unreadable.iter().map(|err| in_one_line(err)).collect(),
            mounts,
        }
    }
}

impl View for Done {
    fn show(&self, page: &mut Page) {
        self.mounts.show_failures(page);
        for problem in &self.unreadable {
            page.marked_line(Style::Bad, "left alone: ", problem);
        }
        let states = counted(self.states, "old state");
        if self.packs_replaced == 0 {
            page.line(format_args!("Nothing to compact for {states}."));
        } else {
            let (would, about) = if self.dry_run { ("Would make", "about ") } else { ("Made", "") };
            page.line(format_args!(
                "{would} {about}{} of {} in {}: {} ({} of files and directories) that only \
                 {states} {}.",
                size(self.bytes_after),
                size(self.bytes_before),
                counted(self.packs_replaced, "pack"),
                counted(self.objects, "object"),
                size(self.bytes),
                if self.states == 1 { "needs" } else { "need" }
            ));
        }
        page.line(format_args!("{} in packs.", size(self.stored)));
    }
}
