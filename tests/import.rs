//! What `cairn import` takes in, and when it reads it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use cairn_tests::disk::Filesystem;
use cairn_tests::{
    Cairn, Ended, Mapping, Mounted, Need, eventually, posix_acl, run, set_xattr, signal,
};

/// A directory with a file that is written to through a mapping, and one that is not.
struct Mapped {
    root: PathBuf,
    mapping: Mapping,
    /// Whether the other file need not be read again.
    keeps_times: bool,
}

impl Mapped {
    fn new(directory: &Path, keeps_times: bool) -> Self {
        let root = directory.join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("plain"), "bytes").unwrap();
        fs::write(root.join("mapped"), [0; Mapping::LEN]).unwrap();
        let mut mapping = Mapping::new(&root.join("mapped")).unwrap();
        mapping.store(b'1');
        Self { root, mapping, keeps_times }
    }

    /// Imports it; returns how many files were read, and what the mapped one was then.
    fn import(&self, cairn: &Cairn) -> (u64, String) {
        let imported = cairn.json([Path::new("import"), &self.root]);
        let content = cairn.data(["cat", &format!("{}:/mapped", imported["state"])]);
        (imported["files_read"].as_u64().unwrap(), content)
    }
}

#[test]
fn what_is_stored_through_a_mapping_is_not_missed_by_the_next_import() {
    let kinds = [Filesystem::Ext4, Filesystem::Xfs, Filesystem::Btrfs];
    if !Need::all(&[Need::Root, Need::Loop]) || !Need::all(&kinds.map(Filesystem::need)) {
        return;
    }
    let cairn = Cairn::new();
    let mut disks = Vec::new();
    let mut places = Vec::new();
    for kind in kinds {
        let place = cairn.directory().join(kind.name());
        let image = place.with_extension("image");
        kind.make_in(&image);
        disks.push(kind.mount(&image, &place).unwrap());
        places.push(Mapped::new(&place, true));
    }
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    places.push(Mapped::new(memory.path(), false));
    // From now on the times of the files are far enough back to be believed.
    let made = SystemTime::now();
    eventually("two seconds are over", || {
        made.elapsed().is_ok_and(|time| time > Duration::from_millis(2100))
    });
    for Mapped { mapping, .. } in &mut places {
        // The page is dirty since it was made: this sets no time.
        mapping.store(b'2');
    }
    for place in &mut places {
        let name = place.root.display().to_string();
        assert_eq!(place.import(&cairn), (2, "2".repeat(Mapping::LEN)), "{name}");
        let again = if place.keeps_times { 0 } else { 2 };
        assert_eq!(place.import(&cairn).0, again, "{name}: nothing was changed");
        place.mapping.store(b'3');
        place.mapping.store(b'4');
        let again = if place.keeps_times { 1 } else { 2 };
        assert_eq!(place.import(&cairn), (again, "4".repeat(Mapping::LEN)), "{name}");
        // So soon after a change it is not believed.
        place.mapping.store(b'5');
        assert_eq!(place.import(&cairn), (again, "5".repeat(Mapping::LEN)), "{name}");
    }
}

/// Bytes without a pattern, a MiB each.
fn noise(mebibytes: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open("/dev/urandom").unwrap().take(mebibytes << 20).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Names in a directory of the store, sorted.
fn names(cairn: &Cairn, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(cairn.store().join(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn an_import_that_is_interrupted_in_the_middle_leaves_nothing() {
    const SIGINT: i32 = 2;
    const SIGSTOP: i32 = 19;
    const SIGCONT: i32 = 18;
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("first"), "bytes").unwrap();
    cairn.data(["import", "root"]);
    let before =
        (cairn.json(["state", "list"]), names(&cairn, "packs"), names(&cairn, "cache/imports"));
    for number in 0..32 {
        fs::write(root.join(format!("large{number}")), noise(6)).unwrap();
    }
    // Whoever runs the tests in the background of a shell has SIGINT ignored.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(cairn.program()).args(["--store", "store", "import"]);
    command.arg("root").current_dir(cairn.directory()).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it writes a pack", || !names(&cairn, "packs/new").is_empty());
    signal(child.id(), SIGSTOP).unwrap();
    assert_eq!(names(&cairn, "packs"), before.1, "it is in the middle");
    signal(child.id(), SIGINT).unwrap();
    signal(child.id(), SIGCONT).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code(), Some(128 + SIGINT), "{}", ended.stderr);
    assert!(ended.stderr.contains("it was interrupted; nothing was changed"), "{}", ended.stderr);
    let after =
        (cairn.json(["state", "list"]), names(&cairn, "packs"), names(&cairn, "cache/imports"));
    assert_eq!(after, before);
    assert_eq!(names(&cairn, "packs/new"), Vec::<String>::new(), "what it had written is gone");
    assert_eq!(cairn.json(["import", "root"])["entries"], 33);
}

#[test]
fn patterns_of_a_file_are_left_out() {
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    for path in ["a.o", "keep/b.o", "keep/c", "cache/x/y", "deep/cache/z", "#odd", " blank"] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "bytes").unwrap();
    }
    let patterns = "# objects\n*.o\n\n/cache/\n[#]odd\n";
    fs::write(cairn.directory().join("patterns"), patterns).unwrap();
    fs::write(cairn.directory().join("more"), "deep/**/z").unwrap();
    let words = ["import", "root", "--exclude-from", "patterns", "--exclude-from", "more"];
    let imported = cairn.json(words);
    let listed = cairn.data(["find", "1", "**"]);
    let expected = ["/ blank", "/deep", "/deep/cache", "/keep", "/keep/c"];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    assert_eq!(imported["entries"], 5);
    // A file of patterns that is not there, or has none that can be read.
    fs::write(cairn.directory().join("more"), "[a").unwrap();
    cairn.fails(2, words);
    cairn.fails(1, ["import", "root", "--exclude-from", "absent"]);
}

