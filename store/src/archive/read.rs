//! The entries of a tar archive, checked and with their extended headers
//! applied.
//!
//! Formats: tar(5), ustar, GNU and pax, with the extended attributes, ACLs and sparse files
//! of GNU tar and libarchive. Everything on which readers disagree is refused instead of
//! being half understood.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::acl::{Acl, Names};
use super::blocks::Blocks;
use super::error::{ArchiveError, EntryProblem};
use super::extended::{Extended, MAX_XATTR_LEN};
use super::sparse::{Fault, Map};
use super::write::MAX_OCTAL_11;
use crate::name::TreePath;
use crate::tree::{Attributes, Device, MAX_TARGET_LEN, Timestamp, Xattr};

/// One entry.
#[derive(Clone, Debug)]
pub struct ArchiveEntry {
    /// The root for `./`.
    pub path: TreePath,
    /// A hard link has those of the file that it is.
    pub attributes: Attributes,
    /// What it is.
    pub kind: ArchiveKind,
    /// Keys of extended headers that mean something to others, and nothing here.
    pub ignored: Vec<Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A regular file of so many bytes, which the reader has.
    File(u64),
    /// Another name of the file with this path.
    HardLink(TreePath),
    /// A symbolic link with its text.
    Symlink(Box<[u8]>),
    /// A directory.
    Directory,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// Numbers that the names of a user and of a group stand for, where they are to
/// win over the numbers in the archive.
pub type Owners = fn(user: &[u8], group: &[u8]) -> (Option<u32>, Option<u32>);

/// What is made of an archive.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Whose names win over numbers.
    pub owners: Option<Owners>,
    /// The most bytes of holes in sparse files, all of them together, since they cost nothing
    /// in the archive; `None` refuses such files.
    pub holes: Option<u64>,
}

impl ArchiveKind {
    /// The number of a device.
    #[must_use]
    pub fn device(&self) -> Option<Device> {
        match self {
            Self::CharDevice(device) | Self::BlockDevice(device) => Some(*device),
            _ => None,
        }
    }
}

/// More entries than any system has.
const MAX_ENTRIES: usize = 8 << 20;

/// The most bytes of an extended header: a path and some attributes.
const MAX_EXTENDED_LEN: u64 = 1 << 20;

/// The most bytes of all extended headers together, since what they say stays
/// in memory; and so many more for each entry.
const MAX_EXTENDED_TOTAL: u64 = 64 << 20;
const MAX_EXTENDED_MEAN: u64 = 1 << 10;

