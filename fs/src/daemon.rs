//! Leaving a mount behind in the background, with somebody who keeps it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::confined::confine;
use crate::error::{Error, Result, with_causes};
use crate::event::{Event, Journal};
use crate::keeper::{Keeper, Kept, THREAD};
use crate::mount::Running;
use crate::sys::{self, Forked, HeldSignals};

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
    stay_behind(|report| live(start, Some(report), false))
}

/// Like [`background`], with a second process that keeps the mount and starts
/// another process when the first one dies without having unmounted it.
///
/// `start` is called in each of these: with nothing to take over in the first,
/// which is to leave its mount with the keeper, and with what a dead process has
/// left in the others, which are to [`resume`](crate::resume) it.
///
/// # Errors
/// As of [`background`].
pub fn background_kept<E: std::error::Error>(
    start: impl Fn(&Keeper, Option<Kept>) -> Result<Running, E>,
    keeping: &Keeping,
) -> Result<u32> {
    stay_behind(|report| keep_alive(start, report, keeping).unwrap_or(1))
}

/// How a mount is kept.
#[derive(Clone)]
pub struct Keeping {
    /// The mount, as events name it.
    pub target: String,
    /// What hears of processes that have died.
    pub journal: Journal,
    /// Whether it is the root of the system. The keeper stays in memory as a whole then, so
    /// that it can start another process while nobody answers for the root; and keeper and
    /// process are [confined](crate::confine) to the working directory, the store.
    pub is_system_root: bool,
}

