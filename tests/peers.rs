//! Programs and filesystems that know nothing of Cairn, on a mount: what they copy is
//! what is there, and what lies on top of it works.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_tests::{Cairn, Mount, Need, Random, make_device, make_fifo, set_xattr};

const NEEDS: [Need; 4] =
    [Need::Fuse, Need::Root, Need::Program("rsync", "rsync"), Need::Program("tar", "tar")];

/// Something of everything that a copy can lose.
fn plant(directory: &Path) -> PathBuf {
    let tree = directory.join("tree");
    fs::create_dir_all(tree.join("directory/below")).unwrap();
    let file = |name: &str, content: &[u8], mode| {
        fs::write(tree.join(name), content).unwrap();
        fs::set_permissions(tree.join(name), Permissions::from_mode(mode)).unwrap();
    };
    file("file", b"text", 0o644);
    file("twin", b"text", 0o644);
    file("one", b"linked", 0o640);
    fs::hard_link(tree.join("one"), tree.join("directory/two")).unwrap();
    file("directory/below/inside", b"first", 0o644);
    file("large", &Random(1).bytes(3 << 20), 0o644);
    file("setuid", b"program", 0o4755);
    file("able", b"program", 0o755);
    let raw_packets = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&tree.join("able"), "security.capability", &raw_packets).unwrap();
    set_xattr(&tree.join("able"), "user.note", b"value").unwrap();
    set_xattr(&tree.join("directory"), "trusted.note", b"hidden").unwrap();
    symlink("nowhere", tree.join("link")).unwrap();
    make_fifo(&tree.join("pipe")).unwrap();
    make_device(&tree.join("device"), 1, 3).unwrap();
    tree
}

/// A store with a state of what [`plant`] made, and where that lies.
fn planted() -> (Cairn, PathBuf) {
    let cairn = Cairn::new();
    let tree = plant(cairn.directory());
    cairn.data([Path::new("import"), &tree]);
    (cairn, tree)
}

/// Runs a shell script with `arguments` in a mount namespace that goes away with it.
fn script(cairn: &Cairn, text: &str, arguments: &[&Path]) -> String {
    let mut command = Command::new("timeout");
    command.args([
        "60",
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-euc",
        text,
        "sh",
    ]);
    let output = cairn.settle(command.args(arguments)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_copy_of_a_mount_has_all_of_it_and_nothing_else() {
    if !Need::all(&NEEDS) {
        return;
    }
    let (cairn, tree) = planted();
    let root = Mount::new(&cairn, &["--follow"], "root");
    for (name, window, copy) in [
        // rsync gives whole seconds to what is no file.
        ("rsync", 0, "rsync -aHAX \"$1/\" rsync"),
        ("cp", -1, "cp -a \"$1\" cp"),
        (
            "tar",
            -1,
            "mkdir tar
            tar --format=posix --acls --xattrs --xattrs-include='*' -C \"$1\" -cf tar.tar .
            tar --acls --xattrs --xattrs-include='*' -C tar -xpf tar.tar",
        ),
    ] {
        // Whoever asks for a name by itself is told; what is not listed is not copied.
        let differences = script(
            &cairn,
            &format!(
                "{copy}
                rsync -aHAXn --checksum --modify-window={window} --itemize-changes --delete \
                    \"$2/\" {name}/"
            ),
            &[root.path(), &tree],
        );
        assert_eq!(differences, "", "{name}");
    }
    let same = |path: &str| {
        let mut find = Command::new("find");
        find.args([".", "-samefile", path]).current_dir(root.path());
        let mut found: Vec<_> = String::from_utf8(find.output().unwrap().stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        found.sort();
        found
    };
    assert_eq!(same("one"), ["./directory/two", "./one"]);
    assert_eq!(same("file"), ["./file"]);
}

#[test]
fn an_overlay_on_a_mount_renames_directories_and_changes_modes_without_copying() {
    if !Need::all(&NEEDS) {
        return;
    }
    let (cairn, _) = planted();
    let root = Mount::new(&cairn, &["--follow"], "root");
    let told = script(
        &cairn,
        "
        mkdir upper work merged
        overlay() {
            mount -t overlay overlay merged \
                -o \"lowerdir=$1,upperdir=upper,workdir=work,redirect_dir=on,metacopy=on\"
        }
        overlay \"$1\"
        mv merged/directory merged/moved
        chmod 600 merged/large
        rm merged/file
        echo more >>merged/twin
        umount merged

        overlay \"$1\"
        cat merged/moved/below/inside; echo
        stat -c %a merged/large
        cmp merged/large \"$1/large\" && echo the same
        cat merged/twin
        test -e merged/file || test -e merged/directory || echo gone
        find upper/moved | wc -l
        test $(stat -c %b upper/large) -le 16 && echo no content
        umount merged
        ",
        &[root.path()],
    );
    let expected = ["first", "600", "the same", "textmore", "gone", "1", "no content"];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_bind_of_a_directory_of_a_live_root_is_switched_with_it() {
    if !Need::all(&NEEDS) {
        return;
    }
    let (cairn, tree) = planted();
    fs::write(tree.join("directory/below/inside"), "second").unwrap();
    cairn.data([Path::new("import"), &tree]);
    cairn.data(["switch", "2"]);
    let root = Mount::new(&cairn, &["--follow"], "root");
    let told = script(
        &cairn,
        "
        mkdir bound
        mount --bind \"$1/directory\" bound
        cat bound/below/inside; echo
        \"$2\" --quiet switch 1 >switched
        cat bound/below/inside; echo
        \"$2\" --quiet switch 2 >switched
        cat bound/below/inside; echo
        touch bound/new 2>/dev/null || echo read-only
        ",
        &[root.path(), cairn.program()],
    );
    assert_eq!(told.lines().collect::<Vec<_>>(), ["second", "first", "second", "read-only"]);
}
