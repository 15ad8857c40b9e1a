//! Where the filesystem can, what is exported shares blocks, with each other and with the store.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use cairn_tests::disk::Filesystem;
use cairn_tests::{Cairn, Need, Random, run};

/// Files with one content take its room once where the filesystem can, and stay files of
/// their own.
#[test]
fn equal_files_of_a_directory_share_their_blocks() {
    const COPIES: u64 = 5;
    const LEN: u64 = 8 << 20;
    for kind in [Filesystem::Xfs, Filesystem::Btrfs] {
        if !Need::all(&[Need::Root, Need::Loop, kind.need()]) {
            continue;
        }
        let cairn = Cairn::new();
        let place = |name: &str| cairn.directory().join(name);
        let content = Random(7).bytes(usize::try_from(LEN).unwrap());
        for copy in 0..COPIES {
            let directory = place("root").join(format!("d{copy}"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("file"), &content).unwrap();
            fs::write(directory.join("small"), "one content").unwrap();
            fs::write(directory.join("own"), format!("number {copy}")).unwrap();
            fs::write(directory.join("none"), "").unwrap();
        }
        cairn.data(["import", "root"]);
        kind.make_in(&place("disk"));
        let disk = kind.mount(&place("disk"), &place("mounted")).unwrap();
        let before = used(disk.path());
        cairn.data(["export", "1", "mounted/out"]);
        let grown = used(disk.path()) - before;
        assert!((LEN..2 * LEN).contains(&grown), "{}: {grown} bytes", kind.name());
        let out = place("mounted").join("out");
        let places = [place("root"), out.clone()].map(|path| format!("{}/", path.display()));
        let mut rsync = Command::new("rsync");
        assert_eq!(run(rsync.args(["-aHn", "--checksum", "--itemize-changes"]).args(places)), "");
        fs::write(out.join("d0/file"), "changed").unwrap();
        assert!(fs::read(out.join("d1/file")).unwrap() == content, "{}", kind.name());
    }
}

/// What the kernel was given to read by itself lies in the store as it is: a directory beside it
/// shares its blocks.
#[test]
fn files_that_a_mount_has_expanded_share_their_blocks_with_a_directory() {
    const LEN: u64 = 4 << 20;
    for kind in [Filesystem::Xfs, Filesystem::Btrfs] {
        if !Need::all(&[Need::Root, Need::Loop, Need::Passthrough, kind.need()]) {
            continue;
        }
        let cairn = Cairn::new();
        let place = |name: &str| cairn.directory().join(name);
        kind.make_in(&place("disk"));
        let disk = kind.mount(&place("disk"), &place("mounted")).unwrap();
        let content = Random(7).bytes(usize::try_from(LEN).unwrap());
        fs::create_dir(place("root")).unwrap();
        for name in ["one", "two"] {
            let turned = content.iter().map(|byte| byte ^ name.as_bytes()[0]).collect::<Vec<_>>();
            fs::write(place("root").join(name), turned).unwrap();
        }
        let store = ["--store", "mounted/store"];
        let run_on_it = |words: &[&str]| cairn.data([&store[..], words].concat());
        run_on_it(&["import", "root"]);
        fs::create_dir(place("live")).unwrap();
        run_on_it(&["mount", "--passthrough", "--state", "1", "live"]);
        let expanded = fs::read(place("live/one")).unwrap();
        run_on_it(&["umount", "live"]);
        assert!(expanded == fs::read(place("root/one")).unwrap(), "{}", kind.name());
        let before = used(disk.path());
        run_on_it(&["export", "1", "mounted/out"]);
        let grown = used(disk.path()) - before;
        // Metadata of the filesystem comes and goes beside.
        assert!(grown.abs_diff(LEN) < LEN / 2, "{}: {grown} bytes", kind.name());
        // A copy that is not what it should be is none.
        let plain = fs::read_dir(place("mounted/store/plain")).unwrap().next().unwrap().unwrap();
        fs::File::options().write(true).open(plain.path()).unwrap().write_at(b"x", 5).unwrap();
        run_on_it(&["export", "1", "mounted/again"]);
        for out in ["out", "again"].map(|name| place("mounted").join(name)) {
            let places = [place("root"), out].map(|path| format!("{}/", path.display()));
            let mut rsync = Command::new("rsync");
            let said = run(rsync.args(["-aHn", "--checksum", "--itemize-changes"]).args(places));
            assert_eq!(said, "", "{}", kind.name());
        }
    }
}

/// Bytes that are used on the filesystem of `directory`.
fn used(directory: &Path) -> u64 {
    let mut df = Command::new("df");
    let said = run(df.args(["--sync", "--output=used", "-B1"]).arg(directory));
    said.lines().last().unwrap().trim().parse().unwrap()
}
