//! Getting into a state: which one `cairn run` enters, and what is said where a
//! machine keeps people out.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use cairn_tests::{Cairn, Mount, Need, put_programs};

#[test]
fn a_program_runs_in_the_state_that_is_named_before_it() {
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let cairn = Cairn::new();
    let tree = cairn.directory().join("tree");
    put_programs(&tree, &["/usr/bin/cat"]);
    for number in ["1", "2"] {
        fs::write(tree.join("which"), number).unwrap();
        cairn.data([Path::new("import"), &tree]);
    }
    cairn.data(["state", "tag", "old", "1"]);
    cairn.data(["switch", "2"]);
    for (words, state) in [
        (&["1", "--", "cat", "/which"][..], "1"),
        (&["old", "--", "cat", "/which"], "1"),
        (&["current", "--", "cat", "/which"], "2"),
        (&["--rw", "--state", "1", "--", "cat", "/which"], "1"),
        (&["--state", "old", "cat", "/which"], "1"),
        (&["cat", "/which"], "2"),
        (&["--", "cat", "/which"], "2"),
        // The program behind a first -- is one, whatever follows it.
        (&["--", "cat", "--", "/which"], "2"),
        (&["1", "--", "cat", "--", "/which"], "1"),
    ] {
        assert_eq!(cairn.data([&["run"], words].concat()), state, "{words:?}");
    }
    for (code, words, told) in [
        (2, &["a/b", "--", "cat", "/which"][..], "\"a/b\" does not name a state"),
        (2, &["--state", "1", "2", "--", "cat", "/which"], "\"2\" stands where a state can"),
        (2, &["1", "--"], "\"1\" stands where a state can"),
        (1, &["7", "--", "cat", "/which"], "7"),
        (1, &["none", "--", "cat", "/which"], "none"),
    ] {
        let complaint = cairn.fails(code, [&["run"], words].concat());
        assert!(complaint.contains(told), "{words:?}: {complaint}");
    }
}

#[test]
fn what_lies_on_a_mount_is_listed_and_what_was_filled_is_told() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = Cairn::new();
    let tree = cairn.directory().join("tree");
    for path in ["etc", "home"] {
        fs::create_dir_all(tree.join(path)).unwrap();
    }
    fs::write(tree.join("etc/own"), "own").unwrap();
    cairn.data([Path::new("import"), &tree]);
    let [etc, home, root] = ["etc", "home", "root"].map(|name| cairn.directory().join(name));
    fs::create_dir(&home).unwrap();
    let on = |path: &str, source: &Path| format!("{path}={}", source.display());
    let (writable, bind) = (on("/etc", &etc), on("/home", &home));
    for filled in [true, false] {
        fs::create_dir_all(&root).unwrap();
        let mount = Mount::expected(&cairn, "root");
        let words = ["mount", "--follow", "--writable", &writable, "--bind", &bind];
        let told = cairn.data(words.into_iter().chain([root.to_str().unwrap()]));
        let line = format!("{} was empty, and begins as /etc of the state.\n", etc.display());
        assert_eq!(told.contains(&line), filled, "{told}");
        assert_eq!(told.lines().count(), 1 + usize::from(filled), "{told}");
        assert_eq!(fs::read_to_string(mount.join("etc/own")).unwrap(), "own");
        let listed = cairn.json(["mount"]);
        let expected = serde_json::json!([
            { "path": "/etc", "source": etc, "filled": filled },
            { "path": "/home", "source": home, "filled": false },
        ]);
        assert_eq!(listed[0]["binds"], expected);
        let listed = cairn.data(["mount"]);
        let lines: Vec<Vec<&str>> =
            listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][0], root.to_str().unwrap());
        let words = [["/etc", etc.to_str().unwrap()], ["/home", home.to_str().unwrap()]];
        assert_eq!(lines[1..], words);
        mount.umount();
    }
}