fn stay_behind(life: impl FnOnce(PipeWriter) -> i32) -> Result<u32> {
    let failed = |source| Error::Process { source };
    if !sys::is_alone().map_err(failed)? {
        return Err(Error::Threads);
    }
    let (mut answer, report) = io::pipe().map_err(failed)?;
    let child = match sys::fork().map_err(failed)? {
        Forked::Child => {
            drop(answer);
            sys::exit(separate(life, report))
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

/// Becomes a process that stays behind, and lives; the result is its exit code.
fn separate(life: impl FnOnce(PipeWriter) -> i32, mut report: PipeWriter) -> i32 {
    // The second copy is no leader of its session, so that it never gets a
    // terminal by opening one.
    match sys::new_session().and_then(|()| sys::fork()) {
        Ok(Forked::Parent(_)) => 0,
        Ok(Forked::Child) => life(report),
        Err(err) => {
            let _ = write!(report, "{FAILED} {err}");
            1
        }
    }
}

/// Is the process of a mount until that ends; the result is its exit code.
fn live<E: std::error::Error>(
    start: impl FnOnce() -> Result<Running, E>,
    report: Option<PipeWriter>,
    stays: bool,
) -> i32 {
    let started = start().map_err(|err| with_causes(&err));
    // Only now, so that `start` finds relative paths.
    let started = started.and_then(|running| match close_doors(stays) {
        Ok(()) => Ok(running),
        Err(err) => Err(err.to_string()),
    });
    // Whoever waits for the report may have gone; the mount works without.
    match started {
        Ok(running) => {
            if let Some(mut report) = report {
                let _ = write!(report, "{READY} {}", std::process::id());
            }
            i32::from(running.wait().is_err())
        }
        Err(message) => {
            if let Some(mut report) = report {
                let _ = write!(report, "{FAILED} {message}");
            }
            1
        }
    }
}

/// A process of a mount that ends sooner has something wrong with it.
const SHORT_LIFE: Duration = Duration::from_millis(200);

/// After so many short lives one after the other there is no point in more:
/// whoever uses the mount should get errors rather than wait for ever.
const MAX_SHORT_LIVES: u32 = 16;

/// How a process of a mount has ended.
struct Life {
    /// Its exit code, or 128 and the signal that ended it.
    code: i32,
    /// Whether it had come to answer the kernel.
    was_ready: bool,
}

impl Life {
    /// Whether somebody else has ended it, who is not to be taken for a defect.
    fn was_taken(&self) -> bool {
        self.was_ready && self.code == 128 + libc::SIGKILL
    }
}

/// Keeps a mount, and starts one process after the other for it until one ends
/// in good order; the result is the exit code.
fn keep_alive<E: std::error::Error>(
    start: impl Fn(&Keeper, Option<Kept>) -> Result<Running, E>,
    report: PipeWriter,
    keeping: &Keeping,
) -> io::Result<i32> {
    let Keeping { target, journal, is_system_root } = keeping;
    if *is_system_root && let Err(source) = sys::lock_memory() {
        journal(&Event::NotLocked { source });
    }
    let signals =
        HeldSignals::hold_these(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP], &[])?;
    let incoming = signals.descriptor()?;
    let (keeper, messages) = Keeper::pair()?;
    let (mut kept, mut report) = (Kept::default(), Some(report));
    let mut short_lives = 0;
    loop {
        let begun = Instant::now();
        let child = match sys::fork()? {
            Forked::Child => {
                signals.release();
                drop((incoming, messages));
                let inherited = kept.has_mount().then_some(kept);
                let begin = || {
                    let is_successor = inherited.is_some();
                    let running = start(&keeper, inherited).inspect_err(|err| {
                        // The first one tells whoever waits for it.
                        if is_successor {
                            let message = with_causes(err);
                            journal(&Event::NotResumed { target: target.clone(), message });
                        }
                    })?;
                    leave_thread(&keeper);
                    // If nobody hears it, nobody needs to.
                    let _ = keeper.ready();
                    Ok::<Running, E>(running)
                };
                sys::exit(live(begin, report, *is_system_root))
            }
            Forked::Parent(child) => child,
        };
        if report.take().is_some() {
            close_doors(*is_system_root)?;
        }
        let life = wait_and_keep(child, &incoming, &messages, &mut kept)?;
        let code = life.code;
        // Nothing to keep: it is unmounted, or was never mounted.
        if code == 0 || !kept.has_mount() {
            return Ok(code);
        }
        let is_short = begun.elapsed() < SHORT_LIFE && !life.was_taken();
        short_lives = if is_short { short_lives + 1 } else { 0 };
        let target = target.clone();
        if short_lives > MAX_SHORT_LIVES {
            journal(&Event::GivenUp { target });
            return Ok(1);
        }
        if short_lives > 2 {
            thread::sleep(Duration::from_millis(1 << short_lives.min(10)));
        }
        journal(&Event::Succeeded { target, code });
    }
}

/// Leaves with the keeper what says that a thread of this process has ended, as
/// all do at once on SIGKILL: that not all have ended keeps it from being seen as
/// ended. Without it the mount works as well.
fn leave_thread(keeper: &Keeper) {
    let (keeper, (left, is_left)) = (keeper.clone(), mpsc::channel());
    let live = move || {
        if let Some(thread) = sys::own_thread() {
            let _ = keeper.keep(THREAD, thread.as_fd());
        }
        drop(left);
        loop {
            thread::park();
        }
    };
    let thread = thread::Builder::new().name("alive".into()).stack_size(64 << 10).spawn(live);
    if thread.is_ok() {
        let _: std::result::Result<(), _> = is_left.recv();
    }
}

/// How long a process takes to end once a thread of it has ended, unless another
/// waits for an answer of the mount itself.
const END: Duration = Duration::from_millis(200);

/// Waits until a process of a mount has ended, and keeps what it leaves; passes
/// on signals that ask for the end.
///
/// A thread that tells the kernel of a change waits for whoever works in that
/// directory, who waits for an answer; SIGKILL does not end that. So such a
/// process ends only when the next one has given the answer, and counts as ended.
fn wait_and_keep(
    child: libc::pid_t,
    signals: &File,
    messages: &UnixDatagram,
    kept: &mut Kept,
) -> io::Result<Life> {
    let (mut was_ready, mut thread, mut stuck_at) = (false, None, None);
    loop {
        let ended = thread.as_ref().map_or(messages.as_fd(), OwnedFd::as_fd);
        let rest = stuck_at.map(|at: Instant| at.saturating_duration_since(Instant::now()));
        let descriptors = [signals.as_fd(), messages.as_fd(), ended];
        let [signal, message, thread_has_ended] = sys::wait_readable(descriptors, rest)?;
        if message {
            was_ready |= kept.receive(messages)?;
            thread = kept.take(THREAD).or(thread);
            // What was left before the end is kept before the end is noticed.
            continue;
        }
        while signal && let Some(signal) = sys::next_signal(signals)? {
            if signal != libc::SIGCHLD {
                // It may have ended already.
                let _ = sys::kill(child, signal);
                continue;
            }
            // Those that were stuck come here as well.
            while let Some(ended) = sys::next_ended(sys::ANY_CHILD)? {
                if ended.child == child {
                    return Ok(Life { code: ended.code, was_ready });
                }
            }
        }
        if thread_has_ended || stuck_at.is_some_and(|at| Instant::now() >= at) {
            if stuck_at.is_some() && sys::is_ending(child) {
                return Ok(Life { code: 128 + libc::SIGKILL, was_ready });
            }
            thread = None;
            stuck_at = Some(Instant::now() + END);
        }
    }
}

/// Lets go of whatever reads the output, and of the working directory, unless this process
/// `stays` in there.
fn close_doors(stays: bool) -> io::Result<()> {
    let nothing = nothing()?;
    (0..3).try_for_each(|standard| sys::replace(standard, nothing.as_fd()))?;
    if stays { confine() } else { std::env::set_current_dir("/") }
}

/// What gives nothing, and lets go of what it is given.
///
/// Where there is no /dev/null, the reading end of a pipe that nobody writes to: its input
/// has ended, and what is written there is refused with EBADF, which the standard library
/// takes for written. Nobody waits for it, gets a signal or fills memory, and it keeps no
/// filesystem in use.
fn nothing() -> io::Result<OwnedFd> {
    match File::options().read(true).write(true).open("/dev/null") {
        Ok(null) => Ok(null.into()),
        Err(_) => io::pipe().map(|(end, _)| end.into()),
    }
}

/// Tells a supervisor at `socket`, the value of `NOTIFY_SOCKET`, that the mount
/// can be used.
///
/// # Errors
/// When there is no such socket. Protocol: sd_notify(3).
pub fn notify_ready(socket: &OsStr) -> io::Result<()> {
    Keeper::supervisor(socket)?.ready()
}
