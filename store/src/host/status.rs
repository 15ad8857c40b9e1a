//! What lstat(2) tells of a file.

use rustix::fs::{FileType, Stat, major, minor};

use crate::tree::{Attributes, Device, Timestamp, Xattr};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

/// What lstat(2) tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Bytes of a regular file.
    pub size: u64,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Time of the last change of anything; set by the kernel alone.
    pub ctime: Timestamp,
    /// The filesystem that holds it.
    pub filesystem: u64,
    /// Its number there.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
}

impl Status {
    #[allow(clippy::unnecessary_cast, reason = "the types differ between machines")]
    pub(super) fn of(stat: &Stat) -> Self {
        let device = Device { major: major(stat.st_rdev as _), minor: minor(stat.st_rdev as _) };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice(device),
            FileType::BlockDevice => Kind::BlockDevice(device),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::RegularFile | FileType::Unknown => Kind::File,
        };
        let time = |seconds: i64, nanoseconds: u64| {
            let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
            Timestamp::new(seconds, nanoseconds).unwrap_or_default()
        };
        Self {
            kind,
            mode: u16::try_from(stat.st_mode & 0o7777).expect("it has 12 bits"),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec as u64),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec as u64),
            filesystem: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            links: stat.st_nlink as u64,
        }
    }

    /// The attributes as a tree has them.
    #[must_use]
    pub fn attributes(&self, xattrs: Vec<Xattr>) -> Attributes {
        let mode = if self.kind == Kind::Symlink { 0o777 } else { self.mode };
        Attributes { mode, uid: self.uid, gid: self.gid, mtime: self.mtime, xattrs }
    }
}
