//! One entry of a package: a path and what lies there.

use std::collections::HashMap;

use cairn_store::tree::{Device, MAX_TARGET_LEN};
use cairn_store::{BlobKey, Timestamp, TreePath, Xattr};

use super::bytes::{Cursor, Problem, without_nuls};
use super::error::{Error, Result};

/// One entry of a package.
///
/// Directories are listed only if they are empty or differ from root-owned
/// 0755; all other parents are implied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// From the root of the system, such as `/usr/bin/nano`. UTF-8, and never
    /// the root itself.
    pub path: TreePath,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777. Those of a
    /// symbolic link have no meaning on Linux.
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

impl Layout {
    /// An entry owned by root, without extras.
    #[must_use]
    pub fn new(path: TreePath, mode: u16, content: LayoutContent) -> Self {
        Self { path, uid: 0, gid: 0, mode, tag: 0, content, extra: Extra::default() }
    }
}

impl LayoutContent {
    /// The number in a file, and the file-type bits of `st_mode`.
    fn numbers(&self) -> (u8, u32) {
        match self {
            Self::Regular(_) => (1, 0o100_000),
            Self::Symlink(_) => (2, 0o120_000),
            Self::Directory => (3, 0o040_000),
            Self::CharDevice => (4, 0o020_000),
            Self::BlockDevice => (5, 0o060_000),
            Self::Fifo => (6, 0o010_000),
            Self::Socket => (7, 0o140_000),
        }
    }
}

/// A layout record as it is in a file, nothing of it checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) tag: u32,
    pub(super) kind: u8,
    pub(super) source: Box<[u8]>,
    pub(super) target: Box<[u8]>,
}

impl Record {
    pub(super) fn decode(from: &mut Cursor<'_>) -> Result<Self, Problem> {
        let (uid, gid, mode, tag) = (from.u32()?, from.u32()?, from.u32()?, from.u32()?);
        let (source_len, target_len) = (from.u16()?, from.u16()?);
        let kind = from.u8()?;
        // Padding, ignored by all readers.
        from.take(11)?;
        let source = from.take(source_len.into())?.into();
        let target = from.take(target_len.into())?.into();
        Ok(Self { uid, gid, mode, tag, kind, source, target })
    }

    /// From the root, with a leading slash, but not checked in any way.
    pub(super) fn full_path(&self) -> Vec<u8> {
        let target = without_nuls(&self.target);
        if target.starts_with(b"/") { target.into() } else { [b"/usr/", target].concat() }
    }

    /// Checks what can be known from this record alone.
    pub(super) fn check(&self) -> Result<Layout> {
        let path = TreePath::new(&self.full_path()).map_err(Error::HostilePath)?;
        let invalid = |problem| Error::InvalidEntry { path: path.clone(), problem };
        let content = match self.kind {
            1 => {
                let key = <[u8; 16]>::try_from(&*self.source);
                let key = key.map_err(|_| invalid("its hash has not 16 bytes"))?;
                LayoutContent::Regular(BlobKey::from_bytes(key))
            }
            2 => LayoutContent::Symlink(without_nuls(&self.source).into()),
            3 => LayoutContent::Directory,
            4 => LayoutContent::CharDevice,
            5 => LayoutContent::BlockDevice,
            6 => LayoutContent::Fifo,
            7 => LayoutContent::Socket,
            kind => return Err(Error::UnknownEntry { path, kind }),
        };
        let mode = u16::try_from(self.mode ^ content.numbers().1)
            .map_err(|_| invalid("its mode is that of another kind of file"))?;
        let Self { uid, gid, tag, .. } = *self;
        let layout = Layout { path, uid, gid, mode, tag, content, extra: Extra::default() };
        layout.check().map_err(|problem| layout.invalid(problem))?;
        Ok(layout)
    }
}

