//! The files of a Debian package, unpacked into one temporary file and put in
//! their places in a merged root.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cairn_store::archive::EntryProblem::{NotBelowDirectory, Twice};
use cairn_store::name::TreePath;
use cairn_store::{BlobHasher, BlobRef};

use super::archive::{self, Attributes, Entry, Kind};
use super::error::{EntryProblem, Problem};
use super::place;
use crate::stone::{Layout, LayoutContent, Source};

/// The files of a package.
#[derive(Debug)]
pub(super) struct Files {
    /// Sorted by path, and only what a stone lists: no directory that its
    /// entries imply.
    pub(super) entries: Vec<Placed>,
    spool: Arc<File>,
}

/// One entry in its place.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) path: TreePath,
    attributes: Attributes,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    File(Bytes),
    Symlink(Box<[u8]>),
    /// What has neither bytes nor a text.
    Other(Kind),
}

/// The bytes of a regular file, which lie in the temporary file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    pub(super) blob: BlobRef,
    start: u64,
    /// The same for all hard links of one file.
    file: u32,
}

/// Two files are equal if their bytes are, wherever those lie.
impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.blob == other.blob
    }
}

impl Eq for Bytes {}

impl Files {
    /// Unpacks the archive `tar`, which errors call `member`, into an unnamed
    /// file in `directory`.
    pub(super) fn unpack(tar: impl Read, member: &str, directory: &Path) -> Result<Self, Problem> {
        let mut spool = Spool::new(member, directory)?;
        // By the paths that the archive has.
        let mut raw: BTreeMap<TreePath, Placed> = BTreeMap::new();
        archive::read(tar, member, |entry, bytes| {
            let fail = |problem| entry_problem(member, &entry.path, problem);
            let Entry { path, attributes, kind, .. } = entry;
            let placed = |content| Placed {
                path: place::place(path),
                attributes: attributes.clone(),
                content,
            };
            let placed = match kind {
                Kind::File(_) => placed(Content::File(spool.append(bytes)?)),
                Kind::Symlink(text) => placed(Content::Symlink(place::link_text(path, text))),
                Kind::HardLink(target) => match raw.get(target) {
                    Some(file @ Placed { content: Content::File(_), .. }) => {
                        Placed { path: place::place(path), ..file.clone() }
                    }
                    _ => return Err(fail(EntryProblem::LinkTarget(target.to_bytes()))),
                },
                kind => placed(Content::Other(kind.clone())),
            };
            match raw.insert(path.clone(), placed) {
                Some(_) => Err(fail(Twice.into())),
                None => Ok(()),
            }
        })?;
        let mut entries = merge(raw, member)?;
        check_parents(&entries, member)?;
        remove_implied(&mut entries);
        Ok(Self { entries, spool: spool.finish()? })
    }

    /// Where the bytes of a file can be had.
    pub(super) fn source(&self, bytes: &Bytes) -> Source {
        Source::Piece { file: self.spool.clone(), start: bytes.start, size: bytes.blob.size }
    }

    /// Reads the bytes of a file.
    pub(super) fn reader(&self, bytes: &Bytes) -> BytesReader<'_> {
        BytesReader { spool: &self.spool, bytes: *bytes, position: 0 }
    }

    /// The regular file at `path`.
    pub(super) fn find(&self, path: &[u8]) -> Option<&Bytes> {
        let path = TreePath::new(path).ok()?;
        let at = self.entries.binary_search_by(|entry| entry.path.cmp(&path)).ok()?;
        match &self.entries[at].content {
            Content::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Bytes of all unique files together.
    pub(super) fn unique_size(&self) -> u64 {
        let blob = |entry: &Placed| match &entry.content {
            Content::File(bytes) => Some(bytes.blob),
            _ => None,
        };
        let unique: HashSet<BlobRef> = self.entries.iter().filter_map(blob).collect();
        unique.iter().map(|blob| blob.size).sum()
    }

    /// The entries as a stone has them.
    pub(super) fn layout(&self) -> Vec<Layout> {
        let mut links: BTreeMap<u32, u32> = BTreeMap::new();
        for entry in &self.entries {
            if let Content::File(bytes) = &entry.content {
                *links.entry(bytes.file).or_default() += 1;
            }
        }
        let layout = |entry: &Placed| {
            let Attributes { mode, uid, gid, mtime, xattrs } = entry.attributes.clone();
            let mut link = None;
            let mut device = None;
            let mut mode = mode;
            let content = match &entry.content {
                Content::File(bytes) => {
                    link = (links[&bytes.file] > 1).then_some(bytes.file);
                    LayoutContent::Regular(bytes.blob.key)
                }
                Content::Symlink(text) => {
                    // Linux shows no other.
                    mode = 0o777;
                    LayoutContent::Symlink(text.clone())
                }
                Content::Other(kind) => {
                    device = kind.device();
                    match kind {
                        Kind::CharDevice(_) => LayoutContent::CharDevice,
                        Kind::BlockDevice(_) => LayoutContent::BlockDevice,
                        Kind::Fifo => LayoutContent::Fifo,
                        _ => LayoutContent::Directory,
                    }
                }
            };
            let mut layout = Layout::new(entry.path.clone(), mode, content);
            (layout.uid, layout.gid) = (uid, gid);
            layout.extra.mtime = Some(mtime);
            layout.extra.xattrs = xattrs;
            layout.extra.link = link;
            layout.extra.device = device;
            layout
        };
        self.entries.iter().map(layout).collect()
    }
}

/// Reads the bytes of one file from the temporary one.
#[derive(Debug)]
pub(super) struct BytesReader<'a> {
    spool: &'a File,
    bytes: Bytes,
    position: u64,
}

