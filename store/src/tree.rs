//! A directory as a value: its attributes and its sorted entries.
//!
//! A tree's id is the hash of its canonical encoding, and the encoding of an
//! entry that is a directory holds that directory's id, so that an id commits
//! to everything below it. The attributes of a directory lie in its own tree,
//! not in its parent's: a tree id also commits to the mode and owner of the
//! directory that it names, the root included.
//!
//! Format: docs/store.md, "Trees".

mod encoding;

use std::fmt;
use std::iter::Sum;

pub use self::encoding::{EncodedTree, InvalidTree, PAGED_FROM};
pub(crate) use self::encoding::{Listed, ends_page};
use crate::hash::{BlobRef, TreeId};
use crate::name::Name;

/// Seconds and nanoseconds since 1970-01-01 00:00 UTC, leap seconds ignored.
///
/// Invariant: `nanoseconds` is below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
}

impl Timestamp {
    /// The time at `seconds` plus `nanoseconds`; `None` for a billion
    /// nanoseconds or more.
    #[must_use]
    pub const fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        if nanoseconds < 1_000_000_000 { Some(Self { seconds, nanoseconds }) } else { None }
    }

    /// Whole seconds, rounded towards the past.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after [`Self::seconds`].
    #[must_use]
    pub const fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }
}

/// One extended attribute, as in xattr(7).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Full name with its namespace, such as `security.capability`; 1 to 255
    /// bytes without NUL.
    pub name: Box<[u8]>,
    /// At most 65,536 bytes.
    pub value: Box<[u8]>,
}

/// What stat(2) and listxattr(2) tell of a file beside its kind and content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u16,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Sorted by name, no name twice.
    pub xattrs: Vec<Xattr>,
}

impl Attributes {
    /// `mode`, owned by root, at the epoch, without extended attributes.
    #[must_use]
    pub const fn of_root(mode: u16) -> Self {
        let mtime = Timestamp { seconds: 0, nanoseconds: 0 };
        Self { mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
    }

    /// What a directory has that exists only because something lies below it:
    /// mode 0755, owned by root, at the epoch, no extended attributes.
    #[must_use]
    pub const fn implied_directory() -> Self {
        Self::of_root(0o755)
    }

    /// Whether all but the time is equal.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
            && self.xattrs == other.xattrs
    }

    /// The value of the extended attribute `name`.
    #[must_use]
    pub fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self.xattrs.binary_search_by(|xattr| xattr.name.as_ref().cmp(name)).ok()?;
        Some(&self.xattrs[at].value)
    }
}

/// Device number, as in makedev(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Selects the driver.
    pub major: u32,
    /// Selects the device.
    pub minor: u32,
}

/// What a file that is not a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// A regular file.
    File(BlobRef),
    /// A symbolic link with its text: 1 to 4,095 bytes without NUL.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

/// Names the set of paths of one tree that are one file, as made by link(2).
///
/// The value is opaque; it is equal for the members of a group and differs
/// between the groups of a tree. [`LinkGroup::of`] makes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkGroup(pub [u8; 16]);

impl LinkGroup {
    /// The group whose bytewise smallest path is `path` (with leading slash).
    ///
    /// Trees that are composed do not share a path, so that their groups stay
    /// apart in the composition.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(path).to_be_bytes())
    }
}

impl fmt::Debug for LinkGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkGroup({:032x})", u128::from_be_bytes(self.0))
    }
}

/// Membership in a group of hard links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardLink {
    /// Which group.
    pub group: LinkGroup,
    /// How many members the group has in the whole tree, this one included: at
    /// least 2.
    pub count: u32,
}

/// Anything but a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Mode, owner, time, extended attributes. The mode of a symbolic link is
    /// 0o777.
    pub attributes: Attributes,
    /// Kind and content.
    pub content: Content,
    /// Set when other paths of the tree are the same file.
    pub link: Option<HardLink>,
}

/// What lies below a directory, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Summary {
    /// Entries at any depth, directories included, the directory itself not.
    pub entries: u64,
    /// Sizes of the regular files at any depth, in bytes; each path of a group
    /// of hard links counts.
    pub bytes: u64,
    /// Entries at any depth that are members of a group of hard links.
    pub linked: u64,
}

