//! The machine misbehaves: its clock jumps, writes are short or interrupted, locks are left
//! behind, several commands run at once.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_store::Store;
use cairn_tests::disk::{Filesystem, own_mounts};
use cairn_tests::{Cairn, Deb, Ended, Listing, Mount, Need, Random, room_comes_back};

/// A store with two states: 1 has the package base, 2 has tool, too. It is offered app.
fn prepared() -> Cairn {
    let cairn = Cairn::new();
    let base = Deb::new("base", "1.0-1").file("usr/bin/base", 0o755, "#!/bin/sh\n");
    let tool = Deb::new("tool", "1.0-1").file("usr/bin/tool", 0o755, Random(2).bytes(9000));
    let mut app = Deb::new("app", "1.0-1").field("Depends", "base");
    for number in 0..30 {
        app = app.file(&format!("usr/share/app/{number}"), 0o644, Random(number + 9).bytes(4000));
    }
    app = app.file("usr/lib/app.so", 0o644, Random(3).bytes(1_200_000));
    cairn.offer([base, tool, app]);
    cairn.data(["--yes", "install", "base"]);
    cairn.data(["--yes", "install", "tool"]);
    let tree = cairn.directory().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..20 {
        fs::write(tree.join(number.to_string()), Random(number + 50).bytes(70_000)).unwrap();
    }
    cairn
}

/// Compiles what has a machine misbehave.
fn shim(cairn: &Cairn) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/shim.c");
    let shim = cairn.directory().join("shim.so");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&shim).arg(source).arg("-ldl");
    assert!(compile.status().unwrap().success());
    shim
}

fn run_with(cairn: &Cairn, shim: &Path, (name, value): (&str, &str), words: &[&str]) -> Ended {
    let mut command = cairn.command(words);
    let ended = Ended::from(command.env("LD_PRELOAD", shim).env(name, value).output().unwrap());
    assert!(!ended.stderr.contains("panicked at"), "{words:?}: {}", ended.stderr);
    ended
}

fn assert_sound(cairn: &Cairn, at: &str) {
    let verified = cairn.data(["verify"]);
    assert!(verified.ends_with(": no damage.\n"), "{at}: {verified}");
}

#[test]
fn writes_that_are_short_or_interrupted_are_gone_on_with() {
    if !Need::all(&[Need::Program("cc", "gcc")]) {
        return;
    }
    for how in ["short", "EINTR"] {
        let cairn = prepared();
        let shim = shim(&cairn);
        let commands: [&[&str]; 12] = [
            &["--yes", "install", "app"],
            &["import", "tree"],
            &["state", "tag", "first", "1"],
            &["switch", "1"],
            &["switch", "3"],
            &["--yes", "remove", "app"],
            &["--yes", "state", "prune", "--keep-last", "1", "--gc"],
            &["gc", "--rewrite-below", "100"],
            &["store", "rebuild"],
            &["repo", "update"],
            &["verify"],
            &["push", "5", "target"],
        ];
        for words in commands {
            let ended = run_with(&cairn, &shim, ("SHIM_WRITES", how), words);
            assert_eq!(ended.code(), Some(0), "{how}: {words:?}: {}", ended.stderr);
            assert_sound(&cairn, &format!("{how}: {words:?}"));
        }
        // Nothing of it shows.
        let plain = prepared();
        for words in commands {
            plain.data(words);
        }
        let trees = |cairn: &Cairn| -> Vec<String> {
            let states = cairn.json(["state", "list"]);
            let states = states.as_array().unwrap().iter();
            states.map(|it| format!("{} {}", it["state"], it["request"])).collect()
        };
        assert_eq!(trees(&cairn), trees(&plain), "{how}");
        assert_eq!(cairn.installed(), plain.installed(), "{how}");
        let listing = |cairn: &Cairn| cairn.data(["ls", "-lR", "current:/"]);
        assert_eq!(listing(&cairn), listing(&plain), "{how}");
    }
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    const DAY: i64 = 86_400;
    if !Need::all(&[Need::Program("cc", "gcc")]) {
        return;
    }
    let cairn = prepared();
    let shim = shim(&cairn);
    let at = |days: i64, words: &[&str]| {
        let offset = (days * DAY).to_string();
        let ended = run_with(&cairn, &shim, ("SHIM_CLOCK", &offset), words);
        assert_eq!(ended.code(), Some(0), "{days} days off: {words:?}: {}", ended.stderr);
        assert_sound(&cairn, &format!("{days} days off: {words:?}"));
        ended.stdout
    };
    // Far ahead, far behind, and before the epoch.
    for (number, days) in [4000, -4000, 20, -100_000, 0].into_iter().enumerate() {
        at(days, &["--yes", "install", "app"]);
        at(days, &["import", "tree"]);
        fs::write(cairn.directory().join("tree/5"), Random(90 + number as u64).bytes(70_000))
            .unwrap();
        at(-days, &["import", "tree"]);
        // What has changed was read, whatever its time is thought to be.
        let newest = cairn.json(["state", "list"]);
        let newest =
            newest.as_array().unwrap().iter().map(|it| it["state"].as_u64().unwrap()).max();
        let extracted = cairn.directory().join(format!("out{number}"));
        let [target, state] = [extracted.to_str().unwrap().to_owned(), newest.unwrap().to_string()];
        cairn.data(["export", &state, &target]);
        let listing = |path: &Path| Listing::of_directory(path);
        listing(&extracted).assert_same(&listing(&cairn.directory().join("tree")), &state);
        at(days, &["--yes", "remove", "app"]);
        at(-days, &["repo", "update"]);
        let current = cairn.current();
        at(days, &["state", "list"]);
        // Neither the current state nor the newest go, whenever they are from.
        at(days, &["--yes", "state", "prune", "--keep-last", "2", "--keep-daily", "2", "--gc"]);
        assert_eq!(cairn.current(), current);
    }
}