#[test]
fn another_filesystem_is_taken_in_or_is_an_empty_directory() {
    if !Need::all(&[Need::Root]) {
        return;
    }
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir_all(root.join("here/other")).unwrap();
    fs::write(root.join("here/own"), "bytes").unwrap();
    fs::write(root.join("here/other/hidden"), "below the mount").unwrap();
    let words = ["-t", "tmpfs", "-o", "mode=0711", "tmpfs"];
    let other = Mounted::new(&root.join("here/other"), &words);
    fs::create_dir(other.path().join("deep")).unwrap();
    fs::write(other.path().join("deep/shown"), "on the mount").unwrap();
    for (option, expected) in [
        (
            &[][..],
            &["/here", "/here/other", "/here/other/deep", "/here/other/deep/shown", "/here/own"][..],
        ),
        (&["-x"], &["/here", "/here/other", "/here/own"]),
        (&["--one-file-system"], &["/here", "/here/other", "/here/own"]),
    ] {
        let imported = cairn.json(["import", "root"].iter().chain(option));
        let state = imported["state"].to_string();
        assert_eq!(cairn.data(["find", &state, "**"]).lines().collect::<Vec<_>>(), expected);
        // The directory itself is that which is mounted.
        let listed = cairn.data(["ls", "-l", &format!("{state}:/here")]);
        assert!(listed.contains("drwx--x--x"), "{listed}");
    }
    // The root itself may be one.
    let imported = cairn.json([Path::new("import"), other.path(), Path::new("-x")]);
    assert_eq!(imported["entries"], 2);
    other.umount();
}

/// A directory whose times have whole seconds, as all formats can hold them.
fn settle_times(root: &Path) {
    let mut touch = Command::new("find");
    run(touch.arg(root).args(["-exec", "touch", "-h", "-d", "@1700000000", "{}", "+"]));
}

/// Makes archives of a directory by `commands`, and checks that each is the same when it is
/// imported as the directory is; returns how large they are.
fn check_archives(cairn: &Cairn, commands: &[&[&str]]) -> Vec<u64> {
    let expected = cairn.json(["import", "root", "--no-cache"])["tree"].clone();
    let check = |words: &&[&str]| {
        let archive = cairn.directory().join("archive");
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("-cf").arg(&archive).args(["-C", "root", "."]);
        run(command.current_dir(cairn.directory()));
        let imported = cairn.json(["import", "archive"]);
        assert_eq!(imported["tree"], expected, "{words:?}");
        assert_eq!(imported["ignored"], serde_json::Value::Null, "{words:?}");
        fs::metadata(archive).unwrap().len()
    };
    commands.iter().map(check).collect()
}

