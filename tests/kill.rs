//! Processes end at any moment, and two want to write at once: the store opens,
//! everything in it is sound, and the old or the new state is current.
//!
//! `ENDURE_ROUNDS` is how often processes of mounts are killed or stopped, and `ENDURE_COMMANDS`
//! how often each command that changes the store; without them that is a few times.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_tests::{
    Cairn, Deb, Mount, Need, Random, StopOnDrop, amount, base_tool_and_app, drop_names, drop_pages,
    eventually, real, room_comes_back, signal,
};
use serde_json::Value;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Random(seed).bytes(len)
}

/// A store with two states: 1 has the package base, 2 has tool, too. It is offered
/// app, which needs base and has a file that fills a pack of its own.
fn prepared() -> Cairn {
    let cairn = Cairn::new();
    cairn.offer(base_tool_and_app());
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

#[test]
fn a_mount_whose_process_is_killed_at_any_moment_goes_on_as_if_nothing_had_happened() {
    let rounds = amount("ENDURE_ROUNDS", 12);
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = prepared();
    let [base, tool] = ["usr/bin/base", "usr/bin/tool"];
    let mut random = Random(0x1234_5678_9abc_def1);
    let root = Mount::new(&cairn, &["--follow"], "root");
    let stop = AtomicBool::new(false);
    let [reads, switches] = [const { AtomicUsize::new(0) }; 2];
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        // One reads what every state has, and what only one has.
        scope.spawn(|| {
            let _stop = StopOnDrop(&stop);
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(fs::read(root.join(base)).unwrap(), b"#!/bin/sh\n");
                match fs::read(root.join(tool)) {
                    Ok(bytes) => assert_eq!(bytes, noise(2, 9000)),
                    Err(err) => assert_eq!(err.kind(), std::io::ErrorKind::NotFound, "{err}"),
                }
                fs::read_dir(root.path()).unwrap().for_each(|entry| drop(entry.unwrap()));
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let _stop = StopOnDrop(&stop);
            while !stop.load(Ordering::Relaxed) {
                let state = 1 + count(&switches) % 2;
                cairn.data(["switch", &state.to_string()]);
                assert_eq!(root.join(tool).exists(), state == 2, "state {state} is shown");
                switches.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..rounds {
            let (reads_then, switches_then) = (count(&reads), count(&switches));
            eventually("the mount is used", || {
                let is_over = stop.load(Ordering::Relaxed);
                let is_used = count(&reads) > reads_then + 1 && count(&switches) > switches_then;
                assert!(!is_over, "round {round}: another thread has failed");
                is_used
            });
            // Anywhere between two switches.
            thread::sleep(Duration::from_micros(random.below(20_000) as u64));
            let process = root.process();
            signal(process, libc::SIGKILL).unwrap();
            eventually("another process answers", || root.process() != process);
        }
    });
    let verified = cairn.data(["verify"]);
    assert!(verified.ends_with(": no damage.\n"), "{verified}");
    let log = fs::read_to_string(cairn.store().join("run/mount.log")).unwrap();
    let lines =
        log.lines().filter(|line| line.ends_with("was ended by signal 9; another has taken over"));
    assert_eq!(lines.count(), rounds, "{log}");
    root.umount();
    assert_eq!(cairn.data(["mount"]), "Nothing is mounted.\n");
}

#[test]
fn a_workspace_whose_process_is_killed_at_any_moment_goes_on_as_if_nothing_had_happened() {
    let rounds = amount("ENDURE_ROUNDS", 12);
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = prepared();
    let mut random = Random(0x0bad_cafe_1234_5677);
    let work = Mount::new(&cairn, &["--rw", "work"], "work");
    let below = fs::File::open(work.join("usr/bin/base")).unwrap();
    let stop = AtomicBool::new(false);
    let [reads, writes] = [const { AtomicUsize::new(0) }; 2];
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let written = thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            let _stop = StopOnDrop(&stop);
            while !stop.load(Ordering::Relaxed) {
                drop_pages(&below).unwrap();
                assert_eq!(fs::read(work.join("usr/bin/base")).unwrap(), b"#!/bin/sh\n");
                // A name that nobody has asked for yet.
                assert!(!work.join(&format!("usr/bin/none{}", count(&reads))).exists());
                let names = fs::read_dir(work.join("usr/bin")).unwrap();
                assert_eq!(names.filter(|it| it.as_ref().unwrap().path().is_file()).count(), 2);
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let writer = scope.spawn(|| {
            let _stop = StopOnDrop(&stop);
            let (mut random, mut written) = (Random(7), BTreeMap::new());
            while !stop.load(Ordering::Relaxed) {
                let number = random.below(20);
                let path = work.join(&format!("own/{number}/file"));
                match random.below(4) {
                    0 if written.remove(&number).is_some() => {
                        fs::remove_dir_all(path.parent().unwrap()).unwrap();
                    }
                    1 => {
                        // It is copied into the layer first.
                        let tool = work.join("usr/bin/tool");
                        let mode = fs::metadata(&tool).unwrap().permissions();
                        fs::set_permissions(&tool, mode).unwrap();
                        assert_eq!(fs::read(&tool).unwrap(), noise(2, 9000));
                    }
                    _ => {
                        let bytes = random.bytes(5000);
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        fs::write(&path, &bytes).unwrap();
                        written.insert(number, bytes);
                    }
                }
                writes.fetch_add(1, Ordering::Relaxed);
            }
            written
        });
        for round in 0..rounds {
            let (reads_then, writes_then) = (count(&reads), count(&writes));
            eventually("the workspace is used", || {
                assert!(!stop.load(Ordering::Relaxed), "round {round}: a thread has failed");
                count(&reads) > reads_then + 1 && count(&writes) > writes_then
            });
            thread::sleep(Duration::from_micros(random.below(20_000) as u64));
            let process = work.process();
            if round % 4 == 3 {
                cairn.data(["mount", "--restart", work.path().to_str().unwrap()]);
            } else {
                signal(process, libc::SIGKILL).unwrap();
            }
            eventually("another process answers", || work.process() != process);
            // Nobody else has got it meanwhile.
            let refused = cairn.run(["--yes", "workspace", "discard", "work"]);
            let process = work.process().to_string();
            assert!(refused.code() == Some(1) && refused.stderr.contains(&process), "{refused:?}");
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let mut bytes = [0; 10];
    below.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"#!/bin/sh\n");
    let check = |mount: &Mount| {
        let own = fs::read_dir(mount.join("own")).into_iter().flatten();
        assert_eq!(own.count(), written.len());
        for (number, bytes) in &written {
            let path = mount.join(&format!("own/{number}/file"));
            assert!(fs::read(&path).unwrap() == *bytes, "{}", path.display());
        }
    };
    check(&work);
    drop(below);
    work.umount();
    assert_eq!(cairn.data(["mount"]), "Nothing is mounted.\n");
    let again = Mount::new(&cairn, &["--rw", "work"], "work");
    check(&again);
    again.umount();
    cairn.data(["snapshot", "work"]);
    let verified = cairn.data(["verify"]);
    assert!(verified.ends_with(": no damage.\n"), "{verified}");
}

#[test]
fn a_mount_that_dies_with_its_keeper_harms_nobody_and_can_be_made_again() {
    let rounds = amount("ENDURE_ROUNDS", 6);
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = prepared();
    let tool = "usr/bin/tool";
    let mut times = Vec::new();
    for round in 0..rounds {
        let root = Mount::new(&cairn, &["--follow"], "root");
        assert_eq!(fs::read(root.join(tool)).unwrap(), noise(2, 9000));
        let open = fs::File::open(root.join(tool)).unwrap();
        let process = root.process();
        signal(parent_of(process), libc::SIGKILL).unwrap();
        // Without its keeper it goes on, and dies alone.
        cairn.data(["switch", if round % 2 == 0 { "1" } else { "2" }]);
        cairn.data(["switch", "2"]);
        let begun = Instant::now();
        signal(process, libc::SIGKILL).unwrap();
        let at = format!("round {round}");
        eventually("the mount is dead", || cairn.data(["mount"]) == "Nothing is mounted.\n");
        let error = fs::read(root.join("usr/bin/other")).unwrap_err();
        let is_dead = matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED));
        assert!(is_dead, "{at}: {error}");
        // Though somebody still has a file of the dead one open.
        let again = Mount::new(&cairn, &["--follow"], "root");
        assert_eq!(fs::read(again.join(tool)).unwrap(), noise(2, 9000), "{at}");
        times.push(begun.elapsed());
        let verified = cairn.data(["verify"]);
        assert!(verified.ends_with(": no damage.\n"), "{at}: {verified}");
        drop(open);
        again.umount();
    }
    times.sort();
    let (middle, worst) = (times[rounds / 2], times[rounds - 1]);
    println!("{rounds} mounts died with their keepers; back after {middle:?}, at worst {worst:?}");
    assert!(worst < Duration::from_secs(2), "{times:?}");
}

/// How many threads of this process wait in the kernel for an answer of a mount, or for a page
/// that somebody else has asked it for.
fn waiting() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let places = tasks.map(|task| fs::read_to_string(task.path().join("wchan")));
    let waits =
        |place: &String| ["request_wait_answer", "folio_wait"].iter().any(|it| place.contains(it));
    places.flatten().filter(waits).count()
}

