//! Processes: made, replaced, told apart, ended and waited for.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use cairn_store::NoProc;

use super::check;

/// Puts this process, which has one thread, into a user namespace of its own.
pub(crate) fn own_users() -> io::Result<()> {
    // SAFETY: only concerns this process.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }).map(drop)
}

/// A user namespace in which nothing runs, with what its uid_map and gid_map are to say
/// (user_namespaces(7)). The caller is root of the machine, and has one thread.
pub(crate) fn user_namespace(users: &str, groups: &str) -> io::Result<OwnedFd> {
    let (mut began, begins) = io::pipe()?;
    let (lasts, last) = io::pipe()?;
    let child = match fork()? {
        Forked::Parent(child) => child,
        Forked::Child => {
            drop((began, last));
            let errno = own_users().map_err(|err| err.raw_os_error().unwrap_or(libc::EPERM));
            let _ = (&begins).write_all(&errno.err().unwrap_or(0).to_ne_bytes());
            // Ends when the other one has done its part, or has ended itself.
            let _ = (&lasts).read(&mut [0]);
            exit(0)
        }
    };
    drop((begins, lasts));
    let mut namespace = || {
        let mut errno = [0; size_of::<libc::c_int>()];
        began.read_exact(&mut errno)?;
        match libc::c_int::from_ne_bytes(errno) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        fs::write(format!("/proc/{child}/uid_map"), users).map_err(NoProc::or)?;
        fs::write(format!("/proc/{child}/gid_map"), groups).map_err(NoProc::or)?;
        File::open(format!("/proc/{child}/ns/user")).map(OwnedFd::from).map_err(NoProc::or)
    };
    let namespace = namespace();
    drop(last);
    wait_for(child)?;
    namespace
}

/// Gives this thread a root and a working directory of its own (unshare(2), CLONE_FS).
pub(crate) fn own_directory() -> io::Result<()> {
    // SAFETY: only concerns what this thread takes paths to mean.
    check(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}

/// Which of two processes this is after [`fork`].
pub(crate) enum Forked {
    /// The one that forked, with the number of the other.
    Parent(libc::pid_t),
    /// The new one.
    Child,
}

/// fork(2). The caller has made sure that there is only one thread.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: with one thread nothing is left locked or half done in the copy.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent(child)),
    }
}

/// Goes on as the program in a file, which has to be open; returns why it cannot.
pub(crate) fn execute(program: &File, words: &[CString], variables: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| {
        let texts = texts.iter().map(|text| text.as_ptr());
        texts.chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (words, variables) = (pointers(words), pointers(variables));
    // SAFETY: both lists end with a null pointer, and their texts with a NUL; all of them
    // outlive the call.
    unsafe { libc::fexecve(program.as_raw_fd(), words.as_ptr(), variables.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, without running what was registered for its end
/// by the process that it is a copy of.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: has no requirements.
    unsafe { libc::_exit(code) }
}

/// setsid(2).
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: takes nothing and only concerns this process.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Waits until a child has ended, and gives how, as waitpid(2) does.
pub(crate) fn wait_for(child: libc::pid_t) -> io::Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to an int that outlives the call.
        match check(unsafe { libc::waitpid(child, &raw mut status, 0) }) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|_| status),
        }
    }
}

/// Whether this process has only one thread.
pub(crate) fn is_alone() -> io::Result<bool> {
    Ok(fs::read_dir("/proc/self/task").map_err(NoProc::or)?.count() == 1)
}

/// What a process has of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// What the process has that makes it.
    OfCaller,
    /// Nothing.
    None,
}

/// Makes a process like [`fork`], as the first of new namespaces for mounts,
/// processes, IPC and host name, and for users if asked.
pub(crate) fn clone_into_namespaces(with_users: bool, network: Network) -> io::Result<Forked> {
    let mut flags =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if with_users {
        flags |= libc::CLONE_NEWUSER;
    }
    if network == Network::None {
        flags |= libc::CLONE_NEWNET;
    }
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack of its own this is fork; as
    // there, one thread leaves nothing locked or half done in the copy.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent(libc::pid_t::try_from(child).unwrap_or(libc::pid_t::MAX))),
    }
}

/// Has this process killed when the thread that made it ends.
///
/// # Errors
/// Those of the system. A parent that has ended before is not noticed.
pub fn end_with_parent() -> io::Result<()> {
    // SAFETY: takes a number and only concerns this process.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
}

/// kill(2).
pub(crate) fn kill(process: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: only sends a signal.
    check(unsafe { libc::kill(process, signal) }).map(drop)
}

/// Whether there is a process of this number.
pub(crate) fn exists(process: libc::pid_t) -> bool {
    // Signal 0 is sent to nobody.
    !matches!(kill(process, 0), Err(err) if err.raw_os_error() == Some(libc::ESRCH))
}

/// A descriptor that can be read from when the calling thread has ended; nothing
/// where the kernel has no such (Linux has since 6.9). It must not be the first
/// thread of its process, of which the kernel says nothing while there are others.
pub(crate) fn own_thread() -> Option<OwnedFd> {
    // PIDFD_THREAD in linux/pidfd.h.
    let flags = rustix::process::PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
    rustix::process::pidfd_open(rustix::thread::gettid(), flags).ok()
}

/// The user by whom the kernel checks what a thread does with files; nothing when it cannot be
/// told, since there is no such thread or no /proc.
pub(crate) fn filesystem_user(thread: libc::pid_t) -> Option<libc::uid_t> {
    let status = fs::read(format!("/proc/{thread}/status")).ok()?;
    // The name of the program comes before, with its line ends escaped (proc_pid_status(5)).
    let users = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    // Real, effective, saved, filesystem.
    std::str::from_utf8(users).ok()?.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// Whether the first thread of a process has ended, and the process is or will
/// be gone.
pub(crate) fn is_ending(process: libc::pid_t) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    // The state follows the name, which may hold anything.
    stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// A child that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) child: libc::pid_t,
    /// Its exit code, or 128 and the signal that ended it.
    pub(crate) code: i32,
}

/// The child if it has ended, or any that has for [`ANY_CHILD`]; each is given
/// once. Does not wait.
pub(crate) fn next_ended(child: libc::pid_t) -> io::Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: the pointer is to an int that outlives the call.
    match check(unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) }) {
        Ok(0) => Ok(None),
        Err(err) if err.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        result => result.map(|child| Some(Ended { child, code: exit_code(status) })),
    }
}

/// Stands for every child of this process.
pub(crate) const ANY_CHILD: libc::pid_t = -1;

fn exit_code(status: libc::c_int) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

/// Makes this process's group that of the terminal again, after a child that
/// had its own. SIGTTOU has to be blocked.
pub(crate) fn take_terminal_back() {
    // SAFETY: takes nothing and cannot fail.
    let group = unsafe { libc::getpgrp() };
    // SAFETY: without a terminal it fails, and there is nothing to take back.
    unsafe { libc::tcsetpgrp(0, group) };
}

/// Waits until any child has ended, and gives it and how, as waitpid(2) does.
pub(crate) fn wait_for_any() -> io::Result<(libc::pid_t, libc::c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to an int that outlives the call.
        match check(unsafe { libc::waitpid(ANY_CHILD, &raw mut status, 0) }) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|child| (child, status)),
        }
    }
}
