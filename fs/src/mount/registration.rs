//! What a store's mounts are, noted where gc and other processes find it.
//!
//! `STORE/run/mounts/<pid>-<n>.json` says what the mount shows, and
//! `<pid>-<n>.sock` beside it is its control socket. The process of the mount
//! keeps the file locked; the kernel takes the lock away with the process,
//! however that ends, so that a file without a lock is what a dead mount left
//! behind, and is removed by whoever meets it. Where a keeper keeps the mount
//! itself alive, it keeps the lock as well.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use cairn_store::{Holder, NoProc, StateId, TreeId};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mount::idmap::IdMap;
use crate::mount::mountinfo::MountPoint;
use crate::process::keeper::{Keeper, REGISTRATION};
use crate::shape::Shape;
use crate::sys;

/// What a running mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Process of the mount.
    pub pid: u32,
    /// Where it is mounted, with bytes that are no UTF-8 replaced; `/` for a
    /// state in which a program runs.
    pub target: String,
    /// Major and minor number of the device that its files have, by which it is found where
    /// it was moved, as the root of a system is when the machine takes it. None for what
    /// has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// What its root is.
    pub shape: Shape,
    /// The state that it follows or is pinned to.
    pub state: Option<StateId>,
    /// The roots that gc must keep with all below them.
    pub trees: Vec<TreeId>,
    /// Whether it shows all states, so that none of these is more than another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_states: bool,
    /// The workspace whose layer lies above the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// What of the machine lies on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<Bound>,
    /// Whether the kernel reads large files by itself, from plain files that gc has to keep.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passthrough: bool,
    /// Why it does not though it was to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passthrough_refused: Option<String>,
    /// Whether processors may sleep between requests that follow each other closely.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub power_save: bool,
    /// Which owners it shows as which: words as `X-mount.idmap` of mount(8) has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idmap: Option<String>,
    /// Name of the registration: `<pid>-<n>`.
    #[serde(skip)]
    pub(crate) name: String,
}

impl Registration {
    /// What a mount of this process on `target` shows, when nothing else is special about it.
    pub(crate) fn new(
        target: &Path,
        shape: Shape,
        state: Option<StateId>,
        trees: Vec<TreeId>,
    ) -> Self {
        Self {
            pid: std::process::id(),
            target: target.to_string_lossy().into_owned(),
            device: None,
            shape,
            state,
            trees,
            all_states: false,
            workspace: None,
            binds: Vec::new(),
            passthrough: false,
            passthrough_refused: None,
            power_save: false,
            idmap: None,
            name: String::new(),
        }
    }

    /// The name of its [`Holder`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A directory or file of the machine that lies on a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Where on the mount, as a path of the state.
    pub path: String,
    /// What it is, with bytes that are no UTF-8 replaced.
    pub source: String,
    /// Whether it was filled from the state when it was mounted.
    pub filled: bool,
}

/// The registration of this process's own mount; gone when dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    directory: PathBuf,
    registration: Registration,
    lock: File,
    /// Who keeps the lock beside this process, and how often that was a new one.
    keeper: Option<Keeper>,
    locks: u64,
}

impl Registered {
    /// Registers a mount, and listens on its control socket.
    pub(crate) fn new(run: &Path, mut registration: Registration) -> Result<(Self, UnixListener)> {
        let directory = Holder::directory(run);
        fs::create_dir_all(&directory).map_err(failed(&directory))?;
        for number in 0.. {
            registration.name = format!("{}-{number}", registration.pid);
            let path = file_of(&directory, &registration.name);
            let (new, lock) = match write(&directory, &registration) {
                Err(Error::Registration { source, .. }) if already_exists(&source) => continue,
                result => result?,
            };
            // A link, since a rename would replace a file of another mount.
            let linked = fs::hard_link(&new, &path);
            fs::remove_file(&new).map_err(failed(&new))?;
            match linked {
                Err(err) if already_exists(&err) => continue,
                result => result.map_err(failed(&path))?,
            }
            let registered = Self { directory, registration, lock, keeper: None, locks: 0 };
            let socket = socket_of(&registered.directory, &registered.registration.name);
            let listener = listen(&socket).map_err(failed(&socket))?;
            return Ok((registered, listener));
        }
        unreachable!("there are fewer mounts than numbers")
    }