/// Reads an archive to its end, and past it to the end of `tar`, so that the
/// checksums of its compression are verified.
///
/// `visit` gets each entry in the order of the archive, with the bytes of a
/// regular file; what it does not read is skipped. Entries are checked each on
/// its own: whether they fit together is for a
/// [`TreeBuilder`](super::TreeBuilder) to say. `fail` makes an error of
/// what is wrong with the archive.
pub fn read_archive<E>(
    tar: impl Read,
    options: &ReadOptions,
    fail_with: impl Fn(ArchiveError) -> E,
    mut visit: impl FnMut(&ArchiveEntry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let unpack = |source| fail_with(ArchiveError::Unpack(source));
    let mut blocks = Blocks::new(tar);
    let mut pending = Extended::default();
    let mut count = 0;
    let mut extended = 0;
    let mut holes_left = options.holes;
    while let Some(header) = blocks.next_header().map_err(unpack)? {
        let name = pending.name().cloned().unwrap_or_else(|| header.path_bytes().into_owned());
        let fail = |source| fail_with(ArchiveError::Entry { entry: name.clone(), source });

        count += 1;
        if count > MAX_ENTRIES {
            return Err(fail(EntryProblem::TooMany(MAX_ENTRIES)));
        }
        if Extended::is_header(header.entry_type()) {
            let size = header.entry_size().map_err(|_| fail(EntryProblem::Number("its size")))?;
            if size > MAX_EXTENDED_LEN {
                return Err(fail(EntryProblem::Extended("it is too long")));
            }
            extended += size;
            if extended > MAX_EXTENDED_TOTAL + MAX_EXTENDED_MEAN * count as u64 {
                return Err(fail(EntryProblem::Extended("all of them are too long together")));
            }
            let mut bytes = Vec::new();
            blocks.begin(size);
            blocks.read_to_end(&mut bytes).map_err(unpack)?;
            if bytes.len() as u64 != size {
                return Err(fail(EntryProblem::Truncated));
            }
            pending.add(header.entry_type(), &bytes).map_err(fail)?;
            continue;
        }
        let mut said = std::mem::take(&mut pending);
        let records = said.sparse.take();
        let mut checked = check(&header, said, &name, options.owners).map_err(fail)?;
        let ArchiveKind::File(stored) = checked.kind else {
            if records.is_some() {
                return Err(fail(EntryProblem::Sparse("it is not a file")));
            }
            blocks.begin(0);
            visit(&checked, &mut io::empty())?;
            continue;
        };
        let is_old = header.entry_type().is_gnu_sparse();
        let map = match (records, &mut holes_left) {
            (None, _) if !is_old => None,
            (_, None) if is_old => return Err(fail(EntryProblem::Type(b'S'))),
            (_, None) => return Err(fail(EntryProblem::Extended("a sparse file"))),
            (Some(_), _) if is_old => return Err(fail(EntryProblem::Sparse("it is there twice"))),
            (records, Some(left)) => {
                let map = match records {
                    None => Map::of_header(&header, &mut blocks, stored),
                    Some(records) => {
                        blocks.begin(stored);
                        records.map(&mut blocks)
                    }
                };
                let map = map.map_err(|fault| match fault {
                    Fault::Unpack(source) => unpack(source),
                    Fault::Entry(problem) => fail(problem),
                })?;
                *left = left
                    .checked_sub(map.holes())
                    .ok_or_else(|| fail(EntryProblem::Sparse("its holes are too large")))?;
                checked.kind = ArchiveKind::File(map.size());
                Some(map)
            }
        };
        if is_old || map.is_none() {
            blocks.begin(stored);
        }
        let whole: (u64, &mut dyn Read) = match &map {
            None => (stored, &mut blocks),
            Some(map) => (map.size(), &mut map.reader(&mut blocks)),
        };
        let mut content = Counted { inner: whole.1, count: 0 };
        visit(&checked, &mut content)?;
        io::copy(&mut content, &mut io::sink()).map_err(unpack)?;
        if content.count != whole.0 {
            return Err(fail(EntryProblem::Truncated));
        }
    }
    if !pending.is_empty() {
        let fault = io::Error::new(io::ErrorKind::UnexpectedEof, "an extended header is the last");
        return Err(unpack(fault));
    }
    io::copy(&mut blocks.into_inner(), &mut io::sink()).map_err(unpack)?;
    Ok(())
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.count += len as u64;
        Ok(len)
    }
}

/// Makes an entry of a header and the extended headers before it, which call it `name`. Of a
/// sparse file it has the bytes that are stored.
fn check(
    header: &Header,
    mut extended: Extended,
    name: &[u8],
    owners: Option<Owners>,
) -> Result<ArchiveEntry, EntryProblem> {
    let ignored = extended.take_ignored();
    let Extended { link, uid, gid, user, group, mtime, size, mut xattrs, .. } = extended;

    let entry_type = header.entry_type();
    let path = tree_path(name, entry_type.is_dir())?;
    let link = link.or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default();

    let mode = header.mode().map_err(|_| EntryProblem::Number("its mode"))?;
    // Some writers add the bits of the type.
    let mut mode = u16::try_from(mode & 0o7777).expect("12 bits");
    let user = user.as_deref().or_else(|| header.username_bytes()).unwrap_or_default();
    let group = group.as_deref().or_else(|| header.groupname_bytes()).unwrap_or_default();
    let known = |user: &[u8], group: &[u8]| owners.map_or((None, None), |it| it(user, group));
    let (known_user, known_group) = known(user, group);
    let uid = match known_user.or(uid) {
        Some(uid) => uid,
        None => narrow(header.uid(), "its user")?,
    };
    let gid = match known_group.or(gid) {
        Some(gid) => gid,
        None => narrow(header.gid(), "its group")?,
    };
    let mtime = match mtime {
        Some(mtime) => mtime,
        None => {
            let seconds = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok());
            seconds.and_then(|s| Timestamp::new(s, 0)).ok_or(EntryProblem::Number("its time"))?
        }
    };
    xattrs.sort();
    if xattrs.windows(2).any(|pair| pair[0].name == pair[1].name) {
        return Err(EntryProblem::Extended("an attribute is there twice"));
    }
    let kind = kind(header, &link, stored_size(header, size)?)?;
    if let ArchiveKind::Symlink(_) = kind {
        mode = 0o777;
    }
    let names = Names {
        user: &|name| known(name, b"").0.or((name == user).then_some(uid)),
        group: &|name| known(b"", name).1.or((name == group).then_some(gid)),
    };
    if let Some(text) = extended.acl {
        let acl = Acl::parse(&text, &names)?;
        if let ArchiveKind::Symlink(_) = kind {
            return Err(EntryProblem::Extended("an ACL of a link"));
        }
        mode = mode & !0o777 | acl.mode();
        if !acl.is_a_mode() {
            add(&mut xattrs, b"system.posix_acl_access", acl.encode())?;
        }
    }
    if let Some(text) = extended.default_acl {
        let acl = Acl::parse(&text, &names)?;
        if kind != ArchiveKind::Directory {
            return Err(EntryProblem::Extended("an ACL for new files in what is no directory"));
        }
        add(&mut xattrs, b"system.posix_acl_default", acl.encode())?;
    }
    if let Some(mut label) = extended.selinux {
        // As setfilecon(3) sets it.
        if label.last() != Some(&0) {
            label.push(0);
        }
        add(&mut xattrs, b"security.selinux", label)?;
    }
    let attributes = Attributes { mode, uid, gid, mtime, xattrs };
    Ok(ArchiveEntry { path, attributes, kind, ignored })
}

