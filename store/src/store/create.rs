//! How a store is made, so that what an interrupted call leaves can be gone on with.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::{FORMAT, Store};
use crate::disk::{Disk, RealDisk, create_directories};
use crate::error::{Error, Result};
use crate::lock::{Lock, Purpose};

impl Store {
    /// Makes an empty store in `path`, which must not exist or be empty, or hold
    /// what an interrupted call of this left. Only its owner may look into it.
    pub fn create(path: &Path) -> Result<Self> {
        Self::create_on(Arc::new(RealDisk), path)
    }

    /// Like [`Store::create`], on a given disk.
    pub fn create_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let make = |path: &Path| disk.create_directory(path).map_err(Error::io(path));
        if path.is_dir() {
            if !is_unfinished(path).map_err(Error::io(path))? {
                return Err(Error::NotEmpty { path: path.into() });
            }
        } else {
            create_directories(&*disk, path).map_err(Error::io(path))?;
        }
        // Packs hold the files of all users, and a key opens every one of them.
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(Error::io(path))?;
        make(&path.join("run"))?;
        let lock = Lock::take(path, Purpose::Change)?;
        // Another process may have made the store before it gave the lock away.
        if !is_unfinished(path).map_err(Error::io(path))? {
            return Err(Error::NotEmpty { path: path.into() });
        }
        for name in ["packs", "packs/new", "refs", "cache"] {
            make(&path.join(name))?;
        }
        let log = path.join("refs/log");
        let (format, temporary) = (path.join("format"), path.join("format.new"));
        for leftover in [&log, &temporary] {
            match disk.remove(leftover) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(leftover)(err));
                }
                _ => {}
            }
        }
        disk.create(&log).and_then(|mut file| file.sync()).map_err(Error::io(&log))?;
        // The format file makes it a store, so it comes last.
        disk.create(&temporary)
            .and_then(|mut file| {
                file.write_at(format!("{FORMAT}\n").as_bytes(), 0)?;
                file.sync()
            })
            .map_err(Error::io(&temporary))?;
        for directory in ["packs", "refs"].map(|name| path.join(name)) {
            disk.sync_directory(&directory).map_err(Error::io(&directory))?;
        }
        disk.rename(&temporary, &format).map_err(Error::io(&format))?;
        disk.sync_directory(path).map_err(Error::io(path))?;
        drop(lock);
        Self::open_on(disk, path)
    }
}

/// Whether a directory holds nothing but what [`Store::create_on`] makes before the
/// format file: no state, and no pack.
fn is_unfinished(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let is_ours = ["packs", "refs", "run", "cache", "format.new"].iter().any(|it| name == *it);
        if !is_ours {
            return Ok(false);
        }
    }
    let has_packs = match fs::read_dir(path.join("packs")) {
        Ok(packs) => packs.flatten().any(|entry| entry.file_name() != "new"),
        Err(err) if err.kind() == io::ErrorKind::NotFound => false,
        Err(err) => return Err(err),
    };
    let has_states = match fs::metadata(path.join("refs/log")) {
        Ok(log) => log.len() > 0,
        Err(err) if err.kind() == io::ErrorKind::NotFound => false,
        Err(err) => return Err(err),
    };
    Ok(!has_packs && !has_states)
}
