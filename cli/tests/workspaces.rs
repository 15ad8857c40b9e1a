//! Workspaces through the program: mounted, compared, published, run in, dropped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;

use serde_json::json;
use support::{World, can_mount, write_deb};

/// A store whose state 1 has /usr/bin/one; a repository with /usr/bin/two as well.
fn world() -> World {
    let world = World::new();
    let debs = world.path().join("debs");
    write_deb(&debs, "one", "", &[("./usr/bin/one", "#!/bin/sh\necho one\n")]);
    write_deb(&debs, "two", "", &[("./usr/bin/two", "#!/bin/sh\necho two\n")]);
    world.data(&["convert", "debs", "-o", "stones"]);
    world.data(&["repo", "index", "stones"]);
    world.data(&["repo", "add", "main", "stones"]);
    world.data(&["install", "-y", "one"]);
    world
}

#[test]
fn what_is_changed_in_a_workspace_becomes_a_state() {
    if !can_mount() {
        return;
    }
    let world = world();
    let live = world.mount("live", &["--follow"]);
    let mounted = world.mount("work", &["--rw", "web"]);
    let target = mounted.path.to_str().unwrap();
    assert_eq!(world.json(&["mount"])[1]["workspace"], "web");
    fs::write(mounted.path.join("usr/bin/new"), "#!/bin/sh\necho new\n").unwrap();
    fs::remove_file(mounted.path.join("usr/bin/one")).unwrap();

    let differences = world.json(&["workspace", "diff", "web"]);
    assert_eq!((&differences["workspace"], &differences["state"]), (&json!("web"), &json!(1)));
    let changes = differences["changes"].as_array().unwrap().iter();
    let changes: Vec<_> =
        changes.map(|it| (it["path"].as_str().unwrap(), it["change"].as_str().unwrap())).collect();
    let expected =
        [("/usr/bin", "changed"), ("/usr/bin/new", "added"), ("/usr/bin/one", "removed")];
    assert_eq!(changes, expected);
    let shown = world.json(&["workspace", "show", "web"]);
    assert_eq!(
        (&shown["added"], &shown["removed"], &shown["mounts"]),
        (&json!(1), &json!(1), &json!([target]))
    );

    let done = world.json(&["snapshot", "web", "-m", "new instead of one"]);
    assert_eq!(
        (&done["state"], &done["parent"], &done["current"]),
        (&json!(2), &json!(1), &json!(true))
    );
    assert_eq!(fs::read(live.path.join("bin/new")).unwrap(), b"#!/bin/sh\necho new\n");
    assert!(!live.path.join("bin/one").exists(), "the live root shows it");
    let state = world.json(&["state", "show"]);
    assert_eq!(
        (&state["request"], &state["packages"][0]["name"]),
        (&json!("new instead of one"), &json!("one"))
    );
    assert!(
        world.data(&["workspace", "diff", "web"]).starts_with("State 2 to workspace web: 0 added")
    );
    assert!(world.data(&["snapshot", "web"]).starts_with("Nothing has changed since state 2"));

    // Packages go on from there.
    world.data(&["install", "-y", "two"]);
    fs::write(mounted.path.join("late"), "late").unwrap();
    let said = world.data(&["snapshot", "web"]);
    assert!(said.starts_with("State 4 is published: state 2 with the changes of web;"), "{said}");
    assert!(said.contains("State 3 stays current"), "{said}");
    assert!(live.path.join("bin/two").exists());
    fs::write(mounted.path.join("late"), "later").unwrap();
    let done = world.json(&["snapshot", "web", "--switch"]);
    assert_eq!((&done["state"], &done["current"]), (&json!(5), &json!(true)));
    assert_eq!(fs::read(live.path.join("late")).unwrap(), b"later");
    assert!(!live.path.join("bin/two").exists());
    assert!(
        world.data(&["verify"]).contains("no damage") || world.cairn(&["verify"]).status.success()
    );
}

