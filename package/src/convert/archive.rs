//! The entries of a tar archive, checked and with their extended headers
//! applied.
//!
//! Formats: tar(5), ustar, GNU and pax. Sparse files, ACLs as text and
//! everything else that a package has no use for is refused instead of being
//! half understood.

use std::io::{self, Read};

use cairn_store::name::TreePath;
use cairn_store::tree::{Device, MAX_TARGET_LEN};
use cairn_store::{Timestamp, Xattr};
use tar::{EntryType, Header};

use super::error::{EntryProblem, Problem};
use super::owner;

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The root for `./`.
    pub(super) path: TreePath,
    pub(super) attributes: Owned,
    pub(super) kind: Kind,
}

/// What every entry has. A hard link has that of the file that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    /// Sorted by name, no name twice.
    pub(super) xattrs: Vec<Xattr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file of so many bytes, which the reader has.
    File(u64),
    /// Another name of the regular file with this path.
    HardLink(TreePath),
    Symlink(Box<[u8]>),
    Directory,
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
}

/// More entries than any package has: the kernel's headers have 25,000.
const MAX_ENTRIES: usize = 1 << 20;

/// The most bytes of an extended header: a path and some attributes.
const MAX_EXTENDED_LEN: u64 = 1 << 20;

/// Reads an archive to its end, and past it to the end of `tar`, so that the
/// checksums of its compression are verified.
///
/// `visit` gets each entry with the bytes of a regular file; what it does not
/// read is skipped. `member` names the archive in errors.
pub(super) fn read(
    tar: impl Read,
    member: &str,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let unpack = |source| Problem::Unpack { member: member.into(), source };
    let mut archive = tar::Archive::new(tar);
    let mut pending = Extended::default();
    let mut count = 0;
    // Raw: the library itself would read extended headers of any length into
    // memory, and splits attributes at line feeds in their values.
    for entry in archive.entries().map_err(unpack)?.raw(true) {
        let mut entry = entry.map_err(unpack)?;
        let header = entry.header().clone();
        let name = pending.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let fail = |source| Problem::Entry { member: member.into(), entry: name.clone(), source };

        count += 1;
        if count > MAX_ENTRIES {
            return Err(fail(EntryProblem::TooMany(MAX_ENTRIES)));
        }
        if is_extended(header.entry_type()) {
            let size = header.size().map_err(|_| fail(EntryProblem::Number("its size")))?;
            if size > MAX_EXTENDED_LEN {
                return Err(fail(EntryProblem::Extended("it is too long")));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(unpack)?;
            if bytes.len() as u64 != size {
                return Err(fail(EntryProblem::Truncated));
            }
            pending.add(header.entry_type(), &bytes).map_err(fail)?;
            continue;
        }
        let checked = check(&header, std::mem::take(&mut pending)).map_err(fail)?;
        let Kind::File(size) = checked.kind else {
            visit(&checked, &mut io::empty())?;
            continue;
        };
        let mut content = Counted { inner: &mut entry, count: 0 };
        visit(&checked, &mut content)?;
        io::copy(&mut content, &mut io::sink()).map_err(unpack)?;
        if content.count != size {
            return Err(fail(EntryProblem::Truncated));
        }
    }
    if !pending.is_empty() {
        let fault = io::Error::new(io::ErrorKind::UnexpectedEof, "an extended header is the last");
        return Err(unpack(fault));
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unpack)?;
    Ok(())
}

fn is_extended(kind: EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
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

/// Makes an entry of a header and the extended headers before it.
fn check(header: &Header, extended: Extended) -> Result<Entry, EntryProblem> {
    let number = |what| move |_| EntryProblem::Number(what);
    let Extended { path, link, uid, gid, user, group, mtime, mut xattrs } = extended;

    let entry_type = header.entry_type();
    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
    let path = tree_path(&path, entry_type.is_dir())?;
    let link = link.or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default();

    let mode = header.mode().map_err(number("its mode"))?;
    // Some writers add the bits of the type.
    let mode = u16::try_from(mode & 0o7777).expect("12 bits");
    let user = user.as_deref().or_else(|| header.username_bytes());
    let group = group.as_deref().or_else(|| header.groupname_bytes());
    let uid = match (owner::user(user.unwrap_or_default()), uid) {
        (Some(uid), _) | (None, Some(uid)) => uid,
        (None, None) => narrow(header.uid()).map_err(number("its user"))?,
    };
    let gid = match (owner::group(group.unwrap_or_default()), gid) {
        (Some(gid), _) | (None, Some(gid)) => gid,
        (None, None) => narrow(header.gid()).map_err(number("its group"))?,
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

    let size = header.size().map_err(number("its size"))?;
    let kind = kind(header, &link, size)?;
    if !matches!(kind, Kind::File(_)) && size != 0 {
        return Err(EntryProblem::Bytes(size));
    }
    Ok(Entry { path, attributes: Owned { mode, uid, gid, mtime, xattrs }, kind })
}

fn kind(header: &Header, link: &[u8], size: u64) -> Result<Kind, EntryProblem> {
    let device = || {
        let major = header.device_major().ok().flatten();
        let minor = header.device_minor().ok().flatten();
        let numbers = major.zip(minor).ok_or(EntryProblem::Number("its device"))?;
        Ok(Device { major: numbers.0, minor: numbers.1 })
    };
    Ok(match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => Kind::File(size),
        EntryType::Link => {
            let target = tree_path(link, false);
            Kind::HardLink(target.map_err(|_| EntryProblem::LinkTarget(link.into()))?)
        }
        EntryType::Symlink => {
            if !(1..=MAX_TARGET_LEN).contains(&link.len()) || link.contains(&0) {
                return Err(EntryProblem::LinkText);
            }
            std::str::from_utf8(link).map_err(|_| EntryProblem::NotUtf8)?;
            Kind::Symlink(link.into())
        }
        EntryType::Directory => Kind::Directory,
        EntryType::Char => Kind::CharDevice(device()?),
        EntryType::Block => Kind::BlockDevice(device()?),
        EntryType::Fifo => Kind::Fifo,
        other => return Err(EntryProblem::Type(other.as_byte())),
    })
}

/// Reads `./a/b`, `a/b` and, for a directory, `./` and `./a/b/`.
fn tree_path(name: &[u8], is_directory: bool) -> Result<TreePath, EntryProblem> {
    if name.starts_with(b"/") {
        return Err(EntryProblem::Absolute);
    }
    if std::str::from_utf8(name).is_err() {
        return Err(EntryProblem::NotUtf8);
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

fn narrow(number: io::Result<u64>) -> Result<u32, ()> {
    number.ok().and_then(|number| u32::try_from(number).ok()).ok_or(())
}

/// What extended headers say of the entry after them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    user: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
    mtime: Option<Timestamp>,
    xattrs: Vec<Xattr>,
}

impl Extended {
    fn is_empty(&self) -> bool {
        let Self { path, link, uid, gid, user, group, mtime, xattrs } = self;
        let texts = [path, link, user, group].into_iter().all(Option::is_none);
        texts && uid.is_none() && gid.is_none() && mtime.is_none() && xattrs.is_empty()
    }

    fn add(&mut self, kind: EntryType, bytes: &[u8]) -> Result<(), EntryProblem> {
        let text = || bytes.strip_suffix(b"\0").unwrap_or(bytes).to_vec();
        match kind {
            EntryType::GNULongName => set(&mut self.path, text()),
            EntryType::GNULongLink => set(&mut self.link, text()),
            kind => {
                let is_global = kind.is_pax_global_extensions();
                records(bytes)?.into_iter().try_for_each(|(k, v)| self.record(k, v, is_global))
            }
        }
    }

    /// One pax record.
    fn record(&mut self, key: &[u8], value: &[u8], is_global: bool) -> Result<(), EntryProblem> {
        // What holds for all entries is nothing but a remark in practice.
        if is_global && key != b"comment" {
            return Err(EntryProblem::Extended("it is for the whole archive"));
        }
        let text = std::str::from_utf8(value).ok();
        match key {
            b"path" => set(&mut self.path, value.to_vec()),
            b"linkpath" => set(&mut self.link, value.to_vec()),
            b"uid" => set(&mut self.uid, parse(text, "its user")?),
            b"gid" => set(&mut self.gid, parse(text, "its group")?),
            b"uname" => set(&mut self.user, value.to_vec()),
            b"gname" => set(&mut self.group, value.to_vec()),
            b"mtime" => {
                let time = text.and_then(decimal_time).ok_or(EntryProblem::Number("its time"))?;
                set(&mut self.mtime, time)
            }
            // Two lengths of one file are how archives are made that two
            // readers see differently; the header holds up to 2^63.
            b"size" => Err(EntryProblem::Extended("it changes the size")),
            _ if key.starts_with(b"GNU.sparse") => Err(EntryProblem::Extended("a sparse file")),
            _ if key.starts_with(b"SCHILY.acl.") => Err(EntryProblem::Extended("an ACL as text")),
            _ => match key.strip_prefix(b"SCHILY.xattr.") {
                Some(name) => self.xattr(name, value),
                // Other times, remarks, and what vendors tell themselves.
                None => Ok(()),
            },
        }
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), EntryProblem> {
        // The bounds of setxattr(2).
        if !(1..=255).contains(&name.len()) || name.contains(&0) || value.len() > 65_536 {
            return Err(EntryProblem::Extended("no attribute that a file can have"));
        }
        self.xattrs.push(Xattr { name: name.into(), value: value.into() });
        Ok(())
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), EntryProblem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(EntryProblem::Extended("it says the same thing twice")),
    }
}

fn parse(text: Option<&str>, what: &'static str) -> Result<u32, EntryProblem> {
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(EntryProblem::Number(what))
}

/// The records of a pax header: `<length> <key>=<value>\n`, where the length
/// is that of the whole record, so that values may hold any bytes.
fn records(bytes: &[u8]) -> Result<Vec<(&[u8], &[u8])>, EntryProblem> {
    let broken = || EntryProblem::Extended("a record is damaged");
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let digits = std::str::from_utf8(&rest[..blank]).map_err(|_| broken())?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let len: usize = digits.parse().ok().filter(|_| is_number).ok_or_else(broken)?;
        let record = rest.get(blank + 1..len).and_then(|record| record.strip_suffix(b"\n"));
        let record = record.ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        found.push((&record[..equals], &record[equals + 1..]));
        rest = &rest[len..];
    }
    Ok(found)
}

/// Reads seconds with an optional fraction, of which nine digits count.
fn decimal_time(text: &str) -> Option<Timestamp> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits = fraction.bytes().map(|byte| u32::from(byte - b'0'));
    let nanoseconds = digits.chain(std::iter::repeat(0)).take(9).fold(0, |sum, d| sum * 10 + d);
    match (is_negative, nanoseconds) {
        (false, _) => Timestamp::new(seconds, nanoseconds),
        (true, 0) => Timestamp::new(-seconds, 0),
        (true, _) => Timestamp::new(-seconds - 1, 1_000_000_000 - nanoseconds),
    }
}
