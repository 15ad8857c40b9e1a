//! A mount whose process has died goes on in another one.
//!
//! What a successor needs is with a keeper: the connection, the control socket,
//! the lock of the registration, and the ledger of what the kernel knows. The
//! kernel keeps new requests until somebody reads them, and sends those once
//! more that the dead process had read and not answered; so nobody gets an
//! error, and nobody notices but for the time that it takes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cairn_store::{InvalidPath, TreePath};
use fuser::Session;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{Event, Journal};
use crate::mount::mounted::Mounted;
use crate::mount::registration::Registered;
use crate::mount::root::{self, RootBind};
use crate::mount::unmounter::Unmounter;
use crate::mount::{self, Running};
use crate::process::control::Live;
use crate::process::keeper::{CONNECTION, CONTROL, Keeper, Kept, LEDGER, REGISTRATION};
use crate::serve::filesystem::Filesystem;
use crate::serve::fuse::{self, Fuse};
use crate::serve::notice::Notices;
use crate::serve::xattrs::Xattrs;
use crate::source::Source;
use crate::sys;

/// What a successor has to know of a mount, beside what the kernel knows.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    /// The store's `run` directory, as bytes.
    run: Vec<u8>,
    /// Name of the registration in it.
    registration: String,
    /// Where it is mounted, as bytes.
    target: Vec<u8>,
    device: (u32, u32),
    /// What lies on it: paths on the mount and of the machine, as bytes.
    #[serde(default)]
    binds: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Leaves with the keeper of a registration, if it has one, what a successor
/// needs. To be called before the kernel gets its first answer.
pub(crate) fn leave<S: Source>(
    filesystem: &Filesystem<S>,
    registered: &Registered,
    unmounter: &Unmounter,
    device: (u32, u32),
    binds: &[RootBind],
    [connection, control]: [&dyn AsFd; 2],
) -> Result<()> {
    let Some(keeper) = registered.keeper() else { return Ok(()) };
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let about = About {
        run: bytes(registered.run()),
        registration: registered.name().into(),
        target: bytes(unmounter.target()),
        device,
        binds: binds.iter().map(|it| (it.path.names().join(&b'/'), bytes(&it.source))).collect(),
    };
    let attempt = || {
        let ledger = sys::file_in_memory()?;
        filesystem.keep_in(ledger.try_clone()?, serde_json::to_vec(&about)?)?;
        keeper.keep(LEDGER, ledger.as_fd())?;
        keeper.keep(CONTROL, control.as_fd())?;
        // The last, since with it the mount outlives this process.
        keeper.keep(CONNECTION, connection.as_fd())
    };
    attempt().map_err(|source| Error::Keeper { source })
}

/// Takes over a mount whose process has died, and returns when it is answered
/// again and shows what is current. `kept` is what `keeper` kept of it.
///
/// # Errors
/// [`Error::Keeper`] when something is missing or was left by another version;
/// the mount is then as it was.
pub fn resume<S: Source>(
    source: S,
    kept: Kept,
    keeper: &Keeper,
    journal: Journal,
) -> Result<Running> {
    resume_with(source, Xattrs::default(), kept, keeper, journal)
}

