//! Runs a program inside a state.
//!
//! The program gets namespaces of its own for mounts, processes, IPC and host
//! name (and for users, when the caller is not root), in which the state is the
//! root directory. This process answers the kernel's requests for the state's
//! files and stays outside, so that nothing in there can wait for itself.
//! The mount exists only in there: when the last process in there has ended, or
//! this one is killed, the kernel takes all of it away.
//!
//! ```text
//! this process --- serves the mount, passes signals on, returns the exit code
//!   `-- init ----- process 1 in there: makes the root, waits for all others
//!         `------- the program
//! ```

pub(crate) mod inside;
pub mod sandbox;
pub(crate) mod users;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use cairn_store::StateId;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::Journal;
use crate::mount;
use crate::mount::registration::Registered;
use crate::run::inside::{Failure, Writable};
use crate::run::users::Users;
use crate::serve::filesystem::Filesystem;
use crate::serve::fuse::Fuse;
use crate::shape::Shape;
use crate::source::Source;
use crate::sys::{self, Forked, HeldSignals, Network};

/// What to run inside a state.
#[derive(Clone, Debug)]
pub struct Program {
    /// A path inside the state, or a name that is looked for in `PATH` of
    /// `environment`.
    pub program: OsString,
    /// What follows the name.
    pub arguments: Vec<OsString>,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Any directory. It is mounted over where only the program's namespaces
    /// can see it, and nothing is written into it.
    pub stage: PathBuf,
    /// What /proc/mounts calls the state in there: the path of the store.
    pub name: String,
    /// The store's `run` directory, in which it is registered that the state is
    /// in use. Without it gc does not spare the state.
    pub run: Option<PathBuf>,
    /// Directories and files of the machine that are seen inside, in this
    /// order.
    pub binds: Vec<Bind>,
    /// What it has of the network.
    pub network: Network,
    /// Where it begins, a path inside the state.
    pub directory: PathBuf,
}

/// A directory or file of the machine that is seen inside a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// An absolute path of the machine, outside of [`Program::stage`].
    pub from: PathBuf,
    /// An absolute path of the state, which has the like there.
    pub to: PathBuf,
    /// Whether it can be written to inside.
    pub writable: bool,
}

/// Runs a program inside a state and waits for its end. Returns its exit code,
/// or 128 and the number of the signal that ended it.
///
/// The state is read-only, with exceptions in memory that end with the program:
/// /etc and /var begin as the state has them (where usr/share/defaults/etc has
/// what /etc has not), /tmp, /run and /dev begin empty but for the usual
/// devices. /proc is of the program's own processes, /sys can be read. What a
/// name service needs is put into /etc where it is missing. On top of all that is
/// what [`Program::binds`] names.
///
/// Signals that other processes send to this one are passed on; those of the
/// terminal reach the program as they reach this process.
///
/// `open` is called when the new processes have been made, since a database
/// does not survive being copied with its process.
///
/// # Errors
/// [`Error::Threads`], [`Error::NoMountPoint`], [`Error::Enter`],
/// [`Error::Execute`], and what `open` returns.
pub fn run<S: Source, E: From<Error>>(
    program: &Program,
    journal: Journal,
    open: impl FnOnce() -> Result<(S, StateId), E>,
) -> Result<i32, E> {
    let open = || {
        let (source, state) = open()?;
        let filesystem = Filesystem::new(source, Shape::Pinned(state)).map_err(Error::Store)?;
        let filesystem = Arc::new(filesystem);
        let register = |run: &PathBuf| mount::register(&filesystem, run, Path::new("/"), &[]);
        // There is nothing to ask of it, so nobody listens.
        let registered = program.run.as_ref().map(register).transpose()?.map(|(noted, _)| noted);
        Ok(Opened { filesystem, registered })
    };
    run_with(program, None, journal, open)
}

/// What is shown inside.
pub(crate) struct Opened<S> {
    pub(crate) filesystem: Arc<Filesystem<S>>,
    pub(crate) registered: Option<Registered>,
}

