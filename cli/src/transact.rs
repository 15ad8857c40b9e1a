//! The way of every command that changes packages: plan, question, progress,
//! result.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_package::changes::beside;
use cairn_package::model::Model;
use cairn_package::plan::{self, Action, Plan, System};
use cairn_package::repository::{Repositories, Retry};
use cairn_package::solve::Request;
use cairn_package::trigger::{Job, Ran};
use cairn_store::export::{DirectoryOptions, export_directory};
use cairn_store::{State, StateId, Store, TreePath};
use serde::Serialize;

use crate::affected::Affected;
use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::interrupt;
use crate::live::Live;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::plan::{LocalChanges, PlanView, summary};
use crate::progress::{Phase, Progress, Unit, retry_in_words};
use crate::units::duration;

/// How a plan is carried out, as every command takes it that makes one.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Mode {
    /// Show what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Leave out what triggers would do; the next transaction does it
    #[arg(long)]
    skip_triggers: bool,
    /// Show which running processes still use files that have been replaced, and
    /// the services that own them
    #[arg(long)]
    list_affected: bool,
}

/// Where the packages go, as every command takes it that can make a system elsewhere.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct To {
    /// Write a system of these packages alone into this directory, new or empty, and
    /// make no state
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Make the state, and leave the current one: cairn diff shows what would change,
    /// files changed by hand and all, and cairn switch makes it current
    #[arg(long, conflicts_with = "to")]
    no_switch: bool,
}

impl To {
    /// Whether the system is another one than that of the store.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.to.is_some()
    }

    /// Whether what is made becomes current.
    fn becomes_current(&self) -> bool {
        !self.is_elsewhere() && !self.no_switch
    }

    /// What `store` has, or an empty system.
    ///
    /// # Errors
    /// The directory has something in it.
    fn system(
        &self,
        store: &Store,
        repositories: Repositories,
        stones: &[PathBuf],
    ) -> Result<System, Error> {
        let Some(path) = &self.to else {
            let system = System::with_repositories(store, repositories, stones)?;
            return Ok(if self.no_switch { system.aside() } else { system });
        };
        let is_free = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(err) => err.kind() == io::ErrorKind::NotFound,
        };
        if !is_free {
            return Err(cairn_store::Error::OccupiedTarget { path: path.clone() }.into());
        }
        Ok(System::apart(store, repositories, stones)?)
    }
}

/// What a transaction has done.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(flatten)]
    plan: PlanView<'a>,
    /// Where the system was written, if it is none of the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<PathBuf>,
    /// The state that is current now; none if there was none and nothing was
    /// done, or if a directory was written.
    state: Option<u64>,
    /// The state that was made, where another one is current.
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<u64>,
    seconds: f64,
    /// Files that were changed since packages brought them, and stay as they are.
    kept: Vec<String>,
    /// Files that were changed, and have what is new in them as well.
    merged: Vec<String>,
    /// Files that were changed where something new is, which lies beside them.
    conflicts: Vec<String>,
    /// Where the new version of each of these is.
    #[serde(skip)]
    beside: Vec<String>,
    /// Devices that were not made, since their packages do not tell enough.
    left_out: Vec<String>,
    /// What triggers have done.
    triggers: Vec<Ran>,
    /// What triggers were to do, and was left out.
    skipped_triggers: Vec<Job>,
    mounts: Mounts,
    live: Live,
    #[serde(skip_serializing_if = "Option::is_none")]
    affected: Option<Affected>,
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
    to: &To,
    mode: &Mode,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let store = if mode.dry_run { context.store()? } else { context.store_or_new()? };
    let mut repositories = context.repositories(&store);
    if request.only_removes() {
        repositories = repositories.only_at_hand();
    }
    let system = to.system(&store, repositories, stones)?;
    warn_of_expired(&system, output);
    let plan = system.plan(request, text)?;
    carry_out(&store, &system, &plan, None, (to, mode), context, output)
}

/// Makes the system what `model` says, which people said as `text`.
pub(crate) fn transact_model(
    model: &Model,
    text: &str,
    store: &Store,
    to: &To,
    mode: &Mode,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let system = to.system(store, context.repositories(store), &[])?;
    warn_of_expired(&system, output);
    let plan = system.plan_model(model, text)?;
    carry_out(store, &system, &plan, Some(model), (to, mode), context, output)
}

