//! A stone of this machine between its verification and its use.
//!
//! Others may own the directory that it lies in. So what was verified is known by what
//! the kernel says of it, and is compared when it is opened for use, and once more when
//! all of it has been read: a file cannot be changed, nor another come in its place, and
//! look the same, since nobody can set the time of its last change of any kind.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// A stone, and how it was when it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedStone {
    path: PathBuf,
    stamp: Option<Stamp>,
}

/// What the kernel says of a file that nobody changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::new(&file.metadata()?))
    }

    fn new(data: &Metadata) -> Self {
        Self {
            file: (data.dev(), data.ino()),
            size: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

impl ProvedStone {
    /// The stone at `path`, which had `stamp` before it was verified.
    #[must_use]
    pub fn new(path: PathBuf, stamp: Stamp) -> Self {
        Self { path, stamp: Some(stamp) }
    }

    /// A stone that nobody else can change, such as a download in a store.
    #[must_use]
    pub fn own(path: PathBuf) -> Self {
        Self { path, stamp: None }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Replaced`] when it is not what was verified.
    pub fn open(&self) -> Result<File> {
        let file = File::open(&self.path)
            .map_err(|source| Error::File { path: self.path.clone(), source })?;
        self.check(&file)?;
        Ok(file)
    }

    /// Makes sure that `file`, which was opened with [`Self::open`] and read, is still what
    /// was verified.
    ///
    /// # Errors
    /// [`Error::Replaced`].
    pub fn check(&self, file: &File) -> Result<()> {
        match &self.stamp {
            Some(stamp) if Stamp::of(file).map_err(Error::Read)? != *stamp => Err(Error::Replaced),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn another_file_and_other_bytes_are_not_what_was_verified() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.stone");
        let prove = || {
            std::fs::write(&path, b"good").unwrap();
            ProvedStone::new(path.clone(), Stamp::of(&File::open(&path).unwrap()).unwrap())
        };
        let times = |path: &Path| {
            let data = std::fs::metadata(path).unwrap();
            std::fs::FileTimes::new()
                .set_modified(data.modified().unwrap())
                .set_accessed(data.accessed().unwrap())
        };

        let proved = prove();
        let file = proved.open().unwrap();
        proved.check(&file).unwrap();
        // Another file of the same size and time under the same name.
        let other = directory.path().join("other");
        std::fs::write(&other, b"evil").unwrap();
        File::options().append(true).open(&other).unwrap().set_times(times(&path)).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(proved.open(), Err(Error::Replaced)));

        let proved = prove();
        let file = proved.open().unwrap();
        let before = times(&path);
        let mut changed = File::options().write(true).open(&path).unwrap();
        changed.write_all(b"evil").unwrap();
        changed.set_times(before).unwrap();
        assert!(matches!(proved.check(&file), Err(Error::Replaced)));
        assert!(matches!(proved.open(), Err(Error::Replaced)));
        let own = ProvedStone::own(path.clone());
        own.check(&own.open().unwrap()).unwrap();
    }
}
