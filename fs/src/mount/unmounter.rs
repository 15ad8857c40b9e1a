//! Taking a mount off: by its own process with what belongs on top of it, or by another one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::mount::attach::{self, Unmount};
use crate::mount::mountinfo::MountPoint;
use crate::mount::registration::{self, Registration};
use crate::mount::target::{self, whereabouts};
use crate::process::confined::outside;
use crate::process::control;

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

/// Ends a mount from another thread.
#[derive(Clone, Debug)]
pub struct Unmounter {
    target: PathBuf,
    /// What is mounted, the undermost first.
    mounts: Arc<Mutex<Vec<Mounted>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    target: PathBuf,
    device: (u32, u32),
    /// What is bound, if it is something else of the machine.
    source: Option<PathBuf>,
}

impl Unmounter {
    /// Ends the mount of `device` on `target`.
    pub(crate) fn new(target: PathBuf, device: (u32, u32)) -> Self {
        let mounts = vec![Mounted { target: target.clone(), device, source: None }];
        Self { target, mounts: Arc::new(Mutex::new(mounts)) }
    }

    /// Ends the mount of `device` on `target` instead of what it would have ended.
    pub(crate) fn replace(&mut self, target: PathBuf, device: (u32, u32)) {
        self.target.clone_from(&target);
        *self.mounts() = vec![Mounted { target, device, source: None }];
    }

    /// Notes that `source` was bound on `target`, which is on what is mounted.
    pub(crate) fn bound(&self, target: PathBuf, device: (u32, u32), source: PathBuf) {
        self.mounts().push(Mounted { target, device, source: Some(source) });
    }

    fn mounts(&self) -> MutexGuard<'_, Vec<Mounted>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unmounts, with what is bound onto the mount: all of it, or nothing. Does
    /// nothing if that has been done already.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Unmount`], [`Error::Fusermount`].
    pub fn unmount(&self, how: Unmount) -> Result<()> {
        let failed = |source| Error::Unmount { target: self.target.clone(), source };
        outside(|| self.unmount_here(how)).map_err(failed)?
    }

    fn unmount_here(&self, how: Unmount) -> Result<()> {
        let mut mounts = self.mounts();
        if how == Unmount::WhenUnused {
            // What lies on it goes with it.
            mounts.truncate(1);
        }
        let mut gone = Vec::new();
        while let Some(mount) = mounts.pop() {
            match mount.detach(how) {
                Ok(()) => gone.push(mount),
                Err(Error::NotMounted { .. }) => {}
                Err(err) => {
                    mounts.push(mount);
                    put_back(gone, &mut mounts);
                    return Err(err);
                }
            }
        }
        Ok(())
    }

    /// Where the mount is.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }
}

impl Mounted {
    /// Takes it off, with what was below its source when that was bound.
    fn detach(&self, how: Unmount) -> Result<()> {
        let Some(source) = &self.source else { return detach(&self.target, self.device, how) };
        let failed = |source| Error::Unmount { target: self.target.clone(), source };
        let all = MountPoint::all().map_err(failed)?;
        let mut gone = Vec::new();
        // The last mounted is the uppermost.
        let mut result = Ok(());
        for (mount, origin) in brought_along(&all, source, &self.target).rev() {
            result = result.and_then(|()| detach(&mount.target, mount.device, how));
            if result.is_ok() {
                gone.push((mount, origin));
            }
        }
        result = result.and_then(|()| detach(&self.target, self.device, how));
        if result.is_ok() {
            gone.clear();
        }
        for (mount, origin) in gone.into_iter().rev() {
            // What is below a mount comes with it.
            let is_there = MountPoint::at(&mount.target)
                .is_ok_and(|found| found.is_some_and(|found| found.device == mount.device));
            if !is_there {
                // As below: who has it open has it still.
                let _ = attach::bind(&origin, &mount.target, &mount.target);
            }
        }
        result
    }
}

fn detach(target: &Path, device: (u32, u32), how: Unmount) -> Result<()> {
    attach::detach(target, how, |found| found.device == device)
}

/// Of the mounts below `target` those that the machine has at the same place below `source`
/// as well, with the path there: what a bind of `source` has brought along. Others were
/// mounted there by somebody, and keep the bind in use.
fn brought_along<'a>(
    all: &'a [MountPoint],
    source: &Path,
    target: &Path,
) -> impl DoubleEndedIterator<Item = (&'a MountPoint, PathBuf)> {
    all.iter().filter_map(move |mount| {
        let below = mount.target.strip_prefix(target).ok().filter(|path| *path != Path::new(""))?;
        let origin = source.join(below);
        let is_it = |it: &MountPoint| it.target == origin && it.device == mount.device;
        all.iter().any(is_it).then_some((mount, origin))
    })
}

/// Binds again what was taken off in vain, the last first.
fn put_back(gone: Vec<Mounted>, mounts: &mut Vec<Mounted>) {
    for mount in gone.into_iter().rev() {
        let Some(source) = &mount.source else { continue };
        // What cannot be put back is missed by those who use it, who have it open.
        if attach::bind(source, &mount.target, &mount.target).is_ok() {
            mounts.push(mount);
        }
    }
}
