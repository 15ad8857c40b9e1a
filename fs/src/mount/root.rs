//! What lies on a live root beside the state: directories of the machine that are
//! bound onto it, because what is in them belongs to no state.
//!
//! Rules and reasons: docs/mount.md, "System roots".

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use cairn_store::export::{DirectoryOptions, export_directory};
use cairn_store::{Attributes, Entry, Name, NoProc, Store, TreeId, TreePath, resolve};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::mount::attach;
use crate::mount::mountinfo::MountPoint;
use crate::mount::registration::Bound;
use crate::mount::target::device_of;
use crate::mount::unmounter::Unmounter;
use crate::process::confined::outside;
use crate::serve::fuse::time;
use crate::sys;

/// A directory, or a file, of the machine on a path of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootBind {
    /// Where on the mount; the state must have a directory there, or a file.
    pub path: TreePath,
    /// What is bound.
    pub source: PathBuf,
    /// Whether it is filled from the state when it is empty or missing.
    pub seed: bool,
    /// Whether that has been done for this mount.
    pub filled: bool,
}

impl RootBind {
    /// As it is told of.
    pub(crate) fn bound(&self) -> Bound {
        Bound {
            path: self.path.to_string(),
            source: self.source.to_string_lossy().into_owned(),
            filled: self.filled,
        }
    }

    /// Where it lies, on a mount on `target`.
    fn place(&self, target: &Path) -> PathBuf {
        let names = self.path.names().iter().map(|name: &Name| OsStr::from_bytes(name));
        target.iter().chain(names).collect()
    }
}

/// Where packages ship what a system begins with.
const DEFAULTS: &[u8] = b"usr/share/defaults";

/// While a directory is filled: what is not complete yet, and what is.
const UNFINISHED: &str = ".cairn-seed.new";
const FINISHED: &str = ".cairn-seed";

/// Fills the source of a bind from the state whose root is `tree`, if it is empty or
/// missing: with what the state has at the path, and beside that with what lies
/// below usr/share/defaults/PATH. Returns whether it was filled.
///
/// It is filled as a whole: a directory in which this was interrupted is taken up
/// again by the next call. When it returns, what was filled survives a power cut.
///
/// # Errors
/// [`Error::NoBindPoint`] when the state has no such directory.
pub fn seed(store: &Store, tree: TreeId, bind: &RootBind) -> Result<bool> {
    let directory = |path: &TreePath| -> Result<Option<TreeId>> {
        let entry = resolve(store, tree, path)?;
        Ok(entry.as_ref().and_then(Entry::as_directory).map(|subtree| subtree.id))
    };
    let missing = || Error::NoBindPoint { path: bind.path.clone() };
    let own = directory(&bind.path)?.ok_or_else(missing)?;
    let below = TreePath::new(DEFAULTS).expect("a constant");
    let defaults: TreePath = below.names().iter().chain(bind.path.names()).cloned().collect();
    let defaults = directory(&defaults)?;

    let target = &bind.source;
    fs::create_dir_all(target).map_err(failed(target))?;
    let (unfinished, finished) = (target.join(UNFINISHED), target.join(FINISHED));
    if !finished.exists() {
        if !is_empty(target).map_err(failed(target))? {
            return Ok(false);
        }
        remove(&unfinished)?;
        fs::create_dir(&unfinished).map_err(failed(&unfinished))?;
        let parts = [("own", Some(own)), ("defaults", defaults)];
        for (name, tree) in parts {
            let Some(tree) = tree else { continue };
            export_directory(
                store,
                tree,
                &unfinished.join(name),
                DirectoryOptions::default(),
                &(),
            )?;
        }
        let own = unfinished.join("own");
        fill(&own, &unfinished.join("defaults"))?;
        fs::rename(&own, &finished).map_err(failed(&finished))?;
        sync(&unfinished)?;
        sync(target)?;
        remove(&unfinished)?;
    }
    // From here on the next call goes on where this one ends.
    move_up(&finished, target)?;
    give(target, &store.tree(own)?.attributes).map_err(failed(target))?;
    sync(target)?;
    Ok(true)
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        // A filesystem of its own has the first one from the beginning.
        if name != "lost+found" && name != UNFINISHED {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves from `defaults` to `own` what is not there.
fn fill(own: &Path, defaults: &Path) -> Result<()> {
    let entries = match fs::read_dir(defaults) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(defaults))?,
    };
    for entry in entries {
        let name = entry.map_err(failed(defaults))?.file_name();
        let (from, to) = (defaults.join(&name), own.join(&name));
        match fs::symlink_metadata(&to) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                fs::rename(&from, &to).map_err(failed(&to))?;
            }
            Err(err) => return Err(failed(&to)(err)),
            Ok(there) => {
                let is_directory = |it: fs::Metadata| it.is_dir();
                if there.is_dir() && fs::symlink_metadata(&from).is_ok_and(is_directory) {
                    fill(&to, &from)?;
                }
            }
        }
    }
    Ok(())
}