/// A process that is stopped until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(process: u32) -> Self {
        signal(process, libc::SIGSTOP).unwrap();
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = signal(self.0, libc::SIGCONT);
    }
}

#[test]
fn a_mount_whose_process_is_stopped_keeps_its_users_waiting_and_fails_none() {
    const READERS: usize = 4;
    let rounds = amount("ENDURE_ROUNDS", 12);
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = prepared();
    let root = Mount::new(&cairn, &["--follow"], "root");
    let warm = fs::File::open(root.join("usr/bin/base")).unwrap();
    let read_warm = || {
        let mut bytes = [0; 10];
        warm.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"#!/bin/sh\n");
    };
    read_warm();
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let count = || reads.load(Ordering::Relaxed);
    let (mut killed, mut most_waiting) = (0, 0);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for _ in 0..READERS {
            scope.spawn(|| {
                let _stop = StopOnDrop(&stop);
                while !stop.load(Ordering::Relaxed) {
                    drop_names(root.path()).unwrap();
                    assert_eq!(fs::read(root.join("usr/bin/tool")).unwrap(), noise(2, 9000));
                    assert!(!root.join("usr/bin/none").exists());
                    assert_eq!(fs::read_dir(root.join("usr/bin")).unwrap().count(), 2);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..rounds {
            let stopped = Stopped::new(root.process());
            eventually("somebody waits", || {
                assert!(!stop.load(Ordering::Relaxed), "round {round}: a reader has failed");
                waiting() > 0
            });
            most_waiting = most_waiting.max(waiting());
            // What the kernel has is read without the process.
            read_warm();
            // One that is stopped can be killed, and another takes over.
            if round % 4 == 3 {
                signal(stopped.0, libc::SIGKILL).unwrap();
                killed += 1;
            }
            drop(stopped);
            let before = count();
            eventually("all go on", || {
                assert!(!stop.load(Ordering::Relaxed), "round {round}: a reader has failed");
                count() > before + READERS
            });
        }
    });
    println!(
        "{rounds} times stopped, {killed} times killed then; up to {most_waiting} of {READERS} \
         readers waited, {} reads",
        count()
    );
    drop(warm);
    root.umount();
}

fn parent_of(process: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn of_two_writers_each_succeeds_or_is_told_of_the_other() {
    const EACH: usize = 8;
    let cairn = prepared();
    let names = |writer: char| (0..EACH).map(move |number| format!("{writer}{number}"));
    let packages = ['a', 'b'].into_iter().flat_map(names);
    cairn.offer(packages.map(|name| {
        Deb::new(&name, "1-1").file(&format!("usr/share/{name}"), 0o644, noise(7, 3000))
    }));
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for writer in ['a', 'b'] {
            let (cairn, refused) = (&cairn, &refused);
            scope.spawn(move || {
                for name in names(writer) {
                    eventually("a writer that tries again succeeds", || {
                        let ended = cairn.run(["--json", "--yes", "install", &name]);
                        if ended.code() == Some(0) {
                            return true;
                        }
                        // The other process is named, or its state.
                        let said = &ended.stderr;
                        let is_told = said.contains("is being changed by process")
                            || said.contains("run the command again");
                        assert!(ended.code() == Some(1) && is_told, "{name}: {said}");
                        refused.fetch_add(1, Ordering::Relaxed);
                        false
                    });
                }
            });
        }
    });
    let states = cairn.json(["state", "list"]);
    let requests: Vec<&str> =
        states.as_array().unwrap().iter().map(|it| it["request"].as_str().unwrap()).collect();
    assert_eq!(requests.len(), 2 + 2 * EACH, "{requests:?}");
    let installed = cairn.installed();
    for name in ['a', 'b'].into_iter().flat_map(names) {
        let request = format!("install {name}");
        assert_eq!(requests.iter().filter(|it| **it == request).count(), 1, "{name}");
        assert!(installed.contains(&name), "{name} got lost: {installed:?}");
    }
    // Each state was made from the one before it.
    for state in states.as_array().unwrap() {
        let number = state["state"].as_u64().unwrap();
        assert_eq!(state["parent"].as_u64().unwrap_or(0), number - 1);
    }
    assert!(refused.load(Ordering::Relaxed) > 0, "they were never in each other's way");
    let verified = cairn.data(["verify"]);
    assert!(verified.ends_with(": no damage.\n"), "{verified}");
}

