//! Talking to running mounts: one line asks, one line answers.
//!
//! A request is a word and a newline; the answer is JSON and a newline. Only
//! root and the user of the mount may ask.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cairn_store::StateId;
use serde::{Deserialize, Serialize};

use crate::error::{self, Error, Result};
use crate::event::Event;
use crate::mount::attach::Unmount;
use crate::mount::registration::{self, Registration};
use crate::serve::counters::Stats;
use crate::sys;

/// What a mount shows after it has looked for a new state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The state that it follows or is pinned to.
    pub state: Option<StateId>,
    /// Directories that the kernel was told to look at anew.
    pub directories: usize,
    /// Names that the kernel was told to look up anew.
    pub names: usize,
}

/// What a running mount is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state that it follows or is pinned to.
    pub state: Option<StateId>,
    /// Files and directories that the kernel knows.
    pub nodes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Refreshed(Refreshed),
    Settled,
    Status(Status),
    Stats(Box<Stats>),
    Unmounted,
    /// Another program has taken over.
    Restarted,
    /// The process ends, and its supervisor starts the next one.
    Ending,
    Failed(String),
}

/// Lets every mount of a store look for a new state, and returns when all of
/// them show it, or say why not, or `deadline` has passed.
///
/// When it returns without an error for a mount, every look-up on that mount
/// gives what is current. Mounts that are pinned to a state are left out.
///
/// # Errors
/// When the registrations below `run` cannot be read; what one mount has to
/// say is in the list.
pub fn refresh_all(
    run: &Path,
    deadline: Duration,
) -> Result<Vec<(Registration, Result<Refreshed>)>> {
    ask_all(run, |mount| match ask(run, mount, "refresh", deadline)? {
        Answer::Refreshed(refreshed) => Ok(refreshed),
        answer => Err(unexpected(mount, answer)),
    })
}

/// Lets every mount of a store do what switches have left to do, so that it keeps gc from
/// no tree that it can do without. One that does not answer keeps more.
///
/// # Errors
/// As of [`refresh_all`].
pub fn settle_all(run: &Path, deadline: Duration) -> Result<()> {
    let settle = |mount: &Registration| ask(run, mount, "settle", deadline);
    ask_all(run, settle).map(drop)
}

/// Asks every mount that may come to show something else, all at once.
fn ask_all<T: Send>(
    run: &Path,
    ask: impl Fn(&Registration) -> Result<T> + Sync,
) -> Result<Vec<(Registration, Result<T>)>> {
    let mut mounts = registration::list(run)?;
    mounts.retain(|mount| !matches!(mount.shape, crate::Shape::Pinned(_)));
    Ok(thread::scope(|scope| {
        let ask = &ask;
        let asked: Vec<_> = mounts.iter().map(|mount| scope.spawn(move || ask(mount))).collect();
        let answers: Vec<_> = asked.into_iter().map(|thread| thread.join()).collect();
        let answers = answers.into_iter().map(|answer| answer.expect("it does not panic"));
        mounts.iter().cloned().zip(answers).collect()
    }))
}

/// What a mount is doing.
pub fn status(run: &Path, mount: &Registration, deadline: Duration) -> Result<Status> {
    match ask(run, mount, "status", deadline)? {
        Answer::Status(status) => Ok(status),
        answer => Err(unexpected(mount, answer)),
    }
}

/// What a mount has done since its process began.
pub fn stats(run: &Path, mount: &Registration, deadline: Duration) -> Result<Stats> {
    match ask(run, mount, "stats", deadline)? {
        Answer::Stats(stats) => Ok(*stats),
        answer => Err(unexpected(mount, answer)),
    }
}

/// Lets a mount unmount itself.
pub fn unmount(run: &Path, mount: &Registration, how: Unmount, deadline: Duration) -> Result<()> {
    let request = match how {
        Unmount::Now => "unmount",
        Unmount::WhenUnused => "detach",
    };
    match ask(run, mount, request, deadline)? {
        Answer::Unmounted => Ok(()),
        answer => Err(unexpected(mount, answer)),
    }
}

