//! Stores that earlier versions have written, kept in `golden/`: one for each version of
//! the format, with everything in it that the format knows.
//!
//! Today's code reads all of it, what docs/store.md says of the bytes is true, and what
//! is written today is the same. A difference is a new format, or a compressor that
//! compresses otherwise: then what is kept stays, and is read for ever, and
//! `UPDATE_GOLDEN=1` writes what the newest version writes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cairn_store::tree::{Content, Device, Entry, HardLink, Leaf, LinkGroup, Timestamp, Xattr};
use cairn_store::workspace::{Afterwards, LayerMarks, Record};
use cairn_store::{
    Attributes, BlobRef, BytesSource, Draft, GcOptions, Standing, State, StateId, Store, Summary,
    Tag, Transaction, Tree, TreeId, WorkspaceName,
};
use support::document::{self, Objects};
use support::model::{Dice, name};
use support::{FaultyDisk, Omitted, copy, fast_directory};

/// When all states were committed: 2026-10-26 17:46:40.123456789 UTC.
const TIME: u64 = 1_793_036_800_123_456_789;

fn golden() -> PathBuf {
    golden_of("store-1")
}

fn golden_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A directory as it is to be put into a store and found there.
struct Directory {
    attributes: Attributes,
    below: Vec<(String, Item)>,
}

enum Item {
    Leaf(Leaf),
    Directory(Directory),
}

/// Contents of every size that lies in packs in a way of its own.
fn contents() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("empty", Vec::new()),
        ("large", vec![7; (1 << 20) + 1]),
        ("long", b"longer than a frame\n".repeat(7_000)),
        // Alone in its frame, which is raw then.
        ("noise", Dice::new(1).noise(300)),
        ("short", b"#!/bin/sh\necho hi\n".to_vec()),
    ])
}

fn leaf(attributes: Attributes, content: Content) -> Leaf {
    Leaf { attributes, content, link: None }
}

fn file(of: &str) -> Leaf {
    leaf(Attributes::of_root(0o644), Content::File(BlobRef::of(&contents()[of])))
}

fn symlink(text: &str) -> Leaf {
    leaf(Attributes::of_root(0o777), Content::Symlink(text.as_bytes().into()))
}

/// A member of a group of two hard links; the group is that of its smallest path.
fn linked(leaf: Leaf, smallest: &str) -> Leaf {
    let group = LinkGroup::of(smallest.as_bytes());
    Leaf { link: Some(HardLink { group, count: 2 }), ..leaf }
}

/// Everything that a directory can have.
fn root() -> Directory {
    let xattr =
        |name: &str, value: &[u8]| Xattr { name: name.as_bytes().into(), value: value.into() };
    let special = Attributes {
        mode: 0o4755,
        uid: 1000,
        gid: 0xffff_fffe,
        mtime: Timestamp::new(-1, 999_999_999).unwrap(),
        xattrs: vec![xattr("security.capability", &[1, 0, 0, 2]), xattr("user.empty", b"")],
    };
    let node = |content| leaf(Attributes::of_root(0o600), content);
    let device = Device { major: 0xfff, minor: 0xf_ffff };
    let leaves = [
        ("block", node(Content::BlockDevice(Device { major: 8, minor: 1 }))),
        ("char", node(Content::CharDevice(device))),
        ("fifo", node(Content::Fifo)),
        ("socket", node(Content::Socket)),
        ("special", leaf(special.clone(), file("short").content)),
        ("link", symlink("../to/nowhere")),
        ("one", linked(file("long"), "/one")),
        ("two", linked(file("long"), "/one")),
        ("soft-one", linked(symlink("x"), "/dir/soft-two")),
        ("n\u{e4}me \n", file("short")),
    ];
    let leaves = leaves.map(|(name, leaf)| (name.to_owned(), Item::Leaf(leaf)));
    let files = contents().into_keys().map(|of| (of.to_owned(), Item::Leaf(file(of))));
    let soft = ("soft-two".to_owned(), Item::Leaf(linked(symlink("x"), "/dir/soft-two")));
    let attributes = Attributes { mode: 0o1777, ..special };
    let directory = Directory { attributes, below: files.chain([soft]).collect() };
    let few = |number| Directory { attributes: Attributes::of_root(0o755), below: many(number) };
    let directories = [("dir", directory), ("255", few(255)), ("256", few(256)), ("0", few(0))];
    let directories = directories.map(|(name, it)| (name.to_owned(), Item::Directory(it)));
    let below = leaves.into_iter().chain(directories).collect();
    Directory { attributes: Attributes::of_root(0o750), below }
}

