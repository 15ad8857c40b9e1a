//! What programs see on a mount is what the trees say.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_fs::{Event, Journal, Shape, control};
use cairn_store::tree::{Content, Device};
use cairn_store::{Attributes, BlobRef, Refs, State, StateId, Store, Tree, TreeId, Xattr};
use support::{Directory, FIRST, Item, Lab, at, directory, file, put, symlink, sys};

/// What stat(2) says, as far as a tree decides it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: (i64, i64),
    links: u64,
    rdev: u64,
}

/// Goes through a mount and a description of it, and compares everything.
fn compare(path: &Path, attributes: &Attributes, items: &Directory) {
    let mut names: Vec<Vec<u8>> = fs::read_dir(path)
        .unwrap_or_else(|err| panic!("{}: {err}", path.display()))
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .collect();
    names.sort();
    assert_eq!(names, items.keys().cloned().collect::<Vec<_>>(), "{}", path.display());
    let below = items.values().filter(|item| matches!(item, Item::Directory(..))).count();
    check(path, libc::S_IFDIR, attributes, 4096, 2 + below as u64, 0);
    for (name, item) in items {
        let path = path.join(sys::os(name));
        match item {
            Item::Directory(attributes, items) => compare(&path, attributes, items),
            Item::File(attributes, bytes) => {
                check(&path, libc::S_IFREG, attributes, bytes.len() as u64, 1, 0);
                assert_eq!(&fs::read(&path).unwrap(), bytes, "{}", path.display());
            }
            Item::Link(_, count, attributes, bytes) => {
                check(&path, libc::S_IFREG, attributes, bytes.len() as u64, u64::from(*count), 0);
                assert_eq!(&fs::read(&path).unwrap(), bytes, "{}", path.display());
            }
            Item::Other(attributes, content) => {
                let (kind, size, rdev) = match content {
                    Content::File(_) => unreachable!("described as a file"),
                    Content::Symlink(target) => {
                        assert_eq!(fs::read_link(&path).unwrap().as_os_str(), sys::os(target));
                        (libc::S_IFLNK, target.len() as u64, 0)
                    }
                    Content::CharDevice(device) => {
                        (libc::S_IFCHR, 0, libc::makedev(device.major, device.minor))
                    }
                    Content::BlockDevice(device) => {
                        (libc::S_IFBLK, 0, libc::makedev(device.major, device.minor))
                    }
                    Content::Fifo => (libc::S_IFIFO, 0, 0),
                    Content::Socket => (libc::S_IFSOCK, 0, 0),
                };
                check(&path, kind, attributes, size, 1, rdev);
            }
        }
    }
}

fn check(path: &Path, kind: u32, attributes: &Attributes, size: u64, links: u64, rdev: u64) {
    let seen = fs::symlink_metadata(path).unwrap();
    let expected = Seen {
        mode: kind | u32::from(attributes.mode),
        uid: attributes.uid,
        gid: attributes.gid,
        size,
        mtime: (attributes.mtime.seconds(), attributes.mtime.nanoseconds().into()),
        links,
        rdev,
    };
    let found = Seen {
        mode: seen.mode(),
        uid: seen.uid(),
        gid: seen.gid(),
        size: seen.size(),
        mtime: (seen.mtime(), seen.mtime_nsec()),
        links: seen.nlink(),
        rdev: seen.rdev(),
    };
    assert_eq!(found, expected, "{}", path.display());
    assert_eq!((seen.blocks(), seen.blksize()), (size.div_ceil(512), 4096));
    assert_eq!((seen.ctime(), seen.ctime_nsec()), expected.mtime);
    assert_eq!((seen.atime(), seen.atime_nsec()), expected.mtime);
    let mut names = sys::xattrs(path);
    names.sort();
    let expected: Vec<_> = attributes.xattrs.iter().map(|xattr| xattr.name.to_vec()).collect();
    assert_eq!(names.iter().map(|name| name.clone().into_bytes()).collect::<Vec<_>>(), expected);
    for (name, xattr) in names.iter().zip(&attributes.xattrs) {
        assert_eq!(sys::xattr(path, name).unwrap(), *xattr.value, "{} {name}", path.display());
    }
}