/// Has a mount go on with `program`, which has to be Cairn, while it is used.
///
/// When it returns without an error, that program answers the kernel.
///
/// # Errors
/// [`Error::Refused`] with the reason if it cannot; the mount is then as it was. Under a
/// supervisor it is the program of that one which takes over.
pub fn restart(run: &Path, mount: &Registration, program: &File, deadline: Duration) -> Result<()> {
    let end = Instant::now() + deadline;
    match ask_with(run, mount, "restart", Some(program), deadline)? {
        Answer::Restarted => return Ok(()),
        Answer::Ending => {}
        answer => return Err(unexpected(mount, answer)),
    }
    let is_next = |it: &Registration| it.name == mount.name && it.pid != mount.pid;
    while !registration::list(run)?.iter().any(is_next) {
        if Instant::now() > end {
            let target = mount.target.clone();
            return Err(Error::Control { target, source: io::ErrorKind::TimedOut.into() });
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Answers whoever has asked for another program.
pub(crate) fn answer_restart(asker: OwnedFd, result: std::result::Result<(), String>) {
    let answer = result.map_or_else(Answer::Failed, |()| Answer::Restarted);
    // Whoever does not wait any more finds it in the log.
    let _ = send(&UnixStream::from(asker), &answer);
}

fn unexpected(mount: &Registration, answer: Answer) -> Error {
    let target = mount.target.clone();
    match answer {
        Answer::Failed(message) => Error::Refused { target, message },
        _ => Error::Control { target, source: io::ErrorKind::InvalidData.into() },
    }
}

/// Asks a mount, and asks once more when its process dies over it and another
/// takes over: every request can be made twice.
fn ask(run: &Path, mount: &Registration, request: &str, deadline: Duration) -> Result<Answer> {
    ask_with(run, mount, request, None, deadline)
}

/// The same, and gives it a file.
fn ask_with(
    run: &Path,
    mount: &Registration,
    request: &str,
    file: Option<&File>,
    deadline: Duration,
) -> Result<Answer> {
    let end = Instant::now() + deadline;
    let attempt = || {
        let rest = end.saturating_duration_since(Instant::now());
        let mut stream = registration::connect(run, mount)?;
        stream.set_write_timeout(Some(rest.max(Duration::from_millis(1))))?;
        let line = format!("{request}\n");
        match file {
            Some(file) => sys::send_message(&stream, line.as_bytes(), file.as_fd())?,
            None => stream.write_all(line.as_bytes())?,
        }
        let line = read_line(&stream, &stream, rest)?;
        Ok(serde_json::from_str(&line)?)
    };
    let is_cut_off = |err: &io::Error| {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        matches!(err.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
    };
    loop {
        match attempt() {
            // Without another process the registration ends with the first one.
            Err(err) if is_cut_off(&err) && registration::is_registered(run, mount)? => {
                thread::sleep(Duration::from_millis(1));
            }
            result => {
                let target = mount.target.clone();
                return result.map_err(|source| Error::Control { target, source });
            }
        }
    }
}

/// The longest line that is read: more than any message has.
const MAX_LINE: u64 = 64 << 10;

/// Reads one line, which has to be complete when `deadline` has passed.
fn read_line(stream: &UnixStream, from: impl Read, deadline: Duration) -> io::Result<String> {
    let end = Instant::now() + deadline;
    let mut reader = BufReader::new(from.take(MAX_LINE));
    let mut line = Vec::new();
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(rest))?;
        let (available, done) = match reader.fill_buf() {
            Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => (&bytes[..at], true),
                None => (bytes, false),
            },
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(err) => return Err(err),
        };
        line.extend_from_slice(available);
        let len = available.len();
        reader.consume(len);
        if done {
            return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into());
        }
    }
}

/// How much is left to do although nobody asks for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Nothing.
    Wholly,
    /// What will have to be done when the kernel has forgotten more.
    ForNow,
    /// What can be done now, unless somebody asks for something.
    Partly,
}

/// What becomes of a demand for another program.
#[derive(Debug)]
pub(crate) enum Restarting {
    /// The keeper sees to it, and answers.
    ByKeeper,
    /// This process is to end.
    BySupervisor,
    /// Nothing, for this reason.
    Refused(String),
}

/// A mount as its control socket sees it.
pub(crate) trait Live: Send + Sync {
    fn refresh(&self) -> Result<Refreshed>;
    fn status(&self) -> Status;
    fn stats(&self) -> Stats;
    fn unmount(&self, how: Unmount) -> Result<()>;
    /// Has another program go on with the mount.
    fn restart(&self, program: OwnedFd, asker: &UnixStream) -> Restarting;
    /// Does what a switch has left to do, and brings the registration up to date.
    fn settle(&self) -> Result<()>;
    /// Does some of that, and the registration when it was all.
    fn settle_some(&self) -> Settled;
    /// Takes what went wrong with a request.
    fn note(&self, event: &Event);
}

