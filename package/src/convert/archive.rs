//! The entries of a package's archives: what every archive may have, with the
//! owners that Debian has fixed, and names that a stone can hold.

use std::io::Read;

pub(super) use cairn_store::archive::{ArchiveEntry as Entry, ArchiveKind as Kind};
use cairn_store::archive::{ArchiveError, ReadOptions, read_archive};
pub(super) use cairn_store::tree::Attributes;

use super::error::{EntryProblem, Problem};
use super::owner;

/// Reads an archive, which errors call `member`, as
/// [`read_archive`](cairn_store::archive::read_archive) does.
pub(super) fn read(
    tar: impl Read,
    member: &str,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), Problem>,
) -> Result<(), Problem> {
    // dpkg knows no sparse files.
    let options = ReadOptions {
        owners: Some(|user, group| (owner::user(user), owner::group(group))),
        holes: None,
    };
    let fail = |error| match error {
        ArchiveError::Unpack(source) => Problem::Unpack { member: member.into(), source },
        ArchiveError::Entry { entry, source } => {
            Problem::Entry { member: member.into(), entry, source: source.into() }
        }
    };
    read_archive(tar, &options, fail, |entry, bytes| {
        let link = match &entry.kind {
            Kind::Symlink(text) => text,
            _ => &[][..],
        };
        let path = entry.path.to_bytes();
        if std::str::from_utf8(&path).is_err() || std::str::from_utf8(link).is_err() {
            let source = EntryProblem::NotUtf8;
            return Err(Problem::Entry { member: member.into(), entry: path, source });
        }
        visit(entry, bytes)
    })
}

#[cfg(test)]
mod tests {
    use cairn_store::tree::Device;
    use cairn_store::{Timestamp, TreePath, Xattr};

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
        check(new().pax(&[("path", b"\xff")]).file("a", b""), "\"/\\xff\": its name or");
        check(new().pax(&[("path", &[b'x'; 256])]).file("a", b""), "its name cannot be");
        check(new().symlink("a", ""), "text of the link cannot be");
        check(new().pax(&[("linkpath", b"a\0b")]).symlink("a", "b"), "text of the link");
        check(new().pax(&[("linkpath", b"\xff")]).symlink("a", "b"), "not UTF-8");
        check(new().pax(&[("linkpath", &[b'x'; 4096])]).symlink("a", "b"), "text of the link");
        check(new().hard_link("a", "../b"), "\"../b\" is not a file");
        check(new().hard_link("a", ""), "\"\" is not a file");
        check(new().entry(b'S', "a", "", b""), "type 'S'");
        check(new().entry(b'V', "a", "", b""), "type 'V'");
        check(new().entry(b'2', "a", "b", b"bytes"), "has 5 bytes");
        check(new().pax(&[("size", b"9")]).file("a", b""), "changes the size");
        // What does not fit into a header may only be there.
        check(new().pax(&[("size", b"8589934591")]).file("a", b""), "changes the size");
        check(new().pax(&[("size", b"8589934592")]).file("a", b"b"), "changes the size");
        check(new().pax(&[("size", b"8589934592")]).file("a", b""), "the archive ends within it");
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
