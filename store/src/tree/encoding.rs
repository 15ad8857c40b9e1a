//! How a tree is written down, and read back: the canonical form, and only that.
//!
//! Format: docs/store.md, "Trees".

use super::{
    Attributes, Content, Device, Entry, HardLink, Leaf, LinkGroup, MAX_TARGET_LEN, Subtree,
    Summary, Timestamp, Tree, Xattr,
};
use crate::hash::{BlobKey, BlobRef, Checksum, Digest, PageId, TreeId};
use crate::name::Name;

/// Why bytes are not the canonical encoding of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical tree: {problem} at byte {offset}")]
pub struct InvalidTree {
    problem: &'static str,
    offset: usize,
}

impl Tree {
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
        Self::decode_some(bytes, |id| read_page(id).map(Some))
    }

    /// The same without the entries of those pages for which `read_page` gives nothing.
    pub(crate) fn decode_some<E: From<InvalidTree>>(
        bytes: &[u8],
        mut read_page: impl FnMut(PageId) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        let mut from = Decoder::new(bytes);
        let attributes = from.attributes()?;
        let mut entries = Vec::new();
        match from.listed()? {
            Listed::Entries(all) => entries = all,
            Listed::Pages(pages) => {
                for (number, (id, count)) in (1..).zip(&pages) {
                    let Some(page) = read_page(*id)? else { continue };
                    let mut page = Decoder::new(&page);
                    let begin = entries.len();
                    page.entries(*count, &mut entries)?;
                    page.end()?;
                    if !ends_as_page(&entries[begin..], number == pages.len()) {
                        return Err(page.invalid("a page that ends at the wrong entry").into());
                    }
                }
            }
        }
        Ok(Self { attributes, entries })
    }
}

/// What the encoding of a directory holds without that of its pages.
pub(crate) enum Listed {
    /// All entries.
    Entries(Vec<(Name, Entry)>),
    /// The pages that have them, and how many each has.
    Pages(Vec<(PageId, usize)>),
}

impl Listed {
    /// Reads the encoding of a directory.
    pub(crate) fn of_tree(bytes: &[u8]) -> Result<Self, InvalidTree> {
        let mut from = Decoder::new(bytes);
        from.attributes()?;
        from.listed()
    }

    /// Reads the entries of a page; whether it is the last one of its directory, only that knows.
    pub(crate) fn of_page(bytes: &[u8]) -> Result<Vec<(Name, Entry)>, InvalidTree> {
        let mut from = Decoder::new(bytes);
        let mut entries = Vec::new();
        while !from.rest.is_empty() {
            from.entries(1, &mut entries)?;
        }
        if ends_as_page(&entries, true) {
            Ok(entries)
        } else {
            Err(from.invalid("a page that ends at the wrong entry"))
        }
    }

    /// The pages; none if the encoding has the entries itself.
    pub(crate) fn pages(self) -> impl Iterator<Item = PageId> {
        let pages = match self {
            Self::Entries(_) => Vec::new(),
            Self::Pages(pages) => pages,
        };
        pages.into_iter().map(|(id, _)| id)
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
pub(crate) fn ends_page(name: &Name) -> bool {
    Checksum::of(name).0.is_multiple_of(32)
}

/// Whether entries are those of one page, which may be the last one.
fn ends_as_page(entries: &[(Name, Entry)], is_last: bool) -> bool {
    entries.split_last().is_some_and(|((last, _), before)| {
        !before.iter().any(|(name, _)| ends_page(name)) && (is_last || ends_page(last))
    })
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

    /// Reads entries, or which pages have them, to the end.
    fn listed(&mut self) -> Result<Listed, InvalidTree> {
        let count = self.u32()? as usize;
        if count < PAGED_FROM {
            let mut entries = Vec::new();
            self.entries(count, &mut entries)?;
            self.end()?;
            return Ok(Listed::Entries(entries));
        }
        let (mut pages, mut left) = (Vec::new(), count);
        while left > 0 {
            let (id, in_page) = (PageId::from_bytes(self.array()?), self.u32()? as usize);
            if in_page == 0 || in_page > left {
                return Err(self.invalid("a page with a wrong count of entries"));
            }
            left -= in_page;
            pages.push((id, in_page));
        }
        self.end()?;
        Ok(Listed::Pages(pages))
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
                let (key, digest) = (BlobKey::from_bytes(key), Digest::from_bytes(digest));
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
