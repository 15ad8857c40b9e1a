//! A directory becomes a state: all of it, once, and only what has changed when
//! it is imported again.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cairn_store::host::{ScanProgress, Unread};
use cairn_store::{
    Content, Entry, Error, ImportOptions, ImportProgress, Imported, IngestProgress, Leaf, Store,
    TreePath, import_directory, resolve,
};

const PLAIN: ImportOptions<'_> = ImportOptions {
    request: "import a test",
    parent: None,
    switch: false,
    leave_out: None,
    one_filesystem: false,
    afresh: false,
};

struct Place {
    directory: tempfile::TempDir,
    /// Where the root lies if not there.
    disk: Option<tempfile::TempDir>,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = support::fast_directory();
        let store = Store::create(&directory.path().join("store")).unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        Self { directory, disk: None, store }
    }

    /// One whose root lies on a disk, where times of changes are believed. On other
    /// filesystems it says so, and the test has to end.
    fn on_disk() -> Option<Self> {
        let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(disk.path().join("root")).unwrap();
        let place = Self { disk: Some(disk), ..Self::new() };
        let magic = rustix::fs::statfs(place.root()).unwrap().f_type & 0xffff_ffff;
        if [0xef53, 0x9123_683e, 0x5846_5342].contains(&magic) {
            return Some(place);
        }
        let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!is_ci, "{} is not on ext4, XFS or Btrfs", place.root().display());
        // Past what the test harness catches.
        let _ = writeln!(io::stderr(), "SKIPPED: the build is not on ext4, XFS or Btrfs");
        None
    }

    fn root(&self) -> PathBuf {
        self.disk.as_ref().unwrap_or(&self.directory).path().join("root")
    }

    /// Writes a file below the root, with the directories above it.
    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn import(&self) -> Imported {
        self.import_with(&PLAIN)
    }

    fn import_with(&self, options: &ImportOptions<'_>) -> Imported {
        import_directory(&self.store, &self.root(), options, &()).unwrap()
    }

    fn entry(&self, imported: &Imported, path: &str) -> Option<Entry> {
        let path = TreePath::new(path.as_bytes()).unwrap();
        resolve(&self.store, imported.state.tree, &path).unwrap()
    }

    fn leaf(&self, imported: &Imported, path: &str) -> Leaf {
        let entry = self.entry(imported, path);
        entry.unwrap_or_else(|| panic!("no {path}")).as_leaf().unwrap().clone()
    }

    fn content(&self, imported: &Imported, path: &str) -> Vec<u8> {
        self.store.read(self.leaf(imported, path).blob().unwrap()).unwrap()
    }

    /// Waits until the clock is so far past the last change below the root that
    /// the next import may rely on it.
    fn settle(&self) {
        let begun = Instant::now();
        let path = self.root().join("clock");
        let changed = || fs::metadata(&path).unwrap().modified().unwrap();
        File::create(&path).unwrap();
        let last = changed();
        while SystemTime::now().duration_since(last).unwrap_or_default() <= Duration::from_secs(2) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the clock stands still");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn everything_of_a_directory_is_imported() {
    let place = Place::new();
    let large = b"0123456789abcdef".repeat(100_000);
    place.write("usr/bin/a", b"bytes of a");
    place.write("usr/lib/large", &large);
    place.write("usr/empty", b"");
    place.write("\u{fe}\n odd", b"odd");
    fs::hard_link(place.root().join("usr/bin/a"), place.root().join("a-too")).unwrap();
    fs::hard_link(place.root().join("usr/bin/a"), place.directory.path().join("outside")).unwrap();
    fs::hard_link(place.root().join("usr/empty"), place.directory.path().join("empty")).unwrap();
    symlink("../x", place.root().join("usr/link")).unwrap();
    fs::set_permissions(place.root().join("usr/bin"), Permissions::from_mode(0o2750)).unwrap();
    let touched = Command::new("touch")
        .args(["-h", "-d", "@-12345.123456789"])
        .args(["usr/bin/a", "usr/link", "usr"].map(|path| place.root().join(path)))
        .status();
    assert!(touched.unwrap().success());

    let imported = place.import();
    assert_eq!(imported.summary.entries, 9);
    assert_eq!(imported.read.files, 4);
    assert_eq!(place.content(&imported, "usr/bin/a"), b"bytes of a");
    assert_eq!(place.content(&imported, "usr/lib/large"), large);
    assert_eq!(place.content(&imported, "usr/empty"), b"");
    assert_eq!(place.content(&imported, "\u{fe}\n odd"), b"odd");
    let link = place.leaf(&imported, "usr/link");
    assert_eq!(link.content, Content::Symlink(b"../x"[..].into()));
    assert_eq!(link.attributes.mode, 0o777);
    // Of three names two are in the tree; of two, one.
    let [a, too] = ["usr/bin/a", "a-too"].map(|path| place.leaf(&imported, path));
    assert_eq!(a, too);
    assert_eq!(a.link.unwrap().count, 2);
    assert_eq!(place.leaf(&imported, "usr/empty").link, None);
    for leaf in [&a, &link] {
        let mtime = leaf.attributes.mtime;
        assert_eq!((mtime.seconds(), mtime.nanoseconds()), (-12346, 876_543_211));
    }
    let usr = place.entry(&imported, "usr").unwrap().as_directory().unwrap().id;
    assert_eq!(place.store.tree(usr).unwrap().attributes.mtime.seconds(), -12346);
    let bin = place.entry(&imported, "usr/bin").unwrap().as_directory().unwrap().id;
    assert_eq!(place.store.tree(bin).unwrap().attributes.mode, 0o2750);
    let report = place.store.verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn only_what_has_changed_is_read_again() {
    let Some(place) = Place::on_disk() else { return };
    for at in 0..50 {
        place.write(&format!("directory {}/file {at}", at % 7), format!("file {at}"));
    }
    fs::hard_link(place.root().join("directory 0/file 0"), place.root().join("twin")).unwrap();
    symlink("x", place.root().join("link")).unwrap();
    place.settle();
    let first = place.import();
    assert_eq!(first.read.files, 51);

    let second = place.import();
    assert_eq!(second.read, Unread { files: 0, bytes: 0 });
    assert_eq!(second.state.tree, first.state.tree);
    assert_eq!(second.state.parent, Some(first.state.id));

    // The same length and the same times, written into the same inode.
    let touched = place.root().join("directory 3/file 3");
    let before = fs::metadata(&touched).unwrap().modified().unwrap();
    fs::write(&touched, "FILE 3").unwrap();
    File::options().write(true).open(&touched).unwrap().set_modified(before).unwrap();
    place.write("directory 9/new", "new");
    fs::remove_file(place.root().join("directory 1/file 8")).unwrap();
    fs::remove_file(place.root().join("twin")).unwrap();
    fs::rename(place.root().join("directory 5"), place.root().join("moved")).unwrap();
    fs::set_permissions(place.root().join("directory 2"), Permissions::from_mode(0o700)).unwrap();
    let third = place.import();
    // The file with two names before has another ctime, and what was moved is
    // found under names that nothing is known of.
    assert_eq!(third.read.files, 2 + 1 + 7, "{:?}", third.read);
    assert_eq!(place.content(&third, "directory 3/file 3"), b"FILE 3");
    assert_eq!(place.content(&third, "moved/file 5"), b"file 5");
    assert_eq!(place.entry(&third, "directory 1/file 8"), None);
    assert_eq!(place.entry(&third, "directory 5"), None);
    assert_eq!(place.leaf(&third, "directory 0/file 0").link, None);

    // Whatever is known, the result is that of an import which knows nothing.
    let afresh = place.import_with(&ImportOptions { afresh: true, ..PLAIN });
    assert_eq!(afresh.read.files, 51);
    assert_eq!(afresh.state.tree, third.state.tree);
}

#[test]
fn a_file_that_changed_just_before_an_import_is_read_again() {
    let place = Place::new();
    let path = place.write("file", "old");
    let first = place.import();
    // All within a tick of the clock: neither size nor times need differ.
    fs::write(path, "new").unwrap();
    let second = place.import();
    assert_eq!((first.read.files, second.read.files), (1, 1));
    assert_eq!(place.content(&second, "file"), b"new");
    assert_eq!(place.import().read.files, 1);
}

#[test]
fn what_was_known_is_worth_nothing_without_its_state() {
    let Some(place) = Place::on_disk() else { return };
    place.write("file", "bytes");
    place.settle();
    place.import();
    assert_eq!(place.import().read.files, 0);
    let states: Vec<_> = place.store.refs().states.keys().copied().collect();
    let elsewhere = place.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let options = ImportOptions { switch: true, ..PLAIN };
    import_directory(&place.store, &elsewhere, &options, &()).unwrap();
    place.store.remove_states(&states).unwrap();
    // What no state reaches may be gone in part.
    assert_eq!(place.import().read.files, 2);
    assert_eq!(place.import().read.files, 0);
}

#[test]
fn a_damaged_cache_is_as_none() {
    let Some(place) = Place::on_disk() else { return };
    place.write("file", "bytes");
    place.settle();
    place.import();
    let cache = fs::read_dir(place.store.path().join("cache/imports")).unwrap();
    let cache = cache.map(|entry| entry.unwrap().path()).next().unwrap();
    let bytes = fs::read(&cache).unwrap();
    // One in each field.
    for at in [0, 8, 16, 48, 56, 64, 72, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&cache, &damaged).unwrap();
        assert_eq!(place.import().read.files, 2, "byte {at}");
    }
    for len in [0, 8, 20, bytes.len() - 1] {
        fs::write(&cache, &bytes[..len]).unwrap();
        assert_eq!(place.import().read.files, 2, "{len} bytes");
    }
    assert_eq!(place.import().read.files, 0);
}

