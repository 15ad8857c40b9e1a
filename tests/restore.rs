//! Files of packages come back, and systems are written into directories.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;

use cairn_store::{Draft, Edit, State, Store, TreePath, edit};
use cairn_tests::{Cairn, Stones};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

/// A store with two packages of which one was asked for, and their repository.
fn system() -> (Cairn, Stones) {
    let cairn = Cairn::new();
    let stones = Stones::new(&cairn.directory().join("stones"));
    stones.add("one", 1, 1000);
    stones.add("two", 1, 2000);
    stones.index(None);
    cairn.data(["repo", "add", "main", &format!("file://{}", stones.path().display())]);
    cairn.data(["--yes", "install", "one", "two"]);
    (cairn, stones)
}

/// Makes a state of the current one with these changes, as a snapshot does.
fn change(cairn: &Cairn, edits: &BTreeMap<TreePath, Edit>) -> State {
    let store = Store::open(&cairn.store()).unwrap();
    let base = store.current().unwrap();
    let mut transaction = store.begin().unwrap();
    let tree = edit(&mut transaction, base.tree, edits).unwrap();
    let parent = Some(base.id);
    let draft = Draft { parent, request: "change".into(), tree, packages: base.packages };
    transaction.commit(draft).unwrap()
}

#[test]
fn what_was_changed_or_removed_comes_back_and_nothing_else_changes() {
    let (cairn, _stones) = system();
    let before = Store::open(&cairn.store()).unwrap().current().unwrap();
    let told = cairn.data(["--yes", "reinstall", "one"]);
    assert!(told.contains("Nothing to do"), "{told}");
    let other = cairn_store::resolve(
        &Store::open(&cairn.store()).unwrap(),
        before.tree,
        &path("usr/share/two/data"),
    );
    let Ok(Some(cairn_store::Entry::Leaf(other))) = other else { panic!("it is a file") };
    // One file has another content, one a directory in its place, and one is missing.
    let changed = change(
        &cairn,
        &BTreeMap::from([
            (path("usr/share/one/data"), Edit::Leaf(other)),
            (path("usr/share/own"), Edit::Directory(cairn_store::Attributes::implied_directory())),
            (path("usr/share/two/data"), Edit::Remove),
        ]),
    );
    assert_eq!(cairn.run(["check"]).code(), Some(1));
    let plan = cairn.json(["reinstall", "one", "--dry-run"]);
    assert_eq!(plan["files"][0]["path"], "/usr/share/one/data");
    assert_eq!(plan["files"][0]["what"], "changed");
    assert_eq!(plan["state"], changed.id.0);
    cairn.fails(1, ["reinstall", "one"]);
    cairn.fails(1, ["--yes", "reinstall", "one", "three"]);

    let done = cairn.json(["--yes", "reinstall", "one", "two"]);
    assert_eq!(done["files"].as_array().unwrap().len(), 2, "{done}");
    cairn.data(["check"]);
    assert_eq!(cairn.data(["ls", "/usr/share"]), "one\nown\ntwo\n");
    // Without what belongs to nobody, it is the state before the changes.
    let last = change(&cairn, &BTreeMap::from([(path("usr/share/own"), Edit::Remove)]));
    assert_eq!((last.tree, last.packages), (before.tree, before.packages));
    // It was a state like others: back goes back.
    cairn.data(["switch", &changed.id.0.to_string()]);
    assert_eq!(cairn.run(["check"]).code(), Some(1));
}

#[test]
fn what_stands_in_the_way_of_a_file_goes_for_it() {
    let (cairn, _stones) = system();
    let before = Store::open(&cairn.store()).unwrap().current().unwrap();
    change(&cairn, &BTreeMap::from([(path("usr/share/one/data"), Edit::Remove)]));
    let directory = Edit::Directory(cairn_store::Attributes::implied_directory());
    change(&cairn, &BTreeMap::from([(path("usr/share/one/data/in/the/way"), directory)]));
    cairn.data(["--yes", "reinstall", "one"]);
    let after = Store::open(&cairn.store()).unwrap().current().unwrap();
    assert_eq!((after.tree, after.packages), (before.tree, before.packages));
}

#[test]
fn a_system_is_written_into_a_directory_and_the_store_stays_as_it_is() {
    let (cairn, stones) = system();
    let to = cairn.directory().join("to");
    let states = cairn.json(["state", "list"]);
    let plan = cairn.json(["install", "one", "--to", "to", "--dry-run"]);
    assert_eq!(plan["steps"].as_array().unwrap().len(), 1, "of an empty system: {plan}");
    assert!(!to.exists());

    let done = cairn.json(["--yes", "install", "one", "--to", "to"]);
    assert!(done["state"].is_null() && done["directory"] == "to", "{done}");
    assert_eq!(fs::metadata(to.join("usr/share/one/data")).unwrap().len(), 1000);
    assert!(!to.join("usr/share/two").exists());
    assert!(to.join("etc").is_dir() && to.join("bin").is_symlink());
    assert_eq!(cairn.json(["state", "list"]), states, "no state is left");
    let complaint = cairn.fails(1, ["--yes", "install", "two", "--to", "to"]);
    assert!(complaint.contains("empty or a new directory"), "{complaint}");

    // The newest of what was asked for, while the system itself stays.
    stones.add("one", 2, 1500);
    stones.index(None);
    cairn.data(["repo", "update"]);
    cairn.data(["--yes", "upgrade", "--to", "new"]);
    let new = cairn.directory().join("new");
    assert_eq!(fs::metadata(new.join("usr/share/one/data")).unwrap().len(), 1500);
    assert_eq!(fs::metadata(new.join("usr/share/two/data")).unwrap().len(), 2000);
    assert_eq!(cairn.json(["state", "list"]), states);

    let model = cairn.directory().join("model.yaml");
    fs::write(&model, "packages: [two]\nfiles:\n  /etc/own: {content: mine}\n").unwrap();
    cairn.data(["--yes", "sync", "--import", "model.yaml", "--to", "third"]);
    assert_eq!(fs::read(cairn.directory().join("third/etc/own")).unwrap(), b"mine");
    assert_eq!(cairn.json(["state", "list"]), states);
    cairn.data(["verify"]);
}

#[test]
fn ranges_of_states_go_without_those_that_do_not_exist() {
    let (cairn, _stones) = system();
    for name in ["one", "two"] {
        cairn.data(["--yes", "remove", name]);
        cairn.data(["--yes", "install", name]);
    }
    cairn.data(["--yes", "state", "remove", "2"]);
    cairn.data(["--yes", "state", "remove", "1-3"]);
    cairn.fails(1, ["--yes", "state", "remove", "1-3"]);
    let left = cairn.json(["state", "list"]);
    let left: Vec<_> = left.as_array().unwrap().iter().map(|it| it["state"].as_u64()).collect();
    assert_eq!(left, [Some(5), Some(4)]);
}
