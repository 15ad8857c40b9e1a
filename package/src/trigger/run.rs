//! What a transaction does about its triggers, between the composition of the
//! new root and its commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_fs::sandbox::{Limits, Outcome, Sandbox, SandboxOptions};
use cairn_fs::{Journal, Layer};
use cairn_store::host::{HostDirectory, Scan, ScanOptions, ScannedEntry, scan_opened};
use cairn_store::{
    BlobRef, Refs, Staged, State, StateId, Timestamp, Transaction, Tree, TreeId, TreePath,
};
use serde::Serialize;

use super::due::{Due, Job, Roots, due, sort};
use super::file::Action;
use super::load::{Scope, load};
use super::record::{self, Record, Things, differences, put_things};
use crate::plan::{Phase, Progress};
use crate::{Error, Result};

/// What is done about triggers.
#[derive(Clone)]
pub enum Triggers {
    /// They are run.
    Run(RunOptions),
    /// They are left out. What they were to do is noted, so that the next
    /// transaction does it.
    Skip,
}

/// How triggers are run.
#[derive(Clone)]
pub struct RunOptions {
    /// See [`SandboxOptions::helper`].
    pub helper: Vec<OsString>,
    /// Any directory; see [`SandboxOptions::stage`].
    pub stage: PathBuf,
    /// What each may use.
    pub limits: Limits,
    /// Names of the variables that are set where the transaction was asked for;
    /// they may inhibit triggers.
    pub variables: BTreeSet<String>,
    /// Hears of what cannot be read while they run.
    pub journal: Journal,
}

/// A job that was done.
#[derive(Clone, Debug, Serialize)]
pub struct Ran {
    /// What was done.
    #[serde(flatten)]
    pub job: Job,
    /// What it said.
    pub output: String,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub time: Duration,
}

fn as_seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

/// A root before packages come and go, from which everything was taken back that
/// could be in their way.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// The root.
    pub(crate) tree: TreeId,
    kept: Vec<TreePath>,
    records: Vec<Record>,
    /// Triggers whose jobs have to be looked for anew.
    again: BTreeSet<String>,
}

/// What became of a new root.
#[derive(Clone, Debug)]
pub(crate) struct Triggered {
    pub(crate) tree: TreeId,
    pub(crate) packages: TreeId,
    /// What somebody has changed since triggers wrote it, and stays.
    pub(crate) kept: Vec<TreePath>,
    pub(crate) ran: Vec<Ran>,
    /// Jobs that were left out.
    pub(crate) skipped: Vec<Job>,
}

/// Takes back from the root of `base` what triggers have written at paths that
/// packages with the trees `packages`, which come or go, have as well.
///
/// Costs the directories that both have.
pub(crate) fn make_way(
    transaction: &mut Transaction,
    base: &State,
    packages: &[TreeId],
) -> Result<Way> {
    let store = transaction.store().clone();
    let mut records = Record::load_all(&store, base.packages)?;
    let mut begin: BTreeSet<Job> = BTreeSet::new();
    for record in &records {
        for files in packages {
            if record::touches(transaction, record, *files)? {
                begin.insert(record.job.clone());
            }
        }
    }
    let gone = record::together(transaction, &records, begin)?;
    let (undone, left) = records.drain(..).partition(|record| gone.contains(&record.job));
    let undone: Vec<Record> = undone;
    let mut way = Way { tree: base.tree, kept: vec![], records: left, again: BTreeSet::new() };
    if !undone.is_empty() {
        let undo = record::undo(transaction, base.tree, base.packages, &undone)?;
        (way.tree, way.kept) = (undo.tree, undo.kept);
    }
    let pending = way.records.iter().chain(&undone).filter(|record| record.is_pending);
    let again = gone.iter().chain(pending.map(|record| &record.job));
    way.again = again.map(|job| job.trigger.clone()).collect();
    Ok(way)
}

