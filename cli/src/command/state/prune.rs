//! `cairn state prune`: old states go by rule.

use std::time::{SystemTime, UNIX_EPOCH};

use cairn_store::{Day, GcOptions, Keep, Reason, State, StateId};
use serde::Serialize;

use crate::command::gc::{CollectedView, Phases};
use crate::context::Context;
use crate::error::Error;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::units::{self, counted};

/// Remove old states, except those that a rule keeps
///
/// The rules add up. The current state and states with tags always stay. The room is
/// given back by cairn gc, or at once with --gc.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("rules").required(true).multiple(true))]
pub(crate) struct Args {
    /// Keep the newest N states
    #[arg(
        short,
        long,
        visible_alias = "keep",
        value_name = "N",
        group = "rules",
        default_value_t,
        hide_default_value = true
    )]
    keep_last: u32,
    /// Keep all states of the latest N days, today included
    #[arg(long, value_name = "N", group = "rules", default_value_t, hide_default_value = true)]
    keep_within: u32,
    /// Keep the newest state of each of the latest N days that have any
    #[arg(long, value_name = "N", group = "rules", default_value_t, hide_default_value = true)]
    keep_daily: u32,
    /// Keep the newest state of each of the latest N weeks that have any
    #[arg(long, value_name = "N", group = "rules", default_value_t, hide_default_value = true)]
    keep_weekly: u32,
    /// Keep the newest state of each of the latest N months that have any
    #[arg(long, value_name = "N", group = "rules", default_value_t, hide_default_value = true)]
    keep_monthly: u32,
    /// Keep the newest state of each of the latest N years that have any
    #[arg(long, value_name = "N", group = "rules", default_value_t, hide_default_value = true)]
    keep_yearly: u32,
    /// Show what would be removed and freed, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Collect garbage afterwards
    #[arg(long)]
    gc: bool,
}

#[derive(Serialize)]
struct Pruned {
    dry_run: bool,
    kept: Vec<KeptView>,
    removed: Vec<RemovedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gc: Option<CollectedView>,
    mounts: Mounts,
}

#[derive(Serialize)]
struct KeptView {
    state: u64,
    created: String,
    reasons: Vec<String>,
    #[serde(skip)]
    local_time: String,
}

#[derive(Serialize)]
struct RemovedView {
    state: u64,
    created: String,
    request: String,
    #[serde(skip)]
    local_time: String,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let keep = Keep {
        last: args.keep_last,
        within: args.keep_within,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
    };
    let refs = store.refs();
    let reasons = keep.choose(&refs, today(), &day);
    let (kept, gone): (Vec<&State>, Vec<&State>) =
        refs.states.values().partition(|state| reasons.contains_key(&state.id));
    let ids: Vec<StateId> = gone.iter().map(|state| state.id).collect();
    let mut pruned = Pruned {
        dry_run: args.dry_run,
        kept: kept
            .into_iter()
            .map(|state| KeptView {
                state: state.id.0,
                created: units::utc_time(seconds(state)),
                reasons: reasons[&state.id].iter().map(word).collect(),
                local_time: units::local_time(seconds(state)),
            })
            .collect(),
        removed: gone
            .into_iter()
            .map(|state| RemovedView {
                state: state.id.0,
                created: units::utc_time(seconds(state)),
                request: state.request.clone(),
                local_time: units::local_time(seconds(state)),
            })
            .collect(),
        gc: None,
        mounts: Mounts::default(),
    };
    if args.dry_run {
        let phases = Phases::new(output.progress());
        let collected = store.preview_gc(GcOptions::default(), &ids, &phases)?;
        drop(phases);
        pruned.gc = Some(CollectedView::new(&collected, true));
        return output.data(&pruned);
    }
    if !ids.is_empty() {
        output.preview(&pruned);
        output.confirm(&format!("Remove {} for good?", counted(ids.len(), "state")))?;
        store.remove_states(&ids)?;
        pruned.mounts = Mounts::refresh(&store);
    }
    if args.gc {
        let phases = Phases::new(output.progress());
        Mounts::settle(&store);
        let collected = store.gc(GcOptions::default(), &phases)?;
        drop(phases);
        pruned.mounts = Mounts::refresh(&store);
        pruned.gc = Some(CollectedView::new(&collected, false));
    }
    let found = pruned.gc.as_ref().map_or(0, |gc| gc.unreadable.len());
    output.data(&Done(&pruned))?;
    if found > 0 {
        return Err(Error::DamageFound { found });
    }
    pruned.mounts.check()
}

fn seconds(state: &State) -> i64 {
    i64::try_from(state.time / 1_000_000_000).unwrap_or(i64::MAX)
}

/// The day on which people here saw the state being committed.
fn day(state: &State) -> Day {
    day_at(seconds(state))
}

fn today() -> Day {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    day_at(i64::try_from(now).unwrap_or(i64::MAX))
}

/// The day here, so many seconds after 1970 began.
fn day_at(seconds: i64) -> Day {
    let (year, month, day) = units::local_date(seconds);
    Day { year, month, day }
}

fn word(reason: &Reason) -> String {
    match reason {
        Reason::Current => "current".into(),
        Reason::Tag(tag) => format!("tag {tag}"),
        Reason::Last => "last".into(),
        Reason::Within => "within".into(),
        Reason::Daily => "daily".into(),
        Reason::Weekly => "weekly".into(),
        Reason::Monthly => "monthly".into(),
        Reason::Yearly => "yearly".into(),
    }
}

impl View for Pruned {
    fn show(&self, page: &mut Page) {
        for kept in &self.kept {
            let KeptView { state, reasons, local_time, .. } = kept;
            let reasons = reasons.join(", ");
            page.marked_line(
                Style::Good,
                "keep   ",
                format_args!("{state}  {local_time}  {reasons}"),
            );
        }
        for gone in &self.removed {
            let RemovedView { state, request, local_time, .. } = gone;
            page.marked_line(
                Style::Bad,
                "remove ",
                format_args!("{state}  {local_time}  {request}"),
            );
        }
        page.blank();
        if let Some(gc) = &self.gc {
            page.line(format_args!(
                "{} would be removed. With cairn gc:",
                counted(self.removed.len(), "state")
            ));
            gc.show(page);
        }
    }
}

/// What people are told at the end: they have seen the list.
#[derive(Serialize)]
#[serde(transparent)]
struct Done<'a>(&'a Pruned);

impl View for Done<'_> {
    fn show(&self, page: &mut Page) {
        self.0.mounts.show_failures(page);
        let removed = self.0.removed.len();
        match &self.0.gc {
            Some(gc) => {
                page.line(format_args!("{} removed.", counted(removed, "state")));
                gc.show(page);
            }
            None if removed == 0 => page.line("Every state is kept."),
            None => page.line(format_args!(
                "{} removed; cairn gc gives their room back.",
                counted(removed, "state")
            )),
        }
    }
}
