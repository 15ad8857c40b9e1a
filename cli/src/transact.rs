//! The way of every command that changes packages: plan, question, progress,
//! result.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_package::plan::{self, Action, Plan, System};
use cairn_package::solve::Request;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::plan::{PlanView, summary};
use crate::progress::{Phase, Progress, Unit};
use crate::units::duration;

/// Whether a plan is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// After the question was answered with yes.
    Apply,
    /// Never: it is only shown.
    DryRun,
}

impl Mode {
    /// What `--dry-run` says.
    pub(crate) fn new(dry_run: bool) -> Self {
        if dry_run { Self::DryRun } else { Self::Apply }
    }
}

/// What a transaction has done.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(flatten)]
    plan: PlanView<'a>,
    /// The state that is current now; none if there was none and nothing was
    /// done.
    state: Option<u64>,
    seconds: f64,
    /// Files of packages that went, which were changed since and stay.
    kept: Vec<String>,
    /// Devices that were not made, since their packages do not tell enough.
    left_out: Vec<String>,
    mounts: Mounts,
    #[serde(skip)]
    text: String,
    #[serde(skip)]
    time: Duration,
}

/// Plans `request`, which people said as `text`, and carries it out. `stones`
/// are offered beside what repositories have.
pub(crate) fn transact(
    request: &Request,
    text: &str,
    stones: &[PathBuf],
    mode: Mode,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let store = match mode {
        Mode::Apply => context.store_or_new()?,
        Mode::DryRun => context.store()?,
    };
    let system = System::read(&store, stones)?;
    let plan = system.plan(request, text)?;
    let view = PlanView::new(&plan);
    if mode == Mode::DryRun {
        return output.data(&view);
    }
    let mut done = Done {
        state: system.base().map(|state| state.id.0),
        seconds: 0.0,
        kept: Vec::new(),
        left_out: Vec::new(),
        mounts: Mounts::default(),
        text: done_in_words(&plan),
        time: Duration::ZERO,
        plan: view,
    };
    if !done.plan.is_empty() {
        output.preview(&done.plan);
        output.confirm("\nContinue?")?;
        // The time is that of the work, without that of who answers.
        let begun = Instant::now();
        let phases = Phases { progress: output.progress(), current: Mutex::default() };
        let applied = system.apply(&plan, &phases)?;
        drop(phases);
        done.mounts = Mounts::refresh(&store);
        done.time = begun.elapsed();
        done.seconds = done.time.as_secs_f64();
        done.state = Some(applied.state.id.0);
        let shown = |path: &cairn_store::TreePath| Escaped(&path.to_bytes()).to_string();
        done.kept = applied.kept.iter().map(shown).collect();
        done.left_out = applied.left_out.iter().map(shown).collect();
    }
    output.data(&done)?;
    done.mounts.check()
}

fn done_in_words(plan: &Plan) -> String {
    summary(&plan.steps, |action| match action {
        Action::Install => "installed",
        Action::Upgrade => "upgraded",
        Action::Downgrade => "downgraded",
        Action::Replace => "replaced",
        Action::Remove => "removed",
        Action::Mark => "kept as asked for",
    })
}

impl View for Done<'_> {
    fn show(&self, page: &mut Page) {
        for path in &self.kept {
            page.marked_line(Style::Note, "kept: ", format_args!("{path} was changed since"));
        }
        for path in &self.left_out {
            let text = format_args!("{path}, a device without a number");
            page.marked_line(Style::Note, "left out: ", text);
        }
        self.mounts.show_failures(page);
        match self.state {
            Some(state) if !self.text.is_empty() => {
                let time = duration(self.time);
                page.line(format_args!("State {state} is current: {} ({time}).", self.text));
            }
            _ => self.plan.show(page),
        }
    }
}

/// What people are told of a phase that is to count to `total`.
pub(crate) fn words_of(phase: plan::Phase, total: u64) -> (&'static str, Option<u64>, Unit) {
    match phase {
        plan::Phase::Verify => ("Verifying stones", Some(total), Unit::Pieces),
        plan::Phase::Unpack => ("Storing files", Some(total), Unit::Bytes),
        plan::Phase::Commit => ("Committing", None, Unit::Pieces),
    }
}

/// Shows the phases of a transaction one after the other.
struct Phases {
    progress: Progress,
    current: Mutex<Option<Phase>>,
}

impl plan::Progress for Phases {
    fn begin(&self, phase: plan::Phase, total: u64) {
        let (name, total, unit) = words_of(phase, total);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // The bar before it goes first.
        *current = None;
        *current = Some(self.progress.phase(name, total, unit));
    }

    fn advance(&self, count: u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(phase) = &*current {
            phase.advance(count);
        }
    }
}
