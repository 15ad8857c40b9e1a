//! Each step that makes something durable, behind a trait, so that a test can
//! cut the power between any two.
//!
//! Only changes go through it: what is read is read from the real files. The
//! index is not written through it, since the store does not depend on it.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use crate::sys;

/// The changes that a store makes to a disk.
///
/// What a method wrote may be lost in a power cut until the matching sync has
/// returned: the bytes and length of a file until [`DiskFile::sync`], the
/// names in a directory until [`Disk::sync_directory`].
pub trait Disk: Debug + Send + Sync {
    /// Makes a file that did not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for writing that exists.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a further name, which must be free.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory, unless it exists.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes all files and names of the filesystem that holds `path` durable.
    fn sync_filesystem(&self, path: &Path) -> io::Result<()>;
    /// The time of its machine, which new states are dated with.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A file that is being written.
pub trait DiskFile: Debug + Send {
    /// Writes all of `bytes` at `offset`, growing the file as needed.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file, or grows it with zeros.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Makes the bytes and the length durable; not the name.
    fn sync(&mut self) -> io::Result<()>;
}

/// The directory in which `path` lies: `.` for a bare name.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Makes a directory and those above it that are missing, all of them durable.
///
/// # Errors
/// Those of [`Disk::create_directory`] and [`Disk::sync_directory`].
pub fn create_directories(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = directory_of(path);
    create_directories(disk, above)?;
    disk.create_directory(path)?;
    disk.sync_directory(above)
}

/// The machine's own disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        sys::syncfs(&File::open(path)?)
    }
}

impl DiskFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