fn attributes(
    mode: u16,
    uid: u32,
    gid: u32,
    time: (i64, u32),
    xattrs: &[(&str, &[u8])],
) -> Attributes {
    let mut xattrs: Vec<Xattr> = xattrs
        .iter()
        .map(|(name, value)| Xattr { name: name.as_bytes().into(), value: (*value).into() })
        .collect();
    xattrs.sort();
    Attributes { mode, uid, gid, mtime: at(time.0, time.1), xattrs }
}

/// Something of everything.
fn zoo() -> Directory {
    let mut root = Directory::new();
    // cap_net_raw+ep, as setcap(8) writes it.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let acl: &[u8] = &[
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255,
        255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ];
    let long = "x".repeat(255);
    let mut put = |path: &str, item| put(&mut root, path, item);
    put("file", file("text"));
    put("empty", file(""));
    put("setuid", Item::File(attributes(0o4755, 0, 0, (5, 999_999_999), &[]), b"s".into()));
    put("setgid", Item::File(attributes(0o2711, 1000, 4_000_000_000, (0, 1), &[]), b"g".into()));
    put(
        "locked",
        Item::File(attributes(0, 33, 33, (1_700_000_000, 123_456_789), &[]), b"l".into()),
    );
    put("old", Item::File(attributes(0o600, 0, 0, (-1, 500_000_000), &[]), b"o".into()));
    put("older", Item::File(attributes(0o600, 0, 0, (-2_000_000_000_000, 1), &[]), b"o".into()));
    put("future", Item::File(attributes(0o600, 0, 0, (1 << 40, 7), &[]), b"f".into()));
    put(
        "able",
        Item::File(
            attributes(
                0o755,
                0,
                0,
                (1, 1),
                &[
                    ("security.capability", capability),
                    ("system.posix_acl_access", acl),
                    ("trusted.hidden", b"\0\xff"),
                    ("user.empty", b""),
                    ("user.large", &[7; 60_000]),
                ],
            ),
            b"a".into(),
        ),
    );
    put("first", Item::Link("/first".into(), 3, Attributes::of_root(0o640), b"same".into()));
    put("deep/second", Item::Link("/first".into(), 3, Attributes::of_root(0o640), b"same".into()));
    put("deep/third", Item::Link("/first".into(), 3, Attributes::of_root(0o640), b"same".into()));
    put("twin", Item::File(Attributes::of_root(0o640), b"same".into()));
    put("other twin", Item::File(Attributes::of_root(0o640), b"same".into()));
    for (name, content) in [
        ("null", Content::CharDevice(Device { major: 1, minor: 3 })),
        ("wide", Content::BlockDevice(Device { major: 4095, minor: 0xf_ffff })),
        ("disk", Content::BlockDevice(Device { major: 259, minor: 300 })),
        ("pipe", Content::Fifo),
        ("socket", Content::Socket),
    ] {
        put(name, Item::Other(attributes(0o620, 5, 6, (9, 9), &[]), content));
    }
    put("link", symlink("file"));
    put("dangling", symlink(&"y".repeat(4095)));
    put(&long, file("long"));
    put(
        "sticky",
        Item::Directory(
            attributes(0o1777, 0, 50, (8, 8), &[("user.of", b"directory")]),
            Directory::new(),
        ),
    );
    root.insert(b"\xff\xfe\n \\".into(), file("bytes"));
    root.insert(b"...".into(), file("dots"));
    root
}

#[test]
fn every_attribute_of_every_kind_is_exact() {
    let lab = Lab::default();
    let own = attributes(0o751, 1, 2, (3, 4), &[("user.root", b"yes")]);
    let root = zoo();
    lab.commit_with(&own, &root);
    let mounted = lab.mount(Shape::Pinned(FIRST));
    // Twice: as answered, and as the kernel has kept it.
    compare(&lab.target(), &own, &root);
    compare(&lab.target(), &own, &root);
    drop(mounted);
    assert_eq!(fs::read_dir(lab.target()).unwrap().count(), 0);
}

