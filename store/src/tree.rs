//! A directory as a value: its attributes and its sorted entries.
//!
//! A tree's id is the hash of its canonical encoding, and the encoding of an
//! entry that is a directory holds that directory's id, so that an id commits
//! to everything below it. The attributes of a directory lie in its own tree,
//! not in its parent's: a tree id also commits to the mode and owner of the
//! directory that it names, the root included.
//!
//! Format: docs/store.md, "Trees".

use std::fmt;

use crate::hash::{BlobRef, Checksum, PageId, TreeId};
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

/// Why bytes are not the canonical encoding of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical tree: {problem} at byte {offset}")]
pub struct InvalidTree {
    problem: &'static str,
    offset: usize,
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
        let mut sum = Summary::default();
        for (_, entry) in &self.entries {
            let of_entry = entry.summary();
            sum.entries = sum.entries.saturating_add(of_entry.entries);
            sum.bytes = sum.bytes.saturating_add(of_entry.bytes);
            sum.linked = sum.linked.saturating_add(of_entry.linked);
        }
        sum
    }

    /// Writes the canonical form.
    #[must_use]
    pub fn encode(&self) -> EncodedTree {
        let mut bytes = Vec::with_capacity(64 + self.entries.len().min(PAGED_FROM) * 112);
        encode_attributes(&self.attributes, &mut bytes);
        put_len(self.entries.len(), &mut bytes);
        let mut pages = Vec::new();
        if self.entries.len() < PAGED_FROM {
            self.entries.iter().for_each(|entry| encode_named(entry, &mut bytes));
        } else {
            for entries in self.entries.split_inclusive(|(name, _)| ends_page(name)) {
                let mut page = Vec::with_capacity(entries.len() * 112);
                entries.iter().for_each(|entry| encode_named(entry, &mut page));
                let id = PageId::of(&page);
                bytes.extend_from_slice(id.as_bytes());
                put_len(entries.len(), &mut bytes);
                pages.push((id, page));
            }
        }
        EncodedTree { id: TreeId::of(&bytes), bytes, pages }
    }

    /// Reads the canonical form, and nothing else: what decodes encodes to the
    /// same bytes. `read_page` gives the bytes of a page, whose hash it has
    /// checked.
    ///
    /// # Errors
    /// [`InvalidTree`] turned into the error of `read_page`, or that.
    pub fn decode<E: From<InvalidTree>>(
        bytes: &[u8],
        mut read_page: impl FnMut(PageId) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut from = Decoder::new(bytes);
        let attributes = from.attributes()?;
        let count = from.u32()? as usize;
        let mut entries = Vec::new();
        if count < PAGED_FROM {
            from.entries(count, &mut entries)?;
        } else {
            while entries.len() < count {
                let id = PageId::from_bytes(from.array()?);
                let in_page = from.u32()? as usize;
                if in_page == 0 || in_page > count - entries.len() {
                    return Err(from.invalid("a page with a wrong count of entries").into());
                }
                let page = read_page(id)?;
                let mut page = Decoder::new(&page);
                let begin = entries.len();
                page.entries(in_page, &mut entries)?;
                page.end()?;
                let is_last = entries.len() == count;
                let (last, before) = entries[begin..].split_last().expect("it has an entry");
                let ends_early = before.iter().any(|(name, _)| ends_page(name));
                if ends_early || !(is_last || ends_page(&last.0)) {
                    return Err(page.invalid("a page that ends at the wrong entry").into());
                }
            }
        }
        from.end()?;
        Ok(Self { attributes, entries })
    }
}

/// The canonical form of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedTree {
    /// The hash of `bytes`.
    pub id: TreeId,
    /// Attributes, and entries or the list of pages.
    pub bytes: Vec<u8>,
    /// The pages in order; none if the entries are few.
    pub pages: Vec<(PageId, Vec<u8>)>,
}

/// A directory with at least so many entries is cut into pages.
pub const PAGED_FROM: usize = 256;