/// A root with a bind of a directory below which other filesystems lie, as they do below /dev,
/// on a machine whose mounts are shared, as systemd has them. `points` prints what is
/// mounted below a directory.
const ROOT_OF_DEVICES: &str = r#"
set -eu
points() { grep -o " $PWD/$1[^ ]*" /proc/self/mountinfo || true; }
mkdir dev root
mount -t tmpfs one dev
mkdir dev/shm dev/pts dev/late dev/own
mount -t tmpfs two dev/shm
mount -t tmpfs three dev/pts
mkdir dev/pts/deep
mount -t tmpfs four dev/pts/deep
touch dev/null dev/pts/deep/0
machine=$(points dev)

"$1" mount --follow --bind "/dev=$PWD/dev" root
test -e root/dev/pts/deep/0
bound=$(points root)
exec 9<root/dev/null
if "$1" umount root 2>said; then echo 'a bind in use was taken off'; fi
grep -q 'in use' said
test "$(points root)" = "$bound" || { echo 'before' "$bound" 'after'; points root; }
test -e root/dev/pts/deep/0
exec 9<&-

mount -t tmpfs five dev/late
mountpoint -q root/dev/late || echo 'what the machine mounts later is not there'
mount -t tmpfs six root/dev/own
if "$1" umount root 2>said; then echo 'a foreign mount was taken off'; fi
grep -q 'in use' said
umount root/dev/own
"$1" umount root
points root
umount dev/late
test "$(points dev)" = "$machine" || { echo 'the machine had' "$machine" 'and has'; points dev; }

"$1" mount --follow --bind "/dev=$PWD/dev" root
"$1" umount --lazy root
points root
test "$(points dev)" = "$machine" || { echo 'the machine had' "$machine" 'and has'; points dev; }
"#;

#[test]
fn a_bind_goes_with_what_is_mounted_below_it_and_the_machine_keeps_its_own() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = Cairn::new();
    let tree = cairn.directory().join("tree");
    fs::create_dir_all(tree.join("dev")).unwrap();
    cairn.data([Path::new("import"), &tree]);
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "--mount", "--propagation", "shared", "sh", "-c"]);
    command.args([ROOT_OF_DEVICES, "sh"]).arg(cairn.program());
    let output = cairn.settle(&mut command).output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(output.status.success(), "{stdout}{stderr}");
    // What the commands say of the root by its name.
    let told = stdout.lines().filter(|line| !line.starts_with("root "));
    assert_eq!(told.collect::<Vec<_>>(), Vec::<&str>::new(), "{stderr}");
}

/// An ordinary user: `nobody`, since fusermount3 asks for a name.
const USER: u32 = 65534;

/// What a command complains of that fails at the end of a script. In there `limited`
/// runs a command as root without the right to mount, `user` as an ordinary user, and
/// `device` gives /dev/fuse a mode; `without_namespaces` and `in_a_changed_root` forbid
/// user namespaces in two ways.
fn complaint(cairn: &Cairn, script: &str) -> String {
    let prelude = "
        limited() { setpriv --bounding-set=-sys_admin --inh-caps=-all \"$@\"; }
        user() {
            setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \
                sh -c 'exec \"$@\"' sh \"$@\"
        }
        device() {
            rm -f device
            mknod -m \"$1\" device c 10 229
            mount --bind device /dev/fuse
        }
        without_namespaces() {
            unshare --user sleep 60 &
            child=$!
            while [ $(readlink /proc/$child/ns/user) = $(readlink /proc/$$/ns/user) ]; do :; done
            for map in uid_map gid_map; do echo 0 0 4294967295 >/proc/$child/$map; done
            nsenter --user --target $child --setuid 0 --setgid 0 sh -c '
                echo 0 >/proc/sys/user/max_user_namespaces
                exec \"$@\"
            ' sh \"$@\"
            code=$?
            kill $child
            return $code
        }
        in_a_changed_root() {
            mkdir -p root
            mount --rbind / root
            here=$PWD
            chroot root setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \
                sh -c 'cd \"$1\"; shift; exec \"$@\"' sh \"$here\" \"$@\"
        }
    ";
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("{prelude}\n{script}"));
    let output = cairn.settle(&mut command).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{script}: {said}");
    assert!(output.stdout.is_empty(), "{script}");
    said
}

