//! Installing and removing in any order gives what composing from scratch does.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_package::system::{self, Composition, Installed, InstalledPackage};
use cairn_package::{Error, Metadata};
use cairn_store::tree::{Content, Leaf};
use cairn_store::{
    Attributes, BytesSource, Draft, Edit, State, Store, Transaction, Tree, TreePath, edit, resolve,
};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn file(transaction: &mut Transaction, bytes: &str, mode: u16) -> Leaf {
    let sources = [BytesSource { name: "a test", bytes: bytes.as_bytes() }];
    let blob = transaction.ingest(&sources, &()).unwrap()[0];
    Leaf { attributes: Attributes::of_root(mode), content: Content::File(blob), link: None }
}

fn package(
    transaction: &mut Transaction,
    name: &str,
    release: u64,
    edits: &BTreeMap<TreePath, Edit>,
) -> InstalledPackage {
    let empty = Tree::empty(Attributes::implied_directory());
    let empty = transaction.put_tree(empty).unwrap();
    let files = edit(transaction, empty, edits).unwrap();
    let metadata = Metadata { name: name.into(), release, ..Metadata::default() };
    InstalledPackage { metadata: Arc::new(metadata), explicit: release.is_multiple_of(2), files }
}

/// A package whose files differ from those of all others, in directories that
/// they share; some files are the same in all, some directories are listed.
fn random_package(
    transaction: &mut Transaction,
    random: &mut Random,
    name: &str,
) -> InstalledPackage {
    let directories = ["usr/bin", "usr/share/doc", "usr/share", "var/lib", "opt/a/b/c", "etc"];
    let release = random.below(100);
    let mut edits = BTreeMap::new();
    for at in 0..random.below(6) {
        let directory = directories[random.below(6) as usize];
        let leaf = file(transaction, &format!("{name} {release}"), 0o644);
        edits.insert(path(&format!("{directory}/{name}-{at}")), Edit::Leaf(leaf));
    }
    for at in 0..3 {
        if random.below(4) == 0 {
            let leaf = file(transaction, &format!("shared {at}"), 0o444);
            edits.insert(path(&format!("usr/share/common/{at}")), Edit::Leaf(leaf));
        }
        if random.below(4) == 0 {
            let listed = Edit::Directory(Attributes::implied_directory());
            edits.insert(path(&format!("var/empty/{at}")), listed);
        }
        if random.below(6) == 0 {
            let listed = Edit::Directory(Attributes::of_root(0o2770));
            edits.insert(path(&format!("var/special/{at}")), listed);
            if random.below(2) == 0 {
                let leaf = file(transaction, name, 0o600);
                edits.insert(path(&format!("var/special/{at}/{name}")), Edit::Leaf(leaf));
            }
        }
    }
    package(transaction, name, release, &edits)
}

fn commit(transaction: Transaction, made: &Composition, parent: Option<&State>) -> State {
    let draft = Draft {
        parent: parent.map(|state| state.id),
        request: "test".into(),
        tree: made.tree,
        packages: made.packages,
    };
    transaction.commit(draft).unwrap()
}

#[test]
fn any_order_of_changes_gives_what_composing_from_scratch_gives() {
    for seed in 1..=12u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let mut installed = Installed::new();
        let mut state: Option<State> = None;
        for step in 0..25 {
            let mut transaction = store.begin().unwrap();
            let leaving: Vec<InstalledPackage> =
                installed.values().filter(|_| random.below(3) == 0).cloned().collect();
            let mut coming = Vec::new();
            for number in 0..8 {
                let name = format!("package{number}");
                let stays = installed.contains_key(&name)
                    && !leaving.iter().any(|package| package.metadata.name == name);
                if !stays && random.below(3) == 0 {
                    coming.push(random_package(&mut transaction, &mut random, &name));
                }
            }
            let base = state.as_ref();
            let made = system::change(&mut transaction, base, &installed, &leaving, &coming);
            let made = made.unwrap();
            assert_eq!(made.kept, [], "seed {seed}, step {step}");
            for package in &leaving {
                installed.remove(&package.metadata.name);
            }
            for package in coming {
                installed.insert(package.metadata.name.clone(), package);
            }
            let all: Vec<InstalledPackage> = installed.values().cloned().rev().collect();
            let none = Installed::new();
            let scratch = system::change(&mut transaction, None, &none, &[], &all).unwrap();
            assert_eq!(made.tree, scratch.tree, "seed {seed}, step {step}");
            let next = commit(transaction, &made, state.as_ref());
            let read = InstalledPackage::load_all(&store, next.packages).unwrap();
            assert_eq!(read, installed, "seed {seed}, step {step}");
            state = Some(next);
        }
        let report = store.verify(&()).unwrap();
        assert!(report.damage.is_empty(), "seed {seed}: {:?}", report.damage);

        // When the last package leaves, the skeleton is left.
        let mut transaction = store.begin().unwrap();
        let leaving: Vec<InstalledPackage> = installed.values().cloned().collect();
        let made = system::change(&mut transaction, state.as_ref(), &installed, &leaving, &[]);
        let skeleton = system::put_skeleton(&mut transaction).unwrap();
        assert_eq!(made.unwrap().tree, skeleton, "seed {seed}");
    }
}

