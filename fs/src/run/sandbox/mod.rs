//! Programs in a root that is nobody's yet, cut off from everything else.
//!
//! A sandbox shows a tree, which need not be published, with a layer in memory
//! above it that takes whatever is written. Programs run in it one after the
//! other, each until it and all that it has started has ended. They have no
//! network, see no process and no file of the machine, and can neither mount nor
//! gain rights. Afterwards the layer is read from outside.
//!
//! ```text
//! this process --- answers the mount, asks for programs, reads the layer
//!   `-- helper --- the same program anew, since a process with threads cannot be copied
//!         `-- init --- process 1 in there: makes the root, starts programs, ends them
//!               `----- a program
//! ```
//!
//! The same is made of a directory that is mounted already; then there is no layer,
//! and what is written goes to where it is mounted from.

mod confine;
mod inside;
mod request;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use cairn_store::StateId;
use cairn_store::workspace::LayerMarks;
use rustix::fs::{Mode, OFlags, openat};

use crate::error::{Error, Result};
use crate::event::Journal;
use crate::layer::LayerRules;
use crate::mount;
use crate::run::GO;
use crate::run::inside::Failure;
use crate::serve::filesystem::Filesystem;
use crate::serve::fuse::Fuse;
use crate::shape::Shape;
use crate::source::Source;
use crate::sys;

pub use inside::inside;
use request::{Base, Reply, Request, Setup, read_line, write_line};
pub use request::{Ended, Outcome};

/// How a sandbox is made.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// A program and its arguments that does nothing but call [`inside`].
    pub helper: Vec<OsString>,
    /// Any directory. It is mounted over where only the sandbox can see it.
    pub stage: PathBuf,
    /// What /proc/mounts calls the tree in there.
    pub name: String,
    /// All of the environment of programs.
    pub environment: Vec<(OsString, OsString)>,
    /// What programs may use.
    pub limits: Limits,
}

/// What programs in a sandbox may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long one may run.
    pub time: Duration,
    /// Bytes of all that is written, in memory.
    pub space: u64,
    /// How many processes and threads there may be at a time. Linux before 6.14
    /// cannot limit them.
    pub processes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(600), space: 2 << 30, processes: 4096 }
    }
}

/// A root in which programs run, until it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    helper: Child,
    socket: UnixStream,
    /// The upper layer, or the directory itself.
    layer: OwnedFd,
    /// Hears when the mount has ended.
    ended: Option<Receiver<()>>,
    time: Duration,
}

/// How much longer than a program the sandbox may take to end it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the kernel may take to end a mount that nobody uses.
const UNMOUNTING: Duration = Duration::from_secs(5);

impl Sandbox {
    /// Shows the tree of `state`, one that `source` knows, with a layer above it
    /// that takes changes.
    ///
    /// Programs find /proc, a /dev with the usual devices, and empty /tmp and /run,
    /// of which nothing stays. /sys and /etc can be read; /etc is completed from
    /// usr/share/defaults/etc and with what a name service needs.
    ///
    /// # Errors
    /// [`Error::Enter`], [`Error::NoMountPoint`] and [`Error::NoFuse`] when the
    /// machine or the tree does not allow it.
    pub fn of_tree<S: Source>(
        source: S,
        state: StateId,
        options: &SandboxOptions,
        journal: Journal,
    ) -> Result<Self> {
        let failed = |source| Error::Process { source };
        let filesystem = Arc::new(Filesystem::new(source, Shape::Pinned(state))?);
        let (mut helper, mut socket) = start_helper(options, Base::Tree)?;
        let begin = || {
            let connection = receive(&mut socket)?;
            let session = mount::session(Fuse::new(filesystem, journal), connection)?;
            let (end, ended) = mpsc::channel();
            let answer = move || {
                // It ends with the mount; if it ends before, programs get errors.
                let _ = session.run();
                let _ = end.send(());
            };
            thread::Builder::new().name("sandbox".into()).spawn(answer).map_err(failed)?;
            socket.write_all(&[GO]).map_err(failed)?;
            Ok((receive(&mut socket)?, ended))
        };
        match begin() {
            Ok((layer, ended)) => {
                Ok(Self { helper, socket, layer, ended: Some(ended), time: options.limits.time })
            }
            Err(err) => {
                end(&mut helper);
                Err(err)
            }
        }
    }