#[test]
fn a_mount_of_all_states_shows_each_as_it_is() {
    let lab = Lab::default();
    let (first, second) = (zoo(), support::items_of([("only", file("second"))]));
    lab.commit(&first);
    lab.commit(&second);
    lab.store.tag(cairn_store::Tag::new("good").unwrap(), FIRST).unwrap();
    let _mounted = lab.mount(Shape::Folder);
    let own = Attributes::of_root(0o755);
    for (path, root) in
        [("current", &second), ("states/2", &second), ("states/1", &first), ("tags/good", &first)]
    {
        compare(&lab.target().join(path), &own, root);
    }
    let list = |path: &str| {
        let entries = fs::read_dir(lab.target().join(path)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(list(""), ["current", "states", "tags"]);
    assert_eq!(list("states"), ["1", "2"]);
    assert_eq!(list("tags"), ["good"]);
    assert!(!lab.target().join("states/3").exists());
}

#[test]
fn a_mount_tells_where_a_file_comes_from_to_whoever_asks_by_name() {
    let lab = Lab::default();
    let own = Xattr { name: b"user.cairn.blob"[..].into(), value: b"own"[..].into() };
    let marked = Attributes { xattrs: vec![own], ..Attributes::of_root(0o644) };
    let root = |last: &str| {
        let mut root = support::items_of([]);
        put(&mut root, "deep/er/same", file("same"));
        put(&mut root, "deep/last", file(last));
        put(&mut root, "marked", Item::File(marked.clone(), b"x".to_vec()));
        root
    };
    lab.commit(&root("first"));
    lab.commit(&root("second"));
    lab.store.tag(cairn_store::Tag::new("good").unwrap(), FIRST).unwrap();
    let told = |path: &str, name: &str| {
        let answer = sys::xattr(&lab.target().join(path), &format!("user.cairn.{name}"));
        match answer {
            Ok(value) => Some(String::from_utf8(value).unwrap()),
            Err(err) => {
                assert_eq!(err.raw_os_error(), Some(libc::ENODATA), "{path} {name}");
                None
            }
        }
    };
    let digest = |text: &str| Some(cairn_store::BlobRef::of(text.as_bytes()).digest.to_string());
    let mounted = lab.mount(Shape::Folder);
    for (path, state) in [
        ("current", Some("2")),
        ("states/1", Some("1")),
        ("states/2/deep/er", Some("2")),
        ("tags/good/deep", Some("1")),
        ("states/1/deep/last", None),
        ("", None),
        ("states", None),
        ("tags", None),
    ] {
        assert_eq!(told(path, "state").as_deref(), state, "{path}");
    }
    assert_eq!(told("states/1/deep/last", "blob"), digest("first"));
    assert_eq!(told("current/deep/last", "blob"), digest("second"));
    assert_eq!(told("tags/good/deep/er/same", "blob"), digest("same"));
    assert_eq!(told("current/deep", "blob"), None);
    assert_eq!(
        told("current/marked", "blob").as_deref(),
        Some("own"),
        "the tree's own comes first"
    );
    let tree = told("states/1/deep/er", "tree").unwrap();
    assert_eq!(told("current/deep/er", "tree"), Some(tree.clone()));
    assert_ne!(told("states/1/deep", "tree"), told("states/2/deep", "tree"));
    assert_eq!((told("states", "tree"), told("current/deep/last", "tree")), (None, None));
    assert_eq!(told("current/deep/last", "other"), None);
    for path in ["current", "current/deep", "current/deep/last"] {
        assert!(sys::xattrs(&lab.target().join(path)).is_empty(), "{path}");
    }
    assert_eq!(sys::xattrs(&lab.target().join("current/marked")), ["user.cairn.blob"]);
    drop(mounted);

    let _mounted = lab.mount(Shape::Pinned(FIRST));
    for path in ["", "deep", "deep/last"] {
        assert_eq!(told(path, "state").as_deref(), Some("1"), "{path}");
    }
    assert_eq!(told("deep/er", "tree"), Some(tree));
}

#[test]
fn only_hard_links_share_an_inode_number_within_a_state() {
    let lab = Lab::default();
    lab.commit(&zoo());
    let mut second = zoo();
    put(&mut second, "file", file("changed"));
    lab.commit(&second);
    let _mounted = lab.mount(Shape::Folder);
    let number = |path: &str| fs::symlink_metadata(lab.target().join(path)).unwrap().ino();
    assert_eq!(number("current/first"), number("current/deep/second"));
    assert_eq!(number("current/first"), number("current/deep/third"));
    let mut seen: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut stack = vec![lab.target().join("states/1")];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let data = entry.metadata().unwrap();
            assert_eq!(data.ino(), entry.ino(), "stat and readdir differ");
            let is_linked = data.nlink() == 3 && data.is_file();
            let before = seen.insert(data.ino(), entry.path());
            assert!(before.is_none() || is_linked, "{before:?} is {:?}", entry.path());
            if data.is_dir() {
                stack.push(entry.path());
            }
        }
    }
    // The same file of two states has the same pages, a directory has not.
    assert_eq!(number("states/1/twin"), number("states/2/twin"));
    assert_eq!(number("states/1/null"), number("current/null"));
    assert_ne!(number("states/1/twin"), number("states/1/other twin"));
    assert_ne!(number("states/1/file"), number("states/2/file"));
    assert_ne!(number("states/1/deep"), number("states/2/deep"));
}

