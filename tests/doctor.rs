//! What is wrong is found, and what helps is said.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cairn_tests::{Cairn, Mount, Need, Stones, signal};
use serde_json::Value;

fn system() -> Cairn {
    let cairn = Cairn::new();
    let stones = Stones::new(&cairn.directory().join("stones"));
    stones.add("one", 1, 1000);
    stones.index(None);
    cairn.data(["repo", "add", "main", &format!("file://{}", stones.path().display())]);
    cairn.data(["--yes", "install", "one"]);
    cairn
}

/// What `cairn doctor` says of `text`; it fails exactly if there are problems.
fn findings(cairn: &Cairn, args: &[&str], text: &str) -> Vec<Value> {
    let ended = cairn.run([&["--json", "doctor"], args].concat());
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let problems = report["problems"].as_u64().unwrap();
    assert_eq!(ended.code(), Some(i32::from(problems > 0)), "{report}");
    let all = report["findings"].as_array().unwrap().clone();
    let has = |it: &Value| it["text"].as_str().is_some_and(|words| words.contains(text));
    all.into_iter().filter(has).collect()
}

fn level(findings: &[Value]) -> &str {
    let [finding] = findings else { panic!("{findings:?}") };
    if finding["level"] == "problem" {
        assert!(finding["help"].as_str().is_some_and(|help| !help.is_empty()), "{finding}");
    }
    finding["level"].as_str().unwrap()
}

/// Ends a process, whatever becomes of the test.
struct Killed(u32);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = signal(self.0, libc::SIGKILL);
    }
}

#[test]
fn a_store_is_looked_at_from_the_outside_and_the_inside() {
    let cairn = Cairn::new();
    assert_eq!(level(&findings(&cairn, &[], "there is no store yet")), "note");
    let cairn = system();
    let store = cairn.store().display().to_string();
    assert_eq!(level(&findings(&cairn, &[], "1 state")), "good");
    fs::remove_dir_all(cairn.store().join("packs")).unwrap();
    fs::create_dir(cairn.store().join("packs")).unwrap();
    let found = findings(&cairn, &[], "state 1: ");
    assert_eq!(level(&found), "problem");
    fs::write(cairn.store().join("format"), "cairn-store 999\n").unwrap();
    let found = findings(&cairn, &[], &store);
    assert_eq!(level(&found), "problem");
}

#[test]
fn who_writes_is_named() {
    let cairn = system();
    assert_eq!(findings(&cairn, &[], "changes the store").len(), 0);
    let store = cairn_store::Store::open(&cairn.store()).unwrap();
    let _transaction = store.begin().unwrap();
    let found = findings(&cairn, &[], "changes the store");
    assert!(found[0]["text"].to_string().contains(&std::process::id().to_string()));
    assert_eq!(level(&found), "note");
}

#[test]
fn a_mount_that_does_not_answer_is_found_without_waiting_for_it_and_taken_away() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = system();
    let mount = Mount::new(&cairn, &["--follow"], "root");
    let target = mount.path().display().to_string();
    assert_eq!(level(&findings(&cairn, &[], &target)), "good");
    let process = Killed(mount.process());
    signal(process.0, libc::SIGSTOP).unwrap();
    let found = findings(&cairn, &[], &target);
    assert_eq!(level(&found), "problem");
    assert!(found[0]["text"].as_str().unwrap().ends_with("does not answer"), "{found:?}");

    // Nobody is there to be asked, and nothing is done.
    cairn.fails(1, ["doctor", "--mend", &target]);
    assert!(is_mounted(&target));
    let found = findings(&cairn, &["--mend", "root", "--yes"], &target);
    assert_eq!(level(&found), "good");
    assert!(!is_mounted(&target));
    assert_eq!(findings(&cairn, &[], &target).len(), 0);
    // Its process learns of it as soon as it can.
    signal(process.0, libc::SIGCONT).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while is_running(process.0) {
        assert!(Instant::now() < deadline, "process {} goes on", process.0);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_mount_leaves_that_died_with_its_keeper_is_found_and_taken_away() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = system();
    let mount = Mount::new(&cairn, &["--follow"], "root");
    let target = mount.path().display().to_string();
    let process = mount.process();
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let keeper = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    // Somebody still has something open there.
    let open = fs::File::open(mount.path()).unwrap();
    for process in [keeper, process] {
        signal(process, libc::SIGKILL).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while is_running(process) || is_running(keeper) {
        assert!(Instant::now() < deadline, "they go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(is_mounted(&target));
    let found = findings(&cairn, &[], &target);
    assert_eq!(level(&found), "problem");
    assert!(found[0]["text"].as_str().unwrap().ends_with("has lost its process"), "{found:?}");
    let found = findings(&cairn, &["--mend", "root", "--yes"], &target);
    assert_eq!(level(&found), "good");
    assert!(!is_mounted(&target));
    assert_eq!(findings(&cairn, &[], &target).len(), 0);
    drop(open);
    let again = Mount::new(&cairn, &["--follow"], "root");
    assert_eq!(level(&findings(&cairn, &[], &target)), "good");
    again.umount();
}

fn is_mounted(target: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(target))
}

fn is_running(process: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}