/// So many entries, which are cut into pages if they are many.
fn many(number: usize) -> Vec<(String, Item)> {
    (0..number).map(|at| (format!("entry {at}"), Item::Leaf(symlink("../link")))).collect()
}

/// Puts what is below a directory, and returns the directory.
fn tree_of(transaction: &mut Transaction, directory: Directory) -> Tree {
    let entries = directory.below.into_iter().map(|(text, item)| {
        let entry = match item {
            Item::Leaf(leaf) => Entry::Leaf(leaf),
            Item::Directory(below) => {
                let tree = tree_of(transaction, below);
                transaction.put_subtree(tree).unwrap()
            }
        };
        (name(&text), entry)
    });
    let entries = entries.collect();
    Tree::new(directory.attributes, entries).unwrap()
}

fn put(transaction: &mut Transaction, directory: Directory) -> TreeId {
    let tree = tree_of(transaction, directory);
    transaction.put_tree(tree).unwrap()
}

/// Checks that the tree `id` is this directory; counts what is below it.
fn check(read: &dyn Fn(TreeId) -> Tree, id: TreeId, directory: &Directory, path: &str) -> Summary {
    let tree = read(id);
    assert_eq!(tree.attributes, directory.attributes, "{path}");
    assert_eq!(tree.entries().len(), directory.below.len(), "{path}");
    let mut sum = Summary::default();
    for (text, item) in &directory.below {
        let path = format!("{path}/{text}");
        sum.entries += 1;
        match (item, tree.get(text.as_bytes()).expect(&path)) {
            (Item::Leaf(expected), Entry::Leaf(leaf)) => {
                assert_eq!(leaf, expected, "{path}");
                sum.linked += u64::from(leaf.link.is_some());
                if let Content::File(blob) = &leaf.content {
                    sum.bytes += blob.size;
                }
            }
            (Item::Directory(expected), Entry::Directory(subtree)) => {
                let below = check(read, subtree.id, expected, &path);
                assert_eq!(subtree.summary, below, "{path}");
                sum.entries += below.entries;
                sum.bytes += below.bytes;
                sum.linked += below.linked;
            }
            (_, entry) => panic!("{path} is {entry:?}"),
        }
    }
    sum
}

fn ingest(transaction: &mut Transaction) {
    for (name, bytes) in &contents() {
        let blobs = transaction.ingest(&[BytesSource { name, bytes }], &()).unwrap();
        assert_eq!(blobs, [BlobRef::of(bytes)]);
    }
}

/// The packages of the last state.
fn packages() -> Directory {
    let below = vec![("nano".into(), Item::Leaf(file("short")))];
    Directory { attributes: Attributes::of_root(0o700), below }
}

fn workspace() -> WorkspaceName {
    WorkspaceName::new("web").unwrap()
}