impl Layout {
    /// Writes the record; the entry must have been checked.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Problem> {
        let (kind, type_bits) = self.content.numbers();
        let path = self.path.to_bytes();
        let target = match path.strip_prefix(b"/usr/") {
            Some(below_usr) => below_usr,
            None => &path,
        };
        let source: &[u8] = match &self.content {
            LayoutContent::Regular(key) => key.as_bytes(),
            LayoutContent::Symlink(text) => text,
            _ => &[],
        };
        let len = |bytes: &[u8]| u16::try_from(bytes.len()).map_err(|_| "its path is too long");
        for word in [self.uid, self.gid, u32::from(self.mode) | type_bits, self.tag] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&len(source)?.to_be_bytes());
        out.extend_from_slice(&len(target)?.to_be_bytes());
        out.push(kind);
        out.extend_from_slice(&[0; 11]);
        out.extend_from_slice(source);
        out.extend_from_slice(target);
        Ok(())
    }

    pub(super) fn invalid(&self, problem: Problem) -> Error {
        Error::InvalidEntry { path: self.path.clone(), problem }
    }

    /// Checks what can be known from this entry alone.
    fn check(&self) -> Result<(), Problem> {
        if self.path.names().is_empty() {
            return Err("a package cannot contain the root");
        }
        if self.path.names().iter().any(|name| str::from_utf8(name).is_err()) {
            return Err("its path is not UTF-8");
        }
        if self.mode > 0o7777 {
            return Err("its mode is that of another kind of file");
        }
        if let LayoutContent::Symlink(text) = &self.content {
            if text.is_empty() || text.len() > MAX_TARGET_LEN || text.contains(&0) {
                return Err("its text is not one of a symbolic link");
            }
            if str::from_utf8(text).is_err() {
                return Err("its text is not UTF-8");
            }
        }
        self.extra.check(&self.content)
    }
}

impl Extra {
    fn check(&self, content: &LayoutContent) -> Result<(), Problem> {
        let is_device = matches!(content, LayoutContent::CharDevice | LayoutContent::BlockDevice);
        if self.device.is_some() && !is_device {
            return Err("it has a device number, but is no device");
        }
        if self.link.is_some() && *content == LayoutContent::Directory {
            return Err("a directory cannot have a hard link");
        }
        let valid = |xattr: &Xattr| {
            (1..=255).contains(&xattr.name.len())
                && !xattr.name.contains(&0)
                && xattr.value.len() <= 65_536
        };
        if !self.xattrs.iter().all(valid) {
            return Err("it has an impossible extended attribute");
        }
        if !self.xattrs.is_sorted_by(|left, right| left.name < right.name) {
            return Err("its extended attributes are out of order");
        }
        Ok(())
    }
}

/// Checks the entries of a package, each and against each other: no path
/// twice, none below what is not a directory, members of a group of hard links
/// equal.
pub(super) fn check(layout: &[Layout]) -> Result<()> {
    for entry in layout {
        entry.check().map_err(|problem| entry.invalid(problem))?;
    }
    check_paths(layout)?;
    check_links(layout)
}

fn check_paths(layout: &[Layout]) -> Result<()> {
    let mut by_path: Vec<&Layout> = layout.iter().collect();
    by_path.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    if let Some(pair) = by_path.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(Error::RepeatedPath(pair[0].path.clone()));
    }
    // What lies below a path follows it at once in this order.
    let mut leaf: Option<&TreePath> = None;
    for entry in by_path {
        if let Some(leaf) = leaf
            && entry.path.names().starts_with(leaf.names())
        {
            let (path, parent) = (entry.path.clone(), leaf.clone());
            return Err(Error::BelowNonDirectory { path, parent });
        }
        if entry.content != LayoutContent::Directory {
            leaf = Some(&entry.path);
        }
    }
    Ok(())
}

