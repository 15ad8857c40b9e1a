//! Packages come, are upgraded and go; the states before keep what they had.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use support::{World, write_deb};

/// A repository with `app`, which needs `lib`, and with `other`, which has a
/// file of `app`.
fn world() -> World {
    let world = World::new();
    publish(&world, "1.0-1", "one\n");
    world.data(&["repo", "add", "main", "stones"]);
    world
}

/// Replaces the packages of the repository by those of a version.
fn publish(world: &World, version: &str, text: &str) {
    let debs = world.path().join(format!("debs-{version}"));
    let version = format!("Version: {version}\n");
    let needs_lib = format!("{version}Depends: lib\n");
    write_deb(&debs, "app", &needs_lib, &[("./usr/bin/app", text)]);
    write_deb(&debs, "lib", &version, &[("./usr/lib/lib.so", text)]);
    write_deb(&debs, "other", &version, &[("./usr/bin/app", "something else\n")]);
    let debs = debs.to_str().unwrap();
    world.data(&["convert", debs, "-o", "stones"]);
    world.data(&["repo", "index", "stones"]);
}

#[test]
fn packages_come_with_what_they_need_are_upgraded_and_go_with_it() {
    let world = world();
    let plan = world.json(&["install", "--dry-run", "app"]);
    assert_eq!(plan["steps"][1]["reason"], "app needs lib");
    let dry = world.data(&["install", "-n", "app"]);
    assert!(dry.contains("2 packages to install\n"), "{dry}");
    assert_eq!(world.data(&["state", "list"]), "The store has no state yet.\n");

    let done = world.data(&["install", "-y", "app"]);
    assert!(done.starts_with("State 1 is current: 2 packages installed ("), "{done}");
    assert_eq!(world.data(&["cat", "/bin/app"]), "one\n");
    let shown = world.data(&["state", "show"]);
    assert!(shown.contains("\n*  app  1.0-1  4 B  app in one line\n"), "{shown}");
    assert!(shown.contains("\n   lib  1.0-1  4 B  lib in one line\n"), "{shown}");

    publish(&world, "1.0-2", "two, longer\n");
    assert_eq!(world.data(&["upgrade", "-y"]), "Nothing to do.\n", "the index is the old one");
    world.data(&["repo", "update"]);
    let done = world.json(&["upgrade", "-y"]);
    assert_eq!((&done["state"], &done["steps"][0]["action"]), (&2.into(), &"upgrade".into()));
    assert_eq!(done["size_change"], 16);
    assert_eq!(world.data(&["cat", "/bin/app", "1:/bin/app"]), "two, longer\none\n");
    let difference = world.data(&["state", "diff"]);
    assert!(difference.starts_with("~ app 1.0-1 -> 1.0-2\n~ lib "), "{difference}");

    let done = world.data(&["remove", "-y", "app"]);
    assert!(done.starts_with("State 3 is current: 2 packages removed ("), "{done}");
    world.failure(1, &["ls", "/usr/bin/app"]);
    assert_eq!(world.data(&["ls", "2:/usr/bin"]), "app\n");

    let requests = world.json(&["state", "list"]);
    let requests: Vec<_> = requests.as_array().unwrap().iter().map(|it| &it["request"]).collect();
    assert_eq!(requests, ["remove app", "upgrade", "install app"]);
}

#[test]
fn packages_that_want_the_same_file_are_both_named() {
    let world = world();
    let complaint = world.failure(1, &["install", "-y", "app", "other"]);
    assert!(
        complaint.contains("app and other both have /usr/bin/app, and it differs"),
        "{complaint}"
    );
    world.data(&["install", "-y", "app"]);
    let complaint = world.failure(1, &["install", "-y", "other"]);
    assert!(
        complaint.contains("app and other both have /usr/bin/app, and it differs"),
        "{complaint}"
    );
    assert_eq!(world.json(&["state", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn each_command_that_takes_a_name_tells_what_could_have_been_meant() {
    let world = world();
    world.data(&["install", "-y", "app"]);
    for command in ["check", "downgrade", "files", "reinstall", "remove", "upgrade", "why"] {
        let complaint = world.failure(1, &["--yes", command, "ap"]);
        assert!(complaint.contains("; similar names are app\n"), "{command}: {complaint}");
    }
    for command in ["depends", "fetch", "info", "install", "rdepends"] {
        let complaint = world.failure(1, &["--yes", command, "othr"]);
        assert!(complaint.contains("; similar names are other\n"), "{command}: {complaint}");
    }
}

#[test]
fn what_cannot_be_done_is_explained_and_changes_nothing() {
    let world = world();
    let complaint = world.failure(1, &["install", "-y", "ap"]);
    assert!(
        complaint.starts_with("cairn: nothing provides ap; similar names are app"),
        "{complaint}"
    );
    let complaint = world.failure(1, &["remove", "-y", "app"]);
    assert!(complaint.starts_with("cairn: app is not installed"), "{complaint}");
    world.failure(2, &["remove", "library(x)"]);
    let complaint = world.failure(1, &["install", "app"]);
    assert!(complaint.contains("\nInstall\n") || complaint.starts_with("Install\n"), "{complaint}");
    assert!(complaint.ends_with("help: pass --yes to answer every question with yes\n"));
    assert_eq!(world.data(&["state", "list"]), "The store has no state yet.\n");

    let stone = world.path().join("stones").read_dir().unwrap();
    let stone = stone
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains("/lib-"));
    let stone = stone.unwrap();
    let mut bytes = std::fs::read(&stone).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&stone, bytes).unwrap();
    let complaint = world.failure(1, &["install", "-y", "app"]);
    assert!(complaint.contains("is not the file that the index of main announces"), "{complaint}");
    assert_eq!(world.data(&["state", "list"]), "The store has no state yet.\n");
}

#[test]
fn a_stone_is_installed_from_its_file() {
    let world = World::new();
    let stone = support::real_stone();
    let done = world.data(&["install", "-y", stone.to_str().unwrap()]);
    assert!(done.starts_with("State 1 is current: 1 package installed ("), "{done}");
    assert_eq!(world.json(&["state", "show"])["packages"][0]["name"], "bash-completion");
}