#[test]
fn what_is_left_out_is_not_there_and_may_come_back() {
    let place = Place::new();
    place.write("kept/a", "a");
    place.write("cache/b", "b");
    place.write("deep/cache/c", "c");
    let leave_out =
        |path: &TreePath| path.split_last().is_some_and(|(_, name)| &name[..] == b"cache");
    let some = place.import_with(&ImportOptions { leave_out: Some(&leave_out), ..PLAIN });
    assert_eq!(some.summary.entries, 3);
    assert_eq!(place.entry(&some, "deep/cache"), None);
    assert_eq!(place.import().summary.entries, 7);
}

#[test]
fn the_store_is_never_a_part_of_what_it_holds() {
    let place = Place::new();
    place.write("file", "bytes");
    let whole = import_directory(&place.store, place.directory.path(), &PLAIN, &()).unwrap();
    assert_eq!(whole.summary.entries, 2, "the root with its file");
}

#[test]
fn an_import_becomes_current_only_if_it_is_asked_to_or_nothing_is() {
    let place = Place::new();
    let first = place.import();
    assert_eq!(place.store.refs().current, Some(first.state.id));
    place.import();
    assert_eq!(place.store.refs().current, Some(first.state.id));
    let third = place.import_with(&ImportOptions { switch: true, ..PLAIN });
    assert_eq!(place.store.refs().current, Some(third.state.id));
}