fn carry_out(
    store: &Store,
    system: &System,
    plan: &Plan,
    model: Option<&Model>,
    (to, mode): (&To, &Mode),
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let files = match model {
        Some(model) => LocalChanges::between(&system.local_files()?, &model.files),
        None => LocalChanges::default(),
    };
    let replaced = plan.steps.iter().filter(|step| step.old.is_some() && step.new.is_some());
    let replaced: Vec<String> = replaced.map(|step| step.name.clone()).collect();
    let changed = system.changed_files(&replaced)?;
    let changed = changed.iter().map(|file| Escaped(&file.path.to_bytes()).to_string());
    let view = PlanView::new(plan, files, changed.collect());
    if mode.dry_run {
        return output.data(&view);
    }
    let mut done = Done {
        directory: to.to.clone(),
        state: system.base().map(|state| state.id.0),
        made: None,
        seconds: 0.0,
        kept: Vec::new(),
        merged: Vec::new(),
        conflicts: Vec::new(),
        beside: Vec::new(),
        left_out: Vec::new(),
        triggers: Vec::new(),
        skipped_triggers: Vec::new(),
        mounts: Mounts::default(),
        live: Live::default(),
        affected: None,
        text: done_in_words(plan),
        time: Duration::ZERO,
        plan: view,
    };
    if !done.plan.is_empty() {
        output.preview(&done.plan);
        output.confirm("\nContinue?")?;
        // The time is that of the work, without that of who answers.
        let begun = Instant::now();
        let phases = Phases::new(output);
        let triggers = context.triggers(mode.skip_triggers);
        let files = model.map(|model| &model.files);
        let applied = system.apply_with(plan, files, &triggers, &phases)?;
        drop(phases);
        let shown = |path: &TreePath| Escaped(&path.to_bytes()).to_string();
        done.left_out = applied.left_out.iter().map(shown).collect();
        if let Some(directory) = &to.to {
            let left_out = write_out(store, &applied.state, directory, output)?;
            done.left_out.extend(left_out.iter().map(shown));
            done.live = Live::in_directory(store, directory, applied.state.tree, &triggers);
        } else if store.refs().current != Some(applied.state.id) {
            done.made = Some(applied.state.id.0);
        } else {
            done.mounts = Mounts::refresh(store);
            let old = system.base().map(|state| state.tree);
            done.live = Live::run(store, &done.mounts, old, applied.state.tree, &triggers);
            done.state = Some(applied.state.id.0);
        }
        done.time = begun.elapsed();
        done.seconds = done.time.as_secs_f64();
        done.kept = applied.kept.iter().map(shown).collect();
        done.merged = applied.merged.iter().map(shown).collect();
        done.conflicts = applied.conflicts.iter().map(shown).collect();
        done.beside = applied.conflicts.iter().map(|path| shown(&beside(path))).collect();
        done.triggers = applied.ran;
        done.skipped_triggers = applied.skipped;
    }
    if let (Some(model), Some(state), true) = (model, done.state, to.becomes_current()) {
        for tag in &model.tags {
            store.tag(tag.clone(), StateId(state))?;
        }
    }
    if mode.list_affected {
        done.affected = Some(Affected::find(store)?);
    }
    output.data(&done)?;
    done.mounts.check()?;
    done.live.check()
}

/// Writes a state that is not current into a directory, and removes it from the store.
/// Returns what could not be made.
fn write_out(
    store: &Store,
    state: &State,
    directory: &Path,
    output: &Output<'_>,
) -> Result<Vec<TreePath>, Error> {
    interrupt::note()?;
    let total = store.tree(state.tree)?.summary().bytes;
    let phase = output.phase("Writing", Some(total), Unit::Bytes);
    let options = DirectoryOptions::default();
    let exported = export_directory(store, state.tree, directory, options, &phase);
    drop(phase);
    store.remove_states(&[state.id])?;
    let exported = exported.map_err(interrupt::explain)?;
    Ok(exported.left_out.into_iter().map(|(path, _)| path).collect())
}

