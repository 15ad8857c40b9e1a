//! A store mounted on a directory: begun, switched and ended.

use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cairn_store::Workspace;
use cairn_store::disk::directory_of;
use fuser::{Config, Session, SessionACL};

use crate::attach;
use crate::control::{self, Live, Refreshed, Restarting, Settled, Status};
use crate::counters::{Known, Stats};
use crate::error::{Error, Result};
use crate::event::{Event, Journal};
use crate::filesystem::Filesystem;
use crate::fuse::Fuse;
use crate::idmap::Owners;
use crate::keeper::Keeper;
use crate::mountinfo::MountPoint;
use crate::node::NodeId;
use crate::notice::Notices;
use crate::passthrough;
use crate::registration::{self, Registered, Registration};
use crate::restrictions::Restrictions;
use crate::root::{self, RootBind};
use crate::shape::{Shape, Shown};
use crate::source::Source;
use crate::switch::{Change, Switched};
use crate::takeover;
use crate::target::{self, check_store_is_outside, check_target, device_of, whereabouts};
use crate::unmounter::Unmounter;

/// Whether the kernel heeds what in a mount could give rights away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Setuid programs and device nodes are shown, but have no effect: old
    /// states hold old programs with known holes.
    Inspect,
    /// They have effect, as in the root of a system.
    System,
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// At once; an error if programs use the mount.
    Now,
    /// Out of sight at once; whoever uses the mount may go on until done.
    WhenUnused,
}

/// What to mount where.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the root of the mount is.
    pub shape: Shape,
    /// The directory to mount on.
    pub target: PathBuf,
    /// What /proc/mounts calls it: the path of the store.
    pub name: String,
    /// The store's `run` directory, in which the mount is registered. Without
    /// it nobody can find the mount to refresh it, and gc does not spare it.
    pub run: Option<PathBuf>,
    /// Whether setuid programs and device nodes have effect.
    pub trust: Trust,
    /// Who keeps the mount when this process dies, for [`resume`](crate::resume)
    /// in another one; it takes a registration as well.
    pub keeper: Option<Keeper>,
    /// What else has no effect.
    pub restrictions: Restrictions,
    /// What of the machine lies on it, in this order.
    pub binds: Vec<RootBind>,
    /// Whether the kernel is to read large files by itself, from plain files of the
    /// store. Where it does not permit that, it reads them from the mount as it reads all
    /// others, and the registration says why.
    pub passthrough: bool,
    /// Whether processors may sleep between requests that follow each other closely. As
    /// root they are kept from it otherwise, where they can be: each request has one wake up.
    pub power_save: bool,
    /// What the kernel makes of owners.
    pub owners: Owners,
}

impl Options {
    /// `shape` on `target`, with the trust that is usual for the shape.
    #[must_use]
    pub fn new(shape: Shape, target: &Path, store: &Path) -> Self {
        let trust = match shape {
            Shape::Follow => Trust::System,
            Shape::Folder | Shape::Pinned(_) => Trust::Inspect,
        };
        Self {
            shape,
            target: target.into(),
            name: store.display().to_string(),
            run: Some(store.join("run")),
            trust,
            keeper: None,
            restrictions: Restrictions::default(),
            binds: Vec::new(),
            passthrough: false,
            power_save: false,
            owners: Owners::default(),
        }
    }
}

/// Threads that answer the kernel. They share one descriptor: a request that
/// was read through a copy of its own would die with the copy.
const THREADS: usize = 2;

/// The most that the kernel reads ahead in a file, in KiB: as much as one
/// request brings.
const READ_AHEAD: &str = "1024";

/// A running mount.
///
/// Dropping it takes it out of sight at once, and waits until nobody uses it any
/// more; [`Running::wait`] lets it run until somebody else unmounts it.
pub struct Running {
    unmounter: Unmounter,
    /// The workspace that it shows, if it shows one: nobody else may have it until
    /// the mount has ended.
    workspace: Arc<Mutex<Option<Workspace>>>,
    session: Option<JoinHandle<io::Result<()>>>,
    control: Option<JoinHandle<()>>,
}

