//! The process of the root of a system lives in its store.
//!
//! When a machine takes the root that an initrd has mounted, absolute paths of the processes
//! that stay behind lead nowhere: their root directory is that of the initrd, which is
//! emptied then. So such a process makes the directory of the store its root, before that.
//! What it has to do outside is done by a thread that goes back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chroot};
use std::sync::OnceLock;
use std::thread;

use crate::sys;

/// What was the root directory of this process, and of those that it is a copy of.
static OUTSIDE: OnceLock<OwnedFd> = OnceLock::new();

/// Makes the working directory the root of this process and of its copies (chroot(2));
/// does nothing the second time. Where that is not allowed (CAP_SYS_CHROOT), the process
/// finds the store from its working directory alone.
///
/// # Errors
/// There is no root directory or no working directory.
pub fn confine() -> io::Result<()> {
    if OUTSIDE.get().is_some() {
        return Ok(());
    }
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let root = File::options().read(true).custom_flags(flags).open("/")?;
    match chroot(".") {
        Err(err) if err.raw_os_error() == Some(libc::EPERM) => return Ok(()),
        done => done?,
    }
    std::env::set_current_dir("/")?;
    // Nobody else sets it: there is one thread that confines.
    let _ = OUTSIDE.set(root.into());
    Ok(())
}

/// What was the root directory of this process, if it is confined.
pub(crate) fn outside_root() -> Option<BorrowedFd<'static>> {
    OUTSIDE.get().map(OwnedFd::as_fd)
}

/// Has this process, which was started as a confined one, know what is outside.
pub(crate) fn continue_outside_of(root: OwnedFd) {
    // Told twice it is the same.
    let _ = OUTSIDE.set(root);
}

/// Does something where this process was before it was confined; otherwise just does it.
///
/// # Errors
/// There is no other thread to be had, or no way back.
pub(crate) fn outside<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(root) = OUTSIDE.get() else { return Ok(work()) };
    thread::scope(|scope| {
        let there = thread::Builder::new().name("outside".into()).spawn_scoped(scope, || {
            sys::own_directory()?;
            rustix::process::fchdir(root)?;
            chroot(".")?;
            Ok(work())
        });
        there?.join().unwrap_or_else(|_| Err(io::Error::other("the thread outside has crashed")))
    })
}
