//! docs/mount.md, "Views for other users": owners shown as others, on mounts of the
//! command and on those that somebody else makes of them.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Child, Command};

use cairn_tests::ordinary::answer_to;
use cairn_tests::{Cairn, Mount, Mounted, Need, eventually, posix_acl, set_xattr, signal};

/// What a container has for its users: 65,536 of the machine's from this on.
const FIRST: u32 = 100_000;
const MAP: &str = "b:0:100000:65536";

/// Whom the kernel shows for owners that are not mapped.
const NOBODY: u32 = 65534;

/// `user::rw-`, `user:ID:r--`, `group::---`, `mask::r--`, `other::---`.
fn acl(id: u32) -> Vec<u8> {
    let none = u32::MAX;
    posix_acl(&[(1, 6, none), (2, 4, id), (4, 0, none), (16, 4, none), (32, 0, none)])
}

/// State 1, with owners of each kind; state 2, in which `private` has another content.
fn planted() -> Cairn {
    let cairn = Cairn::new();
    let tree = cairn.directory().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::set_permissions(&tree, Permissions::from_mode(0o755)).unwrap();
    for (name, owner, group, mode) in [
        ("private", 0, 0, 0o600),
        ("of-group", 5, 7, 0o640),
        ("outside", 70_000, 0, 0o644),
        ("shared", 0, 0, 0o600),
        ("noted", 0, 0, 0o644),
    ] {
        let path = tree.join(name);
        fs::write(&path, name).unwrap();
        chown(&path, Some(owner), Some(group)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    fs::copy("/usr/bin/id", tree.join("setuid")).unwrap();
    fs::set_permissions(tree.join("setuid"), Permissions::from_mode(0o4755)).unwrap();
    symlink("private", tree.join("link")).unwrap();
    lchown(tree.join("link"), Some(9), Some(9)).unwrap();
    set_xattr(&tree.join("shared"), "system.posix_acl_access", &acl(1234)).unwrap();
    set_xattr(&tree.join("noted"), "trusted.note", b"hidden").unwrap();
    set_xattr(&tree.join("noted"), "user.note", b"seen").unwrap();
    cairn.data([Path::new("import"), &tree]);
    fs::write(tree.join("private"), "changed").unwrap();
    cairn.data([Path::new("import"), &tree]);
    cairn.data(["switch", "1"]);
    fs::set_permissions(cairn.directory(), Permissions::from_mode(0o755)).unwrap();
    cairn
}

/// A user namespace whose users are those from [`FIRST`] on.
struct Container(Child);

impl Container {
    fn new() -> Self {
        let container =
            Self(Command::new("unshare").args(["--user", "sleep", "60"]).spawn().unwrap());
        let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/user")).unwrap();
        let id = container.id().to_string();
        eventually("it has a namespace", || namespace(&id) != namespace("self"));
        for kind in ["uid", "gid"] {
            fs::write(format!("/proc/{id}/{kind}_map"), format!("0 {FIRST} 65536\n")).unwrap();
        }
        container
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

/// The names of a file's attributes, as a user sees them.
fn attributes(user: u32, path: &Path) -> String {
    let code = "import os, sys; print(*sorted(os.listxattr(sys.argv[1])))";
    answer_to(user, &["python3", "-c", code, path.to_str().unwrap()]).unwrap()
}

/// Checks all that is mapped below `root`, a live root.
fn check_mapped(root: &Path, private: &str) {
    let owner = |name: &str| {
        let data = fs::symlink_metadata(root.join(name)).unwrap();
        (data.uid(), data.gid())
    };
    assert_eq!(owner("private"), (FIRST, FIRST));
    assert_eq!(owner("of-group"), (FIRST + 5, FIRST + 7));
    assert_eq!(owner("link"), (FIRST + 9, FIRST + 9));
    assert_eq!(owner("outside"), (NOBODY, FIRST));
    assert_eq!(owner(""), (FIRST, FIRST));

    let cat = |user, name: &str| answer_to(user, &["cat", root.join(name).to_str().unwrap()]);
    assert_eq!(cat(FIRST, "private").as_deref(), Some(private));
    assert_eq!(cat(FIRST + 7, "of-group").as_deref(), Some("of-group"));
    assert_eq!(cat(1000, "private"), None);
    assert_eq!(cat(1000, "of-group"), None);
    assert_eq!(cat(5, "of-group"), None, "who owns it in the state does not own it here");
    assert_eq!(cat(FIRST + 1234, "shared").as_deref(), Some("shared"), "the ACL is mapped");
    assert_eq!(cat(1234, "shared"), None);

    let id = root.join("setuid");
    let id = answer_to(1000, &[id.to_str().unwrap(), "-u"]);
    assert_eq!(id.unwrap(), FIRST.to_string(), "setuid gives the rights of the mapped owner");

    assert_eq!(attributes(0, &root.join("noted")), "trusted.note user.note");
    assert_eq!(attributes(1000, &root.join("noted")), "user.note");
    assert_eq!(attributes(FIRST, &root.join("noted")), "user.note", "root of a container");

    // A container whose users these are sees them as its own.
    let container = Container::new();
    let show = "stat -c %u:%g private of-group; cat private; ! touch new 2>/dev/null";
    let mut enter = Command::new("nsenter");
    enter.args(["--user", "--setuid=0", "--setgid=0", &format!("--target={}", container.id())]);
    let output = enter.args(["sh", "-c", show]).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("0:0\n5:7\n{private}"));
}

#[test]
fn owners_are_shown_as_others_also_after_a_switch_and_without_the_first_process() {
    if !Need::all(&[Need::Fuse, Need::Root, Need::IdMaps, Need::Program("python3", "python3")]) {
        return;
    }
    let cairn = planted();
    let plain = Mount::new(&cairn, &["--follow"], "plain");
    let mapped = Mount::new(&cairn, &["--follow", "--idmap", MAP], "mapped");
    let list = cairn.json(["mount"]);
    let ours =
        list.as_array().unwrap().iter().find(|it| it["target"] == *mapped.path().to_str().unwrap());
    assert_eq!(ours.unwrap()["idmap"], MAP);
    check_mapped(mapped.path(), "private");
    let data = fs::metadata(plain.join("of-group")).unwrap();
    assert_eq!((data.uid(), data.gid()), (5, 7), "other mounts show them as they are");
    assert_eq!(attributes(1000, &plain.join("noted")), "user.note");
    assert_eq!(attributes(0, &plain.join("noted")), "trusted.note user.note");

    cairn.data(["switch", "2"]);
    check_mapped(mapped.path(), "changed");

    let before = mapped.process();
    signal(before, 9).unwrap();
    eventually("it is taken over", || mapped.process() != before);
    cairn.data(["switch", "1"]);
    check_mapped(mapped.path(), "private");
    cairn.data(["mount".as_ref(), "--restart".as_ref(), mapped.path().as_os_str()]);
    check_mapped(mapped.path(), "private");

    // An overlay above it stores what it copies up as the machine sees it.
    let upper = cairn.directory().join("upper");
    let memory = Mounted::new(&upper, &["-t", "tmpfs", "cairn-test"]);
    for name in ["up", "work"] {
        fs::create_dir(memory.path().join(name)).unwrap();
    }
    let layers = format!(
        "lowerdir={},upperdir={up}/up,workdir={up}/work",
        mapped.path().display(),
        up = upper.display()
    );
    let overlay = Mounted::new(
        &cairn.directory().join("overlay"),
        &["-t", "overlay", "-o", &layers, "cairn-test"],
    );
    let path = overlay.path().join("of-group");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let data = fs::metadata(memory.path().join("up/of-group")).unwrap();
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (FIRST + 5, FIRST + 7, 0o600));
    overlay.umount();
    memory.umount();

    mapped.umount();
    assert_eq!(fs::metadata(plain.join("of-group")).unwrap().uid(), 5);
}

#[test]
fn users_and_groups_can_be_mapped_apart_and_by_the_options_of_fstab() {
    if !Need::all(&[Need::Fuse, Need::Root, Need::IdMaps]) {
        return;
    }
    let cairn = planted();
    let options = "state=1,idmap=u:0:1000:1,idmap=u:5:2000:1,idmap=g:7:0:1,nosuid";
    let mapped = Mount::new(&cairn, &["-o", options], "mapped");
    let owner = |name: &str| {
        let data = fs::metadata(mapped.join(name)).unwrap();
        (data.uid(), data.gid())
    };
    assert_eq!(owner("private"), (1000, NOBODY));
    assert_eq!(owner("of-group"), (2000, 0));
    let all = Mount::new(&cairn, &["--idmap", MAP], "all");
    let data = fs::metadata(all.join("states/2/of-group")).unwrap();
    assert_eq!((data.uid(), data.gid()), (FIRST + 5, FIRST + 7));
}

#[test]
fn a_map_that_cannot_be_leaves_nothing_mounted() {
    if !Need::all(&[Need::Fuse, Need::Root, Need::IdMaps]) {
        return;
    }
    let cairn = planted();
    let target = cairn.directory().join("mount");
    fs::create_dir(&target).unwrap();
    let target = target.to_str().unwrap();
    let refused = [
        (2, vec!["--idmap", "b:0:1"], "does not have the form"),
        (2, vec!["--idmap", "u:0:1:1"], "no range for groups"),
        (2, vec!["--idmap", "b:0:1:9", "--idmap", "u:8:100:1"], "overlap"),
        (2, vec!["--rw", "w", "--idmap", MAP], "cannot be used with"),
        (2, vec!["--follow", "-o", "bind=/tmp=/tmp", "--idmap", MAP], "do not go together"),
    ];
    for (code, words, expected) in refused {
        let words = [&["mount"], &words[..], &[target]].concat();
        let message = cairn.fails(code, &words);
        assert!(message.contains(expected), "{words:?}: {message}");
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(target), "{table}");
    assert_eq!(cairn.json(["mount"]), serde_json::json!([]));
}
