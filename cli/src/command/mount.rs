//! `cairn mount`: states as directories.

mod options;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_fs::{
    Bound, Event, IdMap, IdRange, Journal, Keeper, Keeping, Kept, Options, Owners, Registration,
    Role, RootBind, Running, Shape, Signals, Trust, control, workspace,
};
use cairn_store::{Store, WorkspaceName};
use serde::Serialize;

use crate::context::{self, Context};
use crate::error::{Error, InBackground};
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::place::StateName;
use crate::sys;
use crate::units;
pub(crate) use options::InvalidOption;
use options::{BindArg, MountOptions};

/// Mount states on a directory, or list the mounts
///
/// Without an option the directory shows all states: current/, states/NUMBER/
/// and tags/NAME/. With --rw it shows a workspace: a state whose files can be
/// changed, while the state itself stays as it is. The command returns when the
/// mount can be used; a process in the background serves it until it is unmounted.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory to mount on (default: list the mounts of the store)
    dir: Option<PathBuf>,
    /// Show one state, for ever
    #[arg(long, requires = "dir", conflicts_with = "follow")]
    state: Option<StateName>,
    /// Show the current state, whichever it is: a live root
    #[arg(long, requires = "dir")]
    follow: bool,
    /// Show this workspace, which can be changed; if there is none of the name, it
    /// is made, on the state that --state names (default: the current one)
    #[arg(long, value_name = "NAME", requires = "dir", conflicts_with = "follow")]
    rw: Option<WorkspaceName>,
    /// Put the directory DIR of this machine on PATH of the mount
    #[arg(long, value_name = "PATH=DIR", requires = "dir")]
    bind: Vec<BindArg>,
    /// The same, and if DIR is empty or missing, first fill it with what the state
    /// has there and below usr/share/defaults
    #[arg(long, value_name = "PATH=DIR", requires = "dir")]
    writable: Vec<BindArg>,
    /// Serve the root of the running system: memory is locked, and the process
    /// stays when all others are ended at shutdown
    #[arg(long, requires = "dir")]
    system_root: bool,
    /// Have the kernel read files of 256 KiB and more by itself, from copies in the store
    /// that are not compressed: fast where large files are read, mapped or run, slower where
    /// many small ones are opened. Takes Linux 6.9 and root; without, the mount works as
    /// any other, and says so
    #[arg(long, requires = "dir", conflicts_with = "rw")]
    passthrough: bool,
    /// Let processors sleep between requests that follow each other closely. A mount of root
    /// keeps them from it otherwise, where waking them takes longer than the requests
    #[arg(long, requires = "dir", conflicts_with = "rw")]
    power_save: bool,
    /// Show COUNT owners from FIRST on as as many others from SHOWN-AS on, as for a container
    /// whose root is not that of the machine: b:0:100000:65536. KIND is u for users, g for groups,
    /// b for both; owners of which nothing is said are nobody's. Takes Linux 6.12 and root
    #[arg(
        long, value_name = "KIND:FIRST:SHOWN-AS:COUNT", requires = "dir",
        conflicts_with_all = ["rw", "bind", "writable", "system_root"],
    )]
    idmap: Vec<IdRange>,
    /// Options as in /etc/fstab: follow, state=STATE, workspace=NAME,
    /// bind=PATH=DIR, writable=PATH=DIR, system-root, passthrough, power-save,
    /// idmap=KIND:FIRST:SHOWN-AS:COUNT, nosuid, nodev, noexec, remount
    #[arg(short, long = "options", value_name = "OPTIONS", requires = "dir")]
    options: Vec<OsString>,
    /// Ignore unknown words among the options
    #[arg(long, requires = "dir")]
    sloppy: bool,
    /// Have the mount on DIR (default: each mount of the store) go on as this program, as after
    /// an upgrade of Cairn. Whoever uses it goes on as well; if this program cannot serve
    /// the mount, the one that does stays
    #[arg(long, conflicts_with_all = [
        "state", "follow", "rw", "bind", "writable", "system_root", "passthrough", "power_save",
        "idmap", "options", "sloppy", "foreground",
    ])]
    restart: bool,
    /// Stay in the foreground, for a supervisor; SIGTERM unmounts
    #[arg(long, requires = "dir")]
    foreground: bool,
}

