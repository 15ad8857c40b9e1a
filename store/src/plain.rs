//! Blobs as plain files, for a kernel that reads them by itself.
//!
//! `STORE/plain/<key><digest>` holds exactly the bytes of a blob. The directory is a cache:
//! any file of it may be removed at any time, and is expanded again when somebody needs
//! it. Whoever reads such a file checks nothing, so that each is hashed as a whole
//! whenever it is opened here. So nothing needs to be synced: what a power cut, a defect
//! of the disk or anybody else has left under the name of a blob is found out, removed
//! and expanded anew.
//!
//! A file grows under another name, and gets its own when it is whole and proved.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::hash::{BlobHasher, BlobKey, BlobRef};
use crate::pack::ObjectId;
use crate::store::{Inner, Store};

/// The plain files of a store.
#[derive(Clone, Debug)]
pub struct Plain {
    store: Store,
}

/// What a collection removes, or would remove, of the plain files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unneeded {
    /// Files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// One of so many parts of the filesystem stays free: a cache must not fill the disk.
const RESERVE: u64 = 20;

/// A file that nobody has written to for so long was left by a process that has ended.
const ABANDONED: Duration = Duration::from_secs(60);

/// What the name of a file ends with that is being written.
const UNFINISHED: &str = "new";

/// So much of a file is read at a time.
const CHUNK: usize = 256 << 10;

impl Store {
    /// Its blobs as plain files.
    #[must_use]
    pub fn plain(&self) -> Plain {
        Plain { store: self.clone() }
    }
}

impl Plain {
    /// Opens a file that holds exactly the bytes of `blob`, for reading; expands it unless
    /// it is there.
    ///
    /// Costs reading and hashing the whole file, or decompressing, hashing and writing the
    /// whole blob.
    ///
    /// # Errors
    /// - Those of [`Store::read`]; nothing is left behind then.
    /// - [`Error::Io`] when the file cannot be written; [`Error::is_full`] says so when a
    ///   twentieth of the filesystem would not stay free.
    pub fn open(&self, blob: &BlobRef) -> Result<File> {
        match self.open_expanded(blob)? {
            Some(file) => Ok(file),
            None => self.expand(blob),
        }
    }

    /// Whether there is a file for `blob`; not whether it is sound.
    #[must_use]
    pub fn has(&self, blob: &BlobRef) -> bool {
        self.path_of(blob).exists()
    }

    /// Some file that lies where the others do, to try what the kernel permits.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn sample(&self) -> io::Result<File> {
        File::open(self.store.path().join("format"))
    }

    /// The file that is there, if it is what its name says; removes another one.
    ///
    /// Costs reading and hashing the whole file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read or removed.
    pub(crate) fn open_expanded(&self, blob: &BlobRef) -> Result<Option<File>> {
        let path = self.path_of(blob);
        let file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(Error::io(&path))?,
        };
        if holds(&file, blob).map_err(Error::io(&path))? {
            return Ok(Some(file));
        }
        match self.inner().disk.remove(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(err)),
            _ => Ok(None),
        }
    }

    fn expand(&self, blob: &BlobRef) -> Result<File> {
        let directory = directory(self.store.path());
        let disk = &self.inner().disk;
        disk.create_directory(&directory).map_err(Error::io(&directory))?;
        check_room(&directory, blob.size).map_err(Error::io(&directory))?;
        let new = self.new_path(blob)?;
        let written = self.write(blob, &new).and_then(|file| {
            match disk.link(&new, &self.path_of(blob)) {
                // Of whoever else was at it; both are good.
                Err(err) if err.kind() != io::ErrorKind::AlreadyExists => Err(Error::io(&new)(err)),
                _ => Ok(file),
            }
        });
        // If it stays, a collection removes it.
        let _ = disk.remove(&new);
        written
    }

    /// Makes an empty file under a name that nobody else has.
    fn new_path(&self, blob: &BlobRef) -> Result<PathBuf> {
        let (name, process) = (name_of(blob), std::process::id());
        let names = (0..).map(|number| format!("{name}-{process}-{number}.{UNFINISHED}"));
        for name in names {
            let path = directory(self.store.path()).join(name);
            match self.inner().disk.create(&path) {
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|_| path.clone()).map_err(Error::io(path)),
            }
        }
        unreachable!("there are fewer files than numbers")
    }

    /// Fills the empty file at `path`, and opens it for reading.
    fn write(&self, blob: &BlobRef, path: &Path) -> Result<File> {
        let mut file = self.inner().disk.open(path).map_err(Error::io(path))?;
        fs::set_permissions(path, Permissions::from_mode(0o400)).map_err(Error::io(path))?;
        let (mut hasher, mut offset) = (BlobHasher::default(), 0);
        self.store.write_to(blob, |piece| {
            file.write_at(piece, offset).map_err(Error::io(path))?;
            hasher.update(piece);
            offset += piece.len() as u64;
            Ok(())
        })?;
        if hasher.finish() != *blob {
            return Err(Error::DamagedBlob { key: blob.key });
        }
        File::open(path).map_err(Error::io(path))
    }

    fn path_of(&self, blob: &BlobRef) -> PathBuf {
        directory(self.store.path()).join(name_of(blob))
    }

    fn inner(&self) -> &Inner {
        self.store.inner()
    }
}

