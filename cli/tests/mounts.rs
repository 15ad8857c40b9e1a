//! Real mounts, made, followed and ended by the commands.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use support::{World, can_mount, text, write_deb};

/// State 1 has /usr/bin/one, state 2 /usr/bin/two as well.
fn world() -> World {
    let world = World::new();
    let debs = world.path().join("debs");
    write_deb(&debs, "one", "", &[("./usr/bin/one", "#!/bin/sh\necho one\n")]);
    write_deb(&debs, "two", "", &[("./usr/bin/two", "#!/bin/sh\necho two\n")]);
    world.data(&["convert", "debs", "-o", "stones"]);
    world.data(&["repo", "index", "stones"]);
    world.data(&["repo", "add", "main", "stones"]);
    world.data(&["install", "-y", "one"]);
    world.data(&["install", "-y", "two"]);
    world
}

#[test]
fn a_live_root_shows_each_change_before_the_command_returns() {
    if !can_mount() {
        return;
    }
    let world = world();
    let root = world.mount("root", &["--follow"]);
    let pinned = world.mount("pinned", &["--state", "2"]);
    let names = || {
        let names = fs::read_dir(root.path.join("bin")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["one", "two"]);
    let mut open = File::open(root.path.join("usr/bin/two")).unwrap();
    for (command, expected) in [
        (&["rollback"][..], &["one"][..]),
        (&["switch", "2"], &["one", "two"]),
        (&["remove", "-y", "one"], &["two"]),
        (&["remove", "-y", "two"], &[]),
        (&["install", "-y", "one", "two"], &["one", "two"]),
        (&["switch", "1"], &["one"]),
    ] {
        let done = world.json(command);
        assert_eq!(done["mounts"][0]["target"], root.path.to_str().unwrap(), "{command:?}");
        assert_eq!(names(), expected, "after {command:?}");
        let two = fs::read(root.path.join("usr/bin/two"));
        assert_eq!(two.is_ok(), expected.contains(&"two"), "after {command:?}");
    }
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "#!/bin/sh\necho two\n", "an open file keeps its content");
    assert_eq!(fs::read_dir(pinned.path.join("usr/bin")).unwrap().count(), 2);
}

#[test]
fn all_states_and_tags_are_directories() {
    if !can_mount() {
        return;
    }
    let world = world();
    let states = world.mount("states", &[]);
    let content = |path: &str| fs::read_to_string(states.path.join(path)).ok();
    assert!(content("current/usr/bin/two").is_some());
    assert!(content("states/1/usr/bin/two").is_none());
    assert!(content("states/1/usr/bin/one").is_some());
    world.data(&["state", "tag", "first", "1"]);
    assert!(content("tags/first/usr/bin/one").is_some());
    world.data(&["state", "untag", "first"]);
    assert!(!states.path.join("tags/first").exists());
    world.data(&["-y", "state", "remove", "1"]);
    assert!(!states.path.join("states/1").exists());

    let shown = world.data(&["mount"]);
    assert!(shown.starts_with(&format!("{}  all states  process ", states.path.display())));
    assert_eq!(world.data(&["umount", "states"]), "states is unmounted.\n");
    assert_eq!(world.data(&["mount"]), "Nothing is mounted.\n");
}

#[test]
fn what_cannot_be_mounted_is_told_before_the_command_returns() {
    if !can_mount() {
        return;
    }
    let world = world();
    let complaint = world.failure(1, &["mount", "nothing"]);
    assert!(complaint.ends_with("help: make the directory first: mkdir DIR\n"), "{complaint}");
    world.failure(1, &["mount", "--state", "9", "debs"]);
    let mounted = world.mount("root", &["--follow"]);
    let complaint = world.failure(1, &["mount", "root"]);
    assert!(complaint.contains("a mount of Cairn is there already"), "{complaint}");
    let _open = File::open(mounted.path.join("usr/bin/one")).unwrap();
    let complaint = world.failure(1, &["umount", "root"]);
    assert!(complaint.contains("\nhelp: --lazy unmounts it for good"), "{complaint}");
    world.failure(1, &["umount", "debs"]);
}

#[test]
fn a_mount_in_the_foreground_ends_in_good_order_with_a_signal() {
    if !can_mount() {
        return;
    }
    let world = world();
    fs::create_dir(world.path().join("root")).unwrap();
    let mut command = world.command(&["mount", "--foreground", "--follow", "root"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(text(&ready), "root");
    assert!(world.path().join("root/usr/bin/one").exists());
    let id = child.id().to_string();
    // By the shell, since not every machine has a kill(1) of its own.
    let kill = ["-c", "kill -TERM \"$0\"", &id];
    let killed = std::process::Command::new("sh").args(kill).status().unwrap();
    assert!(killed.success());
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < deadline, "it goes on after SIGTERM"),
        }
        std::thread::yield_now();
    };
    assert!(status.success(), "{status}");
    assert_eq!(fs::read_dir(world.path().join("root")).unwrap().count(), 0);
}