fn check_links(layout: &[Layout]) -> Result<()> {
    let mut groups: HashMap<u32, (&Layout, u32)> = HashMap::new();
    for entry in layout {
        let Some(group) = entry.extra.link else { continue };
        let (first, members) = groups.entry(group).or_insert((entry, 0));
        *members += 1;
        let same = Layout { path: first.path.clone(), ..entry.clone() };
        if same != **first {
            return Err(entry.invalid("it differs from another hard link of its group"));
        }
    }
    match groups.values().find(|(_, members)| *members == 1) {
        Some((alone, _)) => Err(alone.invalid("it is alone in its group of hard links")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: LayoutContent) -> Layout {
        Layout::new(TreePath::new(path.as_bytes()).expect("a path"), 0o755, content)
    }

    fn empty_file(path: &str) -> Layout {
        entry(path, LayoutContent::Regular(BlobKey::of(b"")))
    }

    #[test]
    fn a_target_is_relative_to_usr_or_absolute() {
        let check = |target: &[u8], expected: &str| {
            let record = Record {
                target: target.into(),
                ..encoded(&entry("/usr/x", LayoutContent::Directory))
            };
            assert_eq!(record.check().expect(expected).path.to_string(), expected);
        };
        check(b"bin/bash", "/usr/bin/bash");
        check(b"bin/bash\0", "/usr/bin/bash");
        check(b"usr/bin", "/usr/usr/bin");
        check(b"/etc/x", "/etc/x");
        check(b"/usr", "/usr");
    }

    #[test]
    fn a_hostile_target_is_refused() {
        let good = encoded(&entry("/usr/x", LayoutContent::Directory));
        for target in [
            &b""[..],
            b"/",
            b"\0",
            b"..",
            b"../etc/passwd",
            b"bin/../../etc/passwd",
            b"/../x",
            b"//etc/x",
            b"bin//x",
            b"bin/",
            b"./x",
            b"bin/a\0b",
            b"\xff",
            &[b'x'; 300],
            "a/".repeat(300).as_bytes(),
        ] {
            let record = Record { target: target.into(), ..good.clone() };
            assert!(record.check().is_err(), "{}", target.escape_ascii());
        }
    }

    #[test]
    fn an_entry_that_no_file_can_be_is_refused() {
        let refuses = |change: fn(&mut Record), expected: &str| {
            let mut record = encoded(&entry("/usr/x", LayoutContent::Symlink((*b"to").into())));
            change(&mut record);
            let err = format!("{:?}", record.check().expect_err(expected));
            assert!(err.contains(expected), "{err}");
        };
        refuses(|it| it.mode = 0o100_777, "another kind of file");
        refuses(|it| it.mode = 0o777, "another kind of file");
        refuses(|it| it.mode |= 1 << 16, "another kind of file");
        refuses(|it| it.kind = 1, "has not 16 bytes");
        refuses(|it| it.kind = 0, "UnknownEntry");
        refuses(|it| it.kind = 8, "UnknownEntry");
        refuses(|it| it.source = (*b"").into(), "text is not one");
        refuses(|it| it.source = (*b"a\0b").into(), "text is not one");
        refuses(|it| it.source = vec![b'x'; 4096].into(), "text is not one");
        refuses(|it| it.source = (*b"\xff").into(), "not UTF-8");
    }

    #[test]
    fn entries_that_exclude_each_other_are_refused() {
        let link = || entry("/usr/a", LayoutContent::Symlink((*b"/etc").into()));
        let directory = || entry("/usr/a", LayoutContent::Directory);
        let refuses = |layout: &[Layout], expected: &str| {
            let err = format!("{:?}", check(layout).expect_err(expected));
            assert!(err.starts_with(expected), "{err}");
        };
        refuses(&[directory(), empty_file("/usr/a-b"), directory()], "RepeatedPath");
        refuses(&[link(), directory(), empty_file("/usr/a/b")], "RepeatedPath");
        refuses(&[empty_file("/usr/a/passwd"), link()], "BelowNonDirectory");
        refuses(&[link(), empty_file("/usr/a-b"), empty_file("/usr/a/b/c")], "BelowNonDirectory");
        let fine = [directory(), empty_file("/usr/a/b"), empty_file("/usr/ab")];
        check(&fine).expect("nothing is wrong with them");
    }

    #[test]
    fn hard_links_are_at_least_two_and_equal() {
        let linked = |path, mode| {
            let extra = Extra { link: Some(7), ..Extra::default() };
            Layout { mode, extra, ..empty_file(path) }
        };
        check(&[linked("/a", 0o644), linked("/b", 0o644)]).expect("two links of a file");
        for layout in [
            vec![linked("/a", 0o644)],
            vec![linked("/a", 0o644), empty_file("/b")],
            vec![linked("/a", 0o644), linked("/b", 0o600)],
            vec![
                Layout { content: LayoutContent::Directory, ..linked("/a", 0o755) },
                Layout { content: LayoutContent::Directory, ..linked("/b", 0o755) },
            ],
        ] {
            let err = check(&layout).expect_err("not a group of hard links");
            assert!(matches!(err, Error::InvalidEntry { .. }), "{err:?}");
        }
    }

    fn encoded(layout: &Layout) -> Record {
        let mut bytes = Vec::new();
        layout.encode(&mut bytes).expect("short");
        Record::decode(&mut Cursor::new(&bytes)).expect("as it was encoded")
    }
}