/// Stops after a number of files, or changes a file when it is read.
#[derive(Default)]
struct Meddler<'a> {
    stop_after: Option<u64>,
    files: AtomicU64,
    on_read: Option<&'a (dyn Fn() + Sync)>,
    on_advance: Option<&'a (dyn Fn() + Sync)>,
}

impl ScanProgress for Meddler<'_> {
    fn found(&self, _: u64) {}
}

impl IngestProgress for Meddler<'_> {
    fn advance(&self, files: u64, _: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        if let Some(on_advance) = self.on_advance {
            on_advance();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.stop_after.is_some_and(|limit| self.files.load(Ordering::Relaxed) >= limit)
    }
}

impl ImportProgress for Meddler<'_> {
    fn read(&self, _: Unread) {
        if let Some(on_read) = self.on_read {
            on_read();
        }
    }

    fn commit(&self) {}
}

#[test]
fn an_import_that_is_stopped_leaves_nothing() {
    let place = Place::new();
    for at in 0..20 {
        place.write(&format!("{at}"), format!("{at} ").repeat(20_000));
    }
    let meddler = Meddler { stop_after: Some(3), ..Meddler::default() };
    let stopped = import_directory(&place.store, &place.root(), &PLAIN, &meddler);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert!(place.store.refs().states.is_empty());
    assert_eq!(fs::read_dir(place.store.path().join("packs/new")).unwrap().count(), 0);
    assert_eq!(place.import().read.files, 20);
}

