//! `cairn doctor`: what is wrong with the machine or the store, and what helps.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cairn_fs::machine::{self, Condition, MountHealth};
use cairn_fs::{Unmount, unmount};
use cairn_store::Store;
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::sys;
use crate::units::{counted, size};

/// Find what is wrong with the machine, the mounts and the store
///
/// Looks at what mounting needs, at mounts that do not answer, at the room on the disk,
/// and at the trees of the states. Each finding says what to do. Ends with code 1 if
/// something has to be done. cairn verify reads every file of the store, which takes longer.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take away what is mounted on DIR if nobody answers for it, after a question; may be
    /// given several times
    #[arg(long, value_name = "DIR")]
    mend: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
    problems: usize,
}

/// What one look at something came to.
#[derive(Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Good,
    /// Something does not work, which not everybody needs.
    Note,
    /// Something has to be done.
    Problem,
}

/// So long a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// With less room than this, or less than a hundredth of the disk, an upgrade may fail.
const LITTLE: u64 = 512 << 20;

/// Ordinary users can have workspaces since then (overlayfs, userxattr).
const KERNEL: (u32, u32) = (5, 11);

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let mut findings = Vec::new();
    // First, since it needs a process of one thread.
    let mounts = machine::mounts(PATIENCE);
    findings.extend([fuse(), namespaces(), overlays(), kernel()]);
    if !sys::is_root() {
        findings.extend([fusermount(), users()]);
    }
    match mounts {
        Ok(mounts) => {
            for mount in &mounts {
                let mut finding = of_mount(mount);
                let is_named = args.mend.iter().any(|path| is_at(path, &mount.target));
                if is_named && mount.condition != Condition::Alive {
                    finding = mend(mount, output)?;
                }
                findings.push(finding);
            }
        }
        Err(err) => findings.push(Finding::problem("mount", in_one_line(&err), None)),
    }
    store(context, &mut findings);
    let problems = findings.iter().filter(|it| it.level == Level::Problem).count();
    output.list(&Report { findings, problems })?;
    if problems > 0 { Err(Error::ProblemsFound { found: problems }) } else { Ok(()) }
}

impl Finding {
    fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Good, text: text.into(), help: None }
    }

    fn problem(check: &'static str, text: impl Into<String>, help: Option<&str>) -> Self {
        let help = help.map(Into::into);
        Self { check, level: Level::Problem, text: text.into(), help }
    }

    fn note(check: &'static str, text: impl Into<String>, help: &str) -> Self {
        let (text, help) = (text.into(), Some(help.into()));
        Self { check, level: Level::Note, text, help }
    }
}

fn fuse() -> Finding {
    let text = |err: io::Error| format!("/dev/fuse cannot be used: {}", in_one_line(&err));
    match machine::fuse_device() {
        Ok(()) => Finding::good("fuse", "/dev/fuse can be used"),
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Finding::problem(
            "fuse",
            text(err),
            Some("let everybody read and write it: chmod 666 /dev/fuse"),
        ),
        Err(err) => Finding::problem(
            "fuse",
            text(err),
            Some("load the module: modprobe fuse; give it to a container with --device /dev/fuse"),
        ),
    }
}

fn fusermount() -> Finding {
    let mut program = Command::new("fusermount3");
    program.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match program.status() {
        Ok(status) if status.success() => Finding::good("fusermount", "fusermount3 is there"),
        Ok(_) => Finding::problem("fusermount", "fusermount3 fails", Some("install fuse3 again")),
        Err(err) => Finding::problem(
            "fusermount",
            format!("fusermount3 cannot be run: {}", in_one_line(&err)),
            Some("install it: apt-get install fuse3"),
        ),
    }
}

fn namespaces() -> Finding {
    match machine::namespaces() {
        Ok(()) => Finding::good("namespaces", "programs can be run in states"),
        Err(err) => Finding::problem(
            "namespaces",
            format!("programs cannot be run in states: {}", in_one_line(&err)),
            Some(
                "allow namespaces: sysctl user.max_user_namespaces=15000, and where they exist \
                 kernel.unprivileged_userns_clone=1 and \
                 kernel.apparmor_restrict_unprivileged_userns=0; a container needs \
                 --security-opt seccomp=unconfined",
            ),
        ),
    }
}

