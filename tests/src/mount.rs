//! Mounts that go away with the test, however that ends.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cairn::Cairn;
use crate::{run, sys};

/// A directory on which a store is mounted until this is dropped.
#[derive(Debug)]
pub struct Mount<'c> {
    cairn: &'c Cairn,
    path: PathBuf,
}

impl<'c> Mount<'c> {
    /// Runs `cairn mount ARGS NAME`, with a new directory `NAME` beside the store.
    ///
    /// # Panics
    /// If the command fails.
    pub fn new(cairn: &'c Cairn, args: &[&str], name: &str) -> Self {
        let path = cairn.directory().join(name);
        std::fs::create_dir_all(&path).unwrap();
        // First, so that what a failing command leaves goes away, too.
        let mount = Self { cairn, path };
        let words = [&["mount"], args].concat();
        cairn.data(words.iter().map(OsStr::new).chain([mount.path.as_os_str()]));
        mount
    }

    /// Takes away what somebody else mounts on `NAME` beside the store, if anybody
    /// does.
    #[must_use]
    pub fn expected(cairn: &'c Cairn, name: &str) -> Self {
        Self { cairn, path: cairn.directory().join(name) }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something below the directory; `path` may begin with `/`.
    #[must_use]
    pub fn join(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// Runs `cairn umount`, which has to succeed.
    ///
    /// # Panics
    /// If it fails, or something is still mounted there.
    pub fn umount(self) {
        self.cairn.data([OsStr::new("umount"), self.path.as_os_str()]);
        assert!(!is_mounted(&self.path), "{} is still mounted", self.path.display());
    }

    /// The process that answers the kernel for this mount.
    ///
    /// # Panics
    /// If none is registered.
    #[must_use]
    pub fn process(&self) -> u32 {
        let mounts = cairn_fs::list(&self.cairn.store().join("run")).unwrap();
        let ours = mounts.iter().find(|mount| Path::new(&mount.target) == self.path);
        ours.expect("the mount is registered").pid
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Not more than one should be there, but a test may have gone wrong.
        for _ in 0..8 {
            if !is_mounted(&self.path) || sys::umount_lazily(&self.path).is_err() {
                break;
            }
        }
    }
}

/// Something else that is mounted until this is dropped.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Runs `mount ARGUMENTS PATH`; the directory is made if it is not there.
    ///
    /// # Panics
    /// If the command fails.
    #[must_use]
    pub fn new(path: &Path, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(path).unwrap();
        run(Command::new("mount").args(arguments).arg(path));
        Self(path.into())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs `umount`, which has to succeed.
    ///
    /// # Panics
    /// If it fails.
    pub fn umount(self) {
        run(Command::new("umount").arg(&self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // If it is not there, nothing is left to do.
        let _ = sys::umount_lazily(&self.0);
    }
}

/// Whether something is mounted on `path`: asked of the table of mounts, since
/// a dead mount does not answer.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.to_str().expect("temporary directories have plain names");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path))
}