#[test]
fn what_goes_or_is_replaced_between_scan_and_reading_is_as_it_is_then() {
    let place = Place::new();
    let gone = place.write("gone", "gone");
    let replaced = place.write("replaced", "short");
    let grown = place.write("grown", "a");
    let became = place.write("became", "a file");
    fs::hard_link(&gone, place.root().join("second")).unwrap();
    place.write("directory/deep", "deep");
    let meddle = || {
        fs::remove_file(&gone).unwrap();
        let other = place.write("../other", "something longer than before");
        fs::rename(other, &replaced).unwrap();
        fs::write(&grown, "a and more").unwrap();
        fs::remove_file(&became).unwrap();
        symlink("/etc/shadow", &became).unwrap();
        fs::rename(place.root().join("directory"), place.directory.path().join("away")).unwrap();
        symlink(place.directory.path().join("away"), place.root().join("directory")).unwrap();
    };
    let meddler = Meddler { on_read: Some(&meddle), ..Meddler::default() };
    let imported = import_directory(&place.store, &place.root(), &PLAIN, &meddler).unwrap();
    assert_eq!(imported.unsettled, []);
    assert_eq!(place.content(&imported, "replaced"), b"something longer than before");
    assert_eq!(place.content(&imported, "grown"), b"a and more");
    let became = place.leaf(&imported, "became").content;
    assert_eq!(became, Content::Symlink(b"/etc/shadow"[..].into()));
    assert_eq!(place.entry(&imported, "gone"), None);
    assert_eq!(place.entry(&imported, "directory/deep"), None, "read through a link");
    let report = place.store.verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn a_file_that_somebody_goes_on_writing_to_is_told() {
    let place = Place::new();
    let log = place.write("log", b"line\n".repeat(50_000));
    let append = || {
        use std::io::Write;
        File::options().append(true).open(&log).unwrap().write_all(b"more\n").unwrap();
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                append();
            }
        });
        loop {
            let imported = place.import();
            let content = place.content(&imported, "log");
            let is_as_it_was_once = content.starts_with(&b"line\n".repeat(50_000))
                && content.chunks(5).all(|line| line == b"line\n" || b"more\n".starts_with(line));
            let is_told = imported.unsettled.len() == 1;
            let is_late = begun.elapsed() > Duration::from_secs(60);
            if is_told || is_late || !is_as_it_was_once {
                done.store(true, Ordering::Relaxed);
                assert!(is_as_it_was_once, "{} bytes", content.len());
                assert!(is_told, "never met while it was written to");
                break;
            }
        }
    });
}

/// Whoever reads small files in any order does not decompress long ones for them.
#[test]
fn small_files_lie_in_frames_of_their_own() {
    let place = Place::new();
    let name = |number, kind| format!("d{}/{kind}{number}", number % 7);
    for number in 0..60_u8 {
        place.write(&name(number, "small"), vec![number; 2000]);
        place.write(&name(number, "long"), vec![number; 60_000]);
    }
    let imported = place.import();
    let store = Store::open(place.store.path()).unwrap();
    for number in 0..60 {
        let leaf = place.leaf(&imported, &name(number, "small"));
        let mut read = vec![0xff; 2000];
        assert_eq!(store.read_at(leaf.blob().unwrap(), 0, &mut read).unwrap(), 2000);
        assert!(read == vec![number; 2000], "{number}");
    }
    assert_eq!(store.reads().frames_decoded, 1, "120,000 bytes have room in one");
}

#[test]
fn a_directory_deeper_than_any_tree_is_refused() {
    let place = Place::new();
    fs::create_dir_all(place.root().join("d/".repeat(256))).unwrap();
    assert_eq!(place.import().summary.entries, 256);
    fs::create_dir_all(place.root().join("d/".repeat(257))).unwrap();
    let refused = import_directory(&place.store, &place.root(), &PLAIN, &());
    assert!(matches!(refused, Err(Error::TooDeep { .. })), "{refused:?}");
    assert_eq!(place.store.refs().states.len(), 1);
}

#[test]
fn paths_longer_than_the_kernel_takes_are_imported() {
    let place = Place::new();
    // Each level is made below the one before, since no path names them all.
    let script = "for n in $(seq 40); do mkdir \"$1\" && cd -P \"$1\" || exit 1; done; \
                  printf deep >file";
    let name = "n".repeat(250);
    let mut shell = Command::new("bash");
    let made = shell.args(["-c", script, "bash", &name]).current_dir(place.root()).status();
    assert!(made.unwrap().success());
    let path = format!("{}file", format!("{name}/").repeat(40));
    assert!(path.len() > 10_000);
    assert_eq!(place.content(&place.import(), &path), b"deep");
}
