//! The commands that look into a store and choose its current state, run as a
//! user runs them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use cairn_store::{
    Attributes, BytesSource, Content, Draft, Entry, Leaf, Name, StateId, Store, Transaction, Tree,
};

const HELLO: &str = "#!/bin/sh\necho hello\n";

/// A store with two states: 1 has /usr/bin/hello and /bin -> usr/bin, 2 has
/// /usr/bin/more, whose name would clear a terminal, as well.
fn store(path: &Path) -> Store {
    let store = Store::create(path).unwrap();
    let first = state(store.begin().unwrap(), None, &["hello"]);
    let second = state(store.begin().unwrap(), Some(first), &["hello", "\x1b[2Jmore"]);
    assert_eq!((first, second), (StateId(1), StateId(2)));
    store
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

/// Runs `cairn` on the store below `directory` without a terminal.
fn cairn(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.env("CAIRN_STORE", directory.join("store")).env("TZ", "UTC").args(args);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Checks that the command succeeds, and returns what it prints as data.
fn data(directory: &Path, args: &[&str]) -> String {
    let output = cairn(directory, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that the command fails with `code`, and returns what it complains of.
fn failure(directory: &Path, code: i32, args: &[&str]) -> String {
    let output = cairn(directory, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn json(directory: &Path, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&data(directory, &[&["--json"], args].concat())).unwrap()
}

#[test]
fn files_of_any_state_are_read_without_a_mount() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    store(&directory.join("store"));
    assert_eq!(data(directory, &["ls"]), "bin\nusr\n");
    assert_eq!(data(directory, &["ls", "1:/bin"]), "hello\n");
    assert_eq!(data(directory, &["ls", "/usr/bin"]), "\\x1b[2Jmore\nhello\n");
    assert_eq!(
        data(directory, &["ls", "-l", "1:/"]),
        "lrwxrwxrwx  0  0   7 B  1970-01-01 00:00:00  bin -> usr/bin\n\
         drwxr-xr-x  0  0  21 B  1970-01-01 00:00:00  usr\n"
    );
    let all = data(directory, &["ls", "-R", "1:"]);
    assert_eq!(all, "bin\nusr\nusr/bin\nusr/bin/hello\n");
    assert_eq!(data(directory, &["cat", "1:/bin/hello", "/bin/hello"]), HELLO.repeat(2));

    let complaint = failure(directory, 1, &["cat", "1:/bin/more"]);
    assert_eq!(complaint, "cairn: state 1 has no /bin/more\n");
    failure(directory, 1, &["cat", "/bin"]);
    failure(directory, 2, &["cat", "bin/hello"]);
    failure(directory, 2, &["--json", "cat", "/bin/hello"]);
    failure(directory, 1, &["ls", "3:/"]);
}

#[test]
fn a_switch_goes_back_and_forward_and_tells_so() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    store(&directory.join("store"));
    let current = || json(directory, &["state", "show"])["state"].as_u64().unwrap();
    assert_eq!(current(), 2);
    assert!(data(directory, &["rollback"]).starts_with("State 1 is current instead of 2 ("));
    assert_eq!(current(), 1);
    assert_eq!(
        failure(directory, 1, &["rollback"]),
        "cairn: state 1 has no parent\nhelp: cairn state list shows the states and their tags\n"
    );
    let switched = json(directory, &["switch", "2"]);
    assert_eq!((&switched["state"], &switched["previous"]), (&2.into(), &1.into()));
    assert_eq!(current(), 2);
    failure(directory, 1, &["switch", "7"]);
    failure(directory, 2, &["switch", "no/name"]);
}

#[test]
fn states_are_listed_compared_tagged_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    store(&directory.join("store"));
    data(directory, &["state", "tag", "first", "1"]);
    let list = data(directory, &["state", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].trim_start().starts_with("State  Created"), "{list}");
    assert!(lines[1].starts_with("*      2  2"), "{list}");
    assert!(lines[2].ends_with("4  21 B  first  install hello"), "{list}");
    let states = json(directory, &["state", "list"]);
    assert_eq!(states[0]["current"], true);
    assert_eq!(states[1]["tags"], serde_json::json!(["first"]));

    let expected =
        "+ /usr/bin/\\x1b[2Jmore\n\nState 1 to state 2: 1 added, 0 changed, 0 removed, +21 B\n";
    assert_eq!(data(directory, &["state", "diff"]), expected);
    assert_eq!(data(directory, &["state", "diff", "first"]), expected);
    let back = json(directory, &["state", "diff", "2", "1"]);
    assert_eq!(back["changes"][0]["change"], "removed");

    let unasked = failure(directory, 1, &["state", "remove", "1"]);
    assert!(unasked.contains("pass --yes"), "{unasked}");
    let tagged = failure(directory, 1, &["-y", "state", "remove", "1"]);
    assert!(tagged.starts_with("cairn: state 1 is kept by the tag first\nhelp: "), "{tagged}");
    failure(directory, 1, &["-y", "state", "remove", "2"]);
    data(directory, &["state", "untag", "first"]);
    assert_eq!(data(directory, &["-y", "state", "remove", "1"]), "1 state removed.\n");
    assert_eq!(json(directory, &["state", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn damage_is_told_with_the_paths_that_it_affects() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    store(&directory.join("store"));
    let sound = data(directory, &["verify"]);
    assert!(sound.ends_with("2 states walked: no damage.\n"), "{sound}");

    // The first pack holds the only blob, at its beginning.
    let packs = std::fs::read_dir(directory.join("store/packs")).unwrap();
    let packs = packs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let pack = packs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    let at = bytes.windows(10).position(|window| window == b"echo hello").expect("stored raw");
    bytes[at] ^= 1;
    std::fs::write(&pack, bytes).unwrap();

    let output = cairn(directory, &["verify"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("  1:/usr/bin/hello\n"), "{text}");
    let complaint = failure(directory, 3, &["cat", "/bin/hello"]);
    assert!(complaint.ends_with("help: cairn verify tells what is affected\n"), "{complaint}");
    assert!(data(directory, &["store", "rebuild"]).contains("rebuilt"));
}

#[test]
fn without_a_store_every_command_says_where_it_looked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    for args in [&["ls"][..], &["state", "list"], &["rollback"], &["verify"], &["store", "info"]] {
        let complaint = failure(directory.path(), 1, args);
        let expected = format!("cairn: {} is not a store\nhelp: ", path.display());
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
    assert!(!path.exists(), "looking makes no store");
}

#[test]
fn a_reader_that_goes_early_ends_the_command_quietly() {
    let directory = tempfile::tempdir().unwrap();
    store(&directory.path().join("store"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.env("CAIRN_STORE", directory.path().join("store")).args(["ls", "-R"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
