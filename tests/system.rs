//! Real Debian packages become a root that has, entry by entry, what `dpkg-deb`
//! and tar(1) make of them.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cairn_store::Store;
use cairn_tests::{
    Cairn, Deb, Kind, Listing, Mount, Need, Plain, assert_has_unpacked, make_device, make_fifo,
    real, set_xattr,
};

#[test]
fn a_system_of_real_packages_is_what_other_tools_make_of_them() {
    let Some(debs) = real::debs() else { return };
    if !Need::all(&[Need::Root]) {
        return;
    }
    assert!(debs.len() >= 150, "{} packages", debs.len());
    let repository = real::repository().expect("its packages are here");

    let cairn = Cairn::new();
    let names = real::names(&debs);
    install(&cairn, &repository, &names);
    let plain = Plain::unpack(&debs, &cairn.directory().join("plain"));
    let stored = stored(&cairn);
    assert_has_everything(&stored);
    plain.assert_is(&stored, "plain against stored");
    let compared = assert_has_unpacked(&debs, &stored, cairn.directory());
    assert!(compared > 10_000, "{compared} entries");
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let root = Mount::new(&cairn, &["--follow"], "root");
    stored.assert_same(&Listing::of_directory(root.path()), "stored against mounted");
    for (words, expected) in PROGRAMS {
        let ended = enter(root.path(), words);
        let [stdout, stderr] = [&ended.stdout, &ended.stderr].map(|it| String::from_utf8_lossy(it));
        assert!(ended.status.success(), "{words:?}: {stderr}");
        assert!(stdout.starts_with(expected), "{words:?}: {stdout}{stderr}");
        assert_eq!(stderr, "", "{words:?}");
    }
}

/// Runs a program with a live root as its root directory, and with the devices of
/// this machine, in a mount namespace that goes away with it.
fn enter(root: &Path, words: &[&str]) -> Output {
    let script = "mount --rbind /dev \"$1/dev\" && exec chroot \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    unshare.arg(root).args(words).env_clear().env("PATH", "/usr/bin:/usr/sbin");
    unshare.env("HOME", "/root");
    unshare.output().unwrap()
}

/// Programs with their words, and how what they print begins.
const PROGRAMS: &[(&[&str], &str)] = &[
    (
        &["bash", "-c", "echo ${BASH_VERSINFO[0]}; set -o pipefail; ls / | sort -r | head -n 1"],
        "5\nvar\n",
    ),
    (
        &["python3", "-c", "import ssl, sqlite3, json; print(json.dumps(ssl.OPENSSL_VERSION))"],
        "\"OpenSSL 3",
    ),
    (&["perl", "-MPOSIX", "-e", "print POSIX::floor(7.5), qq(\\n)"], "7\n"),
    (&["git", "--version"], "git version 2."),
    (&["sqlite3", ":memory:", "select 6 * 7"], "42\n"),
    (&["make", "--version"], "GNU Make "),
    (&["sh", "-c", "echo $((1 + 1))"], "2\n"),
];

#[test]
fn whatever_a_package_can_hold_arrives() {
    if !Need::all(&[Need::Root, Need::Program("dpkg-deb", "dpkg")]) {
        return;
    }
    let cairn = Cairn::new();
    let debs = [odd_package(cairn.directory())];
    let stones = cairn.directory().join("stones");
    let words = [debs[0].as_os_str(), "-o".as_ref(), stones.as_os_str()];
    cairn.data(["convert".as_ref()].into_iter().chain(words));
    cairn.data(["repo".as_ref(), "index".as_ref(), stones.as_os_str()]);
    install(&cairn, &stones, &["odd".to_owned()].into());
    let plain = Plain::unpack(&debs, &cairn.directory().join("plain"));
    let rewritten = plain.assert_is(&stored(&cairn), "plain against stored");
    assert_eq!(rewritten, 2, "links that would have led elsewhere");
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let root = Mount::new(&cairn, &["--state", "1"], "root");
    let all = Mount::new(&cairn, &[], "all");
    let places = ["current", "states/1"].map(|place| all.join(place));
    for place in places.iter().map(PathBuf::as_path).chain([root.path()]) {
        let what = format!("plain against {}", place.display());
        plain.assert_is(&Listing::of_directory(place), &what);
    }
}

