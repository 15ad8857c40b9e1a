//! A directory as the root of programs, in namespaces that end with the test.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cairn::Ended;

/// A directory with /proc and /dev/fuse in it, and with nothing else of this machine,
/// until this is dropped: mounts that are made in there go away, and processes end.
#[derive(Debug)]
pub struct Room {
    root: PathBuf,
    holder: Child,
    /// The first process in there, as it is called out here.
    first: String,
}

/// Told nothing of its children, the first process leaves nobody behind as a zombie.
const HOLD: &str = r#"
    read -r first rest </proc/self/stat
    mount -t proc proc "$1/proc" || exit
    mount --bind /dev/fuse "$1/dev/fuse" || exit
    echo "$first"
    trap '' CHLD
    exec sleep infinity
"#;

impl Room {
    /// Makes `root`, which is a new directory, one. Needs [`Fuse`](crate::Need::Fuse)
    /// and [`Root`](crate::Need::Root).
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        for directory in ["proc", "dev"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("dev/fuse"), "").unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        unshare.args(["sh", "-c", HOLD, "sh"]).arg(root);
        let mut holder = unshare.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.ends_with('\n'), "{} cannot be made a root", root.display());
        Self { root: root.into(), holder, first: first.trim().into() }
    }

    /// Where `path` of the root is seen from out here, with what is mounted there.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        let seen = format!("/proc/{}/root{}{path}", self.first, self.root.display());
        PathBuf::from(seen)
    }

    /// A program that has the directory `root` in there as its root, and nothing of the
    /// environment. The first word is its path.
    pub fn command<S: AsRef<OsStr>>(
        &self,
        root: &str,
        words: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first, "--mount", "--pid", "chroot"]);
        command.arg(format!("{}{root}", self.root.display())).args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    /// Runs such a program to its end.
    ///
    /// # Panics
    /// If it prints something that is not UTF-8.
    pub fn run<S: AsRef<OsStr>>(&self, root: &str, words: impl IntoIterator<Item = S>) -> Ended {
        self.command(root, words).output().unwrap().into()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
