//! The system calls that std does not offer.

#![allow(unsafe_code)]

mod descriptor;
mod mount;
mod process;
mod signal;

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(crate) use descriptor::{
    close_all_but_standard, message_pair, peer_user, receive_descriptor, receive_message, redirect,
    replace, send_descriptor, send_message, wait_readable,
};
pub(crate) use mount::{
    close_backing, is_dead, make_read_only, map_owners, mount, pivot_root, reply_backed, unmount,
};
pub(crate) use process::{
    ANY_CHILD, Forked, clone_into_namespaces, execute, exists, exit, filesystem_user, fork,
    is_alone, is_ending, kill, new_session, next_ended, own_directory, own_thread, own_users,
    take_terminal_back, user_namespace, wait_for, wait_for_any,
};
pub use process::{Network, end_with_parent};
pub(crate) use signal::{ContinueTimer, HeldSignals, next_signal};

/// Turns the -1 of a system call into its error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The user and group that the kernel checks this process by.
pub(crate) fn effective_user() -> (libc::uid_t, libc::gid_t) {
    // SAFETY: geteuid takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let group = unsafe { libc::getegid() };
    (user, group)
}

/// Keeps all memory of this process in memory: what it has now, and what it will
/// have as soon as it is used for the first time. So it never waits for a disk to
/// go on, which may be one that it answers for itself.
///
/// # Errors
/// Without the right to: `RLIMIT_MEMLOCK` is small for ordinary users.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: concerns this process alone, and changes nothing that can be seen.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT) })?;
    // SAFETY: as above.
    check(unsafe { libc::mlockall(libc::MCL_FUTURE | libc::MCL_ONFAULT) }).map(drop)
}

/// Lets the memory that this process gives back go back to the machine: a process lives as
/// long as its mount, and what the kernel has it remember comes and goes.
///
/// One heap for all threads, and pages of its own for what is as large as the tables of a
/// million files, of which a part would otherwise stay behind each time that they grow.
/// After a walk over a million entries a process has 139 MB instead of 160. Does nothing
/// where the C library has no such settings. Source: mallopt(3).
pub fn bound_heap() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 2 << 20)] {
        // SAFETY: concerns this process alone. What cannot be set stays as it was.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// setxattr(2).
pub(crate) fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let path = c_string(path.as_os_str())?;
    let name = c_string(OsStr::from_bytes(name))?;
    // SAFETY: both texts are NUL-terminated, the value has the length given, and
    // all outlive the call.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    check(result).map(drop)
}

/// A new file that exists only in memory, for as long as it is open.
pub(crate) fn file_in_memory() -> io::Result<File> {
    // SAFETY: the name is NUL-terminated.
    let file = unsafe { libc::memfd_create(c"cairn".as_ptr(), libc::MFD_CLOEXEC) };
    check(file)?;
    // SAFETY: it is new, and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(file) })
}

/// Gives back what `len` bytes of a file from `offset` on occupy; they read as
/// zeroes.
pub(crate) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let number = |value| libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (offset, len) = (number(offset)?, number(len)?);
    // SAFETY: takes numbers only, and the descriptor is open.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }).map(drop)
}

/// Brings up the interface `lo` of this process's network.
pub(crate) fn bring_up_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)
                .map_err(io::Error::other)?,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    // SAFETY: the descriptor is a socket, the pointer is to an ifreq that
    // outlives the call, and the name in it ends with a NUL.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })
        .map(drop)
}
