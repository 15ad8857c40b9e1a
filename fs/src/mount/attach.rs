//! Getting a connection to the kernel onto a directory, and off it again.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Error, Result};
use crate::mount::idmap::IdMap;
use crate::mount::mountinfo::{KIND, MountPoint};
use crate::mount::restrictions::Restrictions;
use crate::sys;

/// Mounts a new connection on `target` and returns its descriptor. Requests
/// wait until somebody answers them.
///
/// Root mounts itself; for ordinary users `fusermount3` does it, which takes effect
/// from setuid programs and devices and shows the mount to its owner alone.
pub(crate) fn attach(target: &Path, name: &str, restrictions: Restrictions) -> Result<OwnedFd> {
    if sys::effective_user().0 != 0 {
        return attach_as_user(target, name, Access::READ.and(restrictions));
    }
    match attach_as_root(target, name, restrictions) {
        // Root of a container that may not mount.
        Err(Error::Mount { target, source }) if source.raw_os_error() == Some(libc::EPERM) => {
            match attach_as_user(&target, name, Access::READ.and(restrictions)) {
                // Whoever can be root is better told what root lacks.
                Err(Error::NoFusermount { .. }) => Err(Error::Mount { target, source }),
                result => result,
            }
        }
        result => result,
    }
}

/// Mounts with mount(2).
pub(crate) fn attach_as_root(
    target: &Path,
    name: &str,
    restrictions: Restrictions,
) -> Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(|source| Error::NoFuse { source })?;
    let (user, group) = sys::effective_user();
    // The kernel checks permissions by the modes it is told, for everyone.
    let options = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},default_permissions,allow_other",
        device.as_raw_fd()
    );
    // Read-only even though nothing here can write: without the flag changes
    // would fail with other errors than EROFS, and O_TRUNC would not fail.
    let flags = libc::MS_RDONLY | restrictions.flags();
    sys::mount(name.as_ref(), target, KIND, flags, OsStr::new(&options))
        .map_err(|source| Error::Mount { target: target.into(), source })?;
    Ok(device.into())
}

/// Has the mount of `device` on `target`, whose connection has begun, show owners as `map` says.
pub(crate) fn map_owners(target: &Path, device: (u32, u32), map: &IdMap) -> Result<()> {
    let failed = |source| Error::OwnersNotMapped { target: target.into(), source };
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, target, copy).map_err(|err| failed(err.into()))?;
    // The kernel does so only before anybody can have opened something on a mount.
    sys::map_owners(copy.as_fd(), map.namespace()).map_err(failed)?;
    detach(target, Unmount::WhenUnused, |found| found.device == device)?;
    let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(copy, "", CWD, target, here).map_err(|err| failed(err.into()))
}

/// What the programs of a user may do on a mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access(&'static str);

impl Access {
    pub(crate) const READ: Self = Self("ro");
    pub(crate) const WRITE: Self = Self("rw");

    /// `fusermount3` lets neither setuid programs nor devices have effect anyway.
    fn and(self, restrictions: Restrictions) -> Self {
        if restrictions.noexec { Self("ro,noexec") } else { self }
    }
}

/// Has `fusermount3` mount a new connection on `target`, as [`attach`] does.
pub(crate) fn attach_as_user(target: &Path, name: &str, access: Access) -> Result<OwnedFd> {
    let failed = |source| Error::Process { source };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let name = name.replace('\\', "\\\\").replace(',', "\\,");
    let Access(access) = access;
    let options = format!("{access},nosuid,nodev,default_permissions,subtype=cairn,fsname={name}");
    // The descriptor comes back over the socket that is its standard input.
    let child = Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(target)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::NoFusermount { source })?;
    let received = sys::receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(failed)?;
    received.map_err(|_| Error::Fusermount { target: target.into(), message: said(&output.stderr) })
}

/// Mounts `source`, with what is mounted below it, on `on`, a path of what is at `place`.
///
/// What the machine mounts or unmounts below `source` later happens there too, and nothing
/// of what happens there reaches the machine: where mounts are shared, as systemd has them,
/// unmounting a bound /dev/pts would otherwise unmount that of the machine
/// (mount_namespaces(7)).
pub(crate) fn bind(source: &Path, on: &Path, place: &Path) -> io::Result<()> {
    let flags = libc::MS_BIND | libc::MS_REC;
    sys::mount(source.as_os_str(), on, "", flags, OsStr::new(""))?;
    let flags = libc::MS_SLAVE | libc::MS_REC;
    sys::mount(OsStr::new(""), place, "", flags, OsStr::new(""))
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// At once; an error if programs use the mount.
    Now,
    /// Out of sight at once; whoever uses the mount may go on until done.
    WhenUnused,
}

/// Takes the uppermost mount off `target`, if `is_it` says so.
///
/// # Errors
/// [`Error::NotMounted`] when it is another mount or none.
pub(crate) fn detach(
    target: &Path,
    how: Unmount,
    is_it: impl FnOnce(&MountPoint) -> bool,
) -> Result<()> {
    let failed = |source| Error::Unmount { target: target.into(), source };
    if !MountPoint::at(target).map_err(failed)?.is_some_and(|mount| is_it(&mount)) {
        return Err(Error::NotMounted { target: target.into() });
    }
    let flags = match how {
        Unmount::Now => libc::UMOUNT_NOFOLLOW,
        Unmount::WhenUnused => libc::UMOUNT_NOFOLLOW | libc::MNT_DETACH,
    };
    match sys::unmount(target, flags) {
        Err(err) if err.raw_os_error() == Some(libc::EPERM) => detach_as_user(target, how),
        Err(err) if err.kind() == io::ErrorKind::ResourceBusy => {
            Err(Error::Busy { target: target.into() })
        }
        result => result.map_err(failed),
    }
}

fn detach_as_user(target: &Path, how: Unmount) -> Result<()> {
    let flags = match how {
        Unmount::Now => "-u",
        Unmount::WhenUnused => "-uz",
    };
    let output = Command::new("fusermount3")
        .args([flags, "--"])
        .arg(target)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::NoFusermount { source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = said(&output.stderr);
    if message.ends_with("Device or resource busy") {
        return Err(Error::Busy { target: target.into() });
    }
    Err(Error::Fusermount { target: target.into(), message })
}

/// The last line of what a program wrote, without its own name.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
    line.trim_start_matches("fusermount3: ").into()
}