/// The same, with all of the root to be changed as `writable` says.
pub(crate) fn run_with<S: Source, E: From<Error>>(
    program: &Program,
    writable: Option<&Writable>,
    journal: Journal,
    open: impl FnOnce() -> Result<Opened<S>, E>,
) -> Result<i32, E> {
    let failed = |source| Error::Process { source };
    if !sys::is_alone().map_err(failed)? {
        return Err(Error::Threads.into());
    }
    let users = Users::all().map_err(failed)?;
    // Before there are threads, so that none of them takes a signal.
    let signals = HeldSignals::hold().map_err(failed)?;
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let cloned = sys::clone_into_namespaces(users.is_some(), program.network);
    let init = match cloned.map_err(|source| Error::Namespaces { source })? {
        Forked::Child => {
            drop(ours);
            sys::exit(inside::init(program, writable, users, theirs, &signals))
        }
        Forked::Parent(init) => init,
    };
    drop((theirs, users));
    // From here on init ends when it finds that the other end is closed.
    let begun = serve(program, journal, &mut ours, open);
    if begun.is_err() {
        drop(ours);
        sys::wait_for(init).map_err(failed)?;
    }
    let served = begun?;
    let code = wait_for_end(init, &signals);
    // The mount has gone with its namespace, unless somebody outside looks into
    // it through /proc, who gets errors from here on.
    let _ = served.ended.recv_timeout(PATIENCE);
    sys::take_terminal_back();
    Ok(code.map_err(failed)?)
}

/// How long the kernel may take to end a mount that nobody uses.
const PATIENCE: Duration = Duration::from_secs(2);

/// A state in which a program runs.
struct Served {
    /// Hears when the mount has ended.
    ended: Receiver<()>,
    _registered: Option<Registered>,
}

/// Answers the mount that init has made, and returns when the program runs.
fn serve<S: Source, E: From<Error>>(
    program: &Program,
    journal: Journal,
    init: &mut UnixStream,
    open: impl FnOnce() -> Result<Opened<S>, E>,
) -> Result<Served, E> {
    let failed = |source| Error::Process { source };
    let connection = match sys::receive_descriptor(init) {
        Ok(connection) => connection,
        Err(err) => return Err(heard(&program.program, init)?.unwrap_or(failed(err)).into()),
    };
    let Opened { filesystem, registered } = open()?;
    filesystem.hurry(false);
    let session = mount::session(Fuse::new(filesystem, journal), connection)?;
    let (end, ended) = mpsc::channel();
    let answer = move || {
        // It ends with the mount; if it ends before, programs get errors.
        let _ = session.run();
        let _ = end.send(());
    };
    thread::Builder::new().name("mount".into()).spawn(answer).map_err(failed)?;
    init.write_all(&[GO]).map_err(failed)?;
    match heard(&program.program, init)? {
        Some(error) => Err(error.into()),
        None => Ok(Served { ended, _registered: registered }),
    }
}

/// What tells init that the mount is answered.
pub(crate) const GO: u8 = b'+';

/// What init and `program` had to say before the program began to run, which
/// is nothing when all went well.
pub(crate) fn heard(program: &OsStr, init: &mut UnixStream) -> Result<Option<Error>> {
    let mut text = String::new();
    init.read_to_string(&mut text).map_err(|source| Error::Process { source })?;
    if text.is_empty() {
        return Ok(None);
    }
    let failure: Failure = serde_json::from_str(&text)
        .map_err(|err| Error::Process { source: io::Error::from(err) })?;
    Ok(Some(failure.into_error(program)))
}

/// Passes signals on until init has ended.
fn wait_for_end(init: libc::pid_t, signals: &HeldSignals) -> io::Result<i32> {
    loop {
        let signal = signals.wait()?;
        if signal.number != libc::SIGCHLD {
            // The terminal has sent its signal to everyone.
            if signal.is_from_process {
                sys::kill(init, signal.number)?;
            }
        } else if let Some(ended) = sys::next_ended(init)? {
            return Ok(ended.code);
        }
    }
}
