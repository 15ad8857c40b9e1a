//! Triggers of a system that runs: done where a new state has become live.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use cairn_fs::sandbox::{Outcome, Sandbox, SandboxOptions};
use cairn_store::host::HostDirectory;
use cairn_store::{Store, TreeId, TreePath};

use super::due::{Job, Roots, due};
use super::file::Action;
use super::load::{DIRECTORY, Scope, load};
use super::run::{Ran, RunOptions, environment, run_in};
use crate::{Error, Result};

/// Whether the live root at `target` can have triggers at all.
///
/// Costs two system calls there, where [`live_jobs`] costs the opening of the
/// store's index. A root whose triggers lie behind a link counts as one that has some.
pub fn can_have_triggers(target: &Path) -> bool {
    let directory = TreePath::new(DIRECTORY).expect("the names are names");
    let opened = HostDirectory::open(target).and_then(|root| root.open_deep(directory.names()));
    !matches!(opened, Err(err) if err.kind() == io::ErrorKind::NotFound)
}

/// What system triggers have to do when a live root that showed `old` shows
/// `new`; both are published.
pub fn live_jobs(
    store: &Store,
    old: Option<TreeId>,
    new: TreeId,
    variables: &BTreeSet<String>,
) -> Result<Vec<Job>> {
    if old == Some(new) {
        return Ok(Vec::new());
    }
    let triggers = load(store, new, Scope::System)?;
    let none = BTreeSet::new();
    let due = due(store, Roots { old, new }, &triggers, &BTreeSet::new(), &none, variables)?;
    Ok(due.jobs)
}

/// Does jobs in the live root at `target`, one after the other; each result is
/// that of a job, also after one has failed.
///
/// In `/`, the root of this machine, they have what every program there has. In any
/// other they are in a sandbox: what they write goes to what is mounted on its
/// directories.
///
/// # Errors
/// [`Error::Sandbox`].
pub fn run_live(target: &Path, jobs: &[Job], options: &RunOptions) -> Result<Vec<Result<Ran>>> {
    if target == Path::new("/") {
        return Ok(jobs.iter().map(run_here).collect());
    }
    let sandbox_options = SandboxOptions {
        helper: options.helper.clone(),
        stage: options.stage.clone(),
        name: target.display().to_string(),
        environment: environment(),
        limits: options.limits,
    };
    let sandbox = Sandbox::of_directory(target.into(), &sandbox_options);
    let mut sandbox = sandbox.map_err(|source| Error::Sandbox { source })?;
    Ok(jobs.iter().map(|job| run_in(&mut sandbox, job)).collect())
}

/// Does a job on this machine.
fn run_here(job: &Job) -> Result<Ran> {
    let begun = Instant::now();
    let failed = |outcome, output: String| Error::Trigger { job: job.clone(), outcome, output };
    let not_started = |err: io::Error| {
        failed(Outcome::NotStarted(err.raw_os_error().unwrap_or(libc::EIO)), String::new())
    };
    let output = match &job.action {
        Action::Delete(path) => {
            let removed = match fs::symlink_metadata(path) {
                Ok(data) if data.is_dir() => fs::remove_dir_all(path),
                Ok(_) => fs::remove_file(path),
                Err(err) => Err(err),
            };
            match removed {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(Outcome::Exited(1), err.to_string()));
                }
                _ => String::new(),
            }
        }
        Action::Run(words) => {
            let (program, arguments) = words
                .split_first()
                .ok_or_else(|| not_started(io::ErrorKind::InvalidInput.into()))?;
            let ended = Command::new(program)
                .args(arguments)
                .env_clear()
                .envs(environment().iter().map(|(name, value)| (name, value)))
                .env("HOME", "/root")
                .current_dir("/")
                .stdin(Stdio::null())
                .output()
                .map_err(not_started)?;
            let bytes = [ended.stdout, ended.stderr].concat();
            let output = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if !ended.status.success() {
                let outcome = match ended.status.code() {
                    Some(code) => Outcome::Exited(code),
                    None => Outcome::Killed(libc::SIGKILL),
                };
                return Err(failed(outcome, output));
            }
            output
        }
    };
    Ok(Ran { job: job.clone(), output, time: begun.elapsed() })
}
