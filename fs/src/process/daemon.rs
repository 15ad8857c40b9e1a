//! Leaving a mount behind in the background, with somebody who keeps it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, with_causes};
use crate::event::{Event, Journal};
use crate::mount::Running;
use crate::process::confined::confine;
use crate::process::control;
use crate::process::keeper::{ASKER, KEEPER, Keeper, Kept, MESSAGES, PROGRAM, THREAD};
use crate::process::successor::{self, Candidate, Inheritance, Role, Stage};
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
    let keep = |report| Keep::new(keeping)?.live(start, Some(report), None);
    stay_behind(|report| keep(report).unwrap_or(1))
}

/// Is what a keeper has started this program as, when a mount is to go on with it: the next
/// process of the mount, or its keeper. Returns the exit code, when the mount has ended for it.
///
/// `check` is to say whether this program can serve the mount; `start` is called as by
/// [`background_kept`], with something to take over. What the keeper gives comes over
/// standard input.
///
/// # Errors
/// When the keeper gives nothing, or not what belongs to it.
pub fn succeed<E: std::error::Error>(
    role: Role,
    check: impl FnOnce() -> Result<(), E>,
    start: impl Fn(&Keeper, Option<Kept>) -> Result<Running, E>,
    keeping: &Keeping,
) -> io::Result<i32> {
    let mut inheritance = Inheritance::open()?;
    // What this program needs is in memory before nobody answers.
    keeping.lock_memory();
    match role {
        Role::Process => {
            if !inheritance.check(|| check().map_err(|err| with_causes(&err)))? {
                return Ok(1);
            }
            inheritance.wait_to_go()?;
            let mut kept = inheritance.kept;
            let keeper = kept.take(KEEPER).ok_or(io::ErrorKind::NotFound)?;
            let keeper = Keeper::ours(UnixDatagram::from(keeper));
            let begin = || begin(&start, &keeper, Some(kept), keeping);
            Ok(live(begin, None, keeping.is_system_root))
        }
        Role::Keeper => {
            let child = inheritance.wait_to_go()?.ok_or(io::ErrorKind::InvalidData)?;
            Keep::resume(keeping, inheritance.kept)?.live(start, None, Some(child))
        }
    }
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
    /// How another program is called that is to go on with the mount, which it hands to
    /// [`succeed`]; a word for the [`Role`] follows.
    pub successor: Vec<OsString>,
}

impl Keeping {
    fn lock_memory(&self) {
        if self.is_system_root
            && let Err(source) = sys::lock_memory()
        {
            (self.journal)(&Event::NotLocked { source });
        }
    }
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

/// Mounts or takes over, and tells the keeper of it.
fn begin<E: std::error::Error>(
    start: impl Fn(&Keeper, Option<Kept>) -> Result<Running, E>,
    keeper: &Keeper,
    inherited: Option<Kept>,
    keeping: &Keeping,
) -> Result<Running, E> {
    let is_successor = inherited.is_some();
    let running = start(keeper, inherited).inspect_err(|err| {
        // The first one tells whoever waits for it.
        if is_successor {
            let (target, message) = (keeping.target.clone(), with_causes(err));
            (keeping.journal)(&Event::NotResumed { target, message });
        }
    })?;
    leave_thread(keeper);
    // If nobody hears it, nobody needs to.
    let _ = keeper.ready();
    Ok(running)
}

/// A keeper at work.
struct Keep<'k> {
    keeping: &'k Keeping,
    signals: HeldSignals,
    incoming: File,
    /// Both ends of the socket over which processes speak to the keeper.
    keeper: Keeper,
    messages: UnixDatagram,
    kept: Kept,
    /// Whether the first process began to answer the kernel before this one kept it.
    was_ready: bool,
    /// Another program that is to go on with the mount.
    candidate: Option<Candidate>,
}

impl<'k> Keep<'k> {
    fn new(keeping: &'k Keeping) -> io::Result<Self> {
        keeping.lock_memory();
        let (keeper, messages) = Keeper::pair()?;
        let signals = Self::hold_signals()?;
        Self::with(keeping, signals, (keeper, messages), Kept::default())
    }

    /// Goes on in place of a keeper that was this process and another program.
    fn resume(keeping: &'k Keeping, mut kept: Kept) -> io::Result<Self> {
        let [messages, keeper] = [MESSAGES, KEEPER].map(|name| kept.take(name).map(Into::into));
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let socket = (Keeper::ours(keeper.ok_or_else(missing)?), messages.ok_or_else(missing)?);
        let mut signals = Self::hold_signals()?;
        // They have been held all the time.
        signals.forget_before();
        close_doors(keeping.is_system_root)?;
        if let Some(asker) = kept.take(ASKER) {
            control::answer_restart(asker, Ok(()));
        }
        Ok(Self { was_ready: true, ..Self::with(keeping, signals, socket, kept)? })
    }