/// So long after an answer begins what it has left to do. Whoever has asked looks at the
/// mount first, and would have to wait.
const QUIET: Duration = Duration::from_millis(50);

/// How long a client may take to send its line.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers requests, one after the other, until `stop` is closed at its other
/// end.
pub(crate) fn serve(listener: &UnixListener, stop: &impl AsFd, live: &dyn Live) {
    // When to do more of what is left to do, whoever asks for what meanwhile.
    let mut due: Option<Instant> = None;
    loop {
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        match sys::wait_readable([listener.as_fd(), stop.as_fd()], timeout) {
            Ok([_, true]) => return,
            Ok([true, _]) => {
                if let Err(source) = listener.accept().and_then(|(stream, _)| answer(&stream, live))
                {
                    live.note(&Event::Control { source });
                }
                let quiet = Instant::now() + QUIET;
                due = Some(due.map_or(quiet, |due| due.min(quiet)));
            }
            Ok(_) => {}
            Err(source) => return live.note(&Event::Control { source }),
        }
        let now = Instant::now();
        if due.is_some_and(|due| due <= now) {
            due = match guard(live, "what a switch had left to do", || live.settle_some()) {
                Some(Settled::Partly) => Some(now),
                Some(Settled::ForNow) => Some(now + Duration::from_secs(1)),
                // After a defect the next request begins it anew.
                Some(Settled::Wholly) | None => None,
            };
        }
    }
}

/// Does something. A panic ends that, not the thread: without it the mount would show for
/// ever what it shows.
fn guard<T>(live: &dyn Live, what: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.inspect_err(|panic| live.note(&Event::panicked(what, &**panic))).ok()
}

/// What comes over a socket, and the last file that comes with it.
struct Incoming<'s> {
    stream: &'s UnixStream,
    file: &'s mut Option<OwnedFd>,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (len, file) = sys::receive_message(self.stream, buf)?;
        if file.is_some() {
            *self.file = file;
        }
        Ok(len)
    }
}

fn answer(stream: &UnixStream, live: &dyn Live) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let user = sys::peer_user(stream)?;
    if user != 0 && user != sys::effective_user().0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut file = None;
    let request = read_line(stream, Incoming { stream, file: &mut file }, PATIENCE)?;
    let answer = guard(live, "a control request", || answer_to(&request, file, stream, live));
    let defect = || Some(Answer::Failed("a defect in Cairn; its log says more".into()));
    let Some(answer) = answer.unwrap_or_else(defect) else { return Ok(()) };
    send(stream, &answer)?;
    if matches!(answer, Answer::Ending) {
        // As a defect would: whatever ends in good order unmounts.
        sys::kill(std::process::id().cast_signed(), libc::SIGKILL)?;
    }
    Ok(())
}

/// The answer to a request with which a file may have come; nothing if somebody else answers.
fn answer_to(
    request: &str,
    file: Option<OwnedFd>,
    stream: &UnixStream,
    live: &dyn Live,
) -> Option<Answer> {
    let answer = match request {
        "refresh" => live.refresh().map(Answer::Refreshed),
        "settle" => live.settle().map(|()| Answer::Settled),
        "status" => Ok(Answer::Status(live.status())),
        "stats" => Ok(Answer::Stats(Box::new(live.stats()))),
        "unmount" => live.unmount(Unmount::Now).map(|()| Answer::Unmounted),
        "detach" => live.unmount(Unmount::WhenUnused).map(|()| Answer::Unmounted),
        "restart" => match file.map(|program| live.restart(program, stream)) {
            Some(Restarting::ByKeeper) => return None,
            Some(Restarting::BySupervisor) => Ok(Answer::Ending),
            Some(Restarting::Refused(why)) => Ok(Answer::Failed(why)),
            None => Ok(Answer::Failed("no program has come with the request".into())),
        },
        _ => Ok(Answer::Failed("there is no such request".into())),
    };
    Some(answer.unwrap_or_else(|err| Answer::Failed(error::with_causes(&err))))
}

fn send(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}
