//! Signals that wait to be asked for.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd;
use std::time::Duration;

use super::check;

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

/// A timer that continues this process (SIGCONT), again and again once it has run out.
///
/// Whoever is stopped has its timers run on, and SIGCONT continues a process whatever that does
/// with the signal, which is nothing (signal(7), timer_create(2)).
#[derive(Debug)]
pub(crate) struct ContinueTimer(libc::timer_t);

// SAFETY: the kernel knows a timer by a number, in all threads of a process.
unsafe impl Send for ContinueTimer {}

impl ContinueTimer {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a sigevent of zeroes is valid.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGCONT;
        let mut timer = std::ptr::null_mut();
        // SAFETY: both pointers are to what the call expects, and outlive it.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        check(made).map(|_| Self(timer))
    }

    /// Has it run out so long from now.
    pub(crate) fn put_off(&self, by: Duration) -> io::Result<()> {
        let seconds = libc::time_t::try_from(by.as_secs()).map_err(io::Error::other)?;
        let time = libc::timespec { tv_sec: seconds, tv_nsec: by.subsec_nanos().into() };
        let setting = libc::itimerspec { it_interval: time, it_value: time };
        // SAFETY: the timer exists for as long as the process, and the pointer is to a setting.
        check(unsafe { libc::timer_settime(self.0, 0, &raw const setting, std::ptr::null_mut()) })
            .map(drop)
    }
}
