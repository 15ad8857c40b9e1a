//! The system calls that the standard library does not offer.

#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path has no NUL")
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the process runs with the rights of root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes no argument and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The extended attributes of a file, not followed if it is a link.
///
/// Source: llistxattr(2), lgetxattr(2).
pub(crate) fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = c_path(path);
    let mut names = vec![0_u8; 65_536];
    // SAFETY: the path ends in NUL, and at most as many bytes are written as
    // the buffer has.
    let len = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(len) = usize::try_from(len) else { return Err(io::Error::last_os_error()) };
    let names = names[..len].split_inclusive(|byte| *byte == 0);
    let names = names.map(|name| CStr::from_bytes_with_nul(name).expect("each name ends in NUL"));
    names
        .map(|name| {
            let mut value = vec![0_u8; 65_536];
            // SAFETY: path and name end in NUL, and at most as many bytes are
            // written as the buffer has.
            let len = unsafe {
                let buf = value.as_mut_ptr().cast();
                libc::lgetxattr(path.as_ptr(), name.as_ptr(), buf, value.len())
            };
            let Ok(len) = usize::try_from(len) else { return Err(io::Error::last_os_error()) };
            value.truncate(len);
            Ok((name.to_bytes().to_vec(), value))
        })
        .collect()
}

/// Gives a file an extended attribute: lsetxattr(2).
///
/// # Errors
/// Those of the system.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let path = c_path(path);
    let name = CString::new(name).expect("a name has no NUL");
    // SAFETY: path and name end in NUL, and the value has the given length.
    check(unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })
}

/// Makes a character device: mknod(2).
///
/// # Errors
/// Those of the system.
pub fn make_device(path: &Path, major: u32, minor: u32) -> io::Result<()> {
    let (path, device) = (c_path(path), libc::makedev(major, minor));
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o640, device) })
}

/// Makes a named pipe: mkfifo(3).
///
/// # Errors
/// Those of the system.
pub fn make_fifo(path: &Path) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o620) })
}

/// Takes a mount out of sight, whoever uses it and whether or not its process
/// lives: umount2(2) with MNT_DETACH.
///
/// # Errors
/// Those of the system.
pub fn umount_lazily(path: &Path) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) })
}

/// The major and minor number of a device, as `st_rdev` has them.
pub(crate) fn device_numbers(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}

/// Sends a signal to a process that this one has started: kill(2).
///
/// # Errors
/// Those of the system.
pub fn signal(process: u32, signal: libc::c_int) -> io::Result<()> {
    let process = libc::pid_t::try_from(process).expect("it is the number of a process");
    // SAFETY: kill takes numbers only.
    check(unsafe { libc::kill(process, signal) })
}