/// Whether a page ends with the entry of this name: on average each 32nd does.
fn ends_page(name: &Name) -> bool {
    Checksum::of(name).0.is_multiple_of(32)
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

const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const SYMLINK: u8 = 3;
const CHAR_DEVICE: u8 = 4;
const BLOCK_DEVICE: u8 = 5;
const FIFO: u8 = 6;
const SOCKET: u8 = 7;
const LINKED: u8 = 0x80;

fn put_len(len: usize, out: &mut Vec<u8>) {
    let len = u32::try_from(len).expect("a directory has fewer than 2^32 entries");
    out.extend_from_slice(&len.to_le_bytes());
}

fn encode_attributes(attributes: &Attributes, out: &mut Vec<u8>) {
    out.extend_from_slice(&attributes.mode.to_le_bytes());
    out.extend_from_slice(&attributes.uid.to_le_bytes());
    out.extend_from_slice(&attributes.gid.to_le_bytes());
    out.extend_from_slice(&attributes.mtime.seconds.to_le_bytes());
    out.extend_from_slice(&attributes.mtime.nanoseconds.to_le_bytes());
    let count = u16::try_from(attributes.xattrs.len()).expect("fewer than 65,536 xattrs");
    out.extend_from_slice(&count.to_le_bytes());
    for Xattr { name, value } in &attributes.xattrs {
        out.push(u8::try_from(name.len()).expect("the name of an xattr has at most 255 bytes"));
        out.extend_from_slice(name);
        put_len(value.len(), out);
        out.extend_from_slice(value);
    }
}

fn encode_named((name, entry): &(Name, Entry), out: &mut Vec<u8>) {
    out.push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
    out.extend_from_slice(name);
    encode_entry(entry, out);
}

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    let leaf = match entry {
        Entry::Directory(Subtree { id, summary }) => {
            out.push(DIRECTORY);
            out.extend_from_slice(id.as_bytes());
            for count in [summary.entries, summary.bytes, summary.linked] {
                out.extend_from_slice(&count.to_le_bytes());
            }
            return;
        }
        Entry::Leaf(leaf) => leaf,
    };
    let kind = match leaf.content {
        Content::File(_) => FILE,
        Content::Symlink(_) => SYMLINK,
        Content::CharDevice(_) => CHAR_DEVICE,
        Content::BlockDevice(_) => BLOCK_DEVICE,
        Content::Fifo => FIFO,
        Content::Socket => SOCKET,
    };
    out.push(if leaf.link.is_some() { kind | LINKED } else { kind });
    encode_attributes(&leaf.attributes, out);
    if let Some(HardLink { group, count }) = leaf.link {
        out.extend_from_slice(&group.0);
        out.extend_from_slice(&count.to_le_bytes());
    }
    match &leaf.content {
        Content::File(blob) => {
            out.extend_from_slice(blob.key.as_bytes());
            out.extend_from_slice(blob.digest.as_bytes());
            out.extend_from_slice(&blob.size.to_le_bytes());
        }
        Content::Symlink(target) => {
            let len = u16::try_from(target.len()).expect("a link's text has at most 4,095 bytes");
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(target);
        }
        Content::CharDevice(device) | Content::BlockDevice(device) => {
            out.extend_from_slice(&device.major.to_le_bytes());
            out.extend_from_slice(&device.minor.to_le_bytes());
        }
        Content::Fifo | Content::Socket => {}
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    fn end(&self) -> Result<(), InvalidTree> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.invalid("bytes after the end")) }
    }

    /// Reads `count` entries to the end of `entries`.
    fn entries(
        &mut self,
        count: usize,
        entries: &mut Vec<(Name, Entry)>,
    ) -> Result<(), InvalidTree> {
        // The smallest entry, a FIFO with a name of one byte, has 27 bytes.
        if count > self.rest.len() / 27 {
            return Err(self.invalid("more entries than bytes"));
        }
        entries.reserve(count);
        for _ in 0..count {
            let len = self.u8()?.into();
            let Ok(name) = Name::new(self.take(len)?) else {
                return Err(self.invalid("a name that no file can have"));
            };
            if entries.last().is_some_and(|(before, _)| *before >= name) {
                return Err(self.invalid("names out of order"));
            }
            let entry = self.entry()?;
            entries.push((name, entry));
        }
        Ok(())
    }

    fn invalid(&self, problem: &'static str) -> InvalidTree {
        InvalidTree { problem, offset: self.len - self.rest.len() }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], InvalidTree> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.invalid("it ends too early"));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], InvalidTree> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.invalid("it ends too early"));
        };
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, InvalidTree> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, InvalidTree> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, InvalidTree> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, InvalidTree> {
        self.array().map(u64::from_le_bytes)
    }

    fn attributes(&mut self) -> Result<Attributes, InvalidTree> {
        let mode = self.u16()?;
        if mode > 0o7777 {
            return Err(self.invalid("a mode with more than permission bits"));
        }
        let (uid, gid) = (self.u32()?, self.u32()?);
        let seconds = i64::from_le_bytes(self.array()?);
        let Some(mtime) = Timestamp::new(seconds, self.u32()?) else {
            return Err(self.invalid("a billion nanoseconds or more"));
        };
        let count = self.u16()?;
        let mut xattrs: Vec<Xattr> = Vec::new();
        for _ in 0..count {
            let len = self.u8()?.into();
            let name: Box<[u8]> = self.take(len)?.into();
            if name.is_empty() || name.contains(&0) {
                return Err(self.invalid("a name that no xattr can have"));
            }
            if xattrs.last().is_some_and(|before| before.name >= name) {
                return Err(self.invalid("xattrs out of order"));
            }
            let len = self.u32()? as usize;
            if len > 65_536 {
                return Err(self.invalid("an xattr of more than 65,536 bytes"));
            }
            xattrs.push(Xattr { name, value: self.take(len)?.into() });
        }
        Ok(Attributes { mode, uid, gid, mtime, xattrs })
    }

    fn entry(&mut self) -> Result<Entry, InvalidTree> {
        let kind = self.u8()?;
        if kind == DIRECTORY {
            let id = TreeId::from_bytes(self.array()?);
            let summary = Summary { entries: self.u64()?, bytes: self.u64()?, linked: self.u64()? };
            return Ok(Entry::Directory(Subtree { id, summary }));
        }
        let attributes = self.attributes()?;
        let link = if kind & LINKED == 0 {
            None
        } else {
            let link = HardLink { group: LinkGroup(self.array()?), count: self.u32()? };
            if link.count < 2 {
                return Err(self.invalid("a group of hard links with one member"));
            }
            Some(link)
        };
        let content = match kind & !LINKED {
            FILE => {
                let (key, digest) = (self.array()?, self.array()?);
                let size = self.u64()?;
                if size > i64::MAX as u64 {
                    return Err(self.invalid("a file larger than any file can be"));
                }
                let (key, digest) =
                    (crate::BlobKey::from_bytes(key), crate::Digest::from_bytes(digest));
                Content::File(BlobRef { key, digest, size })
            }
            SYMLINK => {
                let len = self.u16()?.into();
                let target = self.take(len)?;
                if target.is_empty() || len > MAX_TARGET_LEN || target.contains(&0) {
                    return Err(self.invalid("a text that no symbolic link can have"));
                }
                if attributes.mode != 0o777 {
                    return Err(self.invalid("a symbolic link whose mode is not 0777"));
                }
                Content::Symlink(target.into())
            }
            CHAR_DEVICE => Content::CharDevice(self.device()?),
            BLOCK_DEVICE => Content::BlockDevice(self.device()?),
            FIFO => Content::Fifo,
            SOCKET => Content::Socket,
            _ => return Err(self.invalid("an unknown kind of entry")),
        };
        Ok(Entry::Leaf(Leaf { attributes, content, link }))
    }

    fn device(&mut self) -> Result<Device, InvalidTree> {
        Ok(Device { major: self.u32()?, minor: self.u32()? })
    }
}
