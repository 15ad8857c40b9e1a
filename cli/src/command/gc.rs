//! `cairn gc`: what no state needs any more goes.

use std::sync::{Mutex, PoisonError};

use cairn_store::{Amount, Collected, GcOptions, GcPhase, GcProgress};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::{Phase, Progress, Unit};
use crate::units::{counted, size};

/// Remove what no state, tag, mount or workspace needs
///
/// Runs beside mounts and other commands. Packs that hold nothing else are removed;
/// those of which little is needed are replaced by that little. cairn state remove and
/// cairn state prune make garbage; this gives its room back.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Rewrite packs of which less than so many percent are needed: 0 rewrites none, 100
    /// each that holds anything unneeded
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = GcOptions::default().rewrite_below,
        value_parser = clap::value_parser!(u64).range(0..=100)
    )]
    rewrite_below: u64,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let options = GcOptions { rewrite_below: args.rewrite_below };
    Mounts::settle(&store);
    let phases = Phases::new(output.progress());
    let (collected, mounts) = if args.dry_run {
        (store.preview_gc(options, &[], &phases)?, Mounts::default())
    } else {
        let collected = store.gc(options, &phases)?;
        // They hold removed packs open, whose room the disk gets back only then.
        (collected, Mounts::refresh(&store))
    };
    drop(phases);
    let view = CollectedView::new(&collected, args.dry_run);
    let found = view.unreadable.len();
    output.data(&Gc { collected: view, mounts })?;
    if found > 0 { Err(Error::DamageFound { found }) } else { Ok(()) }
}

#[derive(Serialize)]
struct Gc {
    #[serde(flatten)]
    collected: CollectedView,
    mounts: Mounts,
}

/// What a collection did, or would do, as every command tells of it.
#[derive(Serialize)]
pub(crate) struct CollectedView {
    dry_run: bool,
    /// Bytes that the disk got back.
    pub freed: u64,
    /// Bytes of the packs that there are now.
    stored: u64,
    states: u64,
    kept: AmountView,
    removed: AmountView,
    left: AmountView,
    packs_removed: u64,
    packs_rewritten: u64,
    plain_files_removed: u64,
    plain_bytes_removed: u64,
    pub unreadable: Vec<String>,
}

#[derive(Clone, Copy, Serialize)]
struct AmountView {
    objects: u64,
    bytes: u64,
}

impl From<Amount> for AmountView {
    fn from(Amount { objects, bytes }: Amount) -> Self {
        Self { objects, bytes }
    }
}

impl CollectedView {
    pub(crate) fn new(collected: &Collected, dry_run: bool) -> Self {
        Self {
            dry_run,
            freed: collected.freed,
            stored: collected.stored,
            states: collected.states,
            kept: collected.kept.into(),
            removed: collected.removed.into(),
            left: collected.left.into(),
            packs_removed: collected.packs_removed,
            packs_rewritten: collected.packs_rewritten,
            plain_files_removed: collected.plain.files,
            plain_bytes_removed: collected.plain.bytes,
            unreadable: collected.unreadable.iter().map(|err| in_one_line(err)).collect(),
        }
    }
}

impl View for CollectedView {
    fn show(&self, page: &mut Page) {
        for problem in &self.unreadable {
            page.marked_line(Style::Bad, "left alone: ", problem);
        }
        let would = if self.dry_run { "Would free" } else { "Freed" };
        if self.removed.objects == 0 && self.freed == 0 {
            if self.plain_files_removed == 0 {
                page.line("Nothing to free.");
            }
        } else {
            page.line(format_args!(
                "{would} {}: {} ({} of files and directories), {} removed, {} rewritten.",
                size(self.freed),
                counted(self.removed.objects, "object"),
                size(self.removed.bytes),
                counted(self.packs_removed, "pack"),
                counted(self.packs_rewritten, "pack"),
            ));
        }
        if self.plain_files_removed > 0 {
            page.line(format_args!(
                "{would} {} of plain copies for passthrough that no mount needs: {}.",
                size(self.plain_bytes_removed),
                counted(self.plain_files_removed, "file"),
            ));
        }
        let states = counted(self.states, "state");
        page.line(format_args!("{} in packs for {states}.", size(self.stored)));
        if self.left.bytes > 0 {
            page.line(format_args!(
                "{} of garbage stay in packs that are mostly needed (--rewrite-below 100 takes \
                 them, too).",
                size(self.left.bytes),
            ));
        }
    }
}

impl View for Gc {
    fn show(&self, page: &mut Page) {
        self.mounts.show_failures(page);
        self.collected.show(page);
    }
}

/// Shows the phases of a collection one after the other.
pub(crate) struct Phases {
    progress: Progress,
    current: Mutex<(Option<GcPhase>, Option<Phase>)>,
}

impl Phases {
    pub(crate) fn new(progress: Progress) -> Self {
        Self { progress, current: Mutex::default() }
    }
}

impl GcProgress for Phases {
    fn begin(&self, phase: GcPhase, total: Option<u64>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // What was published meanwhile is marked as a part of the same.
        if current.0 == Some(phase) || current.0 == Some(GcPhase::Sweep) && phase == GcPhase::Mark {
            return;
        }
        let (name, unit) = match phase {
            GcPhase::Mark => ("Reading directories", Unit::Pieces),
            GcPhase::Sweep => ("Removing packs", Unit::Pieces),
            GcPhase::Rewrite => ("Rewriting packs", Unit::Bytes),
        };
        // The bar before it goes first.
        current.1 = None;
        *current = (Some(phase), Some(self.progress.phase(name, total, unit)));
    }

    fn advance(&self, count: u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(phase) = &current.1 {
            phase.advance(count);
        }
    }
}