impl Read for BytesReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.blob.size.saturating_sub(self.position);
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        self.spool.read_exact_at(&mut buf[..len], self.bytes.start + self.position)?;
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for BytesReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.bytes.blob.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

fn entry_problem(member: &str, path: &TreePath, source: EntryProblem) -> Problem {
    Problem::Entry { member: member.into(), entry: path.to_bytes(), source }
}

/// Brings the entries to their places. What /bin and /usr/bin both have must
/// be equal in all but its time; that of /usr stays.
fn merge(raw: BTreeMap<TreePath, Placed>, member: &str) -> Result<Vec<Placed>, Problem> {
    let mut merged: BTreeMap<TreePath, (TreePath, Placed)> = BTreeMap::new();
    for (origin, entry) in raw {
        let is_of_root = match &entry.content {
            Content::Symlink(text) => place::is_merge_link(&origin, text),
            Content::Other(Kind::Directory) => place::is_of_root(&origin),
            _ => false,
        };
        if is_of_root {
            continue;
        }
        match merged.entry(entry.path.clone()) {
            Slot::Vacant(slot) => {
                slot.insert((origin, entry));
            }
            Slot::Occupied(mut slot) => {
                let (first_origin, first) = slot.get();
                if !first.is_same(&entry) {
                    let collision = EntryProblem::Collision(first_origin.to_bytes());
                    return Err(entry_problem(member, &origin, collision));
                }
                if origin == entry.path {
                    slot.insert((origin, entry));
                }
            }
        }
    }
    Ok(merged.into_values().map(|(_, entry)| entry).collect())
}

impl Placed {
    fn is_same(&self, other: &Self) -> bool {
        let timeless =
            |entry: &Self| Attributes { mtime: Default::default(), ..entry.attributes.clone() };
        self.content == other.content && timeless(self) == timeless(other)
    }

    fn is_directory(&self) -> bool {
        self.content == Content::Other(Kind::Directory)
    }

    fn is_below(&self, other: &Self) -> bool {
        self.path.names().starts_with(other.path.names())
    }

    /// Whether it is a directory as the stones' readers make it by themselves.
    fn is_plain_directory(&self) -> bool {
        let Attributes { mode, uid, gid, ref xattrs, .. } = self.attributes;
        self.is_directory() && (mode, uid, gid) == (0o755, 0, 0) && xattrs.is_empty()
    }
}

/// Refuses entries below what is not a directory, a symbolic link above all:
/// it could lead anywhere.
fn check_parents(entries: &[Placed], member: &str) -> Result<(), Problem> {
    // What lies below a path follows it at once in this order.
    let mut leaf: Option<&Placed> = None;
    for entry in entries {
        if let Some(leaf) = leaf.filter(|leaf| entry.is_below(leaf)) {
            let problem = NotBelowDirectory(leaf.path.to_bytes()).into();
            return Err(entry_problem(member, &entry.path, problem));
        }
        if !entry.is_directory() {
            leaf = Some(entry);
        }
    }
    Ok(())
}

/// Removes the directories that are what every reader makes for the entries
/// below them.
fn remove_implied(entries: &mut Vec<Placed>) {
    let has_child = |at: usize| entries.get(at + 1).is_some_and(|next| next.is_below(&entries[at]));
    let kept: Vec<bool> =
        (0..entries.len()).map(|at| !(entries[at].is_plain_directory() && has_child(at))).collect();
    let mut kept = kept.into_iter();
    entries.retain(|_| kept.next() == Some(true));
}

