//! Real filesystems on such disks.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::Image;
use crate::Need;

/// A kind of filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// ext4 with blocks of 4 KiB.
    Ext4,
    /// ext4 with blocks of 1 KiB: one write may be several of the disk's.
    Ext4Small,
    /// XFS.
    Xfs,
    /// Btrfs: a sync of one file says nothing about others.
    Btrfs,
}

impl Filesystem {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Ext4Small, Self::Xfs, Self::Btrfs];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4-4k",
            Self::Ext4Small => "ext4-1k",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// What makes one.
    #[must_use]
    pub fn need(self) -> Need {
        match self {
            Self::Ext4 | Self::Ext4Small => Need::Program("mkfs.ext4", "e2fsprogs"),
            Self::Xfs => Need::Program("mkfs.xfs", "xfsprogs"),
            Self::Btrfs => Need::Program("mkfs.btrfs", "btrfs-progs"),
        }
    }

    /// What a disk is to write whole, or not at all.
    ///
    /// XFS is lost where a block of its metadata is torn: it looks at the first sector to see
    /// whether its journal has more. Btrfs is where its superblock is, a block with one checksum,
    /// of which the copies are not asked at mount. Most disks write 4 KiB at once.
    #[must_use]
    pub fn sector(self) -> usize {
        match self {
            Self::Ext4 | Self::Ext4Small => 512,
            Self::Xfs | Self::Btrfs => 4096,
        }
    }

    /// How it is made, and how large it is: small, but as small as its makers allow.
    fn make_words(self) -> (&'static [&'static str], u64) {
        match self {
            Self::Ext4 => (&["mkfs.ext4", "-q", "-b", "4096", "-m", "0"], 96 << 20),
            Self::Ext4Small => (&["mkfs.ext4", "-q", "-b", "1024", "-m", "0"], 64 << 20),
            Self::Xfs => (&["mkfs.xfs", "-q"], 304 << 20),
            Self::Btrfs => (&["mkfs.btrfs", "-q"], 128 << 20),
        }
    }

    /// Makes an empty one.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn make(self) -> Image {
        let file = tempfile::NamedTempFile::new().unwrap();
        self.make_in(file.path());
        Image::load(file.path()).unwrap()
    }

    /// Makes an empty one in a file.
    ///
    /// # Panics
    /// If that fails.
    pub fn make_in(self, file: &Path) {
        let (words, len) = self.make_words();
        File::create(file).unwrap().set_len(len).unwrap();
        let made = Command::new(words[0]).args(&words[1..]).arg(file).output().unwrap();
        assert!(made.status.success(), "{words:?}: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Mounts the one that is in a file.
    ///
    /// # Errors
    /// What mount(8) says.
    pub fn mount(self, file: &Path, target: &Path) -> io::Result<Mounted> {
        let (kind, options) = match self {
            // There are several copies of one filesystem at once.
            Self::Xfs => ("xfs", "loop,nouuid"),
            Self::Btrfs => ("btrfs", "loop"),
            Self::Ext4 | Self::Ext4Small => ("ext4", "loop"),
        };
        fs::create_dir_all(target)?;
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", kind, "-o", options]).arg(file).arg(target).output()?;
        if !mounted.status.success() {
            let said = String::from_utf8_lossy(&mounted.stderr);
            return Err(io::Error::other(said.trim().replace('\n', " ")));
        }
        Ok(Mounted(target.into()))
    }
}

/// A mounted filesystem, with its loop device; both go away when this is dropped.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        if !umount.arg(&self.0).status().is_ok_and(|status| status.success()) {
            let _ = crate::umount_lazily(&self.0);
        }
    }
}

/// Has the calling thread, and all that it starts, see mounts of its own, which go away with
/// the last of them whatever ends it.
///
/// # Errors
/// Those of the system.
pub fn own_mounts() -> io::Result<()> {
    crate::sys::own_mounts()
}

/// Cuts a filesystem off its disk: what it has not written is lost, and whoever uses it
/// meets errors.
///
/// # Errors
/// Those of the system.
pub fn shut_down(mounted: &Path) -> io::Result<()> {
    crate::sys::shut_down(&File::open(mounted)?)
}
