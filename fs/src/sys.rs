//! The system calls that std does not offer.

#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cairn_store::NoProc;
use fuser::{FileHandle, FopenFlags, ReplyOpen};

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

/// Puts this process, which has one thread, into a user namespace of its own.
pub(crate) fn own_users() -> io::Result<()> {
    // SAFETY: only concerns this process.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }).map(drop)
}

/// Gives this thread a working directory of its own.
pub(crate) fn own_directory() -> io::Result<()> {
    // SAFETY: only concerns this thread.
    check(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
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

/// umount2(2).
pub(crate) fn unmount(target: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = c_string(target.as_os_str())?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// The user of the process at the other end, as it was when it connected.
pub(crate) fn peer_user(stream: &UnixStream) -> io::Result<libc::uid_t> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of_val(&credentials)).expect("it has 12 bytes");
    // SAFETY: the pointers are to a ucred and to its length, both writable for
    // the length of the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    check(result)?;
    Ok(credentials.uid)
}

/// Room for one control message with one descriptor, aligned as it must be.
#[repr(C, align(8))]
struct Ancillary([u8; 64]);

/// Receives one descriptor that the other end sends with a byte, as
/// `fusermount3` does.
pub(crate) fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    match receive_message(stream, &mut [0])? {
        (1, Some(descriptor)) => Ok(descriptor),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Receives a message into `buf`, and the one descriptor that comes with it, if
/// any.
pub(crate) fn receive_message(
    socket: &impl AsFd,
    buf: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut ancillary = Ancillary([0; 64]);
    let mut message = empty_message(&mut part, &mut ancillary);
    // For one: the kernel closes others.
    message.msg_controllen = message_len();
    let socket = socket.as_fd().as_raw_fd();
    let received = loop {
        // SAFETY: `message` points to `part` and `ancillary`, which outlive the
        // call and have the lengths that it says.
        let result = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(result) {
            Ok(len) => break len,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    };
    let has_all = message.msg_flags & libc::MSG_CTRUNC == 0;
    // SAFETY: the kernel has filled `message`, which still points to live data.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if header.is_null() {
        return if has_all { Ok((received, None)) } else { Err(io::ErrorKind::InvalidData.into()) };
    }
    // SAFETY: CMSG_FIRSTHDR gives an aligned header inside `ancillary`, or null.
    let header_value = unsafe { *header };
    let is_one_descriptor = header_value.cmsg_level == libc::SOL_SOCKET
        && header_value.cmsg_type == libc::SCM_RIGHTS
        && header_value.cmsg_len == message_len();
    if !is_one_descriptor {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the header says that one descriptor follows it.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: as above; the bytes need not be aligned.
    let descriptor = unsafe { data.cast::<libc::c_int>().read_unaligned() };
    // SAFETY: the kernel has just made the descriptor for this process, and
    // nothing else knows of it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    if has_all { Ok((received, Some(descriptor))) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Sends a copy of a descriptor to the other end.
pub(crate) fn send_descriptor(stream: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send_message(stream, &[0], descriptor)
}

/// Sends a message with a copy of a descriptor to the other end.
pub(crate) fn send_message(
    socket: &impl AsFd,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut bytes = bytes.to_vec();
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut ancillary = Ancillary([0; 64]);
    let mut message = empty_message(&mut part, &mut ancillary);
    let header = libc::cmsghdr {
        cmsg_len: message_len(),
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    // SAFETY: CMSG_SPACE only computes.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(DESCRIPTOR_LEN) } as usize;
    // SAFETY: the control buffer is aligned for a header and large enough.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: as above; the header lies inside `ancillary`.
    unsafe { first.write(header) };
    // SAFETY: as above; there is room for one descriptor behind the header.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: as above; the bytes need not be aligned.
    unsafe { data.cast::<libc::c_int>().write_unaligned(descriptor.as_raw_fd()) };
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `message` points to `part` and `ancillary`, which outlive the call
    // and have the lengths that it says.
    let sent = unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Ok(len) if len == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Length of a descriptor in a control message.
const DESCRIPTOR_LEN: u32 = 4;
const _: () = assert!(size_of::<libc::c_int>() == 4, "an int has 32 bits on Linux");

/// Length of a control message that carries one descriptor.
fn message_len() -> usize {
    // SAFETY: CMSG_LEN only computes.
    unsafe { libc::CMSG_LEN(DESCRIPTOR_LEN) as usize }
}

fn empty_message(part: &mut libc::iovec, ancillary: &mut Ancillary) -> libc::msghdr {
    // SAFETY: a msghdr of zeroes is valid: null pointers with length 0.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    message
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

/// Waits until one of some descriptors can be read or has been closed at its
/// other end; all are `false` when `timeout` has passed.
pub(crate) fn wait_readable<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = descriptors.map(|descriptor| libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    // Not less than it is: whoever waits for a moment would ask again and again before it.
    let milliseconds = |timeout: Duration| timeout.as_micros().div_ceil(1000);
    let timeout =
        timeout.map_or(-1, |timeout| i32::try_from(milliseconds(timeout)).unwrap_or(i32::MAX));
    let len = libc::nfds_t::try_from(N).expect("there are few descriptors");
    // SAFETY: the pointer is to `len` pollfds, which outlive the call.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), len, timeout) };
    match check(result) {
        Err(err) if err.kind() == io::ErrorKind::Interrupted => Ok([false; N]),
        result => result.map(|_| polled.map(|polled| polled.revents != 0)),
    }
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

/// Gives this thread a root and a working directory of its own (unshare(2), CLONE_FS).
pub(crate) fn own_directories() -> io::Result<()> {
    // SAFETY: only concerns what this thread takes paths to mean.
    check(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}

/// setsid(2).
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: takes nothing and only concerns this process.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Makes `descriptor` a copy of `by`, kept across exec.
pub(crate) fn replace(descriptor: libc::c_int, by: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are plain numbers; what `descriptor` was is used by number
    // alone, as standard input and output are.
    check(unsafe { libc::dup2(by.as_raw_fd(), descriptor) }).map(drop)
}

/// Makes `descriptor` refer to what `by` refers to, under its own number.
pub(crate) fn redirect(descriptor: BorrowedFd<'_>, by: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open; whoever owns `descriptor` goes on owning an open one.
    check(unsafe { libc::dup3(by.as_raw_fd(), descriptor.as_raw_fd(), libc::O_CLOEXEC) }).map(drop)
}

/// Two connected sockets that keep messages apart.
pub(crate) fn message_pair() -> io::Result<(File, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the pointer is to two ints, which outlive the call.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    // SAFETY: it is new, and nobody else owns it.
    let one = unsafe { File::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let other = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    Ok((one, other))
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

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: initialises the set, which is writable.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has initialised it.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the set is initialised; a number that is no signal is refused.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// Signals that wait to be asked for, in this thread and in those that it
/// starts, until this is dropped.
#[derive(Debug)]
pub(crate) struct HeldSignals {
    waited_for: libc::sigset_t,
    before: libc::sigset_t,
}

/// A signal that has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    pub(crate) number: libc::c_int,
    /// Whether a process has sent it, in contrast to the kernel, which sends to
    /// all processes of a terminal.
    pub(crate) is_from_process: bool,
}

/// Signals that ask a process to end, or that mean what programs agree on.
const PASSED_ON: [libc::c_int; 8] = [
    libc::SIGCHLD,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
];

impl HeldSignals {
    /// Holds what a process that runs another one passes on, and SIGCHLD.
    pub(crate) fn hold() -> io::Result<Self> {
        // With SIGTTOU blocked a process may take the terminal back.
        Self::hold_these(&PASSED_ON, &[libc::SIGTTOU])
    }

    /// Holds `waited_for` and `others`.
    pub(crate) fn hold_these(
        waited_for: &[libc::c_int],
        others: &[libc::c_int],
    ) -> io::Result<Self> {
        let held = signal_set(&[waited_for, others].concat());
        let mut before = signal_set(&[]);
        // SAFETY: both sets are initialised and outlive the call.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const held, &raw mut before) };
        match result {
            0 => Ok(Self { waited_for: signal_set(waited_for), before }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for the next of the signals.
    pub(crate) fn wait(&self) -> io::Result<Signal> {
        loop {
            let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
            // SAFETY: the set is initialised, and the pointer is to a siginfo.
            let result =
                unsafe { libc::sigwaitinfo(&raw const self.waited_for, info.as_mut_ptr()) };
            match check(result) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    let number = result?;
                    // SAFETY: zeroes are a valid siginfo, and the call has filled it.
                    let info = unsafe { info.assume_init() };
                    return Ok(Signal { number, is_from_process: info.si_code <= 0 });
                }
            }
        }
    }
}

impl HeldSignals {
    /// A descriptor from which the number of each signal that comes can be read
    /// with [`next_signal`].
    pub(crate) fn descriptor(&self) -> io::Result<File> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is initialised and outlives the call.
        let descriptor = unsafe { libc::signalfd(-1, &raw const self.waited_for, flags) };
        check(descriptor)?;
        // SAFETY: it is new, and nobody else owns it.
        Ok(unsafe { File::from_raw_fd(descriptor) })
    }

    /// Has signals that this process held when it began be released with the others.
    pub(crate) fn forget_before(&mut self) {
        self.before = signal_set(&[]);
    }

    /// Holds what was held before, and nothing else.
    pub(crate) fn release(&self) {
        // SAFETY: the set is what the same call has given, and the old one is
        // not asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut())
        };
    }
}

/// The next signal, if one has come.
pub(crate) fn next_signal(mut signals: &File) -> io::Result<Option<libc::c_int>> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    match signals.read_exact(&mut info) {
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(err) => Err(err),
        // The structure begins with the number.
        Ok(()) => {
            let [a, b, c, d, ..] = info;
            Ok(libc::c_int::try_from(u32::from_ne_bytes([a, b, c, d])).ok())
        }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        self.release();
    }
}

/// Whether this process has only one thread.
pub(crate) fn is_alone() -> io::Result<bool> {
    Ok(std::fs::read_dir("/proc/self/task").map_err(NoProc::or)?.count() == 1)
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

/// Makes `new` the root directory, and mounts the old one on `old`.
pub(crate) fn pivot_root(new: &Path, old: &Path) -> io::Result<()> {
    let (new, old) = (c_string(new.as_os_str())?, c_string(old.as_os_str())?);
    // SAFETY: both paths are NUL-terminated and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes what is mounted on `target`, and on directories below, read-only.
pub(crate) fn make_read_only(target: &Path) -> io::Result<()> {
    let target = c_string(target.as_os_str())?;
    let change = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is NUL-terminated, the pointer is to a mount_attr of the
    // size given, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const change,
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

/// Whether the first thread of a process has ended, and the process is or will
/// be gone.
pub(crate) fn is_ending(process: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
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

/// Closes all descriptors that are not standard input, output or error, which
/// this process may have inherited and knows nothing of.
pub(crate) fn close_all_but_standard(kept: &UnixStream) -> io::Result<()> {
    let kept = libc::c_uint::try_from(kept.as_raw_fd()).map_err(io::Error::other)?;
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, libc::c_uint::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: the caller has opened nothing else, so that nobody owns them.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
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
