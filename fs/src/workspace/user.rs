//! Workspaces of ordinary users, for all programs of the user to see.
//!
//! The kernel lets an ordinary user mount an overlay in namespaces of its own alone. So a
//! process that lives for a moment makes it there, and hands its root directory over: who
//! has that open keeps the overlay, after the namespaces have gone. This process then
//! mirrors the directory where `fusermount3` mounts it.
//!
//! ```text
//! programs -- FUSE at DIR -- mirror -- overlay -- FUSE of the state -- store
//!                           `------ this process ------------------'
//! ```
//!
//! What belongs to root inside belongs to the user here: the kernel says so, since the two
//! are one user of two namespaces.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use cairn_store::workspace::{LayerMarks, Workspace};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::directory::LOWER;
use crate::error::{Error, Result};
use crate::event::Journal;
use crate::layer::overlay::Layers;
use crate::mirror::{self, Mirror};
use crate::mount::attach::Unmount;
use crate::mount::attach::{self, Access};
use crate::mount::mounted::Mounted;
use crate::mount::options::Trust;
use crate::mount::registration::Registered;
use crate::mount::target;
use crate::mount::unmounter::Unmounter;
use crate::mount::{self, Running};
use crate::run::inside::{self, During, Failure};
use crate::run::users::Users;
use crate::run::{GO, heard};
use crate::serve::filesystem::Filesystem;
use crate::serve::fuse::Fuse;
use crate::source::Source;
use crate::sys::{self, Forked, Network};

/// The process that makes an overlay in namespaces of its own.
pub(super) struct Apart {
    process: libc::pid_t,
    stream: UnixStream,
}

/// What is to be put together there.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The directory of the workspace, with an empty directory [`LOWER`].
    pub(super) workspace: PathBuf,
    /// The layer in it.
    pub(super) layer: String,
    /// What the mount of the state is called.
    pub(super) store: String,
    /// What the overlay and the mirror are called.
    pub(super) name: String,
}

/// What is shown, and how it is known.
pub(super) struct Shown<S> {
    pub(super) filesystem: Arc<Filesystem<S>>,
    pub(super) registered: (Registered, UnixListener),
    /// The directories of the mount that the layer lies over, the uppermost first.
    pub(super) lower: String,
    pub(super) workspace: Workspace,
    pub(super) target: PathBuf,
    pub(super) journal: Journal,
}

impl Apart {
    /// Starts it. This process must have one thread.
    ///
    /// # Errors
    /// [`Error::Threads`], [`Error::Namespaces`].
    pub(super) fn begin(plan: &Plan) -> Result<Self> {
        let failed = |source| Error::Process { source };
        if !sys::is_alone().map_err(failed)? {
            return Err(Error::Threads);
        }
        let (stream, theirs) = UnixStream::pair().map_err(failed)?;
        let users = Users::all().map_err(failed)?;
        let cloned = sys::clone_into_namespaces(users.is_some(), Network::OfCaller);
        match cloned.map_err(|source| Error::Namespaces { source })? {
            Forked::Child => {
                drop(stream);
                sys::exit(make(plan, users, theirs))
            }
            Forked::Parent(process) => Ok(Self { process, stream }),
        }
    }