/// The same with another view of extended attributes.
pub(crate) fn resume_with<S: Source>(
    source: S,
    xattrs: Xattrs,
    mut kept: Kept,
    keeper: &Keeper,
    journal: Journal,
) -> Result<Running> {
    let failed = |source| Error::Keeper { source };
    let missing = || failed(io::ErrorKind::NotFound.into());
    let connection = kept.take(CONNECTION).ok_or_else(missing)?;
    let control = UnixListener::from(kept.take(CONTROL).ok_or_else(missing)?);
    let ledger = File::from(kept.take(LEDGER).ok_or_else(missing)?);
    let (mut filesystem, about, switched) = Filesystem::resume(source, ledger).map_err(failed)?;
    filesystem.xattrs = xattrs;
    let about: About = serde_json::from_slice(&about).map_err(|err| failed(err.into()))?;
    let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
    let bind = |(place, source): (Vec<u8>, _)| {
        let invalid = |err: InvalidPath| failed(io::Error::new(io::ErrorKind::InvalidData, err));
        let place = TreePath::new(&place).map_err(invalid)?;
        Ok(RootBind { path: place, source: path(source), seed: false, filled: false })
    };
    let binds = about.binds.into_iter().map(bind).collect::<Result<Vec<_>>>()?;
    let locks = kept.take_all(REGISTRATION);
    let registered =
        Registered::resume(&path(about.run), &about.registration, locks, keeper.clone())?;
    let filesystem = Arc::new(filesystem);
    let fuse = Fuse::new(filesystem.clone(), journal.clone());
    let session = session_on(fuse.clone(), connection)?;
    if registered.passes_through() {
        // Whatever the kernel permits now: it knows what it was answered before.
        Notices::of(&session).and_then(|kernel| fuse.pass_through(kernel)).map_err(failed)?;
    }
    filesystem.hurry(registered.saves_power());
    let unmounter = Unmounter::new(path(about.target), about.device);
    // Whoever unmounts from here on has to know what lies on it.
    let missing = root::find_bound(unmounter.target(), binds, &unmounter).map_err(failed)?;
    let live = Mounted::new(filesystem, &session, Some(registered), journal, unmounter.clone())?;
    let live = Arc::new(live);
    let notices = live.notices().clone();
    if let Some(notices) = notices {
        // Before anything is read: what this process reads is not to come twice.
        ignore_end(notices.resend()).map_err(|source| Error::Session { source })?;
    }
    // Whoever asks for a switch waits until this one has been told.
    let switching = live.switching();
    let running = mount::run(live.clone(), session, Some(control))?;
    live.tell(switched);
    drop(switching);
    if let Err(source) = live.refresh() {
        (live.journal)(&Event::NotRegistered { source });
    }
    // The dead process had not come to it, or was taking it off.
    for bind in missing {
        if let Err(source) = root::bind(unmounter.target(), &bind, &unmounter) {
            (live.journal)(&Event::NotBound { source });
        }
    }
    ask_in_background(&live)?;
    Ok(running)
}

/// A session on a connection over which somebody has spoken before.
///
/// fuser begins each session by answering the kernel's first request, which has
/// been answered already. So it gets that request from here, over a socket, in
/// whose place the connection is put afterwards.
fn session_on<S: Source>(fuse: Fuse<S>, connection: OwnedFd) -> Result<Session<Fuse<S>>> {
    let failed = |source| Error::Session { source };
    let (mut ours, theirs) = sys::message_pair().map_err(failed)?;
    ours.write_all(&fuse::first_request()).map_err(failed)?;
    let session = mount::session(fuse, theirs)?;
    let mut answer = [0; 256];
    ours.read(&mut answer).map_err(failed)?;
    sys::redirect(session.as_fd(), connection.as_fd()).map_err(failed)?;
    Ok(session)
}

/// How long whoever waits for an answer may take to run when it has come. What
/// the kernel has forgotten without being heard is dropped after that time.
const GRACE: Duration = Duration::from_secs(10);

/// Asks the kernel again and again what it still knows of what the ledger says,
/// while requests are answered: it may have told the dead process that it had
/// forgotten it.
fn ask_in_background<S: Source>(live: &Arc<Mounted<S>>) -> Result<()> {
    let live = Arc::downgrade(live);
    let ask = move || {
        loop {
            thread::sleep(GRACE);
            let Some(live) = live.upgrade() else { return };
            let Some(notices) = live.notices().clone() else { return };
            let asked = live
                .filesystem
                .ask_for_doubted(|id| notices.knows_file(id), |id| notices.knows_directory(id));
            if let Err(source) = ignore_end(asked) {
                (live.journal)(&Event::NotTold { source });
            }
        }
    };
    let thread = thread::Builder::new().name("asking".into()).spawn(ask);
    thread.map(drop).map_err(|source| Error::Process { source })
}

/// A mount may end at any time.
fn ignore_end(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(err) if matches!(err.raw_os_error(), Some(libc::ENOTCONN | libc::ENODEV)) => Ok(()),
        result => result,
    }
}
