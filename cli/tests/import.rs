//! `cairn import` as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs;

use support::{World, text};

#[test]
fn a_directory_becomes_a_state_that_is_current_when_it_is_the_first() {
    let world = World::new();
    let root = world.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/motd"), "hello\n").unwrap();
    fs::write(root.join("etc/motd~"), "old\n").unwrap();

    let words = ["import", "root", "--exclude", "*~", "-m", "the first", "--tag", "base"];
    let first = world.json(&words);
    assert_eq!(first["state"], 1);
    assert_eq!(first["current"], true);
    assert_eq!(first["entries"], 2);
    assert_eq!(first["bytes"], 6);
    assert_eq!(first["files_read"], 1);
    assert_eq!(world.data(&["cat", "base:/etc/motd"]), "hello\n");
    assert_eq!(world.json(&["state", "list"])[0]["request"], "the first");

    let shown = world.data(&["import", "root"]);
    assert!(shown.starts_with("State 2: 3 entries (10 B); 2 files read"), "{shown}");
    let third = world.json(&["import", "root", "--switch", "--no-cache"]);
    assert_eq!((&third["state"], &third["current"]), (&3.into(), &true.into()));
    world.data(&["rollback"]);
    assert_eq!(world.json(&["state", "show"])["state"], 1);
}

#[test]
fn what_cannot_be_imported_is_told_and_leaves_nothing() {
    let world = World::new();
    let check = |words: &[&str], code: i32, expected: &str| {
        let output = world.cairn(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{words:?}: {said}");
    };
    check(&["import", "absent"], 1, "cairn: cannot read absent: No such file");
    check(&["import", ".", "--exclude", "[a"], 2, "cairn: cannot understand a pattern: ");
    check(&["import", ".", "--exclude-from", "absent"], 1, "cannot read absent");
    assert_eq!(world.json(&["state", "list"]), serde_json::json!([]));
}