/// Makes the store that is kept, with every kind of record in its log.
fn write(path: &Path) {
    fs::create_dir(path).unwrap();
    let time = UNIX_EPOCH + Duration::from_nanos(TIME);
    let disk = FaultyDisk::over(path, usize::MAX, Omitted::Nothing).at(time);
    let store = Store::create_on(Arc::new(disk), path).unwrap();
    let draft = |parent, request: &str, tree, packages| {
        let parent: Option<u64> = parent;
        Draft { parent: parent.map(StateId), request: request.into(), tree, packages }
    };

    let mut transaction = store.begin().unwrap();
    ingest(&mut transaction);
    let tree = put(&mut transaction, root());
    let none = transaction.put_tree(Tree::empty(Attributes::of_root(0o700))).unwrap();
    transaction.commit(draft(None, "import /", tree, none)).unwrap();

    let mut transaction = store.begin().unwrap();
    let garbage = Directory { attributes: Attributes::of_root(0o111), below: many(20) };
    let garbage = put(&mut transaction, garbage);
    transaction.commit_aside(draft(Some(1), "a mistake", garbage, none)).unwrap();

    let web = store.lock_workspace(&workspace()).unwrap();
    web.create(StateId(1), LayerMarks::User).unwrap();
    let mut transaction = store.begin().unwrap();
    let packages = put(&mut transaction, packages());
    let draft = draft(Some(1), "install n\u{e4}no \"x\"", tree, packages);
    let stays = Afterwards::Stays;
    let published = transaction.commit_workspace(draft, Standing::Current, web.name(), stays);
    published.unwrap().1.unwrap();

    let tag = |text| Tag::new(text).unwrap();
    store.tag(tag("kept"), StateId(1)).unwrap();
    store.tag(tag("gone"), StateId(2)).unwrap();
    store.untag(&tag("gone")).unwrap();
    store.switch(StateId(1)).unwrap();
    store.remove_states(&[StateId(2)]).unwrap();
    let collected = store.gc(GcOptions { rewrite_below: 100 }, &()).unwrap();
    assert!(collected.removed.objects > 0, "{collected:?}");
}