/// Installs packages of a repository in one transaction.
fn install(cairn: &Cairn, repository: &Path, names: &BTreeSet<String>) {
    cairn.data(["repo", "add", "real", &format!("file://{}", repository.display())]);
    let words = ["--yes", "install"].into_iter().chain(names.iter().map(String::as_str));
    let done = cairn.json(words);
    assert_eq!(done["state"], 1);
    let steps = done["steps"].as_array().unwrap().iter();
    let installed = steps.map(|step| step["name"].as_str().unwrap().to_owned());
    assert_eq!(&installed.collect::<BTreeSet<_>>(), names, "one transaction installs all");
}

fn stored(cairn: &Cairn) -> Listing {
    let store = Store::open(&cairn.store()).unwrap();
    Listing::of_tree(&store, store.current().unwrap().tree)
}

/// A package with one of everything that a tar archive can hold.
fn odd_package(directory: &Path) -> PathBuf {
    let root = directory.join("odd");
    let place = |path: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let write = |path: &str, bytes: &[u8], mode: u32| {
        let path = place(path);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let everyone = write("bin/everyone", b"#!/bin/sh\n", 0o6755);
    fs::hard_link(&everyone, place("usr/share/odd/twin")).unwrap();
    fs::hard_link(&everyone, place("etc/odd/third")).unwrap();
    write("etc/odd/empty", b"", 0o400);
    let zeros = write("usr/share/odd/zeros", &vec![0; 3 << 20], 0o644);
    let large: Vec<u8> = (0..2_500_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    write("usr/share/odd/large", &large, 0o644);
    let named = "\u{fe}\n \u{1b}[2J\\";
    fs::write(place("usr/share/odd/x").with_file_name(named), "bytes").unwrap();
    write(&format!("usr/share/odd/{}", "n".repeat(255)), b"long", 0o644);
    let deep = format!("usr/share/odd/{}", "deep/".repeat(60));
    write(&format!("{deep}bottom"), b"deep", 0o644);
    let able = write("usr/sbin/able", b"#!/bin/sh\n", 0o755);
    // cap_net_raw=ep, as the kernel keeps it: linux/capability.h, version 2.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&able, "security.capability", &capability).unwrap();
    set_xattr(&zeros, "user.empty", b"").unwrap();
    set_xattr(&zeros, "user.bytes", &[0, 10, 255]).unwrap();
    chown(write("var/owned", b"", 0o640), Some(1234), Some(5_000_000)).unwrap();
    let private = place("var/lib/private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o2750)).unwrap();
    chown(&private, Some(7), Some(4242)).unwrap();
    fs::create_dir_all(place("var/cache/nothing/in/it")).unwrap();
    make_device(&place("dev/odd"), 1, 3).unwrap();
    make_device(&place("dev/odder"), 300, 70_000).unwrap();
    make_fifo(&place("run/odd")).unwrap();
    // These led to /usr/share/odd, from one level less below the root.
    symlink("../usr/share/odd/twin", place("lib/climbs")).unwrap();
    symlink("../../../usr/share/odd/zeros", place("lib/a/b/climbs")).unwrap();
    symlink("../c/stays", place("lib/a/b/stays")).unwrap();
    symlink("/lib/a", place("lib/absolute")).unwrap();
    symlink("t".repeat(4095), place("usr/share/odd/far")).unwrap();
    for (path, seconds) in
        [("var/owned", "-12345.123456789"), ("bin/everyone", "1234567890.000000001")]
    {
        let time = format!("@{seconds}");
        let touched = Command::new("touch").args(["-h", "-d", &time]).arg(root.join(path)).status();
        assert!(touched.unwrap().success());
    }
    Deb::new("odd", "1.0-1").directory(&root).write(&directory.join("debs"))
}

/// Checks that the packages are worth comparing.
fn assert_has_everything(listing: &Listing) {
    let count = |what: &str, least: usize, is: &dyn Fn(&cairn_tests::Entry) -> bool| {
        let found = listing.0.values().filter(|entry| is(entry)).count();
        assert!(found >= least, "{found} {what}, not {least}");
    };
    count("entries", 10_000, &|_| true);
    count("setuid programs", 5, &|entry| entry.mode & 0o4000 != 0);
    count("hard links", 2, &|entry| entry.links.is_some());
    count("entries of other groups", 2, &|entry| entry.gid != 0);
    count("sticky directories", 1, &|entry| entry.mode & 0o1000 != 0);
    count("symbolic links", 500, &|entry| matches!(entry.kind, Kind::Symlink(_)));
    count("empty files", 1, &|entry| matches!(entry.kind, Kind::File { size: 0, .. }));
    count("large files", 5, &|entry| matches!(entry.kind, Kind::File { size: 1_048_576.., .. }));
}