/// The temporary file while it grows.
struct Spool<'a> {
    member: &'a str,
    directory: &'a Path,
    to: BufWriter<File>,
    buf: Vec<u8>,
    len: u64,
    files: u32,
}

impl<'a> Spool<'a> {
    fn new(member: &'a str, directory: &'a Path) -> Result<Self, Problem> {
        let file = tempfile::tempfile_in(directory)
            .map_err(|source| Problem::Write { path: directory.into(), source })?;
        let (to, buf) = (BufWriter::with_capacity(128 << 10, file), vec![0; 64 << 10]);
        Ok(Self { member, directory, to, buf, len: 0, files: 0 })
    }

    /// Takes over the bytes of one file.
    fn append(&mut self, bytes: &mut dyn Read) -> Result<Bytes, Problem> {
        let start = self.len;
        let mut hasher = BlobHasher::default();
        loop {
            let len = bytes
                .read(&mut self.buf)
                .map_err(|source| Problem::Unpack { member: self.member.into(), source })?;
            if len == 0 {
                break;
            }
            let piece = &self.buf[..len];
            hasher.update(piece);
            self.to.write_all(piece).map_err(|source| self.failed(source))?;
            self.len += len as u64;
        }
        self.files += 1;
        Ok(Bytes { blob: hasher.finish(), start, file: self.files })
    }

    fn finish(self) -> Result<Arc<File>, Problem> {
        let directory = self.directory;
        let failed = |err: io::IntoInnerError<_>| Problem::Write {
            path: directory.into(),
            source: err.into_error(),
        };
        self.to.into_inner().map(Arc::new).map_err(failed)
    }