    /// Takes over the registration `name` below `run` from a process that has
    /// died; `locks` are those that `keeper` kept of it.
    pub(crate) fn resume(
        run: &Path,
        name: &str,
        locks: Vec<(String, OwnedFd)>,
        keeper: Keeper,
    ) -> Result<Self> {
        let directory = Holder::directory(run);
        let path = file_of(&directory, name);
        let text = fs::read(&path).map_err(failed(&path))?;
        let parsed: serde_json::Result<Registration> = serde_json::from_slice(&text);
        let registration = parsed.map_err(|err| failed(&path)(err.into()))?;
        let number = fs::metadata(&path).map_err(failed(&path))?.ino();
        let mut lock = None;
        for (kept_as, kept) in locks {
            let kept = File::from(kept);
            let is_it = kept.metadata().is_ok_and(|metadata| metadata.ino() == number);
            match kept_as.strip_prefix(REGISTRATION).and_then(|text| text.parse().ok()) {
                Some(count) if is_it => lock = Some((kept, count)),
                // Of a file that did not come to take the place of the other, or
                // had its place taken.
                _ => keeper.let_go(&kept_as).map_err(failed(&path))?,
            }
        }
        let (lock, locks) = lock.ok_or_else(|| failed(&path)(io::ErrorKind::NotFound.into()))?;
        let registration = Registration { name: name.into(), ..registration };
        let mut resumed = Self { directory, registration, lock, keeper: Some(keeper), locks };
        let registration = Registration { pid: std::process::id(), ..resumed.registration.clone() };
        resumed.replace(registration)?;
        Ok(resumed)
    }

