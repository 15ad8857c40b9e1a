//! `cairn verify`: whether all that the states need is there and undamaged.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use cairn_fs::Registration;
use cairn_package::repair::StoneSource;
use cairn_store::{Damage, Holding, ObjectId, RepairSource, Store, VerifyProgress};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::place::StateName;
use crate::progress::{Phase, Unit};
use crate::units::{count, counted, size};

/// Read and hash everything in the store, and tell what is damaged
///
/// With states, only what those need is read, unless it needs repair: then the whole
/// store is. Exit code 3 says that damage was found, or with --repair, that something
/// is lost which no source has; after a full repair it is 0. Without --repair nothing is
/// changed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// States to verify (default: the whole store)
    states: Vec<StateName>,
    /// Restore what is damaged from repositories, and keep damaged packs in
    /// STORE/quarantine
    #[arg(long)]
    repair: bool,
    /// Restore it from the store in this directory first
    #[arg(long, value_name = "STORE", requires = "repair")]
    from: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Verified {
    packs: u64,
    objects: u64,
    bytes: u64,
    states: u64,
    damage: Vec<Damaged>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<RepairView>,
    #[serde(skip)]
    all: bool,
}

#[derive(Serialize)]
struct RepairView {
    /// Packs that are in STORE/quarantine now.
    quarantined: Vec<String>,
    /// Entries of the index that differed from the packs.
    corrected: u64,
    /// Sound objects of damaged packs that were copied.
    salvaged: u64,
    /// Records of states that were made anew.
    records: u64,
    /// How many objects each source gave.
    restored: BTreeMap<String, u64>,
    /// What no source has.
    missing: Vec<String>,
    /// Why sources could not be used.
    failures: Vec<String>,
    mounts: Mounts,
}

#[derive(Serialize)]
struct Damaged {
    problem: String,
    /// Who needs it: see [`Damage::needed_by`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    needed_by: Vec<Needing>,
    affects: Vec<Affected>,
    /// How many more paths it affects.
    #[serde(skip_serializing_if = "is_zero")]
    more: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
#[serde(untagged)]
enum Needing {
    States { first: u64, last: u64 },
    Other(HoldingView),
}

impl fmt::Display for Needing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::States { first, last } if first == last => write!(f, "state {first}"),
            Self::States { first, last } => write!(f, "states {first} to {last}"),
            Self::Other(other) => other.fmt(f),
        }
    }
}

#[derive(Serialize)]
struct Affected {
    #[serde(flatten)]
    by: HoldingView,
    path: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum HoldingView {
    State(u64),
    Workspace(String),
    /// Where it is mounted.
    Mount(String),
}

impl fmt::Display for HoldingView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(id) => write!(f, "{id}"),
            Self::Workspace(name) => write!(f, "workspace {name}"),
            Self::Mount(target) => write!(f, "mount {target}"),
        }
    }
}

impl VerifyProgress for Phase {
    fn begin(&self, packs: u64) {
        self.set_total(packs, Unit::Pieces);
    }

    fn advance(&self) {
        Phase::advance(self, 1);
    }
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let phase = output.phase("Verifying packs", None, Unit::Pieces);
    let report = if args.states.is_empty() {
        store.verify(&phase)?
    } else {
        let states = args.states.iter().map(|name| Ok(name.find(&store)?.id));
        let mut states = states.collect::<Result<Vec<_>, Error>>()?;
        states.sort_unstable();
        states.dedup();
        store.verify_states(&states, &phase)?
    };
    drop(phase);
    let mounts = cairn_fs::list(&store.path().join("run"))?;
    let mut found = report.damage.len();
    let mut verified = Verified {
        packs: report.packs,
        objects: report.objects,
        bytes: report.bytes,
        states: report.states,
        damage: report.damage.iter().map(|damage| Damaged::new(damage, &mounts)).collect(),
        repair: None,
        all: context.verbose(),
    };
    if args.repair && found > 0 {
        let repair = repair(&store, &args.from, context, output)?;
        found = repair.missing.len();
        verified.repair = Some(repair);
    }
    output.data(&verified)?;
    if found > 0 { Err(Error::DamageFound { found }) } else { Ok(()) }
}

/// Takes what is lost from where it can be had.
fn repair(
    store: &Store,
    from: &[PathBuf],
    context: &Context,
    output: &Output<'_>,
) -> Result<RepairView, Error> {
    let mut stores = Vec::new();
    for path in from {
        stores.push(Store::open(path)?);
    }
    let mut failures = Vec::new();
    let mut stones = match StoneSource::new(context.repositories(store)) {
        Ok(stones) => Some(stones),
        Err(err) => {
            failures.push(format!("repositories: {}", in_one_line(&err)));
            None
        }
    };
    let mut sources: Vec<&mut dyn RepairSource> = Vec::new();
    sources.extend(stores.iter_mut().map(|store| store as &mut dyn RepairSource));
    sources.extend(stones.iter_mut().map(|stones| stones as &mut dyn RepairSource));
    let phase = output.phase("Repairing packs", None, Unit::Pieces);
    let repaired = store.repair(&mut sources, &phase)?;
    drop(phase);
    let told = repaired.failures.iter();
    failures.extend(told.map(|(name, err)| format!("{name}: {}", in_one_line(&**err))));
    let quarantined = repaired.quarantined.iter();
    Ok(RepairView {
        quarantined: quarantined.map(|(pack, _)| pack.to_string()).collect(),
        corrected: repaired.corrected,
        salvaged: repaired.salvaged,
        records: repaired.records,
        restored: repaired.restored,
        missing: repaired.missing.iter().map(named).collect(),
        failures,
        // They hold the damaged packs open.
        mounts: Mounts::refresh(store),
    })
}

