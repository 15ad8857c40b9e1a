//! The commands that look into a store and choose its current state, run as a
//! user runs them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use cairn_store::{
    Attributes, BytesSource, Content, Draft, Entry, Leaf, Name, StateId, Store, Transaction, Tree,
};
use support::{World, text};

const HELLO: &str = "#!/bin/sh\necho hello\n";

/// A store with two states: 1 has /usr/bin/hello and /bin -> usr/bin, 2 has
/// /usr/bin/more, whose name would clear a terminal, as well.
fn world() -> World {
    let world = World::new();
    let store = Store::create(&world.store()).unwrap();
    let first = state(store.begin().unwrap(), None, &["hello"]);
    let second = state(store.begin().unwrap(), Some(first), &["hello", "\x1b[2Jmore"]);
    assert_eq!((first, second), (StateId(1), StateId(2)));
    world
}

fn state(mut transaction: Transaction, parent: Option<StateId>, programs: &[&str]) -> StateId {
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    let leaf = |mode, content| {
        Entry::Leaf(Leaf { attributes: Attributes::of_root(mode), content, link: None })
    };
    let source = BytesSource { name: "hello", bytes: HELLO.as_bytes() };
    let blob = transaction.ingest(&[source], &()).unwrap()[0];
    let bin = programs.iter().map(|file| (name(file), leaf(0o755, Content::File(blob))));
    let bin = Tree::new(Attributes::implied_directory(), bin.collect()).unwrap();
    let bin = transaction.put_subtree(bin).unwrap();
    let usr = Tree::new(Attributes::implied_directory(), vec![(name("bin"), bin)]).unwrap();
    let usr = transaction.put_subtree(usr).unwrap();
    let link = leaf(0o777, Content::Symlink(b"usr/bin".as_slice().into()));
    let root = vec![(name("bin"), link), (name("usr"), usr)];
    let tree = Tree::new(Attributes::implied_directory(), root).unwrap();
    let tree = transaction.put_tree(tree).unwrap();
    let packages = transaction.put_tree(Tree::empty(Attributes::implied_directory())).unwrap();
    let request = format!("install {}", programs.join(" "));
    transaction.commit(Draft { parent, request, tree, packages }).unwrap().id
}

#[test]
fn files_of_any_state_are_read_without_a_mount() {
    let world = world();
    assert_eq!(world.data(&["ls"]), "bin\nusr\n");
    assert_eq!(world.data(&["ls", "1:/bin"]), "hello\n");
    assert_eq!(world.data(&["ls", "/usr/bin"]), "\\x1b[2Jmore\nhello\n");
    assert_eq!(
        world.data(&["ls", "-l", "1:/"]),
        "lrwxrwxrwx  0  0   7 B  1970-01-01 00:00:00  bin -> usr/bin\n\
         drwxr-xr-x  0  0  21 B  1970-01-01 00:00:00  usr\n"
    );
    let all = world.data(&["ls", "-R", "1:"]);
    assert_eq!(all, "bin\nusr\nusr/bin\nusr/bin/hello\n");
    assert_eq!(world.data(&["cat", "1:/bin/hello", "/bin/hello"]), HELLO.repeat(2));

    let complaint = world.failure(1, &["cat", "1:/bin/more"]);
    assert_eq!(complaint, "cairn: state 1 has no /bin/more\n");
    world.failure(1, &["cat", "/bin"]);
    world.failure(2, &["cat", "bin/hello"]);
    world.failure(2, &["--json", "cat", "/bin/hello"]);
    world.failure(1, &["ls", "3:/"]);
}

#[test]
fn a_switch_goes_back_and_forward_and_tells_so() {
    let world = world();
    let current = || world.json(&["state", "show"])["state"].as_u64().unwrap();
    assert_eq!(current(), 2);
    assert!(world.data(&["rollback"]).starts_with("State 1 is current instead of 2 ("));
    assert_eq!(current(), 1);
    assert_eq!(
        world.failure(1, &["rollback"]),
        "cairn: state 1 has no parent\nhelp: cairn state list shows the states and their tags\n"
    );
    let switched = world.json(&["switch", "2"]);
    assert_eq!((&switched["state"], &switched["previous"]), (&2.into(), &1.into()));
    assert_eq!(current(), 2);
    world.failure(1, &["switch", "7"]);
    world.failure(2, &["switch", "no/name"]);
}