/// Moves all that is in `from` into the directory that it lies in.
fn move_up(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let name = entry.map_err(failed(from))?.file_name();
        let target = to.join(&name);
        match fs::rename(from.join(&name), &target) {
            // That of the filesystem stays.
            Err(_) if name == "lost+found" => {}
            result => result.map_err(failed(&target))?,
        }
    }
    remove(from)
}

fn give(directory: &Path, attributes: &Attributes) -> io::Result<()> {
    if sys::effective_user().0 == 0 {
        chown(directory, Some(attributes.uid), Some(attributes.gid))?;
    }
    for xattr in &attributes.xattrs {
        sys::set_xattr(directory, &xattr.name, &xattr.value)?;
    }
    fs::set_permissions(directory, Permissions::from_mode(attributes.mode.into()))?;
    let mtime = time(attributes.mtime);
    File::open(directory)?.set_times(FileTimes::new().set_modified(mtime))
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(directory))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed(directory)(err)),
        _ => Ok(()),
    }
}

/// The same with absolute sources that no symbolic link leads to.
pub(crate) fn find_sources(binds: &[RootBind]) -> Result<Vec<RootBind>> {
    let find = |bind: &RootBind| {
        let source = bind.source.canonicalize().map_err(failed(&bind.source))?;
        Ok(RootBind { source, ..bind.clone() })
    };
    binds.iter().map(find).collect()
}

/// Tells `unmounter` what of `binds` lies on the mount on `target`, without asking
/// the mount for anything; returns the rest. The process of the root of a system sees no
/// mounts: there all lie where they did.
pub(crate) fn find_bound(
    target: &Path,
    binds: Vec<RootBind>,
    unmounter: &Unmounter,
) -> io::Result<Vec<RootBind>> {
    let mounts = match outside(MountPoint::all)? {
        Err(err) if NoProc::is_why(&err) => return Ok(Vec::new()),
        mounts => mounts?,
    };
    let mut rest = Vec::new();
    for bind in binds {
        let place = bind.place(target);
        match mounts.iter().rfind(|mount| mount.target == place) {
            Some(mount) => unmounter.bound(place, mount.device, bind.source),
            None => rest.push(bind),
        }
    }
    Ok(rest)
}

/// Binds a source onto the mount on `target`, which is answered.
pub(crate) fn bind(target: &Path, bind: &RootBind, unmounter: &Unmounter) -> Result<()> {
    let RootBind { path, source, .. } = bind;
    let failed = |err| Error::Bind { path: path.clone(), directory: source.clone(), source: err };
    let place = match open_on(target, path) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
            return Err(Error::NoBindPoint { path: path.clone() });
        }
        Err(err) => return Err(failed(err.into())),
    };
    let on = format!("/proc/self/fd/{}", place.as_raw_fd());
    let mounted = bind.place(target);
    attach::bind(source, Path::new(&on), &mounted).map_err(failed)?;
    let device = device_of(&mounted)?;
    unmounter.bound(mounted, device, source.clone());
    Ok(())
}

/// Opens what is at `path` of the mount: nothing of a state leads out of it.
fn open_on(target: &Path, path: &TreePath) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let root = open(target, flags, Mode::empty())?;
    openat2(&root, path.names().join(&b'/'), flags, Mode::empty(), resolve)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Directory { path: path.into(), source }
}