impl Args {
    /// All that is asked for, in whichever way.
    fn collect(&self) -> Result<MountOptions, InvalidOption> {
        let mut options = MountOptions {
            state: self.state.clone(),
            follow: self.follow,
            workspace: self.rw.clone(),
            system_root: self.system_root,
            passthrough: self.passthrough,
            power_save: self.power_save,
            idmap: self.idmap.clone(),
            ..MountOptions::default()
        };
        for list in &self.options {
            options.add(list, self.sloppy)?;
        }
        for (arguments, seed) in [(&self.bind, false), (&self.writable, true)] {
            for argument in arguments {
                options.binds.push(argument.bind(seed)?);
            }
        }
        options.check()
    }
}

#[derive(Serialize)]
struct Mounted {
    target: String,
    shape: Shape,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    binds: Vec<Bound>,
    passthrough: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    passthrough_refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idmap: Option<String>,
    pid: u32,
}

/// What is to be mounted.
enum What {
    Trees(Options),
    Workspace(WorkspaceName, PathBuf),
}

/// Mounts that go on as this program.
#[derive(Serialize)]
struct Restarted {
    restarted: Vec<Successor>,
}

#[derive(Serialize)]
struct Successor {
    target: String,
    pid: Option<u32>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct List(Vec<Registration>);

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    if args.restart {
        return restart(args.dir.as_deref(), context, output);
    }
    let Some(dir) = &args.dir else {
        let store = context.store()?;
        return output.data(&List(cairn_fs::list(&store.path().join("run"))?));
    };
    let asked = args.collect()?;
    if asked.remount {
        return Ok(cairn_fs::remount(dir, asked.restrictions)?);
    }
    if asked.system_root {
        context.become_storage_daemon()?;
    }
    // What is wrong with the store is told before a process is left behind. Its
    // index is not opened here: a database does not survive such a copy.
    let store = context.store()?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(Error::read(path));
    let store_path = absolute(store.path())?;
    let state = asked.state.as_ref().map(|state| state.find(&store)).transpose()?;
    let kept = Kept::new(context::kept_descriptors().map_err(Error::Supervisor)?);
    let kept = Some(kept).filter(Kept::has_mount);
    // Whoever takes a mount over would wait for an answer of his own.
    if kept.is_none() {
        cairn_fs::check_target(dir)?;
    }
    let binds = asked.binds.iter().map(|bind| {
        let source = absolute(&bind.source)?;
        Ok(RootBind { source, ..bind.clone() })
    });
    let binds = binds.collect::<Result<Vec<_>, Error>>()?;
    // The process of the root of a system finds the store from where it stands: the machine
    // takes the root, and with it what absolute paths mean.
    let (dir, here) = if asked.system_root {
        let dir = absolute(dir)?;
        std::env::set_current_dir(&store_path).map_err(Error::read(&store_path))?;
        (dir, PathBuf::from("."))
    } else {
        (dir.clone(), store_path.clone())
    };
    let dir = &dir;
    let target = dir.display().to_string();
    let (what, shape, is_new) = match &asked.workspace {
        // Its lock is among what was kept.
        Some(name) if kept.is_some() => {
            let what = What::Workspace(name.clone(), dir.clone());
            (what, Shape::Pinned(store.workspace(name)?.base.id), false)
        }
        Some(name) => {
            let is_new = store.workspace(name).is_err();
            let held = workspace::hold(&store, name)?;
            let record = workspace::open(&held, state.map(|state| state.id), &store)?;
            workspace::check_mountable(&held, &record)?;
            let what = What::Workspace(name.clone(), dir.clone());
            (what, Shape::Pinned(record.base.id), is_new)
        }
        None => {
            let shape = match state {
                Some(state) => Shape::Pinned(state.id),
                None if asked.follow => Shape::Follow,
                None => Shape::Folder,
            };
            let mut options = Options::new(shape, dir, &store_path);
            options.run = Some(here.join("run"));
            if asked.system_root {
                options.trust = Trust::System;
                options.owners = Owners::Fixed;
            } else if !asked.idmap.is_empty() {
                options.owners = Owners::Mapped(IdMap::new(asked.idmap.clone())?);
            }
            options.restrictions = asked.restrictions;
            options.passthrough = asked.passthrough;
            options.power_save = asked.power_save;
            options.binds = binds;
            (What::Trees(options), shape, false)
        }
    };
    drop(store);
    cairn_fs::bound_heap();
    let mounted = |pid| {
        // Its process knows what it has filled, and what the kernel permits.
        let known = registration_of(pid, &store_path, dir);
        Mounted {
            target: target.clone(),
            shape,
            workspace: asked.workspace.as_ref().map(ToString::to_string),
            binds: known.as_ref().map(|it| it.binds.clone()).unwrap_or_default(),
            passthrough: known.as_ref().is_some_and(|it| it.passthrough),
            idmap: known.as_ref().and_then(|it| it.idmap.clone()),
            passthrough_refused: known.and_then(|it| it.passthrough_refused),
            pid,
        }
    };
    let journal: Journal = if args.foreground {
        Arc::new(|event: &Event| {
            // Whoever supervises keeps it; if nobody does, nobody misses it.
            let _ = writeln!(io::stderr(), "cairn: {event}");
        })
    } else {
        log_file(&here.join("run/mount.log"), &target)
    };
    let process = Process { store: here, is_root: asked.system_root, journal };
    let server = Server { what, process };
    // What has only just been made for a mount that fails goes again.
    let undo = || {
        if is_new {
            server.undo();
        }
    };
    if args.foreground {
        let Some(socket) = context::notify_socket() else {
            let running = server.mount(None).inspect_err(|_| undo())?;
            server.process.confine()?;
            report(&mounted(std::process::id()), output)?;
            return Ok(running.wait()?);
        };
        let supervisor = Keeper::supervisor(&socket).map_err(Error::Supervisor)?;
        let running = server.start_kept(&supervisor, kept).inspect_err(|_| {
            // The next process begins anew, rather than fail in the same way.
            let _ = supervisor.abandon();
            undo();
        })?;
        server.process.confine()?;
        supervisor.ready().map_err(Error::Supervisor)?;
        report(&mounted(std::process::id()), output)?;
        return Ok(running.wait()?);
    }
    let pid = match &server.what {
        // All that it has open is with its process alone.
        What::Workspace(..) if !sys::is_root() => {
            cairn_fs::background(|| server.mount(None).map_err(InBackground))
        }
        _ => {
            let keeping = server.process.keeping(&target);
            let start = |keeper: &Keeper, kept| server.start_kept(keeper, kept);
            let start = |keeper: &Keeper, kept| start(keeper, kept).map_err(InBackground);
            cairn_fs::background_kept(start, &keeping)
        }
    };
    let pid = pid.inspect_err(|_| undo()).map_err(Error::of_background)?;
    report(&mounted(pid), output)
}