#[test]
fn a_large_transaction_that_is_killed_at_a_random_moment_is_all_or_nothing() {
    const ROUNDS: usize = 10;
    let Some(repository) = real::repository() else { return };
    let cairn = Cairn::new();
    cairn.data(["repo", "add", "real", &format!("file://{}", repository.display())]);
    cairn.data(["--yes", "install", "bash"]);
    let words = ["--yes", "install", "git", "python3", "vim-tiny"];
    let (store, saved) = (cairn.store(), cairn.directory().join("saved"));
    copy(&store, &saved);
    let before = shown(&cairn);
    let begun = Instant::now();
    cairn.data(words);
    let whole = begun.elapsed();
    let after = shown(&cairn);
    let tree = |cairn: &Cairn| cairn.json(["state", "show"])["tree"].clone();
    let expected = tree(&cairn);

    let mut random = Random(0xfeed_beef_0000_0003);
    let mut killed = 0;
    for round in 0..ROUNDS {
        copy(&saved, &store);
        let mut child = cairn.command(words).stderr(std::process::Stdio::null()).spawn().unwrap();
        thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
        let _ = child.kill();
        let is_killed = child.wait().unwrap().signal() == Some(libc::SIGKILL);
        killed += usize::from(is_killed);
        let now = shown(&cairn);
        assert!(now == before && is_killed || now == after, "round {round}: {now:?}");
        let verified = cairn.data(["verify"]);
        assert!(verified.ends_with(": no damage.\n"), "round {round}: {verified}");
        cairn.data(words);
        assert_eq!(tree(&cairn), expected, "round {round}");
    }
    assert!(killed > 0, "all {ROUNDS} were done before they could be killed");
}

