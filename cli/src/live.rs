//! System triggers, done in the live roots of a store when they show another
//! state.

use std::path::Path;

use cairn_package::trigger::{Job, RunOptions, Triggers, can_have_triggers, live_jobs, run_live};
use cairn_store::{Store, TreeId};
use serde::Serialize;

use crate::error::{Error, in_one_line};
use crate::mounts::Mounts;
use crate::page::{Page, Style};

/// What system triggers have done in live roots.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Live(Vec<LiveRoot>);

#[derive(Debug, Serialize)]
struct LiveRoot {
    target: String,
    /// What was done.
    ran: Vec<String>,
    /// What has failed, and why.
    failures: Vec<String>,
}

impl LiveRoot {
    fn failed(target: &str, err: &dyn std::error::Error) -> Self {
        Self { target: target.into(), ran: Vec::new(), failures: vec![in_one_line(err)] }
    }

    fn run(target: &str, jobs: &[Job], options: &RunOptions) -> Self {
        let results = match run_live(Path::new(target), jobs, options) {
            Ok(results) => results,
            Err(err) => return Self::failed(target, &err),
        };
        let mut root = Self { target: target.into(), ran: vec![], failures: vec![] };
        for result in results {
            match result {
                Ok(ran) => root.ran.push(format!("{}: {}", ran.job.trigger, ran.job.action)),
                Err(err) => root.failures.push(in_one_line(&err)),
            }
        }
        root
    }
}

impl Live {
    /// Does what is due in the live roots of `mounts` that have gone from `old` to
    /// `new`.
    ///
    /// A state is committed by then, so that a failure is told and undoes
    /// nothing.
    pub(crate) fn run(
        store: &Store,
        mounts: &Mounts,
        old: Option<TreeId>,
        new: TreeId,
        triggers: &Triggers,
    ) -> Self {
        let Triggers::Run(options) = triggers else { return Self::default() };
        let roots: Vec<&str> =
            mounts.live_roots().filter(|target| can_have_triggers(Path::new(target))).collect();
        if roots.is_empty() {
            return Self::default();
        }
        let jobs = match live_jobs(store, old, new, &options.variables) {
            Ok(jobs) if jobs.is_empty() => return Self::default(),
            Ok(jobs) => jobs,
            Err(err) => return Self(vec![LiveRoot::failed("all", &err)]),
        };
        Self(roots.into_iter().map(|target| LiveRoot::run(target, &jobs, options)).collect())
    }

    /// Does what is due in a directory that has a whole system by now, the tree `new`.
    pub(crate) fn in_directory(
        store: &Store,
        directory: &Path,
        new: TreeId,
        triggers: &Triggers,
    ) -> Self {
        let Triggers::Run(options) = triggers else { return Self::default() };
        let target = directory.display().to_string();
        match live_jobs(store, None, new, &options.variables) {
            Ok(jobs) if jobs.is_empty() => Self::default(),
            Ok(jobs) => Self(vec![LiveRoot::run(&target, &jobs, options)]),
            Err(err) => Self(vec![LiveRoot::failed(&target, &err)]),
        }
    }

    /// Tells of what has failed.
    pub(crate) fn show_failures(&self, page: &mut Page) {
        for LiveRoot { target, failures, .. } in &self.0 {
            for failure in failures {
                let mut lines = failure.lines();
                let first = lines.next().unwrap_or_default();
                page.marked_line(Style::Bad, "not done: ", format_args!("{target}: {first}"));
                lines.for_each(|line| page.line(format_args!("  {line}")));
            }
        }
    }

    /// An error if something has failed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let failed: usize = self.0.iter().map(|root| root.failures.len()).sum();
        if failed > 0 { Err(Error::NotTriggered { failed }) } else { Ok(()) }
    }
}