    /// Answers for the state below, and mirrors the overlay that was made over it.
    ///
    /// # Errors
    /// [`Error::Enter`], [`Error::Fusermount`] and others. Nothing stays mounted then.
    pub(super) fn show<S: Source>(mut self, plan: &Plan, shown: Shown<S>) -> Result<Running> {
        let Shown { filesystem, registered, lower, workspace, target, journal } = shown;
        let (registered, listener) = registered;
        let connection = self.receive()?;
        let session = mount::session(Fuse::new(filesystem.clone(), journal.clone()), connection)?;
        // There is nothing yet that could be unmounted: what is below ends by itself when
        // the overlay does.
        let unmounter = Unmounter::new(target.clone(), (0, 0));
        let live =
            Mounted::new(filesystem, &session, Some(registered), journal.clone(), unmounter)?;
        let mut running = mount::run(Arc::new(live), session, Some(listener))?;
        let failed = |source| Error::Process { source };
        let word = [&[GO][..], lower.as_bytes(), b"\n"].concat();
        self.stream.write_all(&word).map_err(failed)?;
        let root = self.receive()?;
        sys::wait_for(self.process).map_err(failed)?;

        let connection = attach::attach_as_user(&target, &plan.name, Access::WRITE)?;
        let begun = target::device_of(&target).and_then(|device| {
            mirror_in_background(root, connection, journal)?;
            Ok(device)
        });
        let device = begun.inspect_err(|_| {
            // The error to report is the first one.
            let _ = attach::detach(&target, Unmount::WhenUnused, |mount| mount.is_ours());
        })?;
        running.show_workspace(workspace, target, device);
        Ok(running)
    }

    fn receive(&mut self) -> Result<OwnedFd> {
        sys::receive_descriptor(&self.stream).map_err(|source| {
            match heard(OsStr::new(""), &mut self.stream) {
                Ok(None) => Error::Process { source },
                Ok(Some(err)) | Err(err) => err,
            }
        })
    }
}

/// Answers for the mirror until it is unmounted and nobody uses it any more. With it goes
/// the overlay, and with that the mount below.
fn mirror_in_background(root: OwnedFd, connection: OwnedFd, journal: Journal) -> Result<()> {
    // Each file that the kernel knows takes a descriptor.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer it works as well, until there are too many files.
    let _ = setrlimit(Resource::Nofile, limit);
    let session = mirror::session(Mirror::new(root), connection, journal);
    let session = session.map_err(|source| Error::Session { source })?;
    let answer = move || {
        // The mask of a program has been heeded above, where the kernel knows it.
        if sys::own_directory().is_ok() {
            rustix::process::umask(Mode::empty());
            // Nothing is kept busy by it.
            let _ = std::env::set_current_dir("/");
        }
        session.run()
    };
    let thread = thread::Builder::new().name("mirror".into()).spawn(answer);
    thread.map(drop).map_err(|source| Error::Process { source })
}

/// Is the process apart; the result is its exit code.
fn make(plan: &Plan, users: Option<Users>, mut outside: UnixStream) -> i32 {
    match overlay(plan, users, &mut outside) {
        Ok(()) => 0,
        Err(failure) => {
            inside::report(&failure, &mut outside);
            1
        }
    }
}

fn overlay(plan: &Plan, users: Option<Users>, outside: &mut UnixStream) -> Result<(), Failure> {
    sys::end_with_parent().during(|| "bind the end of one process to another".into())?;
    users.map_or(Ok(()), Users::map)?;
    inside::mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    let directory = &plan.workspace;
    std::env::set_current_dir(directory).during(|| format!("change to {}", directory.display()))?;
    let place = Path::new(LOWER);
    inside::hand_over(place, &plan.store, Trust::Inspect, outside)?;
    let lower = line(outside).during(|| "hear what is below".into())?;
    let lower: Vec<&str> = lower.split(':').collect();
    let layers = Layers { lower: &lower, layer: &plan.layer, marks: LayerMarks::User };
    // On top of what is below: nobody looks for that any more.
    layers.mount_here(&plan.name, place, Trust::Inspect).during(|| "mount the overlay".into())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(place, flags, Mode::empty())
        .map_err(std::io::Error::from)
        .and_then(|root| sys::send_descriptor(outside, root.as_fd()))
        .during(|| "hand over the overlay".into())
}

/// Reads a line, and nothing of what follows it.
#[expect(clippy::unbuffered_bytes, reason = "what follows is for somebody else")]
fn line(stream: &mut UnixStream) -> std::io::Result<String> {
    let bytes = stream.bytes().take_while(|byte| !matches!(byte, Ok(b'\n')));
    String::from_utf8(bytes.collect::<std::io::Result<_>>()?).map_err(std::io::Error::other)
}