    fn with(
        keeping: &'k Keeping,
        signals: HeldSignals,
        (keeper, messages): (Keeper, UnixDatagram),
        kept: Kept,
    ) -> io::Result<Self> {
        let incoming = signals.descriptor()?;
        let (was_ready, candidate) = (false, None);
        Ok(Self { keeping, signals, incoming, keeper, messages, kept, was_ready, candidate })
    }

    fn hold_signals() -> io::Result<HeldSignals> {
        let ends = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
        HeldSignals::hold_these(&ends, &[])
    }

    fn journal(&self, event: &Event) {
        (self.keeping.journal)(event);
    }

    /// Starts one process of the mount after the other, until one ends in good order; `next`
    /// is there already. The result is the exit code.
    fn live<E: std::error::Error>(
        mut self,
        start: impl Fn(&Keeper, Option<Kept>) -> Result<Running, E>,
        mut report: Option<PipeWriter>,
        mut next: Option<libc::pid_t>,
    ) -> io::Result<i32> {
        let mut short_lives = 0;
        loop {
            let begun = Instant::now();
            let child = match next.take() {
                Some(child) => child,
                None => match sys::fork()? {
                    Forked::Child => {
                        self.signals.release();
                        drop((self.incoming, self.messages, self.candidate));
                        let inherited = self.kept.has_mount().then_some(self.kept);
                        let keeping = self.keeping;
                        let begin = || begin(start, &self.keeper, inherited, keeping);
                        sys::exit(live(begin, report, keeping.is_system_root))
                    }
                    Forked::Parent(child) => child,
                },
            };
            if report.take().is_some() {
                close_doors(self.keeping.is_system_root)?;
            }
            let life = self.wait(child)?;
            let code = life.code;
            // Nothing to keep: it is unmounted, or was never mounted.
            if code == 0 || !self.kept.has_mount() {
                return Ok(code);
            }
            if let Some(process) = self.go_on_with_another() {
                next = Some(process);
                continue;
            }
            if let Some(candidate) = self.candidate.take_if(|it| it.stage == Stage::Going) {
                self.has_failed(candidate, code);
                continue;
            }
            let is_short = begun.elapsed() < SHORT_LIFE && !life.was_taken();
            short_lives = if is_short { short_lives + 1 } else { 0 };
            let target = self.keeping.target.clone();
            if short_lives > MAX_SHORT_LIVES {
                self.journal(&Event::GivenUp { target });
                return Ok(1);
            }
            if short_lives > 2 {
                thread::sleep(Duration::from_millis(1 << short_lives.min(10)));
            }
            self.journal(&Event::Succeeded { target, code });
        }
    }

    /// Has another program that is able to go on with the mount do so, if there is one.
    fn go_on_with_another(&mut self) -> Option<libc::pid_t> {
        let candidate = self.candidate.as_mut().filter(|it| it.stage == Stage::Able)?;
        // If it has ended, that is seen when it is waited for.
        let _ = candidate.go(&self.kept);
        Some(candidate.process)
    }