/// Mounts `source` as `options` say, and returns when the mount can be used.
///
/// # Errors
/// Nothing stays mounted or registered when it fails.
pub fn start<S: Source>(source: S, options: &Options, journal: Journal) -> Result<Running> {
    target::remove_dead(&options.target, &journal)?;
    let target = check_target(&options.target)?;
    let filesystem = Arc::new(Filesystem::new(source, options.shape)?);
    let binds = root::find_sources(&options.binds)?;
    let mut registered = match &options.run {
        Some(run) => {
            let registered = register(&filesystem, run, &target, &binds)?;
            check_store_is_outside(directory_of(run), &target)?;
            Some(registered)
        }
        None => None,
    };
    if let (Some((registered, _)), Some(keeper)) = (&mut registered, &options.keeper) {
        let failed = |source| Error::Keeper { source };
        registered.keep_with(keeper.clone()).map_err(failed)?;
    }
    let restrictions = options.restrictions.and(options.trust);
    let place = Place {
        target: target.clone(),
        name: &options.name,
        restrictions,
        binds: &binds,
        passthrough: options.passthrough,
        power_save: options.power_save,
        owners: &options.owners,
    };
    let start = || {
        // If anything fails from here on, dropping it unmounts.
        let running = serve(filesystem, place, registered, journal)?;
        binds.iter().try_for_each(|it| root::bind(&target, it, &running.unmounter))?;
        Ok(running)
    };
    start().inspect_err(|_| {
        // There is nothing left that somebody could take over.
        let _ = options.keeper.as_ref().map(Keeper::abandon);
    })
}

/// Where and how to mount.
pub(crate) struct Place<'a> {
    /// The absolute path of a directory.
    pub(crate) target: PathBuf,
    /// What /proc/mounts calls it.
    pub(crate) name: &'a str,
    pub(crate) restrictions: Restrictions,
    /// What is to lie on it, which a successor has to know from the beginning.
    pub(crate) binds: &'a [RootBind],
    /// Whether the kernel is to read large files by itself.
    pub(crate) passthrough: bool,
    /// Whether processors may sleep in bursts of requests.
    pub(crate) power_save: bool,
    pub(crate) owners: &'a Owners,
}

/// Mounts a filesystem and begins to answer the kernel.
pub(crate) fn serve<S: Source>(
    filesystem: Arc<Filesystem<S>>,
    place: Place<'_>,
    registered: Option<(Registered, UnixListener)>,
    journal: Journal,
) -> Result<Running> {
    let (mut registered, listener) = registered.unzip();
    let mut fuse = Fuse::new(filesystem.clone(), journal.clone());
    fuse.wants_passthrough = place.passthrough;
    fuse.wants_mappable = !matches!(place.owners, Owners::Fixed);
    let connection = attach::attach(&place.target, place.name, place.restrictions)?;
    // The kernel has just made it, and nobody else knows of it yet.
    let device = device_of(&place.target)?;
    let unmounter = Unmounter::new(place.target, device);
    let begun = session(fuse.clone(), connection).and_then(|session| {
        let map = match place.owners {
            Owners::Mapped(map) => Some(map),
            Owners::Fixed | Owners::Mappable => None,
        };
        if let Some(map) = map {
            attach::map_owners(unmounter.target(), device, map)?;
        }
        let passthrough = place.passthrough.then(|| pass_through(&fuse, &session));
        if let Some(registered) = &mut registered {
            registered.has_begun(device, passthrough, place.power_save, map)?;
        }
        filesystem.hurry(place.power_save);
        if let (Some(registered), Some(listener)) = (&registered, &listener) {
            let descriptors: [&dyn AsFd; 2] = [&session, listener];
            let binds = place.binds;
            takeover::leave(&filesystem, registered, &unmounter, device, binds, descriptors)?;
        }
        let live = Mounted::new(filesystem, &session, registered, journal, unmounter.clone())?;
        run(Arc::new(live), session, listener)
    });
    let running = begun.inspect_err(|_| {
        // The error to report is the first one.
        let _ = unmounter.unmount(Unmount::WhenUnused);
    })?;
    read_further_ahead(device);
    Ok(running)
}