fn users() -> Finding {
    match machine::further_users() {
        Ok(true) => Finding::good("users", "workspaces can have files of several users"),
        Ok(false) => Finding::note(
            "users",
            "files of others than root cannot be changed in workspaces",
            "apt-get install uidmap, and as root: \
             usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        ),
        // That is told above.
        Err(err) => Finding::problem("users", in_one_line(&err), None),
    }
}

fn overlays() -> Finding {
    match machine::knows_overlays() {
        Ok(true) => Finding::good("overlay", "workspaces can be mounted"),
        Ok(false) => Finding::note(
            "overlay",
            "overlayfs is not loaded, which workspaces need",
            "modprobe overlay",
        ),
        Err(err) => Finding::problem("overlay", in_one_line(&err), None),
    }
}

fn kernel() -> Finding {
    match machine::kernel() {
        Ok(version) if version >= KERNEL => {
            Finding::good("kernel", format!("Linux {}.{}", version.0, version.1))
        }
        Ok((major, minor)) => Finding::note(
            "kernel",
            format!("Linux {major}.{minor}: ordinary users cannot have workspaces"),
            "use a kernel of 5.11 or newer",
        ),
        Err(err) => Finding::problem("kernel", in_one_line(&err), None),
    }
}

fn of_mount(mount: &MountHealth) -> Finding {
    let target = mount.target.display();
    match mount.condition {
        Condition::Alive => Finding::good("mount", format!("{target} answers")),
        Condition::Dead => Finding::problem(
            "mount",
            format!("{target} has lost its process"),
            Some(&format!("cairn umount --lazy {target}")),
        ),
        Condition::Hanging => {
            let abort = match mount.connection {
                Some(_) => format!(
                    "look at its process: cairn mount; cairn doctor --mend {target} ends the \
                     connection, so that whoever waits gets an error"
                ),
                None => format!("cairn umount --lazy {target}"),
            };
            Finding::problem("mount", format!("{target} does not answer"), Some(&abort))
        }
    }
}

/// Whether people mean `target` by `path`; what is mounted there is not asked.
fn is_at(path: &Path, target: &Path) -> bool {
    let Ok(path) = std::path::absolute(path) else { return false };
    let real = path.parent().and_then(|parent| parent.canonicalize().ok());
    let named = real.zip(path.file_name()).map(|(parent, name)| parent.join(name));
    path == target || named.as_deref() == Some(target)
}

/// Takes away a mount that nobody answers for.
fn mend(mount: &MountHealth, output: &mut Output<'_>) -> Result<Finding, Error> {
    let target = mount.target.display();
    output.status(format_args!("{}.", of_mount(mount).text));
    output.confirm(&format!("Unmount {target}? Programs that use it get errors."))?;
    if let (Condition::Hanging, Some(connection)) = (mount.condition, mount.connection) {
        let path = format!("/sys/fs/fuse/connections/{connection}/abort");
        machine::abort(connection).map_err(|source| Error::Write { path: path.into(), source })?;
    }
    match unmount(&mount.target, Unmount::WhenUnused) {
        // Its process has noticed, and has unmounted it.
        Err(cairn_fs::Error::NotMounted { .. }) => {}
        unmounted => unmounted?,
    }
    Ok(Finding::good("mount", format!("{target} did not answer, and is unmounted")))
}

/// What can be said of the store without reading the files in it.
fn store(context: &Context, findings: &mut Vec<Finding>) {
    let store = match context.store() {
        Ok(store) => store,
        Err(Error::Store(cairn_store::Error::NotAStore { .. })) => {
            return findings.push(Finding::note(
                "store",
                "there is no store yet",
                "cairn install makes one; --store DIR names another",
            ));
        }
        Err(err) => {
            let failure = err.failure();
            return findings.push(Finding::problem(
                "store",
                failure.line(),
                failure.help.as_deref(),
            ));
        }
    };
    findings.push(room(store.path()));
    if let Some(writer) = cairn_store::writer(store.path()) {
        findings.push(Finding::note(
            "lock",
            format!("process {} changes the store: {}", writer.pid, writer.command),
            "others wait or fail meanwhile; the lock ends with that process",
        ));
    }
    findings.push(states(&store));
    let quarantine = store.path().join("quarantine");
    let damaged = std::fs::read_dir(&quarantine).map_or(0, Iterator::count);
    if damaged > 0 {
        let files = counted(damaged, "file");
        findings.push(Finding::note(
            "quarantine",
            format!("{files} that were damaged lie in {}", quarantine.display()),
            "once cairn verify finds nothing more, they may be deleted",
        ));
    }
}

fn room(path: &Path) -> Finding {
    match machine::room(path) {
        Ok(room) if !room.has_inodes => Finding::problem(
            "room",
            "the filesystem of the store can have no more files",
            Some("delete files of it; cairn gc removes packs that nobody needs"),
        ),
        Ok(room) if room.free < LITTLE.max(room.total / 100) => Finding::problem(
            "room",
            format!("the disk of the store has {} left", size(room.free)),
            Some("cairn cache clean, cairn state prune --keep-last 5 --gc"),
        ),
        Ok(room) => {
            let (free, total) = (size(room.free), size(room.total));
            Finding::good("room", format!("{free} of {total} are free for the store"))
        }
        Err(err) => Finding::problem("room", in_one_line(&err), None),
    }
}

/// Whether the trees of all states are there.
fn states(store: &Store) -> Finding {
    let refs = store.refs();
    for state in refs.states.values() {
        for tree in [state.tree, state.packages] {
            if let Err(err) = store.tree(tree) {
                let text = format!("state {}: {}", state.id, in_one_line(&err));
                return Finding::problem("store", text, Some("cairn verify --repair"));
            }
        }
    }
    let states = counted(refs.states.len(), "state");
    Finding::good("store", format!("{} can be read: {states}", store.path().display()))
}

impl View for Report {
    fn show(&self, page: &mut Page) {
        for Finding { check, level, text, help } in &self.findings {
            let (style, word) = match level {
                Level::Good => (Style::Good, "good     "),
                Level::Note => (Style::Note, "note     "),
                Level::Problem => (Style::Bad, "problem  "),
            };
            page.marked_line(style, word, format_args!("{check}: {text}"));
            if let Some(help) = help {
                page.wrapped(9, "", help);
            }
        }
        if self.problems == 0 {
            page.line("Nothing has to be done.");
        }
    }
}
