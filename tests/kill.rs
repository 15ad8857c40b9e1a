//! Processes end at any moment, and two want to write at once: the store opens,
//! everything in it is sound, and the old or the new state is current.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use cairn_tests::{Cairn, Deb, Need, Random};
use serde_json::Value;

/// Changes of the disk. Opening is none of them: what is made by it is written to
/// next.
const CHANGES: &str = "write,pwrite64,pwritev,fsync,fdatasync,syncfs,rename,renameat,renameat2,\
                       unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,ftruncate,fallocate,flock";

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| u8::try_from(random.below(256)).unwrap()).collect()
}

/// A store with two states: 1 has the package base, 2 has tool, too. It is offered
/// app, which needs base and has a file that fills a pack of its own.
fn prepared() -> Cairn {
    let cairn = Cairn::new();
    let base = Deb::new("base", "1.0-1").file("usr/bin/base", 0o755, "#!/bin/sh\n");
    let base =
        base.file("etc/base.conf", 0o644, "one").file("usr/share/base/a", 0o644, noise(1, 300));
    let tool = Deb::new("tool", "1.0-1").file("usr/bin/tool", 0o755, noise(2, 9000));
    let mut app = Deb::new("app", "1.0-1").field("Depends", "base");
    for number in 0..30 {
        app = app.file(&format!("usr/share/app/{number}"), 0o644, noise(number + 10, 4000));
    }
    app = app.file("usr/lib/app.so", 0o644, noise(3, 1_200_000));
    cairn.offer([base, tool, app]);
    cairn.data(["--yes", "install", "base"]);
    cairn.data(["--yes", "install", "tool"]);
    cairn
}

/// What can be seen of a store from outside: the current state and all others.
fn shown(cairn: &Cairn) -> (u64, BTreeSet<u64>) {
    let states = cairn.json(["state", "list"]);
    let number = |state: &Value| state["state"].as_u64().unwrap();
    let current = states.as_array().unwrap().iter().find(|state| state["current"] == true);
    let all = states.as_array().unwrap().iter().map(number).collect();
    (current.map_or(0, number), all)
}

/// Replaces a directory by a copy of another.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Ends `cairn WORDS` by SIGKILL when a thread of it wants to make a change to the
/// disk for the `number`th time; it has to succeed if none does.
fn killed_at(cairn: &Cairn, words: &[&str], number: usize) -> ExitStatus {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={CHANGES}")]);
    strace.args(["-e", &format!("inject={CHANGES}:signal=SIGKILL:when={number}")]);
    strace.arg(cairn.program()).args(words);
    let ended = cairn.settle(&mut strace).output().unwrap();
    let is_killed = ended.status.signal() == Some(libc::SIGKILL);
    assert!(is_killed || ended.status.success(), "{words:?}: {ended:?}");
    ended.status
}

/// Ends `cairn WORDS` by SIGKILL at every change that its main thread wants to make
/// to the disk, each time from the same store; returns how often.
///
/// After each: the store opens, the current state and the set of states are those
/// of before or of after, verify finds nothing, and `WORDS` can be said again.
fn killed_everywhere(cairn: &Cairn, words: &[&str]) -> usize {
    let (store, saved) = (cairn.store(), cairn.directory().join("saved"));
    copy(&store, &saved);
    let before = shown(cairn);
    cairn.data(words);
    let after = shown(cairn);
    for number in 1.. {
        copy(&saved, &store);
        let ended = killed_at(cairn, words, number);
        if ended.signal() != Some(libc::SIGKILL) {
            assert_eq!(shown(cairn), after, "{words:?}");
            copy(&saved, &store);
            return number - 1;
        }
        let at = format!("{words:?} killed at change {number}");
        let now = shown(cairn);
        assert!(now == before || now == after, "{at}: {now:?}, not {before:?} or {after:?}");
        let verified = cairn.run(["verify"]);
        assert_eq!(verified.code(), Some(0), "{at}: {}{}", verified.stdout, verified.stderr);
        let again = cairn.run(words);
        // What had been done before the end cannot always be done twice.
        let is_done = now == after && again.code() == Some(1);
        assert!(again.code() == Some(0) || is_done, "{at}, and then: {}", again.stderr);
        let (_, states) = shown(cairn);
        assert!(states.is_superset(&after.1) || states == after.1, "{at}: {states:?}");
    }
    unreachable!("the command makes finitely many changes")
}

#[test]
fn a_writer_that_is_killed_at_any_change_leaves_the_old_or_the_new_state() {
    if !Need::all(&[Need::Program("strace", "strace")]) {
        return;
    }
    let check = |words: &[&str], least: usize| {
        let cairn = prepared();
        cairn.data(["state", "tag", "first", "1"]);
        let points = killed_everywhere(&cairn, words);
        assert!(points >= least, "{words:?}: killed {points} times");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            check(&["--yes", "install", "app"], 20);
            check(&["switch", "1"], 3);
            check(&["state", "tag", "second", "2"], 3);
            check(&["repo", "update"], 3);
        });
        check(&["--yes", "remove", "tool"], 20);
        check(&["state", "untag", "first"], 3);
        check(&["store", "rebuild"], 20);
    });
}

#[test]
fn a_command_that_is_killed_while_it_makes_the_store_can_be_repeated() {
    if !Need::all(&[Need::Program("strace", "strace")]) {
        return;
    }
    let cairn = prepared();
    let stones = format!("file://{}", cairn.directory().join("stones").display());
    let words = ["repo", "add", "small", &stones];
    let number = (1..).find(|number| {
        fs::remove_dir_all(cairn.store()).unwrap();
        let ended = killed_at(&cairn, &words, *number);
        let at = format!("{words:?} killed at change {number}");
        let is_there = cairn.run(["repo", "list"]).stdout.contains("small");
        if !is_there {
            let again = cairn.run(words);
            assert_eq!(again.code(), Some(0), "{at}: {}", again.stderr);
        }
        cairn.data(["--yes", "install", "base"]);
        assert_eq!(cairn.current(), 1, "{at}");
        ended.signal() != Some(libc::SIGKILL)
    });
    assert!(number > Some(10), "killed {number:?} times");
}