/// Does what is due in a new root with the tree of packages `packages`, which was
/// made of `way`; without it, it is the first one.
///
/// # Errors
/// [`Error::Trigger`] when one fails: then the transaction can only be dropped.
pub(crate) fn run(
    transaction: &mut Transaction,
    way: Option<Way>,
    new: TreeId,
    packages: TreeId,
    triggers: &Triggers,
    progress: &dyn Progress,
) -> Result<Triggered> {
    let old = way.as_ref().map(|way| way.tree);
    let way =
        way.unwrap_or(Way { tree: new, kept: vec![], records: vec![], again: BTreeSet::new() });
    let Way { mut kept, records, again, .. } = way;
    let had_records = !records.is_empty() || !again.is_empty();
    let staged = transaction.staged()?;
    let present = load(&staged, new, Scope::Transaction)?;
    if present.is_empty() && !had_records {
        return Ok(Triggered { tree: new, packages, kept, ran: vec![], skipped: vec![] });
    }
    let none = BTreeSet::new();
    let variables = match triggers {
        Triggers::Run(options) => &options.variables,
        Triggers::Skip => &none,
    };
    let done: BTreeSet<Job> = records.iter().map(|record| record.job.clone()).collect();
    let Due { jobs, gone } = due(&staged, Roots { old, new }, &present, &done, &again, variables)?;
    drop(staged);
    let begin = jobs.iter().chain(&gone).cloned().collect();
    let undone = record::together(transaction, &records, begin)?;
    let (undone, mut records): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| undone.contains(&record.job));
    let undo = record::undo(transaction, new, packages, &undone)?;
    kept.extend(undo.kept);
    let again = undone.iter().map(|record| record.job.clone());
    let jobs = again.chain(jobs).filter(|job| !gone.contains(job)).collect();
    let jobs = sort(&present.iter().collect::<Vec<_>>(), jobs);

    let mut made = Triggered { tree: undo.tree, packages, kept, ran: vec![], skipped: vec![] };
    match triggers {
        Triggers::Skip => {
            let empty = put_things(transaction, &Things::new())?;
            records.extend(jobs.iter().map(|job| Record {
                job: job.clone(),
                is_pending: true,
                files: empty,
                covered: empty,
            }));
            made.skipped = jobs;
        }
        Triggers::Run(options) if !jobs.is_empty() => {
            progress.begin(Phase::Triggers, jobs.len() as u64);
            let written = work(transaction, undo.tree, &jobs, options, progress)?;
            made.ran = written.ran;
            made.tree = written.tree;
            attribute(transaction, undo.tree, made.tree, &jobs, &written.touched, &mut records)?;
        }
        Triggers::Run(_) => {}
    }
    records.sort_by(|left, right| left.job.cmp(&right.job));
    made.packages = record::put_all(transaction, packages, &records)?;
    Ok(made)
}

/// What jobs have made of a root.
struct Written {
    tree: TreeId,
    ran: Vec<Ran>,
    /// Of each job, what it has written.
    touched: Vec<BTreeSet<TreePath>>,
}

/// Does jobs in a sandbox, and takes in what they have written.
fn work(
    transaction: &mut Transaction,
    root: TreeId,
    jobs: &[Job],
    options: &RunOptions,
    progress: &dyn Progress,
) -> Result<Written> {
    let failed = |source| Error::Sandbox { source };
    let sandbox_options = SandboxOptions {
        helper: options.helper.clone(),
        stage: options.stage.clone(),
        name: transaction.store().path().display().to_string(),
        environment: environment(),
        limits: options.limits,
    };
    let source = NewRoot::new(transaction.staged()?, root);
    let state = source.state.id;
    let mut sandbox = Sandbox::of_tree(source, state, &sandbox_options, options.journal.clone())
        .map_err(failed)?;
    let mut ran = Vec::with_capacity(jobs.len());
    let mut touched = Vec::with_capacity(jobs.len());
    let mut seen = Seen::new();
    let mut scanned = None;
    for job in jobs {
        ran.push(run_in(&mut sandbox, job)?);
        let scan = scan_layer(&sandbox)?;
        let now = look(&scan);
        touched.push(
            now.iter().filter(|it| seen.get(it.0) != Some(it.1)).map(|it| it.0.clone()).collect(),
        );
        (seen, scanned) = (now, Some(scan));
        progress.advance(1);
    }
    let mut tree = root;
    if let Some(scan) = scanned {
        let mut layer =
            Layer::of(scan, sandbox.layer_rules(), transaction, &[root]).map_err(failed)?;
        layer.scan.take_in(transaction, &())?;
        tree = layer.put(transaction, root).map_err(failed)?;
    }
    Ok(Written { tree, ran, touched })
}

/// Does a job in a sandbox.
///
/// # Errors
/// [`Error::Trigger`] when it fails.
pub fn run_in(sandbox: &mut Sandbox, job: &Job) -> Result<Ran> {
    let begun = Instant::now();
    let ended = match &job.action {
        Action::Run(words) => sandbox.run(words),
        Action::Delete(path) => sandbox.delete(path),
    };
    let ended = ended.map_err(|source| Error::Sandbox { source })?;
    let output = String::from_utf8_lossy(&ended.output).trim_end().to_owned();
    if !ended.outcome.is_success() {
        return Err(Error::Trigger { job: job.clone(), outcome: ended.outcome, output });
    }
    Ok(Ran { job: job.clone(), output, time: begun.elapsed() })
}

/// The environment of every trigger, the same wherever it runs, so that the same
/// packages make the same root.
#[must_use]
pub fn environment() -> Vec<(OsString, OsString)> {
    let variables = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/tmp"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        // reproducible-builds.org: the time to be written instead of the present one.
        ("SOURCE_DATE_EPOCH", "0"),
    ];
    variables.map(|(name, value)| (name.into(), value.into())).into()
}

fn scan_layer(sandbox: &Sandbox) -> Result<Scan> {
    let layer = sandbox.layer().map_err(|source| Error::Sandbox { source })?;
    let directory = HostDirectory::from(layer);
    Ok(scan_opened(directory, "what triggers wrote".into(), &ScanOptions::default(), &())?)
}

/// What tells one version of an entry from another.
type Seen = HashMap<TreePath, (u64, Timestamp)>;