/// A directory below another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subtree {
    /// Names its [`Tree`].
    pub id: TreeId,
    /// Always what [`Tree::summary`] of that tree says.
    pub summary: Summary,
}

/// What a name in a directory stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Anything but a directory.
    Leaf(Leaf),
    /// A directory.
    Directory(Subtree),
}

/// A directory: attributes and entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The directory's own.
    pub attributes: Attributes,
    entries: Vec<(Name, Entry)>,
}

/// Longest text of a symbolic link in bytes, one less than Linux's `PATH_MAX`.
pub const MAX_TARGET_LEN: usize = 4095;

impl Tree {
    /// A directory without entries.
    #[must_use]
    pub const fn empty(attributes: Attributes) -> Self {
        Self { attributes, entries: Vec::new() }
    }

    /// Makes a tree of entries in any order; of entries with the same name the
    /// first is returned as the error.
    pub fn new(attributes: Attributes, mut entries: Vec<(Name, Entry)>) -> Result<Self, Name> {
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        match entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(pair[0].0.clone()),
            None => Ok(Self { attributes, entries }),
        }
    }

    /// The entries, sorted by name.
    #[must_use]
    pub fn entries(&self) -> &[(Name, Entry)] {
        &self.entries
    }

    /// Where `name` is among [`Self::entries`].
    #[must_use]
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        self.search(name).ok()
    }

    /// What `name` stands for.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.position(name).map(|at| &self.entries[at].1)
    }

    /// Sets what `name` stands for, and returns what it was.
    pub fn insert(&mut self, name: Name, entry: Entry) -> Option<Entry> {
        match self.search(&name) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].1, entry)),
            Err(at) => {
                self.entries.insert(at, (name, entry));
                None
            }
        }
    }

    /// Removes `name`, and returns what it was.
    pub fn remove(&mut self, name: &[u8]) -> Option<Entry> {
        let at = self.search(name).ok()?;
        Some(self.entries.remove(at).1)
    }

    fn search(&self, name: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|(other, _)| other.as_bytes().cmp(name))
    }

    /// Counts what lies below, from the entries alone.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.entries.iter().map(|(_, entry)| entry.summary()).sum()
    }
}

impl Sum for Summary {
    fn sum<I: Iterator<Item = Self>>(summaries: I) -> Self {
        summaries.fold(Self::default(), |sum, next| Self {
            entries: sum.entries.saturating_add(next.entries),
            bytes: sum.bytes.saturating_add(next.bytes),
            linked: sum.linked.saturating_add(next.linked),
        })
    }
}

impl Entry {
    /// What this entry adds to the summary of the directory that holds it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        match self {
            Self::Leaf(leaf) => {
                Summary { entries: 1, bytes: leaf.size(), linked: leaf.link.is_some().into() }
            }
            Self::Directory(Subtree { summary, .. }) => {
                Summary { entries: summary.entries.saturating_add(1), ..*summary }
            }
        }
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn as_directory(&self) -> Option<&Subtree> {
        match self {
            Self::Directory(subtree) => Some(subtree),
            Self::Leaf(_) => None,
        }
    }

    /// The leaf, if it is one.
    #[must_use]
    pub fn as_leaf(&self) -> Option<&Leaf> {
        match self {
            Self::Leaf(leaf) => Some(leaf),
            Self::Directory(_) => None,
        }
    }
}

impl Leaf {
    /// What `st_size` says: the length of a file or of a link's text, else 0.
    #[must_use]
    pub fn stat_size(&self) -> u64 {
        match &self.content {
            Content::File(blob) => blob.size,
            Content::Symlink(target) => target.len() as u64,
            Content::CharDevice(_) | Content::BlockDevice(_) | Content::Fifo | Content::Socket => 0,
        }
    }

    /// Bytes of content: those of a regular file, else 0.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blob().map_or(0, |blob| blob.size)
    }

    /// The content of a regular file.
    #[must_use]
    pub fn blob(&self) -> Option<&BlobRef> {
        match &self.content {
            Content::File(blob) => Some(blob),
            _ => None,
        }
    }
}