    /// Shows a directory with all that is mounted in it; what programs write
    /// there stays.
    ///
    /// # Errors
    /// As those of [`Sandbox::of_tree`].
    pub fn of_directory(directory: PathBuf, options: &SandboxOptions) -> Result<Self> {
        let (mut helper, mut socket) = start_helper(options, Base::Directory(directory))?;
        match receive(&mut socket) {
            Ok(layer) => Ok(Self { helper, socket, layer, ended: None, time: options.limits.time }),
            Err(err) => {
                end(&mut helper);
                Err(err)
            }
        }
    }

    /// Runs a program, the first of `words`, with the others as its arguments, and
    /// waits for its end; whatever it has left running is ended then.
    ///
    /// # Errors
    /// [`Error::Process`] when the sandbox does not answer, after which it cannot
    /// be used. That the program fails, or cannot be started, is no error here.
    pub fn run(&mut self, words: &[String]) -> Result<Ended> {
        self.ask(&Request::Run(words.to_vec()))
    }

    /// Deletes what is at an absolute path in the root, with all that is below it;
    /// it is no failure if there is nothing.
    ///
    /// # Errors
    /// As those of [`Sandbox::run`].
    pub fn delete(&mut self, path: &str) -> Result<Ended> {
        self.ask(&Request::Delete(path.into()))
    }

    /// The directory of the upper layer, opened. It changes while programs run.
    pub fn layer(&self) -> Result<OwnedFd> {
        // Not a copy: that would go on reading where another one has stopped.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(&self.layer, ".", flags, Mode::empty());
        opened.map_err(|err| Error::Process { source: err.into() })
    }

    /// How the layer is read: what is written belongs to root, and when it is written tells
    /// nothing.
    #[must_use]
    pub fn layer_rules(&self) -> LayerRules {
        // Otherwise all that is written belongs to this process's user.
        let is_of_root = sys::effective_user().0 == 0;
        let marks = if is_of_root { LayerMarks::Trusted } else { LayerMarks::User };
        LayerRules { marks, all_of_root: !is_of_root, without_times: true }
    }

    fn ask(&mut self, request: &Request) -> Result<Ended> {
        let failed = |source| Error::Process { source };
        self.socket.set_read_timeout(Some(self.time + PATIENCE)).map_err(failed)?;
        write_line(&mut self.socket, request).map_err(failed)?;
        let Reply { outcome, len } = read_line(&mut self.socket).map_err(failed)?;
        let mut output = vec![0; len.min(request::OUTPUT_LEN)];
        self.socket.read_exact(&mut output).map_err(failed)?;
        Ok(Ended { outcome, output })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        end(&mut self.helper);
        // Whoever is in there has been killed, and the mount goes with them.
        if let Some(ended) = &self.ended {
            let _ = ended.recv_timeout(UNMOUNTING);
        }
    }
}

/// Ends a helper, and with it init and all others.
fn end(helper: &mut Child) {
    // It may have ended by itself.
    let _ = helper.kill();
    let _ = helper.wait();
}

fn start_helper(options: &SandboxOptions, base: Base) -> Result<(Child, UnixStream)> {
    let failed = |source| Error::Process { source };
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let Some((program, arguments)) = options.helper.split_first() else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    let helper = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let setup = Setup {
        parent: std::process::id(),
        base,
        stage: options.stage.clone(),
        name: options.name.clone(),
        environment: options.environment.clone(),
        time: options.limits.time,
        space: options.limits.space,
        processes: options.limits.processes,
    };
    write_line(&mut ours, &setup).map_err(failed)?;
    Ok((helper, ours))
}

/// Receives a descriptor, or what went wrong instead.
fn receive(socket: &mut UnixStream) -> Result<OwnedFd> {
    socket.set_read_timeout(Some(PATIENCE)).map_err(|source| Error::Process { source })?;
    let source = match sys::receive_descriptor(socket) {
        Ok(descriptor) => return Ok(descriptor),
        Err(source) => source,
    };
    let mut text = String::new();
    let heard = socket.read_to_string(&mut text).ok().and_then(|_| {
        // What told of the failure has begun with a byte that was taken for a descriptor's.
        serde_json::from_str::<Failure>(&text).ok()
    });
    Err(heard.map_or(Error::Process { source }, |failure| failure.into_error("init".as_ref())))
}
