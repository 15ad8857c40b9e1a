//! Commands of an ordinary user, in tests that run as root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::cairn::Cairn;

/// `nobody`, since fusermount3 asks for a name.
const USER: u32 = 65534;

/// Gives a directory to the user, for others to look into.
///
/// # Panics
/// If it is not there.
pub fn give_to_user(path: &Path) {
    chown(path, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// What a command prints that a user runs who has no other rights; nothing if it fails.
///
/// # Panics
/// If it cannot be run, or prints what is no UTF-8.
#[must_use]
pub fn answer_to(user: u32, command: &[&str]) -> Option<String> {
    let mut setpriv = Command::new("setpriv");
    let ids = [format!("--reuid={user}"), format!("--regid={user}")];
    // setpriv itself finds its program with the rights of root; the shell has none.
    setpriv.args(ids).args(["--clear-groups", "--inh-caps=-all", "sh", "-c", "exec \"$@\"", "sh"]);
    let output = setpriv.args(command).current_dir("/").env("LC_ALL", "C").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.trim_end().into())
}

/// Runs a shell script in which `user NUMBER COMMAND...` runs a command as a user, who may
/// use /dev/fuse as on most systems, and `c` is `cairn` as the ordinary user. What is
/// mounted goes away with it. Returns what it prints.
///
/// # Panics
/// If it fails.
#[must_use]
pub fn as_user(cairn: &Cairn, text: &str) -> String {
    fs::copy(cairn.program(), cairn.directory().join("cairn")).unwrap();
    let prelude = "
        set -eu
        cp -a /dev/fuse fuse
        chmod 666 fuse
        mount --bind fuse /dev/fuse
        user() {
            id=$1; shift
            setpriv --reuid=$id --regid=$id --clear-groups --inh-caps=-all \\
                sh -c 'exec \"$@\"' sh \"$@\"
        }
        c() { user 65534 ./cairn --quiet \"$@\"; }
    ";
    let mut command = Command::new("timeout");
    let outer = ["600", "unshare", "--mount", "--propagation", "private", "sh", "-c"];
    command.args(outer).arg(format!("{prelude}\n{text}"));
    let output = cairn.settle(&mut command).output().unwrap();
    let (said, told) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}: {told}{said}", output.status);
    told.into_owned()
}
