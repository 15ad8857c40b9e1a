//! Descriptors: sent, received, exchanged and waited for.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::check;

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