/// Says what is mounted, and what is not as it was asked for.
fn report(mounted: &Mounted, output: &mut Output<'_>) -> Result<(), Error> {
    if let Some(reason) = &mounted.passthrough_refused {
        output.warning(format_args!(
            "large files are read through the process of the mount, as without --passthrough: \
             the kernel does not permit it ({reason}); it takes Linux 6.9, root of the machine, \
             and a store that does not lie on an overlay"
        ));
    }
    output.data(mounted)
}

/// Has mounts go on as this program.
fn restart(dir: Option<&Path>, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let (run, mounts) = match dir {
        Some(dir) => {
            let (run, mount) = cairn_fs::registered_at(dir)?;
            (run, vec![mount])
        }
        None => {
            let run = context.store()?.path().join("run");
            let mut mounts = cairn_fs::list(&run)?;
            // What nobody keeps ends with its process: workspaces of ordinary users, and states
            // in which a program runs.
            let are_kept = sys::is_root();
            mounts.retain(|it| it.device.is_some() && (are_kept || it.workspace.is_none()));
            (run, mounts)
        }
    };
    let this = Path::new("/proc/self/exe");
    let program = File::open(this).map_err(Error::read(this))?;
    let mut restarted = Vec::new();
    let mut failed = None;
    for mount in mounts {
        match control::restart(&run, &mount, &program, RESTART_DEADLINE) {
            Ok(()) => {
                let now = cairn_fs::list(&run)?.into_iter().find(|it| it.target == mount.target);
                let pid = now.map(|it| it.pid);
                restarted.push(Successor { target: mount.target, pid });
            }
            Err(err) => {
                if let Some(before) = failed.replace(err) {
                    output.warning(format_args!("{}", crate::error::in_one_line(&before)));
                }
            }
        }
    }
    output.data(&Restarted { restarted })?;
    failed.map_or(Ok(()), |err| Err(err.into()))
}