fn look(scan: &Scan) -> Seen {
    let mut seen = Seen::new();
    let mut stack = vec![(0, TreePath::root())];
    while let Some((number, path)) = stack.pop() {
        let Some(directory) = scan.directory(number) else { continue };
        seen.insert(path.clone(), (directory.status.inode, directory.status.ctime));
        for (name, entry) in &directory.entries {
            let path = path.join(name);
            match entry {
                ScannedEntry::Directory(number) => stack.push((*number, path)),
                ScannedEntry::Leaf(leaf) => {
                    seen.insert(path, (leaf.status.inode, leaf.status.ctime));
                }
            }
        }
    }
    seen
}

/// Says which job has done what to a root, and adds the records of that.
fn attribute(
    transaction: &mut Transaction,
    old: TreeId,
    new: TreeId,
    jobs: &[Job],
    touched: &[BTreeSet<TreePath>],
    records: &mut Vec<Record>,
) -> Result<()> {
    let (files, mut covered) = differences(transaction, old, new)?;
    // What a job whose record stays has left there before was never of a package.
    for record in records.iter_mut() {
        let (mut left, before) = record.things(transaction)?;
        let mut has_changed = false;
        for path in files.keys().chain(covered.clone().keys()) {
            if !left.contains_key(path) && !before.contains_key(path) {
                continue;
            }
            has_changed = true;
            match files.get(path) {
                Some(thing) => drop(left.insert(path.clone(), thing.clone())),
                None => drop(left.remove(path)),
            }
            match before.get(path) {
                Some(thing) => drop(covered.insert(path.clone(), thing.clone())),
                None => drop(covered.remove(path)),
            }
        }
        if has_changed {
            record.files = put_things(transaction, &left)?;
        }
    }
    let mut parts: BTreeMap<usize, (Things, Things)> = BTreeMap::new();
    for path in files.keys().chain(covered.keys().filter(|path| !files.contains_key(*path))) {
        let jobs_that = |touched_it: &dyn Fn(&BTreeSet<TreePath>) -> bool| -> Vec<usize> {
            (0..jobs.len()).filter(|job| touched_it(&touched[*job])).collect()
        };
        let mut owners = jobs_that(&|of_job| of_job.contains(path));
        // What is not in the layer itself was hidden with a directory above it. A
        // directory also counts as written when only an entry of it was.
        if owners.is_empty() {
            owners = jobs_that(&|of_job| has_touched_above(of_job, path));
        }
        if owners.is_empty() {
            owners.extend(0..jobs.len());
        }
        for owner in owners {
            let part = parts.entry(owner).or_default();
            part.0.extend(files.get(path).map(|thing| (path.clone(), thing.clone())));
            part.1.extend(covered.get(path).map(|thing| (path.clone(), thing.clone())));
        }
    }
    for (number, job) in jobs.iter().enumerate() {
        let (files, covered) = parts.remove(&number).unwrap_or_default();
        records.push(Record {
            job: job.clone(),
            is_pending: false,
            files: put_things(transaction, &files)?,
            covered: put_things(transaction, &covered)?,
        });
    }
    Ok(())
}

/// Whether a job has written to a directory above `path`.
fn has_touched_above(touched: &BTreeSet<TreePath>, path: &TreePath) -> bool {
    let names = path.names();
    (1..names.len()).rev().any(|len| {
        let above: TreePath = names[..len].iter().cloned().collect();
        touched.contains(&above)
    })
}

/// A root that is not published, as the only state of a source.
struct NewRoot {
    staged: Staged,
    state: State,
}

impl NewRoot {
    fn new(staged: Staged, tree: TreeId) -> Self {
        let (id, request) = (StateId(1), String::new());
        Self { staged, state: State { id, parent: None, time: 0, request, tree, packages: tree } }
    }
}

impl cairn_fs::Source for NewRoot {
    fn tree(&self, id: TreeId) -> cairn_store::Result<Arc<Tree>> {
        self.staged.tree(id)
    }

    fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> cairn_store::Result<usize> {
        self.staged.read_at(blob, offset, buf)
    }

    fn refs(&self) -> Refs {
        let states = BTreeMap::from([(self.state.id, self.state.clone())]);
        Refs { current: None, newest: self.state.id, states, tags: BTreeMap::new() }
    }

    fn refresh(&self) -> cairn_store::Result<()> {
        Ok(())
    }
}

/// How a job has failed, in words.
pub(crate) fn failure(job: &Job, outcome: Outcome, output: &str) -> String {
    let how = match outcome {
        Outcome::Exited(code) => format!("ended with exit code {code}"),
        Outcome::Killed(signal) => format!("was ended by signal {signal}"),
        Outcome::TimedOut => "took too long".into(),
        Outcome::NotStarted(errno) => {
            format!("cannot be started: {}", std::io::Error::from_raw_os_error(errno))
        }
    };
    let text = format!("the trigger {} failed: {} {how}", job.trigger, job.action);
    if output.is_empty() { text } else { format!("{text}\n{output}") }
}