/// The files that are the truth of a store.
fn truth(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(store.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            // The list of packs is made anew from their names.
            let is_other = ["index", "run", "cache", "refs/packs", "workspaces/web/lock"];
            let is_other = is_other.map(PathBuf::from);
            if is_other.contains(&path) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else {
                files.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

#[test]
fn what_is_written_today_is_what_is_kept() {
    let home = fast_directory();
    let path = home.path().join("store");
    write(&path);
    assert_kept(&path, &golden());
}

/// Checks that the files of a store are those that are kept.
fn assert_kept(path: &Path, golden: &Path) {
    let written = truth(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(golden);
        for (file, bytes) in &written {
            let file = golden.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
    }
    let kept = truth(golden);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&kept), "a pack's name follows from its content");
    for (file, bytes) in &kept {
        let first = bytes.iter().zip(&written[file]).position(|(left, right)| left != right);
        assert!(*bytes == written[file], "{} differs from byte {first:?} on", file.display());
    }
}

fn state(id: u64, parent: Option<u64>, request: &str, trees: [TreeId; 2]) -> State {
    let [tree, packages] = trees;
    let parent = parent.map(StateId);
    State { id: StateId(id), parent, time: TIME, request: request.into(), tree, packages }
}

#[test]
fn what_is_kept_is_read_in_full() {
    let home = fast_directory();
    let path = home.path().join("store");
    copy(&golden(), &path);
    // Git keeps no empty directories.
    for empty in ["packs/new", "run", "cache"] {
        fs::create_dir(path.join(empty)).unwrap();
    }
    let store = Store::open(&path).unwrap();
    let refs = store.refs();
    let of = |id| refs.states[&StateId(id)].clone();
    let (first, third) = (of(1), of(3));
    let read = |id| (*store.tree(id).unwrap()).clone();
    check(&read, first.tree, &root(), "");
    let empty = Directory { attributes: Attributes::of_root(0o700), below: Vec::new() };
    check(&read, first.packages, &empty, "packages");
    check(&read, third.packages, &packages(), "packages");
    for bytes in contents().values() {
        assert_eq!(store.read(&BlobRef::of(bytes)).unwrap(), *bytes);
    }

    assert_eq!(first, state(1, None, "import /", [first.tree, first.packages]));
    let request = "install n\u{e4}no \"x\"";
    assert_eq!(third, state(3, Some(1), request, [first.tree, third.packages]));
    assert_eq!(refs.states.len(), 2);
    assert_eq!((refs.current, refs.newest), (Some(StateId(1)), StateId(3)));
    assert_eq!(refs.tags, [(Tag::new("kept").unwrap(), StateId(1))].into());
    let record = Record { base: first, layer: 1, published: Some(third), marks: LayerMarks::User };
    assert_eq!(store.workspaces().unwrap(), [(workspace(), record)]);

    let report = store.verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    // It goes on from here as any store does.
    let mut transaction = store.begin().unwrap();
    let tree = put(&mut transaction, packages());
    let draft = Draft { parent: None, request: "next".into(), tree, packages: tree };
    assert_eq!(transaction.commit(draft).unwrap().id, StateId(4));
}

#[test]
fn the_document_tells_what_lies_in_packs() {
    let (mut objects, mut raw) = (Objects::new(), 0);
    for entry in fs::read_dir(golden().join("packs")).unwrap() {
        let path = entry.unwrap().path();
        let (id, raw_here) = document::read_pack(&fs::read(&path).unwrap(), &mut objects);
        assert_eq!(path.file_name().unwrap(), format!("{id}.pack").as_str());
        raw += raw_here;
    }
    assert!(raw > 0, "no frame is raw");
    // "The same JSON is the state's object in the pack."
    let mut states: Vec<serde_json::Value> = objects
        .iter()
        .filter(|((kind, _), _)| *kind == document::STATE)
        .map(|(_, bytes)| serde_json::from_slice(bytes).unwrap())
        .collect();
    states.sort_by_key(|state| state["id"].as_u64());
    let tree_of = |state: &serde_json::Value, key: &str| -> TreeId {
        state[key].as_str().unwrap().parse().unwrap()
    };
    let read = |id: TreeId| document::read_tree(&objects, id.as_bytes());
    for state in &states {
        check(&read, tree_of(state, "tree"), &root(), "");
    }
    check(&read, tree_of(&states[1], "packages"), &packages(), "packages");
    for bytes in contents().values() {
        assert_eq!(objects[&(document::BLOB, *blake3::hash(bytes).as_bytes())], *bytes);
    }
    // "XXH3-128 of the bytewise smallest path of its members, with leading slash."
    let root = read(tree_of(&states[0], "tree"));
    let link = root.get(b"two").unwrap().as_leaf().unwrap().link.unwrap();
    assert_eq!(link.group.0, xxhash_rust::xxh3::xxh3_128(b"/one").to_be_bytes());

    // "Log": the checksum of the text, a space, the text; each with that of the one before.
    let log = fs::read_to_string(golden().join("refs/log")).unwrap();
    let mut previous = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(b""));
    let mut changes = Vec::new();
    for (at, line) in log.strip_suffix('\n').unwrap().split('\n').enumerate() {
        let (checksum, json) = line.split_once(' ').unwrap();
        assert_eq!(checksum, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(json.as_bytes())));
        let record: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(
            (&record["sequence"], &record["previous"]),
            (&(at + 1).into(), &previous.into())
        );
        changes.extend(record["changes"].as_array().unwrap().clone());
        previous = checksum.into();
    }
    let mistake = &changes[2]["publish"];
    let expected = serde_json::json!([
        {"publish": states[0]}, {"current": 1}, {"publish": mistake},
        {"publish": states[1]}, {"current": 3}, {"tag": ["kept", 1]}, {"tag": ["gone", 2]},
        {"untag": "gone"}, {"current": 1}, {"remove": 2}, "repack",
    ]);
    let repacks = changes.iter().rev().take_while(|change| *change == "repack").count();
    changes.truncate(changes.len() - repacks + 1);
    assert_eq!(serde_json::Value::from(changes), expected);

    // "Workspaces": the same for `base`.
    let base = fs::read_to_string(golden().join("workspaces/web/base")).unwrap();
    let (checksum, json) = base.strip_suffix('\n').unwrap().split_once(' ').unwrap();
    assert_eq!(checksum, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(json.as_bytes())));
    let record: serde_json::Value = serde_json::from_str(json).unwrap();
    let expected =
        serde_json::json!({"base": states[0], "layer": 1, "published": states[1], "marks": "user"});
    assert_eq!(record, expected);
}