#[test]
fn the_lines_that_a_workspace_changed_are_shown() {
    if !can_mount() {
        return;
    }
    let world = world();
    let mounted = world.mount("work", &["--rw", "web"]);
    let at = |path: &str| mounted.path.join("etc").join(path);
    for (path, text) in [("conf", "a\nb\n"), ("old/kept", "kept\n")] {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    }
    world.data(&["snapshot", "web"]);
    drop(mounted);
    let mounted = world.mount("again", &["--rw", "web"]);
    let at = |path: &str| mounted.path.join("etc").join(path);
    fs::write(at("conf"), "a\nc\n").unwrap();
    fs::write(at("raw"), [0; 9]).unwrap();
    // What is in a directory that was renamed lies in the store.
    fs::rename(at("old"), at("new")).unwrap();
    fs::write(at("new/more"), "more\n").unwrap();
    let patch = |path: &str| world.data(&["workspace", "diff", "web", path, "-p"]);
    let all = patch("/");
    let added = |path: &str, line: &str| {
        format!("--- /dev/null\n+++ b/etc/{path}\n@@ -0,0 +1 @@\n+{line}\n")
    };
    for expected in [
        "--- a/etc/conf\n+++ b/etc/conf\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n",
        "Binary files /dev/null and b/etc/raw differ\n",
        "--- a/etc/old/kept\n+++ /dev/null\n@@ -1 +0,0 @@\n-kept\n",
        &added("new/kept", "kept"),
        &added("new/more", "more"),
    ] {
        assert!(all.contains(expected), "{expected}{all}");
    }
    assert!(
        patch("/etc/new")
            .ends_with("State 2 to workspace web: 3 added, 0 changed, 0 removed, +10 B\n")
    );
    let changes = world.json(&["workspace", "diff", "web", "etc/conf"])["changes"].clone();
    assert_eq!((&changes[0]["path"], changes.as_array().unwrap().len()), (&json!("/etc/conf"), 1));
    let sums = world.data(&["workspace", "diff", "web", "--stat"]);
    assert!(!sums.contains("conf") && sums.contains("\n/etc "), "{sums}");
    let complaint = world.failure(2, &["workspace", "diff", "web", "../none"]);
    assert!(complaint.contains("help: write it from the root of the state on"), "{complaint}");
    let complaint = world.failure(1, &["workspace", "diff", "web", "/none"]);
    assert!(
        complaint.starts_with("cairn: neither state 2 nor workspace web has /none\n"),
        "{complaint}"
    );
}

#[test]
fn a_workspace_in_use_is_neither_reset_nor_discarded() {
    if !can_mount() {
        return;
    }
    let world = world();
    let mounted = world.mount("work", &["--rw", "web", "--state", "1"]);
    fs::write(mounted.path.join("new"), "new").unwrap();
    for command in
        [&["-y", "workspace", "reset", "web"][..], &["-y", "workspace", "discard", "web"]]
    {
        let complaint = world.failure(1, command);
        assert!(
            complaint.starts_with("cairn: the workspace web is in use by process "),
            "{complaint}"
        );
        assert!(complaint.contains("\nhelp: "), "{complaint}");
    }
    fs::create_dir(world.path().join("other")).unwrap();
    world.failure(1, &["mount", "--rw", "web", "other"]);
    world.data(&["umount", "work"]);
    let complaint = world.failure(1, &["workspace", "reset", "web"]);
    assert!(complaint.contains("cannot ask for confirmation"), "{complaint}");
    world.data(&["install", "-y", "two"]);
    let complaint = world.failure(1, &["mount", "--rw", "web", "--state", "2", "work"]);
    assert!(complaint.contains("lies on state 1\nhelp: cairn workspace reset"), "{complaint}");
    assert_eq!(world.json(&["-y", "workspace", "reset", "web", "--state", "2"])["state"], 2);
    assert_eq!(world.json(&["workspace", "list"])[0]["base"], 2);
    world.data(&["-y", "workspace", "discard", "web"]);
    assert_eq!(world.data(&["workspace", "list"]), "There are no workspaces.\n");
    for command in [["workspace", "diff"], ["workspace", "show"]] {
        let complaint = world.failure(1, &[command[0], command[1], "web"]);
        assert!(complaint.starts_with("cairn: there is no workspace web\nhelp: "), "{complaint}");
    }
    world.failure(1, &["snapshot", "web"]);
    world.failure(2, &["snapshot", "../web"]);
    // One that was only made for a mount that failed is gone again.
    world.failure(1, &["mount", "--rw", "new", "nowhere"]);
    assert_eq!(world.json(&["workspace", "list"]), json!([]));
}