/// What is done before a command, and the command; on a store of [`for_commands`].
const COMMANDS: [(&[&[&str]], &[&str]); 6] = [
    (&[], &["import", "tree"]),
    (&[], &["pull", "other"]),
    (&[], &["snapshot", "work"]),
    (&[&["import", "tree"]], &["store", "compact"]),
    (
        &[&["--yes", "remove", "tool"], &["--yes", "state", "remove", "1", "2", "3"]],
        &["gc", "--rewrite-below", "100"],
    ),
    (&[&["import", "tree"]], &["--yes", "state", "prune", "--keep-last", "1", "--gc"]),
];

/// A store with three states and a workspace in which something was written, and beside it
/// a tree to import and a store to pull from.
fn for_commands() -> Cairn {
    let cairn = prepared();
    cairn.data(["--yes", "install", "app"]);
    let tree = cairn.directory().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..300 {
        fs::write(tree.join(number.to_string()), noise(number + 50, 9000)).unwrap();
    }
    for number in 0..30 {
        // Versions of a file, which only denser packs have as one.
        let version = [&[number; 8][..], &noise(48, 90_000)].concat();
        fs::write(tree.join(format!("version {number}")), version).unwrap();
    }
    cairn.data(["--store", "other", "import", "tree"]);
    let mount = Mount::new(&cairn, &["--rw", "work"], "work");
    for number in 0..300 {
        fs::write(mount.join(&format!("srv/{number}")), noise(number + 500, 9000)).unwrap();
    }
    mount.umount();
    cairn
}

