//! What stat(2) says of an entry of a tree.

use cairn_store::tree::{Content, Device};
use cairn_store::{Attributes, Entry, Leaf, Timestamp, Tree};

use crate::serve::node::NodeId;

/// Kind of a file, with what only that kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
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

/// What stat(2) says. There is one time: a tree keeps only that of the last
/// change of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Number of the file.
    pub id: NodeId,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// How many names it has; for a directory 2 and the number of directories
    /// in it.
    pub links: u32,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Bytes of content, or of a symbolic link's text; of a directory what most
    /// filesystems say, a block.
    pub size: u64,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
}

/// What a directory's size is said to be.
const DIRECTORY_SIZE: u64 = 4096;

impl Stat {
    pub(crate) fn of_leaf(id: NodeId, leaf: &Leaf) -> Self {
        let links = leaf.link.map_or(1, |link| link.count);
        Self::new(id, Kind::of(&leaf.content), &leaf.attributes, links, leaf.stat_size())
    }

    pub(crate) fn of_directory(id: NodeId, tree: &Tree) -> Self {
        let is_directory = |entry: &Entry| entry.as_directory().is_some();
        let below = tree.entries().iter().filter(|(_, entry)| is_directory(entry)).count();
        let links = u32::try_from(below).unwrap_or(u32::MAX).saturating_add(2);
        Self::new(id, Kind::Directory, &tree.attributes, links, DIRECTORY_SIZE)
    }

    fn new(id: NodeId, kind: Kind, attributes: &Attributes, links: u32, size: u64) -> Self {
        let Attributes { mode, uid, gid, mtime, .. } = *attributes;
        Self { id, kind, mode, links, uid, gid, size, mtime }
    }
}

impl Kind {
    pub(crate) fn of(content: &Content) -> Self {
        match content {
            Content::File(_) => Self::File,
            Content::Symlink(_) => Self::Symlink,
            Content::CharDevice(device) => Self::CharDevice(*device),
            Content::BlockDevice(device) => Self::BlockDevice(*device),
            Content::Fifo => Self::Fifo,
            Content::Socket => Self::Socket,
        }
    }
}