#[test]
fn what_keeps_a_machine_from_mounting_is_named_with_what_to_do() {
    let fusermount = Need::Program("fusermount3", "fuse3");
    if !Need::all(&[Need::Fuse, Need::Root, fusermount]) {
        return;
    }
    let cairn = Cairn::new();
    let tree = cairn.directory().join("tree");
    put_programs(&tree, &["/usr/bin/cat"]);
    cairn.data([Path::new("import"), &tree]);
    fs::set_permissions(cairn.directory(), Permissions::from_mode(0o755)).unwrap();
    for name in ["place", "own"] {
        fs::create_dir(cairn.directory().join(name)).unwrap();
    }
    chown(cairn.directory().join("own"), Some(USER), Some(USER)).unwrap();
    fs::copy(cairn.program(), cairn.directory().join("cairn")).unwrap();

    // As root, whose store it is.
    let no_device = "mkdir -p dev; cp -a /dev/null dev; mount --bind dev /dev;";
    for (script, why, help) in [
        (
            format!("{no_device} ./cairn mount place"),
            "cannot open /dev/fuse: No such file or directory",
            "help: load the module: modprobe fuse; a container",
        ),
        (
            format!("{no_device} ./cairn run -- cat /which"),
            "cannot open /dev/fuse: No such file or directory",
            "help: load the module: modprobe fuse; a container",
        ),
        (
            "PATH=$PWD/none; /usr/bin/setpriv --bounding-set=-sys_admin --inh-caps=-all \
             ./cairn mount place"
                .into(),
            "place: Operation not permitted",
            "help: mounting takes CAP_SYS_ADMIN",
        ),
        (
            "limited ./cairn run -- cat /which".into(),
            "in namespaces of its own: Operation not permitted",
            "help: it takes CAP_SYS_ADMIN as root",
        ),
    ] {
        let said = complaint(&cairn, &script);
        assert!(said.contains(why) && said.contains(help), "{script}: {said}");
    }

    let mut give = Command::new("chown");
    give.args(["-R", &format!("{USER}:{USER}")]).arg(cairn.store());
    assert!(give.status().unwrap().success());
    let made = "device 666; user ./cairn run --rw kept -- cat /dev/null; false";
    assert_eq!(complaint(&cairn, made), "", "a workspace is made");
    for (script, why, help) in [
        (
            "device 600; user ./cairn mount own",
            "/dev/fuse: Permission denied",
            "help: the modes of",
        ),
        (
            "device 666; user ./cairn mount place",
            "no write access to mountpoint",
            "help: name a directory that belongs to you",
        ),
        (
            "PATH=$PWD/none; /usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups \
             --inh-caps=-all ./cairn mount own",
            "cannot start fusermount3",
            "help: install fuse3",
        ),
        (
            "device 666; mount --bind -o nosuid /usr/bin /usr/bin
             mount -o remount,bind,nosuid /usr/bin; user ./cairn mount own",
            "Operation not permitted",
            "help: fusermount3 has to be setuid root",
        ),
        (
            "without_namespaces setpriv --reuid=65534 --regid=65534 --clear-groups \
             --inh-caps=-all ./cairn run --rw web -- cat /which",
            "in namespaces of its own: No space left on device",
            "help: there may be no more of them: sysctl user.max_user_namespaces",
        ),
        (
            "without_namespaces setpriv --reuid=65534 --regid=65534 --clear-groups \
             --inh-caps=-all ./cairn mount --rw web own",
            "in namespaces of its own: No space left on device",
            "help: there may be no more of them: sysctl user.max_user_namespaces",
        ),
        (
            "without_namespaces setpriv --reuid=65534 --regid=65534 --clear-groups \
             --inh-caps=-all ./cairn workspace diff kept",
            "in namespaces of its own: No space left on device",
            "help: there may be no more of them: sysctl user.max_user_namespaces",
        ),
        (
            "in_a_changed_root ./cairn run --rw web -- cat /which",
            "in namespaces of its own: Operation not permitted",
            "help: it takes CAP_SYS_ADMIN as root, and user namespaces as another user: \
             sysctl kernel.unprivileged_userns_clone=1",
        ),
    ] {
        let said = complaint(&cairn, script);
        assert!(said.contains(why) && said.contains(help), "{script}: {said}");
    }
}
