//! `cairn verify`: whether all that the states need is there and undamaged.

use cairn_store::{Damage, VerifyProgress};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::{Phase, Unit};
use crate::units::{count, counted, size};

/// Read and hash everything in the store, and tell what is damaged
///
/// Changes nothing. Exit code 3 says that damage was found.
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Verified {
    packs: u64,
    objects: u64,
    bytes: u64,
    states: u64,
    damage: Vec<Damaged>,
    #[serde(skip)]
    all_paths: bool,
}

#[derive(Serialize)]
struct Damaged {
    problem: String,
    affects: Vec<Affected>,
}

#[derive(Serialize)]
struct Affected {
    state: u64,
    path: String,
}

impl VerifyProgress for Phase {
    fn begin(&self, packs: u64) {
        self.set_total(packs, Unit::Pieces);
    }

    fn advance(&self) {
        Phase::advance(self, 1);
    }
}

pub(crate) fn run(_: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let phase = output.phase("Verifying packs", None, Unit::Pieces);
    let report = store.verify(&phase)?;
    drop(phase);
    let found = report.damage.len();
    output.data(&Verified {
        packs: report.packs,
        objects: report.objects,
        bytes: report.bytes,
        states: report.states,
        damage: report.damage.iter().map(Damaged::new).collect(),
        all_paths: context.verbose(),
    })?;
    if found > 0 { Err(Error::DamageFound { found }) } else { Ok(()) }
}

impl Damaged {
    fn new(damage: &Damage) -> Self {
        let affects = damage.paths.iter();
        Self {
            problem: in_one_line(&damage.error),
            affects: affects
                .map(|(state, path)| Affected { state: state.0, path: path.clone() })
                .collect(),
        }
    }
}

/// Paths of one damage that are shown unless more are asked for.
const SHOWN: usize = 10;

impl View for Verified {
    fn show(&self, page: &mut Page) {
        for damage in &self.damage {
            page.marked_line(Style::Bad, "damaged: ", &damage.problem);
            let shown = if self.all_paths { usize::MAX } else { SHOWN };
            for Affected { state, path } in damage.affects.iter().take(shown) {
                page.line(format_args!("  {state}:{path}"));
            }
            if let Some(more @ 1..) = damage.affects.len().checked_sub(shown) {
                page.line(format_args!("  and {more} more (--verbose shows them)"));
            }
        }
        let objects = count(self.objects);
        page.line(format_args!(
            "{objects} objects ({}) in {} verified, {} walked: {}.",
            size(self.bytes),
            counted(usize::try_from(self.packs).unwrap_or(usize::MAX), "pack"),
            counted(usize::try_from(self.states).unwrap_or(usize::MAX), "state"),
            match self.damage.len() {
                0 => "no damage".into(),
                found => format!("{found} damaged"),
            },
        ));
    }
}
