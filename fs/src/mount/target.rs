//! The directory that a mount is or will be on: where it is, whether it can be mounted
//! on, and what is on it already.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cairn_store::disk::directory_of;

use crate::error::{Error, Result};
use crate::event::{Event, Journal};
use crate::mount::attach;
use crate::mount::attach::Unmount;
use crate::mount::mountinfo::MountPoint;
use crate::mount::registration::{self, Registration};
use crate::sys;

/// Checks that `target` is a directory that can be mounted on, and returns its
/// absolute path. What a mount has left there that died is in nobody's way.
///
/// # Errors
/// [`Error::Target`], [`Error::Occupied`].
pub fn check_target(target: &Path) -> Result<PathBuf> {
    if let Some(place) = dead_mount(target)? {
        return Ok(place);
    }
    let not_usable = |source| Error::Target { target: target.into(), source };
    let target = target.canonicalize().map_err(not_usable)?;
    if MountPoint::at(&target).map_err(not_usable)?.is_some_and(|mount| mount.is_ours()) {
        return Err(Error::Occupied { target });
    }
    if !fs::metadata(&target).map_err(not_usable)?.is_dir() {
        return Err(not_usable(io::ErrorKind::NotADirectory.into()));
    }
    Ok(target)
}

/// Refuses to hide a store behind what it shows: the process of the mount would wait
/// for itself.
pub(crate) fn check_store_is_outside(store: &Path, target: &Path) -> Result<()> {
    // What is missing lies where it would be made.
    let Some(place) = store.ancestors().find_map(|path| path.canonicalize().ok()) else {
        return Ok(());
    };
    if place.starts_with(target) {
        return Err(Error::StoreBelow { store: place, target: target.into() });
    }
    Ok(())
}

/// The device number of what is mounted on `target`.
pub(crate) fn device_of(target: &Path) -> Result<(u32, u32)> {
    let mount =
        MountPoint::at(target).map_err(|source| Error::Target { target: target.into(), source })?;
    Ok(mount.ok_or_else(|| Error::NotMounted { target: target.into() })?.device)
}

/// The mount of Cairn on `target`, of whichever store, as it is registered below the
/// `run` directory that is returned with it. The mount itself is not asked.
///
/// # Errors
/// [`Error::NotMounted`]; [`Error::Target`].
pub fn registered_at(target: &Path) -> Result<(PathBuf, Registration)> {
    let place = whereabouts(target)?;
    let failed = |source| Error::Target { target: target.into(), source };
    let mount = MountPoint::at(&place).map_err(failed)?.filter(MountPoint::is_ours);
    let registered = mount.as_ref().and_then(registration_of);
    registered.ok_or_else(|| Error::NotMounted { target: target.into() })
}

/// How a mount is registered, and below which `run` directory.
pub(crate) fn registration_of(mount: &MountPoint) -> Option<(PathBuf, Registration)> {
    let store = match mount.workspace() {
        Some(path) => Path::new(OsStr::from_bytes(path)).parent()?.parent()?.to_owned(),
        None => PathBuf::from(OsStr::from_bytes(&mount.source)),
    };
    let run = store.join("run");
    let mounts = registration::list(&run).unwrap_or_default();
    let its = mounts.into_iter().find(|it| Path::new(&it.target) == mount.target);
    its.map(|it| (run, it))
}

/// The absolute path of `target`, without asking what is mounted on it.
pub(crate) fn whereabouts(target: &Path) -> Result<PathBuf> {
    let failed = |source| Error::Target { target: target.into(), source };
    match target.file_name() {
        Some(name) => {
            let path = directory_of(target).canonicalize().map_err(failed)?.join(name);
            let is_link = fs::symlink_metadata(&path).is_ok_and(|data| data.is_symlink());
            if is_link { target.canonicalize().map_err(failed) } else { Ok(path) }
        }
        None => target.canonicalize().map_err(failed),
    }
}

/// Where a mount of Cairn is on `target` whose process has ended without
/// unmounting it.
fn dead_mount(target: &Path) -> Result<Option<PathBuf>> {
    // Looked at by name alone: who asks a dead mount for anything gets errors.
    let Ok(place) = whereabouts(target) else { return Ok(None) };
    let failed = |source| Error::Target { target: target.into(), source };
    let is_ours = MountPoint::at(&place).map_err(failed)?.is_some_and(|mount| mount.is_ours());
    Ok((is_ours && sys::is_dead(&place).map_err(failed)?).then_some(place))
}

/// Takes dead mounts away, also when programs still have something open there.
pub(crate) fn remove_dead(target: &Path, journal: &Journal) -> Result<()> {
    while let Some(target) = dead_mount(target)? {
        attach::detach(&target, Unmount::WhenUnused, MountPoint::is_ours)?;
        journal(&Event::DeadRemoved { target });
    }
    Ok(())
}
