//! Packages as files in a directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use cairn_package::stone::{
    Builder, Encoding, Error, Extra, Extracted, Layout, LayoutContent, Package, extract,
};
use cairn_store::tree::Device;
use cairn_store::{Timestamp, Xattr};

use crate::common::{RawPayload, layout_record, meta, meta_records, stone};
use crate::{bytes, in_memory, metadata, path, real_package, write};

fn extracted(stone: &[u8], directory: &Path) -> Result<Extracted, Error> {
    extract(Cursor::new(stone), directory, &in_memory(), |_| {})
}

fn new_directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn a_real_package_is_extracted_as_it_is_listed() {
    let directory = new_directory();
    let root = directory.path().join("root");
    let mut reports = Vec::new();
    let file = File::open(real_package()).expect("the test data");
    let done = extract(file, &root, &in_memory(), |progress| {
        reports.push((progress.entries, progress.bytes));
        assert_eq!(progress.entries_total, 745);
        assert!(progress.bytes <= progress.bytes_total);
    })
    .expect("extracts");
    assert_eq!((done.entries, done.skipped.len()), (745, 0));
    assert_eq!(reports.len(), 745);
    assert!(reports.is_sorted());
    assert_eq!(reports.last().map(|last| last.1), Some(done.bytes));

    let mut package = Package::open(&real_package()).expect("a package");
    let content = package.content(&in_memory()).expect("undamaged");
    let mut found = 0;
    for entry in &package.layout {
        let at = root.join(entry.path.to_string().trim_start_matches('/'));
        let stat = fs::symlink_metadata(&at).expect("was extracted");
        match &entry.content {
            LayoutContent::Regular(key) => {
                assert_eq!(stat.mode(), u32::from(entry.mode) | 0o100_000, "{}", entry.path);
                let bytes = fs::read(&at).expect("readable");
                assert_eq!(content.get(key).and_then(|blob| blob.as_slice()), Some(&bytes[..]));
            }
            LayoutContent::Symlink(text) => {
                let target = fs::read_link(&at).expect("a link");
                assert_eq!(target.as_os_str().as_bytes(), &text[..]);
            }
            other => panic!("the package has no {other:?}"),
        }
        found += 1;
    }
    assert_eq!(found, 745);
    let implied = fs::metadata(root.join("usr/share")).expect("was made");
    assert_eq!(implied.mode(), 0o040_755);
}

/// One entry of every kind, with everything that can be said of it.
fn everything() -> Builder {
    let mut builder = Builder::new(metadata("everything"));
    let key = builder.add_source(bytes(b"content")).expect("in memory").key;
    let mtime = Timestamp::new(1_234_567_890, 123_456_789);
    let at = |mtime| Extra { mtime, ..Extra::default() };
    let user = || Xattr { name: (*b"user.note").into(), value: (*b"kept").into() };
    let linked = Extra { mtime, xattrs: vec![user()], link: Some(1), device: None };
    let entry =
        |at: &str, mode, content, extra| Layout { extra, ..Layout::new(path(at), mode, content) };
    let regular = || LayoutContent::Regular(key);
    let null = Extra { device: Some(Device { major: 1, minor: 3 }), ..at(mtime) };
    builder.layout = vec![
        entry("/usr/b/second", 0o4755, regular(), linked.clone()),
        entry("/usr/a/first", 0o4755, regular(), linked),
        entry("/usr/a/plain", 0o600, regular(), Extra::default()),
        entry("/usr/a/link", 0o777, LayoutContent::Symlink((*b"/etc/passwd").into()), at(mtime)),
        entry("/usr/a/pipe", 0o620, LayoutContent::Fifo, at(mtime)),
        entry("/usr/a/socket", 0o711, LayoutContent::Socket, at(mtime)),
        entry("/dev/null", 0o666, LayoutContent::CharDevice, null),
        entry("/dev/unknown", 0o666, LayoutContent::BlockDevice, Extra::default()),
        entry("/usr/a", 0o2555, LayoutContent::Directory, at(mtime)),
        entry("/usr/empty", 0o1777, LayoutContent::Directory, Extra::default()),
    ];
    builder
}

#[test]
fn every_kind_of_entry_has_its_metadata() {
    let directory = new_directory();
    let root = directory.path().join("root");
    let done = extracted(&write(&everything(), Encoding::Plain), &root).expect("extracts");
    let is_root = fs::metadata(&root).expect("was made").uid() == 0;
    let stat = |at: &str| fs::symlink_metadata(root.join(at)).expect(at);
    let time = |at: &str| (stat(at).mtime(), stat(at).mtime_nsec());

    let reasons: BTreeMap<String, &str> =
        done.skipped.iter().map(|(path, reason)| (path.to_string(), *reason)).collect();
    assert!(reasons["/dev/unknown"].contains("number"), "{reasons:?}");
    assert_eq!(done.bytes, 14, "hard links count once");
    for at in ["usr/a/first", "usr/a/link", "usr/a/pipe", "usr/a/socket", "usr/a"] {
        assert_eq!(time(at), (1_234_567_890, 123_456_789), "{at}");
    }
    let setuid = if is_root { 0o4000 } else { 0 };
    assert_eq!(stat("usr/a/first").mode(), 0o100_755 | setuid);
    assert_eq!(stat("usr/a/plain").mode(), 0o100_600);
    assert_eq!(stat("usr/a").mode() & 0o777, 0o555);
    assert_eq!(stat("usr/empty").mode(), 0o041_777);
    assert_eq!(stat("usr").mode(), 0o040_755);
    assert_eq!(stat("usr/a/pipe").mode() & 0o777, 0o620);
    assert!(stat("usr/a/pipe").file_type().is_fifo());
    assert!(stat("usr/a/socket").file_type().is_socket());
    assert_eq!(stat("usr/a/first").ino(), stat("usr/b/second").ino());
    assert_eq!(stat("usr/a/first").nlink(), 2);
    assert_eq!(stat("usr/a/plain").nlink(), 1);
    if is_root {
        assert_eq!(done.entries, 9);
        assert!(stat("dev/null").file_type().is_char_device());
        assert_eq!(stat("dev/null").rdev(), 0x103);
    }
    // So that the temporary directory can be removed.
    fs::set_permissions(root.join("usr/a"), fs::Permissions::from_mode(0o755)).expect("ours");
}

#[test]
fn only_an_empty_or_a_new_directory_is_taken() {
    let stone = write(&crate::tiny(), Encoding::Plain);
    let directory = new_directory();
    extracted(&stone, directory.path()).expect("it is empty");
    let err = extracted(&stone, directory.path());
    assert!(matches!(err, Err(Error::NotEmpty(_))), "{err:?}");
    let err = extracted(&stone, &directory.path().join("not/there"));
    assert!(matches!(err, Err(Error::File { .. })), "{err:?}");
}

#[test]
fn nothing_is_extracted_from_a_hostile_package() {
    let directory = new_directory();
    let root = directory.path().join("root");
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).expect("creates");
    let link = layout_record(2, 0o120_777, outside.as_os_str().as_bytes(), b"link");
    let below = layout_record(3, 0o040_700, b"", b"link/made");
    let above = layout_record(3, 0o040_700, b"", b"../../outside/made");
    for records in [vec![link, below], vec![above]] {
        let count = u32::try_from(records.len()).expect("few");
        let layout = RawPayload::plain(3, count, records.concat());
        let stone = stone(1, &[meta(&meta_records("hostile")), layout]);
        assert!(extracted(&stone, &root).is_err());
        assert!(!root.exists(), "the package is checked first");
        assert_eq!(fs::read_dir(&outside).expect("it exists").count(), 0);
    }
}
