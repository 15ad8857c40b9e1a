//! A store mounted on a directory: begun, switched and ended.

pub(crate) mod attach;
pub(crate) mod idmap;
pub(crate) mod mounted;
pub(crate) mod mountinfo;
pub(crate) mod options;
pub(crate) mod registration;
pub(crate) mod restrictions;
pub(crate) mod root;
pub(crate) mod target;
pub(crate) mod unmounter;

use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use cairn_store::Workspace;
use cairn_store::disk::directory_of;
use fuser::{Config, Session, SessionACL};

use crate::error::{Error, Result};
use crate::event::{Event, Journal};
use crate::mount::attach::Unmount;
use crate::mount::idmap::Owners;
use crate::mount::mounted::Mounted;
use crate::mount::options::{Options, Place};
use crate::mount::registration::{Registered, Registration};
use crate::mount::root::RootBind;
use crate::mount::target::{check_store_is_outside, check_target, device_of};
use crate::mount::unmounter::Unmounter;
use crate::process::control;
use crate::process::keeper::Keeper;
use crate::process::takeover;
use crate::serve::filesystem::Filesystem;
use crate::serve::fuse::Fuse;
use crate::serve::notice::Notices;
use crate::serve::passthrough;
use crate::shape::{Shape, Shown};
use crate::source::Source;

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
        let map = place.owners.map();
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
pub(crate) fn session<S: Source>(fuse: Fuse<S>, connection: OwnedFd) -> Result<Session<Fuse<S>>> {
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