/// How long a mount may take to go on as another program.
const RESTART_DEADLINE: Duration = Duration::from_mins(1);

/// The process of a mount.
struct Server {
    what: What,
    process: Process,
}

impl Server {
    /// Mounts what `keeper` is to keep, or takes over what it has kept.
    fn start_kept(&self, keeper: &Keeper, kept: Option<Kept>) -> Result<Running, Error> {
        match kept {
            None => self.mount(Some(keeper)),
            Some(kept) => self.process.resume(keeper, kept),
        }
    }

    /// Mounts, and unmounts on a signal.
    fn mount(&self, keeper: Option<&Keeper>) -> Result<Running, Error> {
        let journal = &self.process.journal;
        self.process.until_signal(|store| match &self.what {
            What::Trees(options) => {
                let (keeper, binds) = (keeper.cloned(), seed(&store, options)?);
                let options = Options { keeper, binds, ..options.clone() };
                Ok(cairn_fs::start(store, &options, journal.clone())?)
            }
            What::Workspace(name, target) => {
                let held = workspace::hold(&store, name)?;
                Ok(workspace::start(store, held, target, keeper, journal.clone())?)
            }
        })
    }

    /// Takes away the workspace; the error to report is another one.
    fn undo(&self) {
        let What::Workspace(name, _) = &self.what else { return };
        let Ok(store) = Store::open(&self.process.store) else { return };
        let _ = workspace::hold(&store, name).map(|held| workspace::discard(&held));
    }
}

/// What the process of a mount is, whatever is mounted.
struct Process {
    store: PathBuf,
    /// Whether it serves the root of the running system.
    is_root: bool,
    journal: Journal,
}

impl Process {
    /// Takes over a mount.
    fn resume(&self, keeper: &Keeper, kept: Kept) -> Result<Running, Error> {
        self.until_signal(|store| {
            let journal = self.journal.clone();
            Ok(if kept.has_workspace() {
                workspace::resume(store, kept, keeper, journal)?
            } else {
                cairn_fs::resume(store, kept, keeper, journal)?
            })
        })
    }

    fn until_signal(
        &self,
        start: impl FnOnce(Store) -> Result<Running, Error>,
    ) -> Result<Running, Error> {
        // Before there are threads, so that none of them takes a signal.
        let signals = Signals::hold().map_err(Error::Signals)?;
        if self.is_root
            && let Err(source) = cairn_fs::lock_memory()
        {
            (self.journal)(&Event::NotLocked { source });
        }
        if self.is_root
            && let Err(source) = cairn_fs::resume_when_stopped()
        {
            (self.journal)(&Event::StaysStopped { source });
        }
        let running = start(Store::open(&self.store)?)?;
        signals.unmount_on_any(running.unmounter()).map_err(Error::Signals)?;
        Ok(running)
    }

    /// Has the process of the root of a system see nothing but the store.
    fn confine(&self) -> Result<(), Error> {
        let failed = |source| cairn_fs::Error::Process { source };
        if self.is_root { Ok(cairn_fs::confine().map_err(failed)?) } else { Ok(()) }
    }

    /// How the mount on `target` is kept.
    fn keeping(&self, target: &str) -> Keeping {
        let name = if self.is_root { "@cairn" } else { "cairn" };
        let mut successor: Vec<OsString> = vec![name.into(), "--store".into()];
        successor.extend([self.store.clone().into(), "keep-mount".into()]);
        successor.extend(self.is_root.then(|| "--system-root".into()));
        successor.extend(["--target".into(), target.into()]);
        Keeping {
            target: target.into(),
            journal: self.journal.clone(),
            is_system_root: self.is_root,
            successor,
        }
    }
}