/// What a repository has offered once may have been replaced since for good
/// reason.
pub(crate) fn warn_of_expired(system: &System, output: &mut Output<'_>) {
    for repository in system.offered().iter().filter(|it| it.expired.is_some()) {
        let name = &repository.config.name;
        output.warning(format_args!(
            "the index of {name} has expired, so that newer packages may be missing: \
             cairn repo update"
        ));
    }
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

impl Mode {
    /// Whether triggers are left out.
    pub(crate) fn skips_triggers(&self) -> bool {
        self.skip_triggers
    }

    /// Whether to tell who still uses what was replaced.
    pub(crate) fn lists_affected(&self) -> bool {
        self.list_affected
    }

    /// Whether nothing is to be done.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

impl View for Done<'_> {
    fn show(&self, page: &mut Page) {
        for path in &self.kept {
            page.marked_line(Style::Note, "kept: ", format_args!("{path} was changed since"));
        }
        for path in &self.merged {
            let text = format_args!("{path} was changed, and has what is new as well");
            page.marked_line(Style::Note, "merged: ", text);
        }
        for (path, new) in self.conflicts.iter().zip(&self.beside) {
            let text = format_args!("{path} stays as it was changed; {new} is the new one");
            page.marked_line(Style::Bad, "conflict: ", text);
        }
        for path in &self.left_out {
            let why = match self.directory {
                Some(_) => "it cannot be made here",
                None => "a device without a number",
            };
            page.marked_line(Style::Note, "left out: ", format_args!("{path}, {why}"));
        }
        for ran in &self.triggers {
            let time = duration(ran.time);
            let text = format_args!("{}: {} ({time})", ran.job.trigger, ran.job.action);
            page.marked_line(Style::Faint, "ran: ", text);
        }
        for job in &self.skipped_triggers {
            let text = format_args!("{}: {}", job.trigger, job.action);
            page.marked_line(Style::Note, "left out: ", text);
        }
        self.mounts.show_failures(page);
        self.live.show_failures(page);
        let time = duration(self.time);
        match (&self.directory, self.state, self.made) {
            _ if self.text.is_empty() => self.plan.show(page),
            (Some(directory), ..) => {
                let directory = directory.display();
                page.line(format_args!("{directory} has a system: {} ({time}).", self.text));
            }
            (None, Some(state), Some(made)) => {
                page.line(format_args!("State {made} is made: {} ({time}).", self.text));
                page.line(format_args!(
                    "State {state} is still current: cairn diff {state} {made}, cairn switch {made}"
                ));
            }
            (None, Some(state), None) => {
                page.line(format_args!("State {state} is current: {} ({time}).", self.text));
            }
            (None, None, _) => self.plan.show(page),
        }
        if let Some(affected) = &self.affected {
            affected.show(page);
        }
    }
}

/// What people are told of a phase that is to count to `total`.
pub(crate) fn words_of(phase: plan::Phase, total: u64) -> (&'static str, Option<u64>, Unit) {
    match phase {
        plan::Phase::Download => ("Downloading stones", Some(total), Unit::Bytes),
        plan::Phase::Verify => ("Verifying stones", Some(total), Unit::Pieces),
        plan::Phase::Unpack => ("Storing files", Some(total), Unit::Bytes),
        plan::Phase::Compose => ("Composing the root", None, Unit::Pieces),
        plan::Phase::Triggers => ("Running triggers", Some(total), Unit::Pieces),
        plan::Phase::Commit => ("Committing", None, Unit::Pieces),
    }
}

/// Shows the phases of a transaction one after the other.
pub(crate) struct Phases {
    progress: Progress,
    current: Mutex<Option<Phase>>,
}

impl Phases {
    /// Phases of `output`; the last one ends when they are dropped.
    pub(crate) fn new(output: &Output<'_>) -> Self {
        Self { progress: output.progress(), current: Mutex::default() }
    }
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

    fn lose(&self, count: u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(phase) = &*current {
            phase.lose(count);
        }
    }

    fn retry(&self, retry: &Retry<'_>) {
        self.progress.note(&retry_in_words(retry));
    }
}