/// Contents that are longer than a frame of a dense pack, and fill one.
fn dense_contents() -> BTreeMap<&'static str, Vec<u8>> {
    let mut contents = contents();
    contents.insert("full", b"a full frame.\n!!".repeat((4 << 20) / 16));
    contents.insert("longer", b"longer than that\n".repeat(300_000));
    contents
}

fn dense_root() -> Directory {
    let files = dense_contents().into_iter().map(|(name, bytes)| {
        let content = Content::File(BlobRef::of(&bytes));
        (name.to_owned(), Item::Leaf(leaf(Attributes::of_root(0o644), content)))
    });
    let large = Directory { attributes: Attributes::of_root(0o755), below: many(256) };
    let large = ("large directory".to_owned(), Item::Directory(large));
    Directory { attributes: Attributes::of_root(0o755), below: files.chain([large]).collect() }
}

/// Makes a store with packs of version 2: the first of two states is old, and compacted.
fn write_dense(path: &Path) {
    fs::create_dir(path).unwrap();
    let time = UNIX_EPOCH + Duration::from_nanos(TIME);
    let disk = FaultyDisk::over(path, usize::MAX, Omitted::Nothing).at(time);
    let store = Store::create_on(Arc::new(disk), path).unwrap();
    for (request, root) in [("first", dense_root()), ("second", packages())] {
        let mut transaction = store.begin().unwrap();
        for (name, bytes) in &dense_contents() {
            transaction.ingest(&[BytesSource { name, bytes }], &()).unwrap();
        }
        let tree = put(&mut transaction, root);
        let packages = transaction.put_tree(Tree::empty(Attributes::of_root(0o700))).unwrap();
        let draft = Draft { parent: None, request: request.into(), tree, packages };
        transaction.commit(draft).unwrap();
    }
    let compacted = store.compact(&()).unwrap();
    assert!(compacted.packs_replaced > 0, "{compacted:?}");
}

#[test]
fn dense_packs_that_are_written_today_are_those_that_are_kept_and_read_as_the_document_says() {
    let home = fast_directory();
    write_dense(&home.path().join("written"));
    let golden = golden_of("dense-2");
    assert_kept(&home.path().join("written"), &golden);

    let path = home.path().join("store");
    copy(&golden, &path);
    for empty in ["packs/new", "run", "cache"] {
        fs::create_dir(path.join(empty)).unwrap();
    }
    let store = Store::open(&path).unwrap();
    let report = store.verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let tree = store.state(StateId(1)).unwrap().tree;
    check(&|id| (*store.tree(id).unwrap()).clone(), tree, &dense_root(), "");
    for bytes in dense_contents().values() {
        assert_eq!(store.read(&BlobRef::of(bytes)).unwrap(), *bytes);
    }

    let (mut objects, mut dense) = (Objects::new(), 0);
    for entry in fs::read_dir(golden.join("packs")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let (id, _) = document::read_pack(&bytes, &mut objects);
        assert_eq!(path.file_name().unwrap(), format!("{id}.pack").as_str());
        dense += usize::from(bytes.starts_with(b"CRNPACK2"));
    }
    assert!(dense > 0, "no pack is dense");
    check(&|id| document::read_tree(&objects, id.as_bytes()), tree, &dense_root(), "");
}
