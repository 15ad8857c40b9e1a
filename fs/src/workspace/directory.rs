//! The directories of a workspace: made, and taken away with all in them.

use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cairn_store::Attributes;
use cairn_store::workspace::{LayerMarks, Record, layer_path};

use crate::error::{Error, Result};
use crate::serve::fuse::time;
use crate::sys;

/// Where the state below is mounted until the overlay has it.
pub(crate) const LOWER: &str = "lower";

/// Makes the directory of the record's layer, if it is not there yet: an upper
/// layer in which nothing has changed, whose root is as `root` says.
pub(crate) fn prepare_layer(workspace: &Path, record: &Record, root: &Attributes) -> Result<()> {
    let layer = layer_path(workspace, record.layer);
    let upper = layer.join("upper");
    if upper.is_dir() {
        return Ok(());
    }
    let new = layer.join("upper.new");
    for directory in [&layer, &layer.join("work"), &new] {
        match fs::create_dir(directory) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(failed(directory))?,
        }
    }
    give(&new, root, record.marks).map_err(failed(&new))?;
    fs::rename(&new, &upper).map_err(failed(&upper))
}

/// Gives the attributes of the state's root to the root of an upper layer, which
/// is what the overlay shows as its own.
fn give(directory: &Path, root: &Attributes, marks: LayerMarks) -> io::Result<()> {
    let is_root_of_machine = marks == LayerMarks::Trusted;
    if is_root_of_machine {
        chown(directory, Some(root.uid), Some(root.gid))?;
    }
    for xattr in &root.xattrs {
        if is_root_of_machine || !xattr.name.starts_with(b"trusted.") {
            sys::set_xattr(directory, &xattr.name, &xattr.value)?;
        }
    }
    fs::set_permissions(directory, Permissions::from_mode(root.mode.into()))?;
    let mtime: SystemTime = time(root.mtime);
    File::open(directory)?.set_times(FileTimes::new().set_modified(mtime).set_accessed(mtime))
}

/// Takes away the layers that the record does not name.
///
/// What belongs to other users of a namespace stays for a process in such a one
/// ([`super::become_owner`]).
pub(crate) fn remove_other_layers(workspace: &Path, record: &Record) -> Result<()> {
    let kept = layer_path(workspace, record.layer);
    for entry in fs::read_dir(workspace).map_err(failed(workspace))? {
        let path = entry.map_err(failed(workspace))?.path();
        let is_layer = path
            .file_name()
            .is_some_and(|name| name.to_str().is_some_and(|name| name.starts_with("layer-")));
        if is_layer && path != kept {
            match remove_all(&path) {
                Err(Error::Layer { source, .. }) if is_of_others(&source) => {}
                result => result?,
            }
        }
    }
    Ok(())
}

/// Whether something is another user's. In a namespace that has all of them, nobody is another.
fn is_of_others(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && sys::effective_user().0 != 0
}

/// Removes a directory with all in it, also directories that forbid it: that of
/// overlayfs's own work has mode 000.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {}
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => return result.map_err(failed(path)),
    }
    open_up(path).map_err(failed(path))?;
    fs::remove_dir_all(path).map_err(failed(path))
}

/// Lets this user enter and change a directory and those below it.
fn open_up(path: &Path) -> io::Result<()> {
    let mut waiting: Vec<PathBuf> = vec![path.into()];
    while let Some(directory) = waiting.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}

pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Layer { path: path.into(), source }
}
