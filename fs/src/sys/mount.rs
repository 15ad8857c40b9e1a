//! Mounts, and what the kernel is asked over a connection beside requests.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use fuser::{FileHandle, FopenFlags, ReplyOpen};

use super::{c_string, check};

/// mount(2).
pub(crate) fn mount(
    source: &OsStr,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &OsStr,
) -> io::Result<()> {
    let source = c_string(source)?;
    let target = c_string(target.as_os_str())?;
    let kind = c_string(kind.as_ref())?;
    let data = c_string(data)?;
    // SAFETY: all four are NUL-terminated and outlive the call, and the data
    // of every kind of filesystem that is mounted here is a text.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    };
    check(result).map(drop)
}

/// umount2(2).
pub(crate) fn unmount(target: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = c_string(target.as_os_str())?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// Makes `new` the root directory, and mounts the old one on `old`.
pub(crate) fn pivot_root(new: &Path, old: &Path) -> io::Result<()> {
    let (new, old) = (c_string(new.as_os_str())?, c_string(old.as_os_str())?);
    // SAFETY: both paths are NUL-terminated and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes what is mounted on `target`, and on directories below, read-only.
pub(crate) fn make_read_only(target: &Path) -> io::Result<()> {
    let change = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, ..NO_CHANGE };
    let directory = rustix::fs::CWD;
    set_attributes(directory, target.as_os_str(), libc::AT_RECURSIVE, &change)
}

/// Has a mount that is not attached anywhere show owners as the user namespace `users` maps
/// them.
pub(crate) fn map_owners(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let users = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    let change =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, userns_fd: users, ..NO_CHANGE };
    set_attributes(mount, OsStr::new(""), libc::AT_EMPTY_PATH, &change)
}

const NO_CHANGE: libc::mount_attr =
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

/// mount_setattr(2).
fn set_attributes(
    directory: BorrowedFd<'_>,
    path: &OsStr,
    flags: libc::c_int,
    change: &libc::mount_attr,
) -> io::Result<()> {
    let path = c_string(path)?;
    // SAFETY: the path is NUL-terminated, the pointer is to a mount_attr of the
    // size given, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(change),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether nobody answers for what is mounted on `target`: statfs(2), since the
/// kernel answers most other calls for a dead mount out of what it remembers.
pub(crate) fn is_dead(target: &Path) -> io::Result<bool> {
    let target = c_string(target.as_os_str())?;
    // SAFETY: statfs is a plain structure, for which zeros are valid.
    let mut data: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated, the pointer is to a statfs, and both
    // outlive the call.
    match check(unsafe { libc::statfs(target.as_ptr(), &raw mut data) }) {
        Err(err) if err.raw_os_error() == Some(libc::ENOTCONN) => Ok(true),
        result => result.map(|_| false),
    }
}

/// Answers that a file is open, and that the kernel reads it from what it knows by a
/// backing id.
pub(crate) fn reply_backed(reply: ReplyOpen, handle: FileHandle, flags: FopenFlags, id: u32) {
    // SAFETY: the id is open, as whoever calls this keeps it, and what is made here does not
    // close it.
    let id = unsafe { reply.wrap_backing(id) };
    reply.opened_passthrough(handle, flags, &id);
    id.into_raw();
}

/// Has the kernel let go of the file that it knows by a backing id of this connection.
///
/// Source: `FUSE_DEV_IOC_BACKING_CLOSE` in linux/fuse.h (Linux 6.9).
pub(crate) fn close_backing(connection: &File, id: u32) -> io::Result<()> {
    const BACKING_CLOSE: libc::Ioctl = libc::_IOW::<u32>(229, 2);
    // SAFETY: the descriptor is open, and the kernel reads four bytes of the id.
    check(unsafe { libc::ioctl(connection.as_raw_fd(), BACKING_CLOSE, &raw const id) }).map(drop)
}