    /// The `run` directory, as [`Registered::resume`] asks for it.
    pub(crate) fn run(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// The name, as [`Registered::resume`] asks for it.
    pub(crate) fn name(&self) -> &str {
        &self.registration.name
    }

    /// Whether the kernel reads large files by itself.
    pub(crate) fn passes_through(&self) -> bool {
        self.registration.passthrough
    }

    /// Whether processors may sleep in bursts of requests.
    pub(crate) fn saves_power(&self) -> bool {
        self.registration.power_save
    }

    /// Who keeps the lock, so that the mount stays registered when this process
    /// dies.
    pub(crate) fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// Lets `keeper` keep the lock as well.
    pub(crate) fn keep_with(&mut self, keeper: Keeper) -> io::Result<()> {
        keeper.keep(&format!("{REGISTRATION}{}", self.locks), self.lock.as_fd())?;
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Says which device the mount is, what became of passthrough, nothing if it was not
    /// asked for, whether it saves power, and how it maps owners.
    pub(crate) fn has_begun(
        &mut self,
        device: (u32, u32),
        passthrough: Option<Result<(), String>>,
        power_save: bool,
        idmap: Option<&IdMap>,
    ) -> Result<()> {
        self.replace(Registration {
            device: Some(device),
            passthrough: passthrough == Some(Ok(())),
            passthrough_refused: passthrough.and_then(Result::err),
            power_save,
            idmap: idmap.map(ToString::to_string),
            ..self.registration.clone()
        })
    }

    /// Says what the mount shows from now on.
    pub(crate) fn update(&mut self, state: Option<StateId>, trees: Vec<TreeId>) -> Result<()> {
        if self.registration.state == state && self.registration.trees == trees {
            return Ok(());
        }
        self.replace(Registration { state, trees, ..self.registration.clone() })
    }

    fn replace(&mut self, registration: Registration) -> Result<()> {
        let (new, lock) = write(&self.directory, &registration)?;
        let path = file_of(&self.directory, &registration.name);
        // Before the name is its, so that the file of that name is locked whenever
        // this process dies. A keeper that has died itself is done without.
        let next = format!("{REGISTRATION}{}", self.locks + 1);
        self.keeper.take_if(|keeper| keeper.keep(&next, lock.as_fd()).is_err());
        fs::rename(&new, &path).map_err(failed(&path))?;
        let last = format!("{REGISTRATION}{}", self.locks);
        self.keeper.take_if(|keeper| keeper.let_go(&last).is_err());
        self.locks += 1;
        // Only now, so that the file of that name has always been locked.
        self.lock = lock;
        self.registration = registration;
        Ok(())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // What stays is removed by whoever meets it without its lock.
        let _ = fs::remove_file(socket_of(&self.directory, &self.registration.name));
        let _ = fs::remove_file(file_of(&self.directory, &self.registration.name));
    }
}

/// The running mounts that are registered below a store's `run` directory;
/// removes what dead ones left behind.
///
/// # Errors
/// A registration that cannot be read is an error, not a mount less: gc would
/// take away what it shows.
pub fn list(run: &Path) -> Result<Vec<Registration>> {
    let directory = Holder::directory(run);
    let mut found = Vec::new();
    for Holder { name, text } in Holder::list(run)? {
        let parsed: serde_json::Result<Registration> = serde_json::from_str(&text);
        let path = file_of(&directory, &name);
        let registration = parsed.map_err(|err| failed(&path)(err.into()))?;
        found.push(Registration { name, ..registration });
    }
    remove_unfinished(&directory)?;
    find_moved(&mut found);
    found.sort_by(|a, b| (a.pid, &a.name).cmp(&(b.pid, &b.name)));
    Ok(found)
}

/// Says where mounts are that are no longer where they were made: the root of a system is
/// made below that of an initrd. Where /proc is missing, they stay where they were.
fn find_moved(found: &mut [Registration]) {
    let Ok(mounts) = MountPoint::all() else { return };
    for registration in found {
        let Some(device) = registration.device else { continue };
        let its = || mounts.iter().filter(|mount| mount.device == device && mount.is_whole());
        if its().all(|mount| mount.target != Path::new(&registration.target))
            && let Some(mount) = its().next()
        {
            registration.target = mount.target.to_string_lossy().into_owned();
        }
    }
}

/// Removes what processes left that died while they registered.
fn remove_unfinished(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(failed(directory))?,
    };
    for entry in entries {
        let file_name = entry.map_err(failed(directory))?.file_name();
        let name = file_name.to_str().and_then(|name| name.strip_suffix(".new"));
        let pid = name.and_then(|name| name.split('-').next()?.parse().ok());
        if pid.is_some_and(|pid| !sys::exists(pid)) {
            let _ = fs::remove_file(directory.join(file_name));
        }
    }
    Ok(())
}

/// Whether a mount is still there.
pub(crate) fn is_registered(run: &Path, registration: &Registration) -> Result<bool> {
    Ok(list(run)?.iter().any(|other| other.name == registration.name))
}

/// Connects to the control socket of a mount.
pub(crate) fn connect(run: &Path, registration: &Registration) -> io::Result<UnixStream> {
    by_short_path(&socket_of(&Holder::directory(run), &registration.name), |path| {
        UnixStream::connect(path)
    })
}

/// Writes a registration under a temporary name and locks it.
fn write(directory: &Path, registration: &Registration) -> Result<(PathBuf, File)> {
    // Begins with who writes it, since the name may be that of a predecessor.
    let path = directory.join(format!("{}-{}.new", std::process::id(), registration.name));
    let attempt = || {
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        file.write_all(&serde_json::to_vec(registration)?)?;
        // Held open as long as the mount lasts, and not for writing: the filesystem of a
        // system's root could not be made read-only when the machine is switched off.
        let file = File::open(&path)?;
        file.lock()?;
        Ok(file)
    };
    let file = attempt().map_err(failed(&path))?;
    Ok((path, file))
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    // Of a mount that died and whose registration is gone.
    match fs::remove_file(socket) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let listener = by_short_path(socket, |path| UnixListener::bind(path))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What the address of a socket has room for, in bytes, with the NUL behind it.
const ADDRESS_LEN: usize = 108;

/// Calls `f` with a path to the same file that fits into the address of a socket.
fn by_short_path<T>(path: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return f(path) };
    // So that it takes no /proc where it need not.
    if path.as_os_str().len() < ADDRESS_LEN {
        return f(path);
    }
    let directory = File::open(directory)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    f(&short).map_err(NoProc::or)
}

fn file_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.json"))
}

fn socket_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.sock"))
}

fn already_exists(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Registration { path: path.into(), source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_reached_however_long_its_path_is() {
        let directory = tempfile::tempdir().unwrap();
        for depth in [1, 40] {
            let place = directory.path().join("below/".repeat(depth));
            fs::create_dir_all(&place).unwrap();
            let socket = place.join("a.sock");
            let _listener = listen(&socket).unwrap();
            assert_eq!(socket.as_os_str().len() < ADDRESS_LEN, depth == 1);
            by_short_path(&socket, |path| UnixStream::connect(path)).unwrap();
        }
    }
}