    fn failed(&self, source: io::Error) -> Problem {
        Problem::Write { path: self.directory.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::fixture::Tar;

    fn unpack(tar: Tar) -> Result<Files, Problem> {
        let directory = tempfile::tempdir().expect("a directory");
        Files::unpack(&tar.bytes()[..], "data.tar", directory.path())
    }

    /// Paths with kinds, modes and link groups as text.
    fn shown(tar: Tar) -> Vec<String> {
        let layout = unpack(tar).expect("a package").layout();
        let show = |entry: &Layout| {
            let content = match &entry.content {
                LayoutContent::Regular(_) => "file".to_string(),
                LayoutContent::Symlink(text) => format!("-> {}", text.escape_ascii()),
                content => format!("{content:?}").to_lowercase(),
            };
            let link = entry.extra.link.map(|group| format!(" link {group}")).unwrap_or_default();
            format!("{} {content} {:o}{link}", entry.path, entry.mode)
        };
        layout.iter().map(show).collect()
    }

    #[test]
    fn a_root_is_merged_and_implied_directories_are_left_out() {
        let tar = Tar::new()
            .directory("./")
            .directory("./bin/")
            .directory("./etc/")
            .directory("./lib/")
            .directory("./lib/x/")
            .directory("./sbin/")
            .entry_with(b'5', "./tmp/", "", b"", |header| header.set_mode(0o1777))
            .directory("./proc/")
            .directory("./media/")
            .directory("./usr/")
            .directory("./usr/share/")
            .directory("./usr/share/empty/")
            .entry_with(b'5', "./var/mail/", "", b"", |header| header.set_mode(0o2775))
            .file("./var/mail/root", b"")
            .file("./bin/a", b"a")
            .file("./etc/a.conf", b"a")
            .symlink("./lib/x/link", "../../usr/share/y")
            .symlink("./lib64", "usr/lib64");
        assert_eq!(
            shown(tar),
            [
                "/media directory 755",
                "/usr/bin/a file 644",
                "/usr/lib/x/link -> ../../../usr/share/y 777",
                "/usr/sbin directory 755",
                "/usr/share/defaults/etc/a.conf file 644",
                "/usr/share/empty directory 755",
                "/var/mail directory 2775",
                "/var/mail/root file 644",
            ]
        );
    }

    #[test]
    fn equal_entries_of_both_places_become_one() {
        let later = |header: &mut tar::Header| header.set_mtime(2_000_000_000);
        let tar = Tar::new()
            .entry_with(b'0', "./bin/a", "", b"a", later)
            .symlink("./bin/b", "a")
            .directory("./lib/c/")
            .file("./usr/bin/a", b"a")
            .symlink("./usr/bin/b", "a")
            .directory("./usr/lib/c/");
        let layout = unpack(tar).expect("a package").layout();
        let paths: Vec<String> = layout.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(paths, ["/usr/bin/a", "/usr/bin/b", "/usr/lib/c"]);
        let mtime = layout[0].extra.mtime.expect("a time");
        assert_eq!(mtime.seconds(), 1_000_000_000, "that of /usr stays");
    }

    #[test]
    fn hard_links_form_groups_of_what_is_left() {
        let tar = Tar::new()
            .file("./bin/a", b"a")
            .hard_link("./bin/b", "./bin/a")
            .file("./bin/c", b"a")
            .hard_link("./etc/d", "./bin/c")
            .file("./bin/same", b"a")
            .file("./usr/bin/b", b"a")
            .file("./bin/e", b"")
            .file("./bin/f", b"");
        assert_eq!(
            shown(tar),
            [
                "/usr/bin/a file 644",
                "/usr/bin/b file 644",
                "/usr/bin/c file 644 link 2",
                "/usr/bin/e file 644",
                "/usr/bin/f file 644",
                "/usr/bin/same file 644",
                "/usr/share/defaults/etc/d file 644 link 2",
            ]
        );
    }

    #[test]
    fn a_hard_link_has_everything_of_its_file() {
        let setuid = |header: &mut tar::Header| header.set_mode(0o4755);
        let tar = Tar::new()
            .pax(&[("SCHILY.xattr.user.a", b"1")])
            .entry_with(b'0', "./a", "", b"a", setuid)
            .hard_link("./b", "./a");
        let layout = unpack(tar).expect("a package").layout();
        let [a, b] = &layout[..] else { panic!("two entries") };
        assert_eq!(b.mode, 0o4755);
        assert_eq!(a.extra.link, Some(1));
        assert_eq!((&a.content, &a.extra), (&b.content, &b.extra));
    }

    #[test]
    fn the_bytes_can_be_read_from_the_temporary_file() {
        let big: Vec<u8> = (0..300_000u32).map(|i| (i / 5).to_le_bytes()[0]).collect();
        let files = unpack(Tar::new().file("a", b"first").file("b", &big).file("c", b"last"));
        let files = files.expect("a package");
        for (path, expected) in [("/a", &b"first"[..]), ("/b", &big), ("/c", b"last")] {
            let bytes = files.find(path.as_bytes()).expect("a file");
            assert_eq!(bytes.blob, BlobRef::of(expected), "{path}");
            let mut reader = files.reader(bytes);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("the bytes");
            assert!(read == expected, "{path}");
            reader.seek(SeekFrom::End(-1)).expect("within the file");
            read.clear();
            reader.read_to_end(&mut read).expect("the last byte");
            assert_eq!(read, expected[expected.len() - 1..], "{path}");
        }
        assert_eq!(files.unique_size(), 300_009);
    }

    #[test]
    fn hostile_packages_are_refused_by_name() {
        let check = |tar: Tar, expected: &str| {
            let problem = unpack(tar).expect_err(expected);
            let source = std::error::Error::source(&problem).map(ToString::to_string);
            let text = format!("{problem}: {}", source.unwrap_or_default());
            assert!(text.contains(expected), "{text}, not {expected}");
        };
        let new = Tar::new;
        check(new().file("a", b"").file("./a", b""), "\"/a\": the archive has it twice");
        check(new().directory("a/").directory("a/"), "the archive has it twice");
        check(new().directory("./").directory("./"), "\"/\": the archive has it twice");
        check(
            new().symlink("a", "/etc").file("a/b", b""),
            "\"/a/b\": \"/a\" above it is not a directory",
        );
        // dpkg writes links last.
        check(new().file("a/b", b"").symlink("a", "/etc"), "\"/a\" above it");
        check(new().file("a/b/c", b"").symlink("a", "/etc"), "\"/a\" above it");
        check(new().file("a", b"").file("a/b", b""), "\"/a\" above it");
        check(new().symlink("bin", "/tmp").file("bin/a", b""), "\"/usr/bin\" above it");
        check(new().hard_link("b", "a"), "\"/b\": \"/a\" is not a regular file");
        check(new().hard_link("b", "a").file("a", b""), "\"/a\" is not a regular file");
        check(new().symlink("a", "x").hard_link("b", "a"), "\"/a\" is not a regular file");
        check(new().directory("a").hard_link("b", "a"), "\"/a\" is not a regular file");
        check(
            new().file("bin/a", b"1").file("usr/bin/a", b"2"),
            "\"/usr/bin/a\": \"/bin/a\" differs",
        );
        check(new().symlink("lib/a", "b").file("usr/lib/a", b"2"), "\"/lib/a\" differs");
        let private = |header: &mut tar::Header| header.set_mode(0o700);
        check(
            new().entry_with(b'5', "lib/a", "", b"", private).directory("usr/lib/a"),
            "\"/lib/a\" differs",
        );
        check(
            new().file("etc/a", b"1").file("usr/share/defaults/etc/a", b"2"),
            "\"/etc/a\" differs",
        );
    }
}