/// Has the kernel read large files by itself, or says why it does not.
fn pass_through<S: Source>(fuse: &Fuse<S>, session: &Session<Fuse<S>>) -> Result<(), String> {
    let attempt = || {
        let kernel = Notices::of(session)?;
        passthrough::check_permitted(&kernel, &fuse.filesystem.source)?;
        fuse.pass_through(kernel)
    };
    attempt().map_err(|source| {
        let reason = source.to_string();
        (fuse.journal)(&Event::NotPassed { source });
        reason
    })
}

/// Answers a connection that is mounted already; `listener` takes control
/// requests.
pub(crate) fn run<S: Source>(
    live: Arc<Mounted<S>>,
    session: Session<Fuse<S>>,
    listener: Option<UnixListener>,
) -> Result<Running> {
    let failed = |source| Error::Process { source };
    let (stop, running) = io::pipe().map_err(failed)?;
    let (mounted, workspace) = (live.clone(), Arc::new(Mutex::new(None)));
    let held = workspace.clone();
    let answer = move || {
        let result = session.run();
        // They hold the connection open: without answers whoever still uses the
        // mount would wait for ever instead of getting errors.
        mounted.notices().take();
        if result.is_err() {
            let _ = mounted.unmounter.unmount(Unmount::WhenUnused);
        }
        mounted.registered().take();
        mounted.filesystem.stop_reading_ahead();
        drop(held.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(running);
        result
    };
    let unmounter = live.unmounter.clone();
    let session = thread::Builder::new().name("mount".into()).spawn(answer).map_err(failed)?;
    let mut running = Running { unmounter, workspace, session: Some(session), control: None };
    if let Some(listener) = listener {
        let serve = move |stop: PipeReader| control::serve(&listener, &stop, &*live);
        let thread = thread::Builder::new().name("control".into());
        running.control = Some(thread.spawn(move || serve(stop)).map_err(failed)?);
    }
    Ok(running)
}

/// Begins to speak with the kernel over a connection.
pub(crate) fn session<S: Source>(
    fuse: Fuse<S>,
    connection: std::os::fd::OwnedFd,
) -> Result<Session<Fuse<S>>> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    // Who may use the mount is checked by the kernel.
    Session::from_fd(fuse, connection, SessionACL::All, config)
        .map_err(|source| Error::Session { source })
}

/// Registers a mount, so that gc keeps what it shows from here on, and makes
/// sure that all of it was still there then.
pub(crate) fn register<S: Source>(
    filesystem: &Filesystem<S>,
    run: &Path,
    target: &Path,
    binds: &[RootBind],
) -> Result<(Registered, UnixListener)> {
    let (mut registered, listener) = Registered::new(
        run,
        Registration {
            all_states: filesystem.shape == Shape::Folder,
            binds: binds.iter().map(RootBind::bound).collect(),
            ..Registration::new(
                target,
                filesystem.shape,
                filesystem.view().state(),
                filesystem.roots(),
            )
        },
    )?;
    filesystem.source.refresh()?;
    filesystem.switch(Shown::of(filesystem.shape, &filesystem.source.refs())?);
    registered.update(filesystem.view().state(), filesystem.roots())?;
    Ok((registered, listener))
}

/// Lets the kernel ask for more at a time than it does by itself. Without the
/// right to, or in a container, the mount works as well.
fn read_further_ahead((major, minor): (u32, u32)) {
    let _ = fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD);
}

impl Running {
    /// What ends the mount from another thread.
    #[must_use]
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Shows `workspace` on `target` from now on, and lives as long as that.
    pub(crate) fn show_workspace(
        &mut self,
        workspace: Workspace,
        target: PathBuf,
        device: (u32, u32),
    ) {
        self.unmounter.replace(target, device);
        *self.workspace.lock().unwrap_or_else(PoisonError::into_inner) = Some(workspace);
    }

    /// Waits until the mount has ended, by whatever unmounted it.
    ///
    /// # Errors
    /// [`Error::Session`] when it ended because the connection to the kernel
    /// broke.
    pub fn wait(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let result = match self.session.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.map_err(|source| Error::Session { source }),
            Some(Err(_)) => {
                Err(Error::Session { source: io::Error::other("the mount's thread panicked") })
            }
            None => Ok(()),
        };
        if let Some(control) = self.control.take() {
            // It has nothing to return, and has noted what went wrong.
            let _ = control.join();
        }
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.session.is_some() && self.unmounter.unmount(Unmount::WhenUnused).is_ok() {
            let _ = self.join();
        }
    }
}

