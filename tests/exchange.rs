//! What goes into a store comes out of it the same: real trees are imported,
//! mounted and exported, and other programs compare them with the original.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_tests::{Cairn, Mount, Need, Plain, make_device, make_fifo, real, set_xattr};

const TOOLS: [Need; 3] = [
    Need::Program("rsync", "rsync"),
    Need::Program("bsdtar", "libarchive-tools"),
    Need::Program("mtree", "mtree-netbsd"),
];

/// Runs a program that has to succeed; returns what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Real packages in a directory, and beside them one of everything else that a
/// directory can hold.
fn make_root(cairn: &Cairn) -> Option<PathBuf> {
    let debs = real::debs()?;
    let root = cairn.directory().join("root");
    let _ = Plain::unpack(&debs, &root);
    let odd = root.join("odd");
    fs::create_dir(&odd).unwrap();
    make_device(&odd.join("null"), 1, 3).unwrap();
    make_device(&odd.join("large"), 300, 70_000).unwrap();
    make_fifo(&odd.join("fifo")).unwrap();
    symlink("nowhere", odd.join("link")).unwrap();
    fs::hard_link(odd.join("link"), odd.join("second name of a link")).unwrap();
    fs::hard_link(odd.join("fifo"), odd.join("second name of a fifo")).unwrap();
    let sparse = odd.join("sparse");
    fs::File::create(&sparse).unwrap().set_len(5_000_001).unwrap();
    set_xattr(&sparse, "user.bytes", &[0, 10, b'=', 255]).unwrap();
    // user::rw-, user:1234:rwx, group::r--, mask::rwx, other::r--
    let acl = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 210, 4, 0, 0];
    let acl = [&acl[..], &[4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255]];
    let acl = [acl.concat(), vec![32, 0, 4, 0, 255, 255, 255, 255]].concat();
    set_xattr(&sparse, "system.posix_acl_access", &acl).unwrap();
    set_xattr(&odd.join("null"), "trusted.odd", b"of a device").unwrap();
    fs::write(odd.join("\u{fe}\n \u{1b}[2J\\"), "bytes").unwrap();
    let deep = odd.join("a-long-name-of-a-directory/".repeat(12));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("n".repeat(255)), "deep").unwrap();
    for (path, seconds) in [("sparse", "-12345.123456789"), ("link", "9999999999.000000001")] {
        let mut touch = Command::new("touch");
        run(touch.args(["-h", "-d", &format!("@{seconds}")]).arg(odd.join(path)));
    }
    Some(root)
}

/// What bsdtar says of every entry.
fn listed(directory: &Path) -> Vec<String> {
    let mut bsdtar = Command::new("bsdtar");
    let keywords = ["type", "mode", "uid", "gid", "time", "link", "device", "sha256"];
    let keywords = keywords.map(|keyword| format!("mtree:{keyword}")).join(",");
    bsdtar.arg(format!("--options=mtree:!all,{keywords}")).args(["--format=mtree", "-cf", "-"]);
    let listing = run(bsdtar.arg("-C").arg(directory).arg("."));
    let mut lines: Vec<String> = listing.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Checks with programs that know nothing of Cairn that `other` is as `root`.
fn assert_same(root: &Path, other: &Path) {
    let slashed = |path: &Path| format!("{}/", path.display());
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXn", "--checksum", "--modify-window=-1", "--itemize-changes", "--delete"]);
    let differences = run(rsync.args([slashed(root), slashed(other)]));
    assert_eq!(differences, "", "rsync: {}", other.display());

    let specification = root.with_file_name("mtree");
    let keywords = "type,mode,uid,gid,link,device,sha256,time";
    let made = run(Command::new("mtree").args(["-c", "-k", keywords, "-p"]).arg(root));
    fs::write(&specification, made).unwrap();
    let mut mtree = Command::new("mtree");
    let differences = run(mtree.arg("-p").arg(other).arg("-f").arg(&specification));
    assert_eq!(differences, "", "mtree: {}", other.display());

    let (expected, found) = (listed(root), listed(other));
    let differences: Vec<_> = expected.iter().zip(&found).filter(|(a, b)| a != b).collect();
    assert!(differences.is_empty() && expected.len() == found.len(), "bsdtar: {differences:?}");
}

fn untar(archive: &Path, directory: &Path) {
    fs::create_dir(directory).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-xp", "--same-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp"]);
    run(tar.arg("-C").arg(directory).arg("-f").arg(archive));
}

#[test]
fn a_real_root_goes_in_and_comes_out_in_every_way_the_same() {
    if !Need::all(&[Need::Root, Need::Fuse]) || !Need::all(&TOOLS) {
        return;
    }
    let cairn = Cairn::new();
    let Some(root) = make_root(&cairn) else { return };
    let place = |name: &str| cairn.directory().join(name);

    let imported = cairn.json(["import", "root"]);
    assert!(imported["entries"].as_u64().unwrap() > 10_000, "{imported}");
    assert_eq!(imported["unsettled"], serde_json::json!([]));

    let mounted = Mount::new(&cairn, &["--state", "1"], "mounted");
    assert_same(&root, mounted.path());
    mounted.umount();
    let exported = cairn.json(["export", "1", "directory", "--sparse"]);
    assert_eq!(exported["left_out"], serde_json::json!([]));
    assert_same(&root, &place("directory"));
    let exported = cairn.json(["export", "1", "archive.tar.zst"]);
    assert_eq!(exported["left_out"], serde_json::json!([]));
    cairn.data(["import", "archive.tar.zst", "--tag", "archive"]);
    cairn.data(["export", "archive", "archive.tar"]);
    untar(&place("archive.tar"), &place("unpacked"));
    assert_same(&root, &place("unpacked"));

    // Archives by others come in as well.
    let mut tar = Command::new("tar");
    tar.args(["--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--xz"]);
    run(tar.env("XZ_OPT", "-0").arg("-cf").arg(place("gnu.tar.xz")).arg("-C").arg(&root).arg("."));
    let gnu = cairn.json(["import", "gnu.tar.xz"]);
    assert_eq!(gnu["tree"], imported["tree"], "GNU tar");
    let again = cairn.json(["import", "root"]);
    assert_eq!((&again["tree"], &again["bytes_stored"]), (&imported["tree"], &0.into()));
}

#[test]
fn an_archive_is_the_same_each_time_and_tells_what_it_cannot_hold() {
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "bytes").unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    cairn.data(["import", "root"]);
    let told = cairn.json(["export", "1", "one.tar.gz"]);
    let expected = serde_json::json!([{
        "path": "/socket", "reason": "no archive can hold a socket",
    }]);
    assert_eq!(told["left_out"], expected);
    cairn.data(["export", "1", "two.tar.gz"]);
    let read = |name: &str| fs::read(cairn.directory().join(name)).unwrap();
    assert_eq!(read("one.tar.gz"), read("two.tar.gz"));
}
