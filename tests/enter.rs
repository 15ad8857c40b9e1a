//! Getting into a state: which one `cairn run` enters, and what is said where a
//! machine keeps people out.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use cairn_tests::{Cairn, Need, put_programs};

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

/// An ordinary user: `nobody`, since fusermount3 asks for a name.
const USER: u32 = 65534;

/// What a command complains of that fails at the end of a script. In there `limited`
/// runs a command as root without the right to mount, `user` as an ordinary user, and
/// `device` gives /dev/fuse a mode.
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
    ] {
        let said = complaint(&cairn, script);
        assert!(said.contains(why) && said.contains(help), "{script}: {said}");
    }
}