impl Inner {
    /// The plain files that nobody needs: of blobs of which `is_needed` says so, and what
    /// processes left that have ended. `remove` takes them away as well.
    ///
    /// One that is expanded meanwhile stays or goes; either is right.
    pub(crate) fn sweep_plain(
        &self,
        is_needed: impl Fn(ObjectId) -> bool,
        remove: bool,
    ) -> Result<Unneeded> {
        let mut unneeded = Unneeded::default();
        for (path, blob) in self.plain_files()? {
            // It may just have got its name, or have been removed.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let stays = match blob {
                Some(blob) => is_needed(blob),
                None => !is_abandoned(&path, metadata.modified().ok()),
            };
            if stays {
                continue;
            }
            if remove {
                self.disk.remove(&path).map_err(Error::io(&path))?;
            }
            unneeded.files += 1;
            unneeded.bytes += metadata.len();
        }
        Ok(unneeded)
    }

    /// What lies in the directory, with the blob that each file is to hold.
    pub(crate) fn plain_files(&self) -> Result<Vec<(PathBuf, Option<ObjectId>)>> {
        let directory = directory(&self.path);
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io(&directory))?,
        };
        let entries = entries.map(|entry| {
            let name = entry.map_err(Error::io(&directory))?.file_name();
            let blob = name.to_str().and_then(blob_of);
            Ok((directory.join(name), blob))
        });
        entries.collect()
    }
}

fn directory(store: &Path) -> PathBuf {
    store.join("plain")
}

fn name_of(blob: &BlobRef) -> String {
    format!("{}{}", blob.key, blob.digest)
}

/// The blob of which a file has the name, if it has such a name.
fn blob_of(name: &str) -> Option<ObjectId> {
    let (key, digest) = name.split_at_checked(2 * BlobKey::LEN)?;
    Some(ObjectId::Blob(key.parse().ok()?, digest.parse().ok()?))
}

fn is_abandoned(path: &Path, written: Option<SystemTime>) -> bool {
    let age = written.and_then(|written| written.elapsed().ok());
    path.extension() == Some(OsStr::new(UNFINISHED)) && age.is_some_and(|age| age > ABANDONED)
}

/// Whether a file holds exactly the bytes of `blob`.
fn holds(file: &File, blob: &BlobRef) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() != blob.size {
        return Ok(false);
    }
    let (mut hasher, mut buf, mut offset) = (BlobHasher::default(), vec![0; CHUNK], 0);
    loop {
        match file.read_at(&mut buf, offset) {
            Ok(0) => return Ok(hasher.finish() == *blob),
            Ok(len) => {
                hasher.update(&buf[..len]);
                offset += len as u64;
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            // A part of the disk is lost, and with it the file.
            Err(err) if err.raw_os_error() == Some(libc::EIO) => return Ok(false),
            Err(err) => return Err(err),
        }
    }
}

/// Refuses what would leave too little of the filesystem free.
fn check_room(directory: &Path, size: u64) -> io::Result<()> {
    let filesystem = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(filesystem.f_frsize);
    let free = bytes(filesystem.f_bavail).saturating_sub(size);
    if free < bytes(filesystem.f_blocks) / RESERVE {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}