/// Which states stay of some that were made so many days ago, the oldest first, in one of
/// which is the current one.
fn kept_of(days: &[i64], rule: &[&str]) -> Vec<u64> {
    const DAY: i64 = 86_400;
    let cairn = Cairn::new();
    fs::create_dir(cairn.directory().join("tree")).unwrap();
    let shim = shim(&cairn);
    for ago in days {
        let offset = (-ago * DAY).to_string();
        let ended = run_with(&cairn, &shim, ("SHIM_CLOCK", &offset), &["import", "tree"]);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
    let words = ["--yes", "state", "prune"];
    let pruned = cairn.json(words.iter().chain(rule));
    let mut kept = Vec::new();
    for state in pruned["kept"].as_array().unwrap() {
        kept.push(state["state"].as_u64().unwrap());
    }
    let states = cairn.json(["state", "list"]);
    assert_eq!(states.as_array().unwrap().len(), kept.len(), "what is told is done");
    kept.sort_unstable();
    kept
}

#[test]
fn of_each_week_and_month_the_newest_state_stays() {
    if !Need::all(&[Need::Program("cc", "gcc")]) {
        return;
    }
    // The first is current. Seven days before is in the week before, 31 in a month before.
    let weeks = [400, 28, 21, 14, 14, 7, 0, 0];
    assert_eq!(kept_of(&weeks, &["--keep-weekly", "3"]), [1, 5, 6, 8]);
    let months = [400, 93, 62, 62, 31, 0, 0];
    assert_eq!(kept_of(&months, &["--keep-monthly", "3"]), [1, 4, 5, 7]);
    assert_eq!(kept_of(&months, &["--keep-monthly", "9"]), [1, 2, 4, 5, 7]);
    assert_eq!(kept_of(&months, &["--keep-weekly", "1", "--keep-monthly", "2"]), [1, 5, 7]);
}

#[test]
fn locks_that_were_left_behind_hold_nobody() {
    let cairn = prepared();
    for name in ["lock", "gc.lock", "pull.lock"] {
        for text in ["", "1 init", "4194303 cairn install app", "\u{0}\u{0}", "x"] {
            fs::write(cairn.store().join("run").join(name), text).unwrap();
            cairn.data(["state", "tag", "some", "1"]);
            cairn.data(["state", "untag", "some"]);
            cairn.data(["gc"]);
        }
    }
    // Of what is in run, nothing is needed.
    fs::remove_dir_all(cairn.store().join("run")).unwrap();
    let again = cairn.run(["--yes", "install", "app"]);
    assert_eq!(again.code(), Some(0), "{}", again.stderr);
    assert_sound(&cairn, "without run");
}

#[test]
fn packages_are_removed_where_no_repository_can_be_reached() {
    let cairn = prepared();
    fs::remove_dir_all(cairn.store().join("cache")).unwrap();
    fs::remove_dir_all(cairn.directory().join("stones")).unwrap();
    let said = cairn.fails(1, ["--yes", "install", "app"]);
    assert!(said.contains("stone.index"), "{said}");
    cairn.data(["--yes", "remove", "tool"]);
    assert_eq!(cairn.installed(), ["base".to_owned()].into());
}

#[test]
fn a_store_is_read_by_a_relative_path_where_its_index_cannot_be_made_anew() {
    let cairn = prepared();
    let expected = cairn.data(["ls", "current:"]);
    fs::remove_dir_all(cairn.store().join("index")).unwrap();
    let lock = fs::File::open(cairn.store().join("run/lock")).unwrap();
    lock.lock().unwrap();
    let store = cairn.store();
    let name = store.file_name().unwrap().to_str().unwrap();
    for (directory, store) in [(store.parent().unwrap(), name), (&store, ".")] {
        let mut ls = Command::new(cairn.program());
        let output = ls.current_dir(directory).args(["--store", store, "ls", "current:"]).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}

#[test]
fn commands_of_all_kinds_at_once_are_done_or_told_of_each_other() {
    const EACH: usize = 10;
    let cairn = prepared();
    cairn.data(["--yes", "install", "app"]);
    let packages = (0..EACH).map(|number| {
        let name = format!("p{number}");
        Deb::new(&name, "1-1").file(&format!("usr/share/{name}"), 0o644, Random(7).bytes(3000))
    });
    cairn.offer(packages);
    let refused = AtomicUsize::new(0);
    let words = |kind: usize, number: usize| -> Vec<String> {
        let words: &[&str] = match kind {
            0 => &["--yes", "install", "pN"],
            1 => &["import", "tree", "--no-cache"],
            2 => &["gc", "--rewrite-below", "100"],
            3 => &["state", "tag", "tagN", "current"],
            4 if number % 3 == 2 => &["store", "rebuild"],
            _ => &["--yes", "state", "prune", "--keep-last", "3"],
        };
        words.iter().map(|word| word.replace('N', &number.to_string())).collect()
    };
    thread::scope(|scope| {
        for kind in 0..5 {
            let (cairn, refused, words) = (&cairn, &refused, &words);
            scope.spawn(move || {
                for number in 0..EACH {
                    let deadline = Instant::now() + Duration::from_secs(120);
                    loop {
                        let words = words(kind, number);
                        let ended = cairn.run(&words);
                        if ended.code() == Some(0) {
                            break;
                        }
                        let said = &ended.stderr;
                        let is_told = said.contains("is being changed by process")
                            || said.contains("run the command again");
                        assert!(ended.code() == Some(1) && is_told, "{words:?}: {said}");
                        assert!(Instant::now() < deadline, "{words:?}: never: {said}");
                        refused.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
    });
    let installed = cairn.installed();
    for name in (0..EACH).map(|number| format!("p{number}")) {
        assert!(installed.contains(&name), "{name} got lost: {installed:?}");
    }
    let listed = cairn.json(["state", "list"]).to_string();
    for number in 0..EACH {
        assert!(listed.contains(&format!("\"tag{number}\"")), "tag{number} got lost: {listed}");
    }
    assert!(refused.load(Ordering::Relaxed) > 0, "they were never in each other's way");
    assert_sound(&cairn, "at the end");
}

/// What changes a store that is made ready by [`for_changes`].
const CHANGES: [&[&str]; 11] = [
    &["--yes", "install", "app"],
    &["--yes", "remove", "tool"],
    &["import", "tree"],
    &["state", "tag", "first", "1"],
    &["switch", "1"],
    &["--yes", "state", "prune", "--keep-last", "1", "--gc"],
    &["store", "rebuild"],
    &["repo", "update"],
    &["snapshot", "work"],
    &["store", "compact"],
    &["pull", "other"],
];

/// Of these, what takes more room than there may be.
fn needs_much(words: &[&str]) -> bool {
    ["app", "import", "pull", "compact"].iter().any(|word| words.contains(word))
}

/// A store with something to do for each of the changes, and another one to pull from.
fn for_changes() -> Cairn {
    let cairn = prepared();
    let [old, other] = ["old", "other"].map(|name| cairn.directory().join(name));
    fs::create_dir(&old).unwrap();
    // Versions of a file, which only denser packs have as one.
    for number in 0..12 {
        let version = [&[number; 8][..], &Random(48).bytes(90_000)].concat();
        fs::write(old.join(number.to_string()), version).unwrap();
    }
    cairn.data(["import", "old"]);
    let whole = Command::new("cp").arg("-a").arg(cairn.store()).arg(&other).status();
    assert!(whole.unwrap().success());
    cairn.data(["--store", "other", "--yes", "install", "app"]);
    cairn.data(["switch", "1"]);
    cairn.data(["switch", "2"]);
    let mount = Mount::new(&cairn, &["--rw", "work"], "work");
    fs::write(mount.join("srv/written"), Random(8).bytes(5000)).unwrap();
    mount.umount();
    cairn
}

/// Stores on small filesystems, each with some room left and no more.
fn with_room(rooms: &[u64]) {
    let cairn = for_changes();
    own_mounts().unwrap();
    let [whole, image, target] =
        ["whole", "image", "small"].map(|name| cairn.directory().join(name));
    let filesystem = Filesystem::Ext4Small;
    filesystem.make_in(&whole);
    let mounted = filesystem.mount(&whole, &target).unwrap();
    let copied = Command::new("cp").arg("-a").arg(cairn.store()).arg(&target).status();
    assert!(copied.unwrap().success());
    drop(mounted);
    let store = target.join("store");
    let run = |words: &[&str]| cairn.run([&["--store", store.to_str().unwrap()], words].concat());
    // Without what a state is dated with.
    let shown = || {
        let refs = Store::open(&store).unwrap().refs();
        let states = refs.states.values().map(|it| (it.id, it.request.clone(), it.tree));
        (refs.current, states.collect::<Vec<_>>(), refs.tags)
    };
    for words in CHANGES {
        let mut told = 0;
        for room in rooms {
            let at = format!("{words:?} with {room} bytes");
            fs::copy(&whole, &image).unwrap();
            let mounted = filesystem.mount(&image, &target).unwrap();
            let before = shown();
            fill(&target, *room);
            let ended = run(words);
            let verified = run(&["verify"]);
            assert_eq!(verified.code(), Some(0), "{at}: {}{}", verified.stdout, verified.stderr);
            match ended.code() {
                Some(0) => {}
                Some(1) => {
                    told += 1;
                    // Updating tells of each repository what has become of it.
                    let said = format!("{}{}", ended.stdout, ended.stderr);
                    let says_all = said.contains("No space left on device")
                        && said.contains(store.to_str().unwrap());
                    assert!(says_all, "{at}: {said}");
                    assert_eq!(shown(), before, "{at}");
                }
                code => panic!("{at}: {code:?} {}", ended.stderr),
            }
            fs::remove_file(target.join("filler")).unwrap();
            let again = run(words);
            // What is done cannot always be done twice.
            let is_right = again.code() == Some(0) || ended.code() == Some(0);
            assert!(is_right, "{at}, and then: {}", again.stderr);
            assert_eq!(run(&["verify"]).code(), Some(0), "{at}, and then");
            room_comes_back(&store).unwrap_or_else(|left| panic!("{at}: {left}"));
            drop(mounted);
        }
        println!("{words:?}: {told} of {} had no room", rooms.len());
        // What needs little is done where there is little.
        assert!(needs_much(words) || told < rooms.len(), "{words:?}: {told} of {rooms:?}");
    }
}

/// Leaves so many bytes free.
fn fill(filesystem: &Path, room: u64) {
    let mut filler = fs::File::create(filesystem.join("filler")).unwrap();
    let mut written = 0_u64;
    for len in [1 << 16, 1 << 10, 1] {
        while std::io::Write::write_all(&mut filler, &vec![1; len]).is_ok() {
            written += len as u64;
        }
    }
    filler.set_len(written.saturating_sub(room)).unwrap();
    filler.sync_all().unwrap();
}

#[test]
fn a_disk_without_room_is_told_and_nothing_changes() {
    if Need::all(&[Need::Root, Need::Fuse, Need::Loop, Filesystem::Ext4Small.need()]) {
        with_room(&[0, 30_000, 1_300_000]);
    }
}

#[test]
#[ignore = "takes minutes: make crash"]
fn a_disk_with_any_little_room_is_told_and_nothing_changes() {
    assert!(Need::all(&[Need::Root, Need::Fuse, Need::Loop, Filesystem::Ext4Small.need()]));
    let rooms: Vec<u64> = (0..20).map(|step| step * step * 4096).collect();
    with_room(&rooms);
}

#[test]
fn a_disk_that_cannot_be_written_is_told_by_every_change() {
    if !Need::all(&[Need::Root, Need::Fuse, Need::Loop, Filesystem::Ext4Small.need()]) {
        return;
    }
    let cairn = for_changes();
    own_mounts().unwrap();
    let [image, target] = ["image", "small"].map(|name| cairn.directory().join(name));
    Filesystem::Ext4Small.make_in(&image);
    let mounted = Filesystem::Ext4Small.mount(&image, &target).unwrap();
    let copied = Command::new("cp").arg("-a").arg(cairn.store()).arg(&target).status();
    assert!(copied.unwrap().success());
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&target).status();
    assert!(remounted.unwrap().success());
    let store = target.join("store");
    let run = |words: &[&str]| cairn.run([&["--store", store.to_str().unwrap()], words].concat());
    for words in CHANGES {
        let ended = run(words);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        let says_all =
            said.contains("Read-only file system") && said.contains(store.to_str().unwrap());
        assert!(ended.code() == Some(1) && says_all, "{words:?}: {said}");
        assert_eq!(run(&["verify"]).code(), Some(0), "{words:?}");
    }
    drop(mounted);
}