/// Unmounts the mount of Cairn on `target`, whichever process runs it, also
/// when that has died.
///
/// # Errors
/// [`Error::NotMounted`], [`Error::Busy`], [`Error::Unmount`],
/// [`Error::Fusermount`].
pub fn unmount(target: &Path, how: Unmount) -> Result<()> {
    let place = whereabouts(target)?;
    let registered =
        MountPoint::at(&place).ok().flatten().and_then(|it| target::registration_of(&it));
    match attach::detach(&place, how, MountPoint::is_ours) {
        // What its process has bound onto it is no reason; that process can tell
        // it from what others have put there.
        Err(Error::Busy { .. }) if is_unmounted_by_its_process(registered.as_ref()) => {}
        result => result?,
    }
    if let (Unmount::Now, Some((run, registration))) = (how, registered) {
        wait_until_gone(&run, &registration);
    }
    Ok(())
}

/// Waits until a mount that was unmounted is no longer registered either, so that
/// nobody is told of it; its process may take a moment to end.
fn wait_until_gone(run: &Path, registration: &Registration) {
    let end = Instant::now() + PATIENCE;
    while registration::is_registered(run, registration).unwrap_or(false) && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
}

/// How long the process of a mount may take to unmount it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lets the process of a mount unmount it; whether it could.
fn is_unmounted_by_its_process(registered: Option<&(PathBuf, Registration)>) -> bool {
    registered.is_some_and(|(run, registration)| {
        control::unmount(run, registration, Unmount::Now, PATIENCE).is_ok()
    })
}

/// A mount as its own threads see it.
pub(crate) struct Mounted<S> {
    pub(crate) filesystem: Arc<Filesystem<S>>,
    /// Gone when the connection has ended.
    notices: Mutex<Option<Notices>>,
    registered: Mutex<Option<Registered>>,
    switching: Mutex<()>,
    pub(crate) journal: Journal,
    unmounter: Unmounter,
}

impl<S: Source> Mounted<S> {
    pub(crate) fn new(
        filesystem: Arc<Filesystem<S>>,
        session: &Session<Fuse<S>>,
        registered: Option<Registered>,
        journal: Journal,
        unmounter: Unmounter,
    ) -> Result<Self> {
        let notices = Notices::of(session).map_err(|source| Error::Session { source })?;
        Ok(Self {
            filesystem,
            notices: Mutex::new(Some(notices)),
            registered: Mutex::new(registered),
            switching: Mutex::new(()),
            journal,
            unmounter,
        })
    }
}

impl<S> Mounted<S> {
    pub(crate) fn notices(&self) -> MutexGuard<'_, Option<Notices>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by whoever switches and tells the kernel.
    pub(crate) fn switching(&self) -> MutexGuard<'_, ()> {
        self.switching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registered(&self) -> MutexGuard<'_, Option<Registered>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Source> Mounted<S> {
    /// Writes down what is shown and, if it comes to that, what will be.
    fn register(&self, next: Option<&Shown>) -> Result<()> {
        let mut trees = self.filesystem.roots();
        let state = match next {
            Some(next) => {
                trees.extend(
                    next.roots.iter().filter(|root| !trees.contains(root)).collect::<Vec<_>>(),
                );
                next.state
            }
            None => self.filesystem.view().state(),
        };
        let mut registered = self.registered();
        let Some(registered) = &mut *registered else { return Ok(()) };
        let was_kept = registered.keeper().is_some();
        registered.update(state, trees)?;
        if was_kept && registered.keeper().is_none() {
            (self.journal)(&Event::KeeperLost);
        }
        Ok(())
    }

