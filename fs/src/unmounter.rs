//! Taking a mount off from another thread, with what belongs on top of it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::attach;
use crate::error::{Error, Result};
use crate::mount::Unmount;
use crate::mountinfo::MountPoint;
use crate::sys;

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
        let mut mounts = self.mounts();
        if how == Unmount::WhenUnused {
            // What lies on it goes with it.
            mounts.truncate(1);
        }
        let mut gone = Vec::new();
        while let Some(mount) = mounts.pop() {
            let is_it = |found: &MountPoint| found.device == mount.device;
            match attach::detach(&mount.target, how, is_it) {
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

/// Binds again what was taken off in vain, the last first.
fn put_back(gone: Vec<Mounted>, mounts: &mut Vec<Mounted>) {
    for mount in gone.into_iter().rev() {
        let Some(source) = &mount.source else { continue };
        let flags = libc::MS_BIND | libc::MS_REC;
        // What cannot be put back is missed by those who use it, who have it open.
        if sys::mount(source.as_os_str(), &mount.target, "", flags, OsStr::new("")).is_ok() {
            mounts.push(mount);
        }
    }
}
