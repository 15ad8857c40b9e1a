//! The system calls that the standard library does not offer.

#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// A time as the clock on the wall shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WallClock {
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
}

/// The effective user and group of this process.
pub(crate) fn user_and_group() -> (u32, u32) {
    // SAFETY: it takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    // SAFETY: as above.
    (user, unsafe { libc::getegid() })
}

/// Takes a descriptor that this process was started with; programs that it starts do
/// not get it.
///
/// # Errors
/// When there is none of this number.
pub(crate) fn inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it takes numbers, and fails where no such descriptor is open.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and whoever started this process gave it to the one caller
    // that asks for it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// How many columns the terminal behind `fd` has; `None` when there is no
/// terminal, or one that does not say.
pub(crate) fn columns(fd: BorrowedFd<'_>) -> Option<usize> {
    window(fd).map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// How many lines the terminal behind `fd` has, in the same way.
pub(crate) fn rows(fd: BorrowedFd<'_>) -> Option<usize> {
    window(fd).map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 0)
}

fn window(fd: BorrowedFd<'_>) -> Option<libc::winsize> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the descriptor is open for the length of the call, and TIOCGWINSZ
    // writes at most one `winsize` to where its argument points.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    // SAFETY: all-zero bytes are a valid `winsize`, so it was one from the start.
    Some(unsafe { size.assume_init() })
}

/// The local time `seconds` after 1970 began in UTC; `None` for years that the
/// C library cannot count.
pub(crate) fn local_time(seconds: i64) -> Option<WallClock> {
    let mut time = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right types; localtime_r
    // keeps neither. The program never changes its environment, so that reading
    // TZ does not race.
    let result = unsafe { libc::localtime_r(&raw const seconds, time.as_mut_ptr()) };
    if result.is_null() {
        return None;
    }
    // SAFETY: localtime_r succeeded and has filled every field.
    WallClock::new(&unsafe { time.assume_init() })
}

/// The time in UTC, otherwise like [`local_time`].
pub(crate) fn utc_time(seconds: i64) -> Option<WallClock> {
    let mut time = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right types; gmtime_r
    // keeps neither.
    let result = unsafe { libc::gmtime_r(&raw const seconds, time.as_mut_ptr()) };
    if result.is_null() {
        return None;
    }
    // SAFETY: gmtime_r succeeded and has filled every field.
    WallClock::new(&unsafe { time.assume_init() })
}

impl WallClock {
    fn new(time: &libc::tm) -> Option<Self> {
        Some(Self {
            year: time.tm_year.checked_add(1900)?,
            month: time.tm_mon + 1,
            day: time.tm_mday,
            hour: time.tm_hour,
            minute: time.tm_min,
            second: time.tm_sec,
        })
    }
}

/// Whether the program runs with the rights of root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes no argument and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Where a signal is noted; the handler can reach nothing else.
static NOTED: AtomicPtr<AtomicI32> = AtomicPtr::new(std::ptr::null_mut());

/// Has the first SIGINT, SIGTERM and SIGHUP written to `noted`; a second one of
/// the same does what it does otherwise.
pub(crate) fn note_signals(noted: &'static AtomicI32) -> io::Result<()> {
    NOTED.store(std::ptr::from_ref(noted).cast_mut(), Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: zeroes are a valid sigaction: no flags, and an empty mask.
        let action = unsafe { action.assume_init_mut() };
        action.sa_sigaction = note_signal as *const () as libc::sighandler_t;
        // Without SA_RESTART, so that reading from a pipe ends.
        action.sa_flags = libc::SA_RESETHAND;
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the handler has the type that sa_flags without SA_SIGINFO
        // demand, and does only what signal-safety(7) allows; both pointers are
        // to live values.
        let result = unsafe { libc::sigaction(signal, action, before.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroes are a valid sigaction, and the call has filled it.
        let before = unsafe { before.assume_init() };
        // What nohup(1) and background jobs of shells ignore stays ignored.
        if before.sa_sigaction == libc::SIG_IGN {
            // SAFETY: as above; this is what the kernel has just given.
            unsafe { libc::sigaction(signal, &raw const before, std::ptr::null_mut()) };
        }
    }
    Ok(())
}

extern "C" fn note_signal(signal: libc::c_int) {
    // SAFETY: the pointer is null or comes from a reference to a static.
    if let Some(noted) = unsafe { NOTED.load(Ordering::Relaxed).as_ref() } {
        noted.store(signal, Ordering::Relaxed);
    }
}