    /// Tells the kernel what it must no longer believe, and notes what went wrong
    /// with a switch; returns how many names were told.
    pub(crate) fn tell(&self, switched: Switched) -> usize {
        for source in switched.unreadable {
            let what = "a directory that has changed".into();
            (self.journal)(&Event::Unreadable { what, source });
        }
        self.kept(switched.not_kept.map_or(Ok(()), Err));
        let Some(notices) = self.notices().clone() else { return 0 };
        let mut names = 0;
        for Change { directory, names: changed } in &switched.changes {
            // What the kernel has forgotten meanwhile it need not be told.
            if !self.filesystem.table().has_directory(*directory) {
                continue;
            }
            let told = changed.iter().map(|name| notices.forget_name(*directory, name));
            let told = told.chain([()].iter().map(|()| notices.look_anew(*directory)));
            for source in told.filter_map(io::Result::err) {
                // It is unmounted just now, and nothing is believed any more.
                if source.raw_os_error() != Some(libc::ENOTCONN) {
                    (self.journal)(&Event::NotTold { source });
                }
            }
            names += changed.len();
        }
        self.kept(self.filesystem.has_told());
        names
    }

    fn kept(&self, result: io::Result<()>) {
        if let Err(source) = result {
            (self.journal)(&Event::NotKept { source });
        }
    }
}

impl<S: Source> Live for Mounted<S> {
    fn refresh(&self) -> Result<Refreshed> {
        let _one_at_a_time = self.switching();
        let source = &self.filesystem.source;
        source.refresh()?;
        if let Shape::Pinned(id) = self.filesystem.shape {
            return Ok(Refreshed { state: Some(id), ..Refreshed::default() });
        }
        let mut next = Shown::of(self.filesystem.shape, &source.refs())?;
        loop {
            self.register(Some(&next))?;
            // What was still there after it had been registered stays.
            source.refresh()?;
            let again = Shown::of(self.filesystem.shape, &source.refs())?;
            if again.roots == next.roots {
                next = again;
                break;
            }
            next = again;
        }
        // Readers wait while the trees are compared, so the disk is asked
        // before for those that are new for certain.
        if let Some(main) = next.main {
            source.tree(main)?;
        }
        let switched = self.filesystem.switch(next);
        let directories = switched.changes.len();
        let names = self.tell(switched);
        self.register(None)?;
        Ok(Refreshed { state: self.filesystem.view().state(), directories, names })
    }

    fn status(&self) -> Status {
        Status { state: self.filesystem.view().state(), nodes: self.filesystem.table().len() }
    }

    fn stats(&self) -> Stats {
        let filesystem = &self.filesystem;
        let state = filesystem.view().state();
        let (nodes, opens) = {
            let table = filesystem.table();
            (table.len(), table.opens())
        };
        let (kept_awake, store) = (filesystem.awake.held(), filesystem.source.reads());
        let mut stats = filesystem.counters.stats(Known { state, nodes, opens, kept_awake, store });
        for slow in &mut stats.slowest {
            slow.path = filesystem.path_of(NodeId::from_kernel(slow.node));
        }
        stats
    }

    fn unmount(&self, how: Unmount) -> Result<()> {
        self.unmounter.unmount(how)
    }

    fn restart(&self, program: OwnedFd, asker: &UnixStream) -> Restarting {
        let registered = self.registered();
        let Some(keeper) = registered.as_ref().and_then(Registered::keeper) else {
            return Restarting::Refused("nobody keeps it while no process answers for it".into());
        };
        match keeper.restart(program.as_fd(), asker.as_fd()) {
            Ok(true) => Restarting::ByKeeper,
            Ok(false) => Restarting::BySupervisor,
            Err(err) => Restarting::Refused(format!("its keeper does not answer: {err}")),
        }
    }

    fn settle(&self) -> Result<()> {
        self.filesystem.settle();
        self.register(None)
    }

    fn settle_some(&self) -> Settled {
        if self.filesystem.settle_some() {
            return Settled::Partly;
        }
        if let Err(source) = self.register(None) {
            (self.journal)(&Event::NotRegistered { source });
        }
        let notices = self.notices().clone();
        if let Some(notices) = notices {
            passthrough::let_go_of_gone(&self.filesystem, &notices, &self.journal);
        }
        if self.filesystem.holds_old_roots() { Settled::ForNow } else { Settled::Wholly }
    }

    fn note(&self, event: &Event) {
        (self.journal)(event);
    }
}