#[test]
fn inode_numbers_are_the_same_after_a_remount() {
    let lab = Lab::default();
    lab.commit(&zoo());
    let numbers = || {
        let _mounted = lab.mount(Shape::Follow);
        let entries = fs::read_dir(lab.target()).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), entry.ino())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(numbers(), numbers());
}

#[test]
fn every_changing_call_is_refused_as_read_only() {
    let lab = Lab::default();
    lab.commit(&support::items_of([("file", file("text")), ("directory", directory([]))]));
    for shape in [Shape::Pinned(FIRST), Shape::Follow] {
        let _mounted = lab.mount(shape);
        let calls = sys::changing_calls(&lab.target());
        assert_eq!(calls.len(), 22);
        for (name, result) in calls {
            let errno = result.err().and_then(|err| err.raw_os_error());
            assert_eq!(errno, Some(libc::EROFS), "{name}");
        }
        let writable = sys::access(&lab.target().join("file"), libc::W_OK).unwrap_err();
        assert_eq!(writable.raw_os_error(), Some(libc::EROFS));
        assert_eq!(fs::read(lab.target().join("file")).unwrap(), b"text");
    }
}

#[test]
fn names_that_are_not_there_have_the_right_error() {
    let lab = Lab::default();
    lab.commit(&zoo());
    let _mounted = lab.mount(Shape::Follow);
    let long = "x".repeat(256);
    for _ in 0..2 {
        for (path, expected) in [
            ("nothing", libc::ENOENT),
            ("deep/nothing", libc::ENOENT),
            ("file/below", libc::ENOTDIR),
            (&long, libc::ENAMETOOLONG),
        ] {
            let error = fs::symlink_metadata(lab.target().join(path)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(expected), "{path}");
        }
    }
    let path = lab.target().join("able");
    let errno = |err: std::io::Error| err.raw_os_error();
    assert_eq!(errno(sys::xattr(&path, "user.none").unwrap_err()), Some(libc::ENODATA));
    assert_eq!(errno(sys::xattr_into_small_buffer(&path, "user.large")), Some(libc::ERANGE));
}

#[test]
fn any_part_of_a_large_file_can_be_read_and_mapped() {
    let lab = Lab::default();
    let mut seed = 1_u64;
    let bytes: Vec<u8> = (0..9_000_001)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 60) as u8
        })
        .collect();
    lab.commit(&support::items_of([("large", file(&bytes))]));
    let _mounted = lab.mount(Shape::Follow);
    let mut opened = fs::File::open(lab.target().join("large")).unwrap();
    for (offset, len) in
        [(0, 1), (1, 4096), (131_071, 2), (8_999_999, 10), (9_000_001, 5), (4_321_987, 1 << 20)]
    {
        let mut buf = vec![0; len];
        let read = opened.read_at(&mut buf, offset).unwrap();
        let expected = bytes.get(offset as usize..).unwrap_or(&[]);
        assert_eq!(buf[..read], expected[..expected.len().min(len)], "{len} bytes at {offset}");
    }
    assert_eq!(opened.seek(SeekFrom::End(-3)).unwrap(), 8_999_998);
    let mut end = Vec::new();
    opened.read_to_end(&mut end).unwrap();
    assert_eq!(end, bytes[8_999_998..]);
    assert_eq!(sys::lseek(opened.as_fd(), 10, libc::SEEK_DATA).unwrap(), 10);
    assert_eq!(sys::lseek(opened.as_fd(), 10, libc::SEEK_HOLE).unwrap(), 9_000_001);
    assert!(sys::Mapped::new(&opened, bytes.len()).bytes() == &bytes[..]);
}

