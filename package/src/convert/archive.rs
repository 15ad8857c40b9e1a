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
use super::extended::Extended;
use super::owner;

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The root for `./`.
    pub(super) path: TreePath,
    pub(super) attributes: Attributes,
    pub(super) kind: Kind,
}

/// What every entry has. A hard link has that of the file that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
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

impl Kind {
    /// The number of a device.
    pub(super) fn device(&self) -> Option<Device> {
        match self {
            Self::CharDevice(device) | Self::BlockDevice(device) => Some(*device),
            _ => None,
        }
    }
}

/// More entries than any package has: the kernel's headers have 25,000.
const MAX_ENTRIES: usize = 1 << 20;

/// The most bytes of an extended header: a path and some attributes.
const MAX_EXTENDED_LEN: u64 = 1 << 20;

/// The most bytes of all extended headers together, since what they say stays
/// in memory.
const MAX_EXTENDED_TOTAL: u64 = 64 << 20;

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
    let mut extended = 0;
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
        if Extended::is_header(header.entry_type()) {
            let size = header.size().map_err(|_| fail(EntryProblem::Number("its size")))?;
            if size > MAX_EXTENDED_LEN {
                return Err(fail(EntryProblem::Extended("it is too long")));
            }
            extended += size;
            if extended > MAX_EXTENDED_TOTAL {
                return Err(fail(EntryProblem::Extended("all of them are too long together")));
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
    let Extended { path, link, uid, gid, user, group, mtime, mut xattrs } = extended;

    let entry_type = header.entry_type();
    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
    let path = tree_path(&path, entry_type.is_dir())?;
    let link = link.or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default();

    let mode = header.mode().map_err(|_| EntryProblem::Number("its mode"))?;
    // Some writers add the bits of the type.
    let mode = u16::try_from(mode & 0o7777).expect("12 bits");
    let user = user.as_deref().or_else(|| header.username_bytes());
    let group = group.as_deref().or_else(|| header.groupname_bytes());
    let uid = match (owner::user(user.unwrap_or_default()), uid) {
        (Some(uid), _) | (None, Some(uid)) => uid,
        (None, None) => narrow(header.uid(), "its user")?,
    };
    let gid = match (owner::group(group.unwrap_or_default()), gid) {
        (Some(gid), _) | (None, Some(gid)) => gid,
        (None, None) => narrow(header.gid(), "its group")?,
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

    let kind = kind(header, &link)?;
    Ok(Entry { path, attributes: Attributes { mode, uid, gid, mtime, xattrs }, kind })
}

fn kind(header: &Header, link: &[u8]) -> Result<Kind, EntryProblem> {
    let size = || header.entry_size().map_err(|_| EntryProblem::Number("its size"));
    let device = || {
        let major = header.device_major().ok().flatten();
        let minor = header.device_minor().ok().flatten();
        let numbers = major.zip(minor).ok_or(EntryProblem::Number("its device"))?;
        Ok(Device { major: numbers.0, minor: numbers.1 })
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => return Ok(Kind::File(size()?)),
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
    };
    match size()? {
        0 => Ok(kind),
        size => Err(EntryProblem::Bytes(size)),
    }
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

fn narrow(number: io::Result<u64>, what: &'static str) -> Result<u32, EntryProblem> {
    number.ok().and_then(|number| number.try_into().ok()).ok_or(EntryProblem::Number(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::fixture::Tar;

    fn entries(tar: Tar) -> Result<Vec<(Entry, Vec<u8>)>, Problem> {
        let mut found = Vec::new();
        read(&tar.bytes()[..], "data.tar", |entry, bytes| {
            let mut content = Vec::new();
            bytes.read_to_end(&mut content).expect("the bytes");
            found.push((entry.clone(), content));
            Ok(())
        })?;
        Ok(found)
    }

    fn only(tar: Tar) -> Entry {
        let [(entry, _)] = &entries(tar).expect("an archive")[..] else { panic!("not one entry") };
        entry.clone()
    }

    #[test]
    fn every_kind_of_entry_is_read() {
        let device = |header: &mut tar::Header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        };
        let tar = Tar::new()
            .directory("./")
            .directory("./dir/")
            .file("./dir/file", b"bytes")
            .file("empty", b"")
            .hard_link("./dir/hard", "./dir/file")
            .symlink("./dir/soft", "../x")
            .entry_with(b'3', "./null", "", b"", device)
            .entry_with(b'4', "./disk", "", b"", device)
            .entry(b'6', "./pipe", "", b"");
        let found = entries(tar).expect("an archive");
        let shown = found.iter().map(|(entry, content)| {
            (entry.path.to_string(), entry.kind.clone(), content.as_slice())
        });
        let file = TreePath::new(b"dir/file").expect("a path");
        let device = Device { major: 1, minor: 3 };
        let expected: [(&str, Kind, &[u8]); 9] = [
            ("/", Kind::Directory, b""),
            ("/dir", Kind::Directory, b""),
            ("/dir/file", Kind::File(5), b"bytes"),
            ("/empty", Kind::File(0), b""),
            ("/dir/hard", Kind::HardLink(file), b""),
            ("/dir/soft", Kind::Symlink(b"../x"[..].into()), b""),
            ("/null", Kind::CharDevice(device), b""),
            ("/disk", Kind::BlockDevice(device), b""),
            ("/pipe", Kind::Fifo, b""),
        ];
        let expected = expected.map(|(path, kind, content)| (path.to_string(), kind, content));
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_visitors_leave_is_skipped() {
        let tar = Tar::new().file("a", &[7; 5000]).file("b", b"b").bytes();
        let mut names = Vec::new();
        let visit = |entry: &Entry, _: &mut dyn Read| {
            names.push(entry.path.to_string());
            Ok(())
        };
        read(&tar[..], "data.tar", visit).expect("an archive");
        assert_eq!(names, ["/a", "/b"]);
    }

    #[test]
    fn extended_headers_win_over_the_header() {
        let long = format!("./{}/{}", "d".repeat(200), "f".repeat(200));
        let records: [(&str, &[u8]); 8] = [
            ("path", long.as_bytes()),
            ("mtime", b"1700000000.123456789"),
            ("uid", b"3000000"),
            ("gid", b"3000001"),
            ("atime", b"1.5"),
            ("SCHILY.xattr.user.b", b"line\nfeed=\0"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\n"),
            ("comment", b"no matter"),
        ];
        let entry = only(Tar::new().pax(&records).file("short", b""));
        assert_eq!(entry.path.to_string(), long[1..]);
        let xattr = |name: &[u8], value: &[u8]| Xattr { name: name.into(), value: value.into() };
        assert_eq!(
            entry.attributes,
            Attributes {
                mode: 0o644,
                uid: 3_000_000,
                gid: 3_000_001,
                mtime: Timestamp::new(1_700_000_000, 123_456_789).unwrap(),
                xattrs: vec![
                    xattr(b"security.capability", b"\x01\0\0\n"),
                    xattr(b"user.b", b"line\nfeed=\0"),
                ],
            }
        );

        let name = [long.as_bytes(), b"\0"].concat();
        let text = [&[b'.'; 300][..], b"\0"].concat();
        let tar = Tar::new()
            .entry(b'K', "././@LongLink", "", &text)
            .entry(b'L', "././@LongLink", "", &name)
            .symlink("short", "short")
            .symlink("next", "next");
        let found = entries(tar).expect("an archive");
        assert_eq!(found[0].0.path.to_string(), long[1..]);
        assert_eq!(found[0].0.kind, Kind::Symlink([b'.'; 300][..].into()));
        assert_eq!(found[1].0.kind, Kind::Symlink(b"next"[..].into()));
    }

    #[test]
    fn fixed_names_of_owners_win_over_numbers() {
        let check = |user: &str, group: &str, expected: (u32, u32)| {
            let entry = only(Tar::new().entry_with(b'0', "a", "", b"", |header| {
                header.set_uid(1000);
                header.set_gid(1001);
                header.set_username(user).unwrap();
                header.set_groupname(group).unwrap();
            }));
            assert_eq!((entry.attributes.uid, entry.attributes.gid), expected, "{user}:{group}");
        };
        check("root", "shadow", (0, 42));
        check("builder", "builder", (1000, 1001));
        check("", "tty", (1000, 5));
    }

    #[test]
    fn what_a_package_cannot_have_is_refused_by_name() {
        let check = |tar: Tar, expected: &str| {
            // Without the entries, which can be long.
            let problem = entries(tar).map(|_| ()).expect_err(expected);
            let mut text = problem.to_string();
            let mut source = std::error::Error::source(&problem);
            while let Some(err) = source {
                text = format!("{text}: {err}");
                source = err.source();
            }
            assert!(text.contains(expected), "{text}, not {expected}");
        };
        let new = Tar::new;
        check(new().file("../a", b""), "\"../a\": its name cannot be");
        check(new().file("./a/../b", b""), "\"./a/../b\": its name cannot be");
        check(new().file("a//b", b""), "its name cannot be");
        check(new().file(".//b", b""), "its name cannot be");
        check(new().file("./a/", b""), "its name cannot be");
        check(new().file("./", b""), "its name cannot be");
        check(new().file("", b""), "it has no name");
        check(new().file("/a", b""), "its name is absolute");
        check(new().pax(&[("path", b"/a")]).file("a", b""), "\"/a\": its name is absolute");
        check(new().pax(&[("path", b"a\0b")]).file("a", b""), "its name cannot be");
        check(new().pax(&[("path", b"\xff")]).file("a", b""), "\"\\xff\": its name or");
        check(new().pax(&[("path", &[b'x'; 256])]).file("a", b""), "its name cannot be");
        check(new().symlink("a", ""), "text of the link cannot be");
        check(new().pax(&[("linkpath", b"a\0b")]).symlink("a", "b"), "text of the link");
        check(new().pax(&[("linkpath", b"\xff")]).symlink("a", "b"), "not UTF-8");
        check(new().pax(&[("linkpath", &[b'x'; 4096])]).symlink("a", "b"), "text of the link");
        check(new().hard_link("a", "../b"), "\"../b\" is not a regular file");
        check(new().hard_link("a", ""), "\"\" is not a regular file");
        check(new().entry(b'S', "a", "", b""), "type 'S'");
        check(new().entry(b'V', "a", "", b""), "type 'V'");
        check(new().entry(b'2', "a", "b", b"bytes"), "has 5 bytes");
        check(new().pax(&[("size", b"9")]).file("a", b""), "changes the size");
        check(new().pax(&[("GNU.sparse.map", b"0,1")]).file("a", b""), "sparse");
        check(new().pax(&[("SCHILY.acl.access", b"u::r")]).file("a", b""), "an ACL");
        check(new().pax(&[("SCHILY.xattr.", b"")]).file("a", b""), "no attribute");
        check(
            new().pax(&[("SCHILY.xattr.a", b"1"), ("SCHILY.xattr.a", b"2")]).file("a", b""),
            "attribute is there twice",
        );
        check(new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b""), "thing twice");
        check(new().pax(&[("uid", b"-1")]).file("a", b""), "its user is not a number");
        check(new().pax(&[("mtime", b"now")]).file("a", b""), "its time is not a number");
        check(new().entry(b'x', "p", "", b"9 a=b\n"), "a record is damaged");
        check(new().entry(b'x', "p", "", b"99999999999999999999 a=b\n"), "a record is damaged");
        check(new().entry(b'x', "p", "", b"2 a=b\n"), "a record is damaged");
        check(new().entry(b'g', "p", "", b"8 uid=0\n"), "for the whole archive");
        check(new().pax(&[("path", b"a")]), "an extended header is the last");
        check(new().entry(b'L', "l", "", &vec![b'x'; (1 << 20) + 1]), "it is too long");
        let attribute = vec![0; 65_536];
        let flood = (0..1100).fold(new(), |tar, number| {
            let name = number.to_string();
            tar.pax(&[("SCHILY.xattr.user.a", &attribute)]).file(&name, b"")
        });
        check(flood, "\"pax\": its extended header is unusable: all of them");
        check(
            new().pax(&[("SCHILY.xattr.a", &[0; 65_537])]).file("a", b""),
            "no attribute that a file can have",
        );
        let octal = |header: &mut tar::Header| header.as_old_mut().mode = *b"not oct\0";
        check(new().entry_with(b'0', "a", "", b"", octal), "its mode is not a number");
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_ends_without_a_panic() {
        let whole = Tar::new()
            .pax(&[("path", b"./long"), ("SCHILY.xattr.user.a", b"1")])
            .file("./a", b"content")
            .hard_link("./b", "./a")
            .bytes();
        let end_of_file = 5 * 512;
        for len in 0..end_of_file {
            let found = read(&whole[..len], "data.tar", |_, _| Ok(()));
            assert!(found.is_err() || len % 512 == 0, "{len} bytes");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x81;
            // Most are errors; a changed byte of a content is not for a tar
            // archive to notice.
            let _ = read(&damaged[..], "data.tar", |_, _| Ok(()));
        }
    }
}
