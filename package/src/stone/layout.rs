//! One entry of a package: a path and what lies there.

use cairn_store::tree::Device;
use cairn_store::{BlobKey, Timestamp, TreePath, Xattr};

/// One entry of a package.
///
/// Directories are listed only if they are empty or differ from root-owned
/// 0755; all other parents are implied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// From the root of the system, such as `/usr/bin/nano`. Never the root.
    pub path: TreePath,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u16,
    /// Reserved by the format: 0 in current files, any value in old ones.
    pub tag: u32,
    /// Kind and content.
    pub content: LayoutContent,
    /// What stone v1 cannot say, from Cairn's own payload.
    pub extra: Extra,
}

/// What lies at a path of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutContent {
    /// A regular file with the key of its bytes.
    Regular(BlobKey),
    /// A symbolic link with its text: 1 to 4,095 bytes of UTF-8 without NUL.
    Symlink(Box<[u8]>),
    /// A directory.
    Directory,
    /// A character device; its number is in [`Extra::device`] or unknown.
    CharDevice,
    /// A block device; its number is in [`Extra::device`] or unknown.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

/// What Cairn records of an entry beyond stone v1; other readers skip it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// Time of the last change of the content.
    pub mtime: Option<Timestamp>,
    /// Sorted by name, no name twice.
    pub xattrs: Vec<Xattr>,
    /// Number of the group of hard links within this package. All members are
    /// equal in all but their path, and there are at least two.
    pub link: Option<u32>,
    /// Number of a device.
    pub device: Option<Device>,
}