#[test]
fn a_program_runs_from_a_mount() {
    let lab = Lab::default();
    let mut root = Directory::new();
    support::with_programs(&mut root, &["cat"]);
    put(&mut root, "text", file("from inside"));
    lab.commit(&root);
    let _mounted = lab.mount(Shape::Follow);
    let output = Command::new("chroot").arg(lab.target()).args(["/usr/bin/cat", "/text"]).output();
    let output = output.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout, b"from inside");
}

#[test]
fn a_directory_of_50_000_entries_lists_each_once_from_any_place() {
    let lab = Lab::default();
    let names: Vec<String> =
        (0..50_000).map(|i| format!("{i:05}-{}", "n".repeat(i % 40))).collect();
    let many = names.iter().map(|name| (name.clone().into_bytes(), file(&name[..3]))).collect();
    let own = Attributes::of_root(0o755);
    lab.commit(&[(b"many".to_vec(), Item::Directory(own, many))].into());
    let _mounted = lab.mount(Shape::Follow);
    let path = lab.target().join("many");
    for _ in 0..2 {
        let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(entries.eq(names.iter().map(|name| name.as_str())));
    }
    let opened = fs::File::open(&path).unwrap();
    let mut told = Vec::new();
    loop {
        let some = sys::getdents(opened.as_fd(), 3000).unwrap();
        if some.is_empty() {
            break;
        }
        told.extend(some);
    }
    assert_eq!((told.len(), &told[0].2[..], &told[1].2[..]), (50_002, &b"."[..], &b".."[..]));
    for at in [0, 1, 2, 77, 1000, 25_000, 49_999, 50_001] {
        sys::lseek(opened.as_fd(), told[at].1, libc::SEEK_SET).unwrap();
        let next = sys::getdents(opened.as_fd(), 3000).unwrap();
        assert_eq!(next.first().map(|entry| &entry.2), told.get(at + 1).map(|entry| &entry.2));
    }
    sys::lseek(opened.as_fd(), 0, libc::SEEK_SET).unwrap();
    assert_eq!(sys::getdents(opened.as_fd(), 3000).unwrap()[0], told[0]);
    // A cookie that was never given out ends somewhere, and harms nothing.
    sys::lseek(opened.as_fd(), i64::MAX, libc::SEEK_SET).unwrap();
    assert!(sys::getdents(opened.as_fd(), 3000).is_ok());
}

/// A store, as if each directory in the root of its state were a state.
struct ManyStates {
    store: Store,
    refs: Refs,
    /// How often a tree was read.
    trees: AtomicUsize,
}

impl ManyStates {
    fn new(store: &Store) -> Self {
        let current = store.current().unwrap();
        let mut refs = store.refs();
        for (name, entry) in store.tree(current.tree).unwrap().entries() {
            let id = StateId(std::str::from_utf8(name.as_bytes()).unwrap().parse().unwrap());
            let tree = entry.as_directory().unwrap().id;
            refs.states.insert(id, State { id, tree, ..current.clone() });
        }
        Self { store: store.clone(), refs, trees: AtomicUsize::new(0) }
    }
}

impl cairn_fs::Source for ManyStates {
    fn tree(&self, id: TreeId) -> cairn_store::Result<Arc<Tree>> {
        self.trees.fetch_add(1, Ordering::Relaxed);
        self.store.tree(id)
    }

    fn read_at(&self, blob: &BlobRef, at: u64, buf: &mut [u8]) -> cairn_store::Result<usize> {
        self.store.read_at(blob, at, buf)
    }

    fn refs(&self) -> Refs {
        self.refs.clone()
    }

    fn refresh(&self) -> cairn_store::Result<()> {
        Ok(())
    }
}