/// What [`system::change`] says of packages that conflict.
fn conflicts_of(
    transaction: &mut Transaction,
    base: Option<&State>,
    installed: &Installed,
    coming: &[InstalledPackage],
) -> Vec<String> {
    match system::change(transaction, base, installed, &[], coming) {
        Err(Error::FileConflicts { conflicts }) => {
            conflicts.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_conflict_names_both_packages_and_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(&directory.path().join("store")).unwrap();
    let mut transaction = store.begin().unwrap();
    let make = |transaction: &mut Transaction, name: &str, at: &str| {
        let leaf = file(transaction, name, 0o755);
        let edits = BTreeMap::from([(path(at), Edit::Leaf(leaf))]);
        package(transaction, name, 1, &edits)
    };
    let one = make(&mut transaction, "one", "usr/bin/tool");
    let other = make(&mut transaction, "other", "usr/bin/tool");
    let link = make(&mut transaction, "link", "bin");

    let none = Installed::new();
    let both = [one.clone(), other];
    assert_eq!(
        conflicts_of(&mut transaction, None, &none, &both),
        ["one and other both have /usr/bin/tool, and it differs"]
    );
    assert_eq!(
        conflicts_of(&mut transaction, None, &none, &[link]),
        ["the system itself and link both have /bin, and it differs"]
    );
    let coming = [one.clone()];
    let made = system::change(&mut transaction, None, &none, &[], &coming).unwrap();
    let state = commit(transaction, &made, None);
    let installed = Installed::from([("one".to_owned(), one)]);
    let mut transaction = store.begin().unwrap();
    for (name, at) in [("other", "usr/bin/tool"), ("below", "usr/bin/tool/x")] {
        let coming = make(&mut transaction, name, at);
        let conflicts = conflicts_of(&mut transaction, Some(&state), &installed, &[coming]);
        let expected = format!("one and {name} both have /usr/bin/tool, and it differs");
        assert_eq!(conflicts, [expected]);
    }
}

#[test]
fn what_was_changed_since_stays_when_its_package_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(&directory.path().join("store")).unwrap();
    let mut transaction = store.begin().unwrap();
    let at = path("usr/share/conf");
    let leaf = file(&mut transaction, "as packed", 0o644);
    let edits = BTreeMap::from([(at.clone(), Edit::Leaf(leaf))]);
    let package = package(&mut transaction, "one", 1, &edits);
    let coming = [package.clone()];
    let none = Installed::new();
    let made = system::change(&mut transaction, None, &none, &[], &coming).unwrap();

    let changed = file(&mut transaction, "as changed", 0o600);
    let edits = BTreeMap::from([(at.clone(), Edit::Leaf(changed.clone()))]);
    let tree = edit(&mut transaction, made.tree, &edits).unwrap();
    let state = commit(transaction, &Composition { tree, ..made }, None);

    let mut transaction = store.begin().unwrap();
    let installed = Installed::from([("one".to_owned(), package.clone())]);
    let made = system::change(&mut transaction, Some(&state), &installed, &[package], &[]).unwrap();
    assert_eq!(made.kept, std::slice::from_ref(&at));
    let there = resolve(&transaction, made.tree, &at).unwrap();
    assert_eq!(there.unwrap().as_leaf(), Some(&changed));
}