/// The current state, and the tree of each.
fn trees(cairn: &Cairn) -> (u64, BTreeMap<u64, String>) {
    let states = cairn.json(["state", "list"]);
    let states = states.as_array().unwrap().iter();
    let trees = states.map(|it| (it["state"].as_u64().unwrap(), it["tree"].to_string()));
    (shown(cairn).0, trees.collect())
}

#[test]
fn a_command_that_is_killed_at_a_random_moment_has_done_all_or_nothing() {
    let rounds = amount("ENDURE_COMMANDS", 1);
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = for_commands();
    let [whole, saved] = ["whole", "saved"].map(|name| cairn.directory().join(name));
    copy(&cairn.store(), &whole);
    let mut random = Random(0xfeed_beef_0000_0005);
    let mut killed = 0;
    for (before, words) in COMMANDS {
        copy(&whole, &cairn.store());
        for words in before {
            cairn.data(*words);
        }
        copy(&cairn.store(), &saved);
        let before = trees(&cairn);
        let begun = Instant::now();
        cairn.data(words);
        let time = begun.elapsed();
        let after = trees(&cairn);
        let (mut here, mut done) = (0, 0);
        for round in 0..rounds {
            let at = format!("{words:?}, round {round}");
            copy(&saved, &cairn.store());
            let mut child = cairn.command(words);
            let [output, errors] = [(); 2].map(|()| std::process::Stdio::null());
            let mut child = child.stdout(output).stderr(errors).spawn().unwrap();
            thread::sleep(time.mul_f64(random.below(1000) as f64 / 1000.0));
            let _ = child.kill();
            let is_killed = child.wait().unwrap().signal() == Some(libc::SIGKILL);
            let now = trees(&cairn);
            assert!(now == before && is_killed || now == after, "{at}: {now:?}");
            here += usize::from(is_killed);
            done += usize::from(now == after);
            let verified = cairn.data(["verify"]);
            assert!(verified.ends_with(": no damage.\n"), "{at}: {verified}");
            if now == before {
                cairn.data(words);
                assert_eq!(trees(&cairn), after, "{at}, said again");
            }
            if words[0] == "snapshot" {
                // Whether the workspace was told or not, it has nothing else.
                cairn.data(words);
                let trees = trees(&cairn).1;
                assert!(trees.values().all(|tree| after.1.values().any(|it| it == tree)), "{at}");
            }
            room_comes_back(&cairn.store()).unwrap_or_else(|left| panic!("{at}: {left}"));
            assert_eq!(shown(&cairn).0, after.0, "{at}, collected");
        }
        println!("{words:?}: {rounds} rounds, {here} killed, {done} had been done");
        killed += here;
    }
    assert!(killed > 0, "all were done before they could be killed");
}