    /// Waits until a process of the mount has ended, and keeps what it leaves; passes
    /// on signals that ask for the end.
    ///
    /// A thread that tells the kernel of a change waits for whoever works in that
    /// directory, who waits for an answer; SIGKILL does not end that. So such a
    /// process ends only when the next one has given the answer, and counts as ended.
    fn wait(&mut self, child: libc::pid_t) -> io::Result<Life> {
        let mut was_ready = std::mem::take(&mut self.was_ready);
        let (mut thread, mut stuck_at) = (self.kept.take(THREAD), None);
        // What has ended before is not told again.
        let mut has_ended = true;
        loop {
            while has_ended && let Some(ended) = sys::next_ended(sys::ANY_CHILD)? {
                if ended.child == child {
                    return Ok(Life { code: ended.code, was_ready });
                }
                // Those that were stuck come here as well.
                let is_it = |it: &mut Candidate| it.process == ended.child;
                if let Some(candidate) = self.candidate.take_if(is_it) {
                    self.has_failed(candidate, ended.code);
                }
            }
            has_ended = false;
            let ended = thread.as_ref().map_or(self.messages.as_fd(), OwnedFd::as_fd);
            let checking = self.candidate.as_ref().filter(|it| it.stage == Stage::Checking);
            let channel = checking.map_or(self.messages.as_fd(), |it| it.channel().as_fd());
            let due = [stuck_at, self.candidate.as_ref().map(|it| it.deadline)];
            let rest = due.into_iter().flatten().min();
            let rest = rest.map(|at: Instant| at.saturating_duration_since(Instant::now()));
            let descriptors = [self.incoming.as_fd(), self.messages.as_fd(), ended, channel];
            let [signal, message, thread_has_ended, is_heard] =
                sys::wait_readable(descriptors, rest)?;
            if message {
                was_ready |= self.kept.receive(&self.messages)?;
                thread = self.kept.take(THREAD).or(thread);
                if let Some(asker) = self.kept.take(ASKER) {
                    self.begin_to_replace(asker);
                }
                if was_ready
                    && let Some(candidate) = self.candidate.take_if(|it| it.process == child)
                {
                    thread = self.become_another(candidate, thread);
                }
                // What was left before the end is kept before the end is noticed.
                continue;
            }
            if let Some(candidate) = &mut self.candidate {
                let is_late = candidate.deadline <= Instant::now();
                if is_late || is_heard && candidate.stage == Stage::Checking {
                    let is_able = !is_late && candidate.hear() == Stage::Able;
                    // It may have ended already.
                    let _ =
                        sys::kill(if is_able { child } else { candidate.process }, libc::SIGKILL);
                    if is_late {
                        candidate.deadline += END;
                    }
                }
            }
            while signal && let Some(signal) = sys::next_signal(&self.incoming)? {
                if signal == libc::SIGCHLD {
                    has_ended = true;
                } else {
                    // It may have ended already.
                    let _ = sys::kill(child, signal);
                }
            }
            if has_ended {
                continue;
            }
            if thread.is_some() && thread_has_ended
                || stuck_at.is_some_and(|at| Instant::now() >= at)
            {
                if stuck_at.is_some() && sys::is_ending(child) {
                    return Ok(Life { code: 128 + libc::SIGKILL, was_ready });
                }
                thread = None;
                stuck_at = Some(Instant::now() + END);
            }
        }
    }

    /// Starts another program, if none has been started, which `asker` waits for.
    fn begin_to_replace(&mut self, asker: OwnedFd) {
        let refuse = |asker, why: &str| control::answer_restart(asker, Err(why.into()));
        let Some(program) = self.kept.take(PROGRAM) else { return };
        if self.candidate.is_some() {
            return refuse(asker, "another program is about to go on with the mount");
        }
        let Ok(waiting) = asker.try_clone() else { return };
        let how = (&self.keeping.successor[..], self.keeping.is_system_root);
        let mount = (&self.keeper, &self.kept);
        match Candidate::start(program, waiting, how, mount, &self.signals) {
            Ok(candidate) => self.candidate = Some(candidate),
            Err(err) => refuse(asker, &format!("the program cannot be started: {err}")),
        }
    }

    /// Tells of another program that has not come to answer the kernel.
    fn has_failed(&self, candidate: Candidate, code: i32) {
        let asker = candidate.asker.try_clone();
        let (target, message) = (self.keeping.target.clone(), candidate.why(code));
        if let Ok(asker) = asker {
            control::answer_restart(asker, Err(format!("the program cannot serve it: {message}")));
        }
        self.journal(&Event::NotRestarted { target, message });
    }

    /// Goes on as the program of which a process answers the kernel by now; returns if that
    /// cannot be, with `thread`, which that process has left.
    fn become_another(&mut self, candidate: Candidate, thread: Option<OwnedFd>) -> Option<OwnedFd> {
        let target = self.keeping.target.clone();
        self.journal(&Event::Restarted { target: target.clone() });
        let mut attempt = || {
            let (keeper, messages) = (self.keeper.as_fd(), self.messages.as_fd());
            let ends = [(KEEPER, keeper), (MESSAGES, messages), (ASKER, candidate.asker.as_fd())];
            for (name, end) in ends {
                self.kept.put(name, end.try_clone_to_owned()?);
            }
            if let Some(thread) = &thread {
                self.kept.put(THREAD, thread.try_clone()?);
            }
            let (program, words) = (&candidate.program, &self.keeping.successor[..]);
            let err = successor::become_keeper(program, words, &self.kept, candidate.process);
            sys::replace(0, nothing()?.as_fd())?;
            Err::<(), _>(err)
        };
        if let Err(err) = attempt() {
            let message = format!("its keeper goes on as the program before: {err}");
            self.journal(&Event::NotRestarted { target, message });
        }
        for name in [KEEPER, MESSAGES, ASKER, THREAD] {
            self.kept.take(name);
        }
        control::answer_restart(candidate.asker, Ok(()));
        thread
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
