//! A program that is ended at one of its changes of the disk, or finds that one fails, or that
//! something cannot be read.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;

use crate::cairn::{Cairn, Ended};

/// Changes of the disk. Opening is one where it makes the file.
const CALLS: &str = "write,pwrite64,writev,pwritev,fsync,fdatasync,syncfs,rename,renameat,\
                     renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,\
                     ftruncate,fallocate,flock,openat,copy_file_range,fchmod,fchmodat,chmod";

/// What reads files and directories that are open.
const READS: &str = "read,pread64,readv,preadv,preadv2,getdents64";

/// A change that a command makes to the disk, or a read: the `number`th call of this name in one
/// of its threads. Calls are counted by name, as strace(1) does.
#[derive(Clone, Debug)]
pub struct Change {
    /// The name of the system call.
    pub call: String,
    /// How many of this name the thread has made with this one.
    pub number: usize,
    /// The file, as far as it is told.
    pub path: String,
}

/// What happens instead of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends.
    Kill,
    /// The call fails with this error, such as `ENOSPC`.
    Error(&'static str),
}

impl Change {
    /// All changes that `cairn WORDS` makes below its own directory. It is run for that, and
    /// has to succeed.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn all(cairn: &Cairn, words: &[String]) -> Vec<Self> {
        Self::of(CALLS, cairn, words).0
    }

    /// The same with all reads; and how the command ended.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn reads(cairn: &Cairn, words: &[String]) -> (Vec<Self>, Ended) {
        Self::of(READS, cairn, words)
    }

    fn of(calls: &str, cairn: &Cairn, words: &[String]) -> (Vec<Self>, Ended) {
        let log = cairn.directory().join("changes");
        let mut strace = Command::new("strace");
        strace.args(["--seccomp-bpf", "-f", "-y", "-s", "0", "-e", &format!("trace={calls}")]);
        strace.arg("-o").arg(&log).arg(cairn.program()).args(words);
        let ended = Ended::from(cairn.settle(&mut strace).output().unwrap());
        assert!(ended.status.success(), "{words:?}: {}", ended.stderr);
        let lines = std::fs::read(&log).unwrap();
        let home = cairn.directory().to_str().expect("temporary directories have plain names");
        (parse(&String::from_utf8_lossy(&lines), home), ended)
    }

    /// Runs `cairn WORDS` to its end, with `fault` in the place of this change.
    ///
    /// # Panics
    /// If it panics.
    pub fn replaced(&self, cairn: &Cairn, words: &[String], fault: Fault) -> Ended {
        let Self { call, number, .. } = self;
        let instead = match fault {
            Fault::Kill => "signal=SIGKILL".into(),
            Fault::Error(error) => format!("error={error}"),
        };
        let mut strace = Command::new("strace");
        strace.args(["--seccomp-bpf", "-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:{instead}:when={number}")]);
        strace.arg(cairn.program()).args(words);
        let ended = Ended::from(cairn.settle(&mut strace).output().unwrap());
        assert!(!ended.stderr.contains("panicked at"), "{words:?}: {self:?}: {}", ended.stderr);
        ended
    }
}

/// Reads what strace has written: in the order in which each change was made first.
fn parse(lines: &str, home: &str) -> Vec<Change> {
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut found: BTreeMap<(String, usize), usize> = BTreeMap::new();
    let mut changes = Vec::new();
    for line in lines.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let count = counts.entry((thread, call)).or_default();
        *count += 1;
        let is_change = call != "openat" || arguments.contains("O_CREAT");
        if !is_change || !arguments.contains(home) {
            continue;
        }
        // Of two files the one that is new.
        let ends = |end: char| arguments.split(end).rfind(|piece| piece.contains(home));
        let path = ends('"').filter(|it| !it.contains('<')).or_else(|| ends('>'));
        let path = path.and_then(|it| it.rfind(home).map(|at| it[at..].to_owned()));
        let at = changes.len();
        if *found.entry((call.into(), *count)).or_insert(at) == at {
            let path = path.unwrap_or_default();
            changes.push(Change { call: call.into(), number: *count, path });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_thread_and_name() {
        let lines = r#"7 openat(AT_FDCWD</>, "/h/a", O_RDONLY) = 3</h/a>
7 openat(AT_FDCWD</>, "/h/b", O_WRONLY|O_CREAT, 0666) = 4</h/b>
8 write(4</h/b>, ""..., 9 <unfinished ...>
7 write(1</dev/null>, ""..., 3) = 3
7 write(4</h/b>, ""..., 3) = 3
8 <... write resumed>) = 9
7 rename("/h/b", "/h/c") = 0
7 +++ exited with 0 +++"#;
        let changes: Vec<_> =
            parse(lines, "/h/").into_iter().map(|it| (it.call, it.number, it.path)).collect();
        let expected = [
            ("openat", 2, "/h/b"),
            ("write", 1, "/h/b"),
            ("write", 2, "/h/b"),
            ("rename", 1, "/h/c"),
        ];
        let expected = expected.map(|(call, number, path)| (call.into(), number, path.into()));
        assert_eq!(changes, expected);
    }
}
