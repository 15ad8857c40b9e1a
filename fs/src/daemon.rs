//! Leaving a mount behind in the background, and telling a supervisor of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::error::{Error, Result, with_causes};
use crate::mount::Running;
use crate::sys::{self, Forked};

/// Runs `start` in a new process that stays behind, and returns that process's
/// number when the mount can be used.
///
/// The new process belongs to no terminal and to no caller: it has a session of
/// its own, `/` as its working directory, and neither input nor output. It ends
/// with the mount. What `start` opens must not have been opened before, since a
/// database does not survive being copied with its process.
///
/// # Errors
/// [`Error::Threads`] when this process has more than one thread, of which the
/// copy would have only one, with the locks of the others;
/// [`Error::Background`] with the text and the causes of what `start` returned.
pub fn background<E: std::error::Error>(start: impl FnOnce() -> Result<Running, E>) -> Result<u32> {
    let failed = |source| Error::Process { source };
    if !sys::is_alone().map_err(failed)? {
        return Err(Error::Threads);
    }
    let (mut answer, report) = io::pipe().map_err(failed)?;
    let child = match sys::fork().map_err(failed)? {
        Forked::Child => {
            drop(answer);
            sys::exit(leave(start, report))
        }
        Forked::Parent(child) => child,
    };
    drop(report);
    let mut text = String::new();
    let read = answer.read_to_string(&mut text);
    // The first child has only made the second.
    sys::wait_for(child).map_err(failed)?;
    read.map_err(failed)?;
    match text.split_once(' ') {
        Some((READY, pid)) => pid.parse().map_err(|_| failed(io::ErrorKind::InvalidData.into())),
        Some((FAILED, message)) => Err(Error::Background { message: message.into() }),
        _ => Err(Error::Background { message: "the process of the mount has crashed".into() }),
    }
}

const READY: &str = "ready";
const FAILED: &str = "failed";

/// Becomes the process that stays behind; the result is its exit code.
fn leave<E: std::error::Error>(
    start: impl FnOnce() -> Result<Running, E>,
    mut report: PipeWriter,
) -> i32 {
    // The second copy is no leader of its session, so that it never gets a
    // terminal by opening one.
    let separated = sys::new_session().and_then(|()| sys::fork());
    let started = match separated {
        Ok(Forked::Parent(_)) => return 0,
        Ok(Forked::Child) => start().map_err(|err| with_causes(&err)),
        Err(err) => Err(err.to_string()),
    };
    // Only now, so that `start` finds relative paths.
    let started = started.and_then(|running| match close_doors() {
        Ok(()) => Ok(running),
        Err(err) => Err(err.to_string()),
    });
    // Whoever waits for the report may have gone; the mount works without.
    match started {
        Ok(running) => {
            let _ = write!(report, "{READY} {}", std::process::id());
            drop(report);
            i32::from(running.wait().is_err())
        }
        Err(message) => {
            let _ = write!(report, "{FAILED} {message}");
            1
        }
    }
}

/// Lets go of the working directory and of whatever reads the output.
fn close_doors() -> io::Result<()> {
    std::env::set_current_dir("/")?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    (0..3).try_for_each(|standard| sys::replace(standard, nothing.as_fd()))
}

/// Tells a supervisor at `socket`, the value of `NOTIFY_SOCKET`, that the mount
/// can be used.
///
/// # Errors
/// When there is no such socket. Protocol: sd_notify(3).
pub fn notify_ready(socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(OsString::from(socket))?,
    };
    let message = format!("READY=1\nMAINPID={}\n", std::process::id());
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}
