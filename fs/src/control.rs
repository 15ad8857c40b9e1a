//! Talking to running mounts: one line asks, one line answers.
//!
//! A request is a word and a newline; the answer is JSON and a newline. Only
//! root and the user of the mount may ask.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cairn_store::StateId;
use serde::{Deserialize, Serialize};

use crate::counters::Stats;
use crate::error::{self, Error, Result};
use crate::mount::Unmount;
use crate::registration::{self, Registration};
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
    let end = Instant::now() + deadline;
    let attempt = || {
        let rest = end.saturating_duration_since(Instant::now());
        let mut stream = registration::connect(run, mount)?;
        stream.set_write_timeout(Some(rest.max(Duration::from_millis(1))))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let line = read_line(&stream, rest)?;
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
fn read_line(stream: &UnixStream, deadline: Duration) -> io::Result<String> {
    let end = Instant::now() + deadline;
    let mut reader = BufReader::new(stream.take(MAX_LINE));
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

/// A mount as its control socket sees it.
pub(crate) trait Live: Send + Sync {
    fn refresh(&self) -> Result<Refreshed>;
    fn status(&self) -> Status;
    fn stats(&self) -> Stats;
    fn unmount(&self, how: Unmount) -> Result<()>;
    /// Does what a switch has left to do, and brings the registration up to date.
    fn settle(&self) -> Result<()>;
    /// Does some of that, and the registration when it was all.
    fn settle_some(&self) -> Settled;
    /// Takes what went wrong with a request.
    fn note(&self, error: io::Error);
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
                if let Err(err) = listener.accept().and_then(|(stream, _)| answer(&stream, live)) {
                    live.note(err);
                }
                let quiet = Instant::now() + QUIET;
                due = Some(due.map_or(quiet, |due| due.min(quiet)));
            }
            Ok(_) => {}
            Err(err) => return live.note(err),
        }
        let now = Instant::now();
        if due.is_some_and(|due| due <= now) {
            due = match live.settle_some() {
                Settled::Wholly => None,
                Settled::ForNow => Some(now + Duration::from_secs(1)),
                Settled::Partly => Some(now),
            };
        }
    }
}

fn answer(mut stream: &UnixStream, live: &dyn Live) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let user = sys::peer_user(stream)?;
    if user != 0 && user != sys::effective_user().0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let answer = match read_line(stream, PATIENCE)?.as_str() {
        "refresh" => live.refresh().map(Answer::Refreshed),
        "settle" => live.settle().map(|()| Answer::Settled),
        "status" => Ok(Answer::Status(live.status())),
        "stats" => Ok(Answer::Stats(Box::new(live.stats()))),
        "unmount" => live.unmount(Unmount::Now).map(|()| Answer::Unmounted),
        "detach" => live.unmount(Unmount::WhenUnused).map(|()| Answer::Unmounted),
        _ => Ok(Answer::Failed("there is no such request".into())),
    };
    let answer = answer.unwrap_or_else(|err| Answer::Failed(error::with_causes(&err)));
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}