/// Adds an attribute that may be there under its own name as well.
fn add(xattrs: &mut Vec<Xattr>, name: &[u8], value: Vec<u8>) -> Result<(), EntryProblem> {
    if value.len() > MAX_XATTR_LEN {
        return Err(EntryProblem::Extended("no attribute that a file can have"));
    }
    let xattr = Xattr { name: name.into(), value: value.into() };
    match xattrs.binary_search_by(|other| other.name.cmp(&xattr.name)) {
        Ok(at) if xattrs[at] == xattr => Ok(()),
        Ok(_) => Err(EntryProblem::Extended("an attribute is there twice")),
        Err(at) => {
            xattrs.insert(at, xattr);
            Ok(())
        }
    }
}

/// How many bytes of an entry are in the archive.
///
/// Two lengths of one file are how archives are made that two readers see differently.
/// GNU tar leaves the one in the header out if it does not fit there.
fn stored_size(header: &Header, extended: Option<u64>) -> Result<u64, EntryProblem> {
    let size = header.entry_size();
    match (extended, size) {
        (None, size) => size.map_err(|_| EntryProblem::Number("its size")),
        (Some(extended), Ok(size)) if extended == size => Ok(size),
        (Some(extended), Ok(0)) if extended > MAX_OCTAL_11 => Ok(extended),
        _ => Err(EntryProblem::Extended("it changes the size")),
    }
}

fn kind(header: &Header, link: &[u8], size: u64) -> Result<ArchiveKind, EntryProblem> {
    let device = || {
        let major = header.device_major().ok().flatten();
        let minor = header.device_minor().ok().flatten();
        let numbers = major.zip(minor).ok_or(EntryProblem::Number("its device"))?;
        Ok(Device { major: numbers.0, minor: numbers.1 })
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            return Ok(ArchiveKind::File(size));
        }
        EntryType::Link => {
            let target = tree_path(link, false);
            ArchiveKind::HardLink(target.map_err(|_| EntryProblem::LinkTarget(link.into()))?)
        }
        EntryType::Symlink => {
            if !(1..=MAX_TARGET_LEN).contains(&link.len()) || link.contains(&0) {
                return Err(EntryProblem::LinkText);
            }
            ArchiveKind::Symlink(link.into())
        }
        EntryType::Directory => ArchiveKind::Directory,
        EntryType::Char => ArchiveKind::CharDevice(device()?),
        EntryType::Block => ArchiveKind::BlockDevice(device()?),
        EntryType::Fifo => ArchiveKind::Fifo,
        other => return Err(EntryProblem::Type(other.as_byte())),
    };
    match size {
        0 => Ok(kind),
        size => Err(EntryProblem::Bytes(size)),
    }
}

/// Reads `./a/b`, `a/b` and, for a directory, `./` and `./a/b/`.
fn tree_path(name: &[u8], is_directory: bool) -> Result<TreePath, EntryProblem> {
    if name.starts_with(b"/") {
        return Err(EntryProblem::Absolute);
    }
    let bare = match name.strip_suffix(b"/") {
        Some(bare) if is_directory => bare,
        _ => name,
    };
    if is_directory && bare == b"." {
        return Ok(TreePath::root());
    }
    let bare = bare.strip_prefix(b"./").unwrap_or(bare);
    // `.//a` and `./` of a file must not lose what is wrong with them.
    let relative = if bare.is_empty() || bare.starts_with(b"/") { name } else { bare };
    if relative.is_empty() {
        return Err(EntryProblem::Nameless);
    }
    TreePath::new(relative).map_err(EntryProblem::Name)
}

fn narrow(number: io::Result<u64>, what: &'static str) -> Result<u32, EntryProblem> {
    number.ok().and_then(|number| number.try_into().ok()).ok_or(EntryProblem::Number(what))
}