#[test]
fn sparse_files_in_archives_are_taken_in_as_their_content() {
    if !Need::all(&[Need::Program("bsdtar", "libarchive-tools")]) {
        return;
    }
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir(&root).unwrap();
    let make = |name: &str, len: u64, pieces: &[u64]| {
        let file = File::create(root.join(name)).unwrap();
        file.set_len(len).unwrap();
        for at in pieces {
            file.write_all_at(&[b'x'; 4096], *at).unwrap();
        }
    };
    make("two", 20_000_000, &[5 << 20, 19_000_000]);
    make("hole", 1 << 20, &[]);
    make("end", 1_000_003, &[1_000_003 - 4096]);
    make("beginning", 1_000_000, &[0]);
    // More than a header, and than a block after it, hold.
    make("many", 8 << 20, &(0..100).map(|at| at * 65536 + 4096).collect::<Vec<_>>());
    make(&"long".repeat(60), 1 << 20, &[65536]);
    make("dense", 4096, &[0]);
    settle_times(&root);
    let posix = ["0.0", "0.1", "1.0"].map(|it| format!("--sparse-version={it}"));
    let posix: Vec<_> =
        posix.iter().map(|version| ["tar", "-S", "--format=posix", version]).collect();
    let mut commands: Vec<&[&str]> = posix.iter().map(|words| &words[..]).collect();
    commands.push(&["tar", "-S", "--format=gnu"]);
    commands.push(&["tar", "-S", "--format=oldgnu"]);
    commands.push(&["bsdtar", "--format=pax"]);
    let sizes = check_archives(&cairn, &commands);
    assert!(sizes.iter().all(|size| *size < 2 << 20), "they were not sparse: {sizes:?}");
}

/// An ACL of version 2: owner rw-, the user and group `id` r-x, group r--, mask rwx, others r--.
fn acl(id: u32) -> Vec<u8> {
    let none = u32::MAX;
    posix_acl(&[(1, 6, none), (2, 5, id), (4, 4, none), (8, 5, id), (16, 7, none), (32, 4, none)])
}

#[test]
fn access_control_lists_in_archives_become_those_of_files() {
    if !Need::all(&[Need::Root, Need::Program("bsdtar", "libarchive-tools")]) {
        return;
    }
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir_all(root.join("directory")).unwrap();
    fs::write(root.join("file"), "bytes").unwrap();
    fs::write(root.join("plain"), "bytes").unwrap();
    set_xattr(&root.join("file"), "system.posix_acl_access", &acl(1234)).unwrap();
    set_xattr(&root.join("directory"), "system.posix_acl_default", &acl(4321)).unwrap();
    set_xattr(&root.join("plain"), "user.some", b"thing").unwrap();
    settle_times(&root);
    check_archives(
        &cairn,
        &[
            &["tar", "--format=posix", "--acls", "--xattrs", "--numeric-owner"],
            &["bsdtar", "--format=pax", "--acls", "--xattrs"],
            &["bsdtar", "--format=pax", "--acls", "--xattrs", "--numeric-owner"],
        ],
    );

    // Debian has a user and a group daemon with number 1.
    set_xattr(&root.join("file"), "system.posix_acl_access", &acl(1)).unwrap();
    settle_times(&root);
    check_archives(&cairn, &[&["bsdtar", "--format=pax", "--acls", "--xattrs"]]);
    let mut tar = Command::new("tar");
    tar.args(["--format=posix", "--acls", "-cf", "named", "-C", "root", "file"]);
    run(tar.current_dir(cairn.directory()));
    let said = cairn.fails(1, ["--quiet", "import", "named"]);
    assert!(said.contains("its ACL names \"daemon\""), "{said}");
    assert!(said.contains("--numeric-owner"), "{said}");
}

#[test]
fn what_archives_say_beyond_that_is_taken_over_or_told() {
    let cairn = Cairn::new();
    fs::create_dir(cairn.directory().join("root")).unwrap();
    fs::write(cairn.directory().join("root/file"), "bytes").unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--format=posix", "--pax-option=RHT.security.selinux:=system_u:object_r:bin_t:s0"]);
    tar.args(["--pax-option=VENDOR.thing:=1", "-cf", "archive.tar", "-C", "root", "."]);
    run(tar.current_dir(cairn.directory()));
    let imported = cairn.json(["import", "archive.tar"]);
    assert_eq!(imported["ignored"], serde_json::json!({ "VENDOR.thing": 2 }));
    let shown = cairn.run(["import", "archive.tar"]);
    let line = "ignored: VENDOR.thing of 2 entries means nothing here\n";
    assert!(shown.stdout.contains(line), "{}", shown.stdout);
    cairn.data(["export", "1", "out.tar"]);
    let out = fs::read(cairn.directory().join("out.tar")).unwrap();
    let label = b"SCHILY.xattr.security.selinux=system_u:object_r:bin_t:s0\0\n";
    assert!(out.windows(label.len()).any(|window| window == label));
}