#[test]
fn thousands_of_states_are_listed_without_reading_one_of_them() {
    const STATES: usize = 5000;
    let lab = Lab::default();
    let mut root = support::items_of([]);
    for number in 1..=STATES {
        put(&mut root, &format!("{number}/file"), file(format!("of {number}")));
    }
    lab.commit(&root);
    let source = Arc::new(ManyStates::new(&lab.store));
    let read = || source.trees.load(Ordering::Relaxed);
    let journal: Journal = Arc::new(|event: &Event| panic!("{event}"));
    let _mounted = cairn_fs::start(source.clone(), &lab.options(Shape::Folder), journal).unwrap();
    let states = lab.target().join("states");
    // What is current is read as soon as it is mounted.
    let end = Instant::now() + support::PATIENCE;
    while read() == 0 {
        assert!(Instant::now() < end, "nothing is read ahead");
        thread::sleep(Duration::from_millis(1));
    }
    let before = read();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&states).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_dir());
        names.insert(entry.file_name().into_string().unwrap());
    }
    assert_eq!(names.len(), STATES);
    assert_eq!(read(), before, "the state of no number is read");
    let mounts = cairn_fs::list(&lab.run_directory()).unwrap();
    let stats = control::stats(&lab.run_directory(), &mounts[0], support::PATIENCE).unwrap();
    let requests: u64 = stats.requests.iter().map(|kind| kind.count).sum();
    assert!(requests < 300, "{requests} requests");

    // Entering one reads that one.
    assert_eq!(fs::read_to_string(states.join("4321/file")).unwrap(), "of 4321");
    assert!(read() - before <= 4, "{} trees are read", read() - before);
    let seen = fs::metadata(states.join("17")).unwrap();
    assert_eq!((seen.mode() & 0o7777, seen.uid()), (0o755, 0));
    assert!(read() - before <= 6, "{} trees are read", read() - before);
    assert!(!states.join("5001").exists());
}

#[test]
fn a_burst_of_requests_keeps_processors_awake_unless_power_is_saved() {
    let lab = Lab::default();
    let names: Vec<String> = (0..400).map(|number| number.to_string()).collect();
    let directory = |name| directory([("file", file(format!("of {name}")))]);
    lab.commit(&names.iter().map(|name| (name.clone().into(), directory(name))).collect());
    let kept_awake = |saves_power| {
        let options = cairn_fs::Options { power_save: saves_power, ..lab.options(Shape::Follow) };
        let source = Arc::new(lab.store.clone());
        let journal: Journal = Arc::new(|event: &Event| panic!("{event}"));
        let _mounted = cairn_fs::start(source, &options, journal).unwrap();
        let mounts = cairn_fs::list(&lab.run_directory()).unwrap();
        assert_eq!(mounts[0].power_save, saves_power);
        let mut wanted = i32::MAX;
        let end = Instant::now() + support::PATIENCE;
        loop {
            for name in &names {
                assert!(!lab.target().join(name).join("missing").exists());
            }
            let mut bytes = [0; 4];
            File::open("/dev/cpu_dma_latency").unwrap().read_exact(&mut bytes).unwrap();
            wanted = wanted.min(i32::from_ne_bytes(bytes));
            sys::drop_names(&lab.target());
            let stats = control::stats(&lab.run_directory(), &mounts[0], support::PATIENCE);
            match stats.unwrap().kept_awake {
                None => return false,
                Some(seconds) if seconds > 0.0 && wanted <= 5 => return true,
                Some(seconds) => assert!(Instant::now() < end, "{seconds} s, {wanted} us"),
            }
        }
    };
    let driver = "/sys/devices/system/cpu/cpuidle/current_driver";
    let driver = fs::read_to_string(driver).unwrap_or_default();
    // Without one no processor sleeps in a way that could be avoided.
    assert_eq!(kept_awake(false), !matches!(driver.trim(), "" | "none"));
    assert!(!kept_awake(true));
}

#[test]
fn a_deep_path_can_be_walked() {
    let lab = Lab::default();
    let mut item = file("bottom");
    for _ in 0..200 {
        item = directory([("d", item)]);
    }
    lab.commit(&support::items_of([("d", item)]));
    let _mounted = lab.mount(Shape::Follow);
    let path = lab.target().join(vec!["d"; 201].join("/"));
    assert_eq!(fs::read(&path).unwrap(), b"bottom");
    let deep = path.parent().unwrap();
    let around = fs::canonicalize(deep.join("../../../d/d/d")).unwrap();
    assert_eq!(around, fs::canonicalize(deep).unwrap());
}

#[test]
fn statfs_tells_what_is_below() {
    let lab = Lab::default();
    lab.commit(&support::items_of([
        ("a", file([1; 10_000])),
        ("b", directory([("c", file("d"))])),
    ]));
    let _mounted = lab.mount(Shape::Follow);
    let stat = sys::statvfs(&lab.target()).unwrap();
    assert_eq!((stat.f_namemax, stat.f_bsize, stat.f_files), (255, 4096, 3));
    assert_eq!((stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_ffree), (3, 0, 0, 0));
    assert_ne!(stat.f_flag & libc::ST_RDONLY, 0);
}