fn records(number: u64) -> String {
    counted(number, "record") + " of states"
}

fn named(object: &ObjectId) -> String {
    match object {
        ObjectId::Blob(key, _) => format!("blob {key}"),
        ObjectId::Tree(id) => format!("tree {id}"),
        ObjectId::Page(id) => format!("page {id}"),
        ObjectId::State(digest) => format!("state {digest}"),
    }
}

impl Damaged {
    fn new(damage: &Damage, mounts: &[Registration]) -> Self {
        let by = |holding: &Holding| match holding {
            Holding::State(id) => HoldingView::State(id.0),
            Holding::Workspace(name) => HoldingView::Workspace(name.to_string()),
            Holding::Mount(name) => {
                let mount = mounts.iter().find(|mount| mount.name() == name);
                HoldingView::Mount(mount.map_or(name, |mount| &mount.target).clone())
            }
        };
        let needing = |run: &RangeInclusive<Holding>| match (run.start(), run.end()) {
            (Holding::State(first), Holding::State(last)) => {
                Needing::States { first: first.0, last: last.0 }
            }
            (other, _) => Needing::Other(by(other)),
        };
        let affects = damage.paths.iter();
        Self {
            problem: in_one_line(&damage.error),
            needed_by: damage.needed_by.iter().map(needing).collect(),
            affects: affects
                .map(|(holding, path)| Affected { by: by(holding), path: path.clone() })
                .collect(),
            more: damage.more,
        }
    }
}

/// Paths of one damage that are shown unless more are asked for.
const PATHS: usize = 10;
/// Damage that is shown unless more is asked for.
const SHOWN: usize = 100;

impl View for Verified {
    fn show(&self, page: &mut Page) {
        let shown = if self.all { usize::MAX } else { SHOWN };
        for damage in self.damage.iter().take(shown) {
            page.marked_line(Style::Bad, "damaged: ", &damage.problem);
            let shown = if self.all { usize::MAX } else { PATHS };
            if !damage.needed_by.is_empty() {
                let needing = damage.needed_by.iter().take(shown).map(ToString::to_string);
                let needing = needing.collect::<Vec<_>>().join(", ");
                let and_more = if damage.needed_by.len() > shown { ", ..." } else { "" };
                page.line(format_args!("  needed by {needing}{and_more}"));
            }
            for Affected { by, path } in damage.affects.iter().take(shown) {
                page.line(format_args!("  {by}:{path}"));
            }
            let hidden = damage.affects.len().saturating_sub(shown) as u64 + damage.more;
            if hidden > 0 {
                page.line(format_args!("  and {} more (--verbose shows them)", count(hidden)));
            }
        }
        if let Some(more @ 1..) = self.damage.len().checked_sub(shown) {
            page.line(format_args!("and {more} more (--verbose shows them)"));
        }
        page.line(format_args!(
            "{} ({}) in {} verified, {} walked: {}.",
            counted(self.objects, "object"),
            size(self.bytes),
            counted(self.packs, "pack"),
            counted(self.states, "state"),
            match self.damage.len() {
                0 => "no damage".into(),
                found => format!("{found} damaged"),
            },
        ));
        if let Some(repair) = &self.repair {
            repair.show(page, shown);
        }
    }
}

impl RepairView {
    fn show(&self, page: &mut Page, shown: usize) {
        self.mounts.show_failures(page);
        for failure in &self.failures {
            page.marked_line(Style::Note, "not used: ", failure);
        }
        for missing in self.missing.iter().take(shown) {
            page.marked_line(Style::Bad, "lost: ", missing);
        }
        page.line(format_args!(
            "{} put aside in quarantine, {} sound objects of them kept.",
            counted(self.quarantined.len(), "pack"),
            count(self.salvaged),
        ));
        if self.corrected > 0 {
            page.line(format_args!("{} entries of the index corrected.", count(self.corrected)));
        }
        if self.records > 0 {
            page.line(format_args!("{} made anew from refs/log.", records(self.records)));
        }
        for (source, objects) in self.restored.iter().filter(|(_, objects)| **objects > 0) {
            let objects = counted(*objects, "object");
            page.line(format_args!("{objects} restored from {source}."));
        }
        page.line(match self.missing.len() {
            0 => "Nothing is lost: all that the states need is there.".into(),
            lost => format!("{} lost: no source has what is named above.", counted(lost, "object")),
        });
    }
}
