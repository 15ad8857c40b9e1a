//! The system calls that the standard library lacks.

#![expect(unsafe_code, reason = "the only module of this crate that calls into libc")]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cairn_store::Timestamp;
use cairn_store::tree::Device;

/// Whether this process acts as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    user == 0
}

/// Makes a device, named pipe or socket with these bits of `st_mode`.
pub(crate) fn make_node(path: &Path, mode: u32, device: Device) -> io::Result<()> {
    let path = c_path(path)?;
    let device = libc::makedev(device.major, device.minor);
    // SAFETY: the pointer comes from a `CString`, which outlives the call.
    let result = unsafe { libc::mknod(path.as_ptr(), mode, device) };
    check(result)
}

/// Sets the time of the last change of a file, or of a link itself.
pub(crate) fn set_mtime(path: &Path, mtime: Timestamp) -> io::Result<()> {
    let path = c_path(path)?;
    let times = [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: mtime.seconds(), tv_nsec: mtime.nanoseconds().into() },
    ];
    // SAFETY: the path comes from a `CString` and the times from an array of
    // two; both outlive the call.
    let result = unsafe {
        libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    };
    check(result)
}

/// Sets an extended attribute of a file, or of a link itself.
pub(crate) fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let path = c_path(path)?;
    let name = CString::new(name)?;
    // SAFETY: path and name come from `CString`s, pointer and length of the
    // value from one slice; all outlive the call.
    let result = unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    check(result)
}

/// Has hosts looked up in /etc/hosts and by DNS, whatever /etc/nsswitch.conf says.
///
/// A program without libraries would load the modules that are named there, and with
/// them a second C library: that of the root it is in, which may be of another version,
/// or damaged. One with libraries goes by the file, and nothing is done.
pub(crate) fn settle_lookup() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        unsafe extern "C" {
            /// <nss.h> of glibc.
            fn __nss_configure_lookup(
                database: *const libc::c_char,
                services: *const libc::c_char,
            ) -> libc::c_int;
        }
        // SAFETY: both are NUL-terminated, and what it needs of them it copies.
        let result = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
        // It knows both words, so that only memory can lack; then the file counts.
        let _ = result;
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