#[test]
fn states_are_listed_compared_tagged_and_removed() {
    let world = world();
    world.data(&["state", "tag", "first", "1"]);
    let list = world.data(&["state", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].trim_start().starts_with("State  Created"), "{list}");
    assert!(lines[1].starts_with("*      2  2"), "{list}");
    assert!(lines[2].ends_with("4  21 B  first  install hello"), "{list}");
    let states = world.json(&["state", "list"]);
    assert_eq!(states[0]["current"], true);
    assert_eq!(states[1]["tags"], serde_json::json!(["first"]));

    let expected =
        "+ /usr/bin/\\x1b[2Jmore\n\nState 1 to state 2: 1 added, 0 changed, 0 removed, +21 B\n";
    assert_eq!(world.data(&["state", "diff"]), expected);
    assert_eq!(world.data(&["state", "diff", "first"]), expected);
    let back = world.json(&["state", "diff", "2", "1"]);
    assert_eq!(back["changes"][0]["change"], "removed");

    let unasked = world.failure(1, &["state", "remove", "1"]);
    assert!(unasked.contains("pass --yes"), "{unasked}");
    let tagged = world.failure(1, &["-y", "state", "remove", "1"]);
    assert!(tagged.starts_with("cairn: state 1 is kept by the tag first\nhelp: "), "{tagged}");
    world.failure(1, &["-y", "state", "remove", "2"]);
    world.data(&["state", "untag", "first"]);
    assert_eq!(world.data(&["-y", "state", "remove", "1"]), "1 state removed.\n");
    assert_eq!(world.json(&["state", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn damage_is_told_with_the_paths_that_it_affects() {
    let world = world();
    let sound = world.data(&["verify"]);
    assert!(sound.ends_with("2 states walked: no damage.\n"), "{sound}");

    // The first pack holds the only blob, at its beginning.
    let packs = std::fs::read_dir(world.store().join("packs")).unwrap();
    let packs = packs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let pack = packs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    let at = bytes.windows(10).position(|window| window == b"echo hello").expect("stored raw");
    bytes[at] ^= 1;
    std::fs::write(&pack, bytes).unwrap();

    let output = world.cairn(&["verify"]);
    assert_eq!(output.status.code(), Some(3));
    let shown = text(&output.stdout);
    assert!(shown.contains("  1:/usr/bin/hello\n"), "{shown}");
    let complaint = world.failure(3, &["cat", "/bin/hello"]);
    assert!(complaint.ends_with("help: cairn verify tells what is affected\n"), "{complaint}");
    assert!(world.data(&["store", "rebuild"]).contains("rebuilt"));
}

#[test]
fn a_damaged_list_of_states_is_made_anew_when_that_is_asked_for() {
    let world = world();
    world.data(&["state", "tag", "first", "1"]);
    let before = world.data(&["state", "list"]);
    let log = world.store().join("refs/log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let complaint = world.failure(3, &["state", "list"]);
    assert!(complaint.contains("help: cairn store rebuild --states"), "{complaint}");

    let words = ["store", "rebuild", "--states", "--dry-run"];
    let would = "State 1 was not listed, and is in the packs.\n\
                 The list would have 2 states and 1 tag; 2 would be current.\n";
    assert_eq!(world.data(&words), would);
    assert_eq!(std::fs::read(&log).unwrap(), bytes);
    let done = world.json(&words[..3]);
    let kept = log.with_file_name("log.damaged-1");
    assert_eq!((&done["is_new"], &done["kept"]), (&true.into(), &kept.to_str().into()));
    assert_eq!(std::fs::read(kept).unwrap(), bytes);
    assert_eq!(world.data(&["state", "list"]), before);
    assert_eq!(world.data(&words[..3]), "The list is whole: 2 states.\n");

    std::fs::remove_file(&log).unwrap();
    let complaint = world.failure(3, &["state", "list"]);
    assert!(complaint.contains("is gone\nhelp: cairn store rebuild --states"), "{complaint}");
    let done = world.data(&words[..3]);
    assert!(done.ends_with("The list has 2 states and 0 tags; 2 is current.\n"), "{done}");
}

#[test]
fn without_a_store_every_command_says_where_it_looked() {
    let world = World::new();
    let path = world.store();
    for args in [&["ls"][..], &["state", "list"], &["rollback"], &["verify"], &["store", "info"]] {
        let complaint = world.failure(1, args);
        let expected = format!("cairn: {} is not a store\nhelp: ", path.display());
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
    assert!(!path.exists(), "looking makes no store");
}

#[test]
fn a_reader_that_goes_early_ends_the_command_quietly() {
    let world = world();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = world.command(&["ls", "-R"]).stdout(writer).output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}