/// Is what `keeping` calls this program as, when a mount is to go on with it.
pub(super) fn succeed(
    store: &Path,
    target: &str,
    is_root: bool,
    role: Role,
) -> Result<ExitCode, Error> {
    cairn_fs::bound_heap();
    let journal = log_file(&store.join("run/mount.log"), target);
    let process = Process { store: store.into(), is_root, journal };
    let keeping = process.keeping(target);
    let check = || Store::open(store).map(drop).map_err(|err| InBackground(err.into()));
    let start = |keeper: &Keeper, kept: Option<Kept>| {
        let kept = kept.unwrap_or_default();
        process.resume(keeper, kept).map_err(InBackground)
    };
    let code = cairn_fs::succeed(role, check, start, &keeping).map_err(Error::Supervisor)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// What the process of a mount has registered.
fn registration_of(pid: u32, store: &Path, dir: &Path) -> Option<Registration> {
    let mounts = cairn_fs::list(&store.join("run")).unwrap_or_default();
    let target = dir.canonicalize().unwrap_or_default();
    mounts.into_iter().find(|it| it.pid == pid && Path::new(&it.target) == target)
}

/// Fills the directories that are to be bound and are empty; returns all binds.
fn seed(store: &Store, options: &Options) -> Result<Vec<RootBind>, Error> {
    let mut binds = options.binds.clone();
    if !binds.iter().any(|bind| bind.seed) {
        return Ok(binds);
    }
    let state = match options.shape {
        Shape::Pinned(id) => store.state(id)?,
        Shape::Follow | Shape::Folder => store.current()?,
    };
    // Nothing is filled for a mount that cannot be made.
    for bind in options.binds.iter().filter(|bind| !bind.seed) {
        fs::metadata(&bind.source).map_err(Error::read(&bind.source))?;
    }
    for bind in binds.iter_mut().filter(|bind| bind.seed) {
        bind.filled = cairn_fs::seed(store, state.tree, bind)?;
    }
    Ok(binds)
}

/// The log of mounts in the background is cut off at this size.
const MAX_LOG: u64 = 1 << 20;

/// Appends what happens in a mount to a file, of which the older half is
/// `<path>.old`.
fn log_file(path: &Path, target: &str) -> Journal {
    let (path, target) = (path.to_owned(), target.to_owned());
    Arc::new(move |event: &Event| {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let time = units::utc_time(seconds.cast_signed());
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_LOG) {
            let _ = fs::rename(&path, path.with_extension("log.old"));
        }
        // The mount goes on without a log.
        let _ =
            File::options().append(true).create(true).open(&path).and_then(|mut file| {
                file.write_all(format!("{time} {target}: {event}\n").as_bytes())
            });
    })
}

fn shape_in_words(shape: Shape, workspace: Option<&str>) -> String {
    match shape {
        Shape::Folder => "all states".into(),
        Shape::Pinned(id) => match workspace {
            Some(name) => format!("workspace {name} on state {id}"),
            None => format!("state {id}"),
        },
        Shape::Follow => "the current state".into(),
    }
}

impl View for Mounted {
    fn show(&self, page: &mut Page) {
        let Self { target, shape, workspace, binds, pid, .. } = self;
        let shape = shape_in_words(*shape, workspace.as_deref());
        page.line(format_args!("{target} shows {shape} (process {pid})."));
        for Bound { path, source, .. } in binds.iter().filter(|bind| bind.filled) {
            page.line(format_args!("{source} was empty, and begins as {path} of the state."));
        }
        if let Some(map) = &self.idmap {
            page.line(format_args!("Owners are mapped by {map}."));
        }
        if self.passthrough {
            page.line("The kernel reads large files by itself.");
        }
    }
}

impl View for Restarted {
    fn show(&self, page: &mut Page) {
        for Successor { target, pid } in &self.restarted {
            let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            page.line(format_args!("{target} goes on as this program{pid}."));
        }
    }
}

impl View for List {
    fn show(&self, page: &mut Page) {
        if self.0.is_empty() {
            page.line("Nothing is mounted.");
            return;
        }
        let rows = self.0.iter().flat_map(|mount| {
            let shape = shape_in_words(mount.shape, mount.workspace.as_deref());
            let how = if mount.passthrough { ", with passthrough" } else { "" };
            let map = mount.idmap.as_ref().map(|map| format!(", owners mapped by {map}"));
            let map = map.unwrap_or_default();
            let its = vec![
                Cell::new(&mount.target).style(Style::Strong),
                Cell::new(format_args!("{shape}{how}{map}")),
                Cell::new(format_args!("process {}", mount.pid)).style(Style::Faint),
            ];
            let binds = mount.binds.iter().map(|Bound { path, source, .. }| {
                vec![Cell::new(format_args!("  {path}")), Cell::new(source)]
            });
            std::iter::once(its).chain(binds).collect::<Vec<_>>()
        });
        page.table(0, &rows.collect::<Vec<_>>());
    }
}
