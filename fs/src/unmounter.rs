//! Taking a mount off from another thread, with what belongs on top of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::attach;
use crate::error::{Error, Result};
use crate::mount::Unmount;
use crate::mountinfo::MountPoint;

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
}

impl Unmounter {
    /// Ends the mount of `device` on `target`.
    pub(crate) fn new(target: PathBuf, device: (u32, u32)) -> Self {
        let mounts = vec![Mounted { target: target.clone(), device }];
        Self { target, mounts: Arc::new(Mutex::new(mounts)) }
    }

    /// Ends the mount of `device` on `target` instead of what it would have ended.
    pub(crate) fn replace(&mut self, target: PathBuf, device: (u32, u32)) {
        self.target.clone_from(&target);
        *self.mounts() = vec![Mounted { target, device }];
    }

    fn mounts(&self) -> MutexGuard<'_, Vec<Mounted>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unmounts; does nothing if that has been done already.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Unmount`], [`Error::Fusermount`].
    pub fn unmount(&self, how: Unmount) -> Result<()> {
        let mut mounts = self.mounts();
        while let Some(Mounted { target, device }) = mounts.last() {
            let is_it = |mount: &MountPoint| mount.device == *device;
            match attach::detach(target, how, is_it) {
                Err(Error::NotMounted { .. }) => {}
                result => result?,
            }
            mounts.pop();
        }
        Ok(())
    }

    /// Where the mount is.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }
}
