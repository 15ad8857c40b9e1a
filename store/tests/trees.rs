//! Random changes of trees beside a plain map of paths.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use cairn_store::tree::{
    Content, Device, EncodedTree, Entry, HardLink, InvalidTree, Leaf, LinkGroup, Timestamp, Tree,
    Xattr,
};
use cairn_store::{
    Attributes, BlobRef, Difference, Draft, Edit, Error, Name, Store, Subtree, Summary,
    Transaction, TreeId, TreePath, TreeReader, diff, edit, merge, pairs, resolve,
};
use proptest::prelude::*;
use support::fast_directory;

/// What a path is in the model.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Directory(Attributes),
    Leaf(Leaf),
}

type Model = BTreeMap<TreePath, Node>;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn leaf(content: Content) -> Leaf {
    let mode = if matches!(content, Content::Symlink(_)) { 0o777 } else { 0o640 };
    Leaf { attributes: Attributes::of_root(mode), content, link: None }
}

/// Reads a whole tree into a model.
fn flatten(from: &impl TreeReader, id: TreeId) -> Model {
    fn walk(from: &impl TreeReader, id: TreeId, at: &TreePath, model: &mut Model) -> Summary {
        let tree = from.read_tree(id).unwrap();
        model.insert(at.clone(), Node::Directory(tree.attributes.clone()));
        for (name, entry) in tree.entries() {
            let below = at.join(name);
            match entry {
                Entry::Leaf(leaf) => {
                    model.insert(below, Node::Leaf(leaf.clone()));
                }
                Entry::Directory(subtree) => {
                    assert_eq!(walk(from, subtree.id, &below, model), subtree.summary);
                }
            }
        }
        tree.summary()
    }
    let mut model = Model::new();
    walk(from, id, &TreePath::root(), &mut model);
    model
}

/// One random change of a small name space, in which paths meet often.
fn changes() -> impl Strategy<Value = Vec<(String, u8)>> {
    let component = prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::collection::vec(component, 1..4).prop_map(|names| names.join("/"));
    prop::collection::vec((path, 0u8..6), 1..5)
}

/// Applies an edit to the model as edit(2)'s description says.
fn apply(model: &mut Model, at: &TreePath, change: &Edit) -> Result<(), ()> {
    let mut above = at.clone();
    let mut missing = Vec::new();
    while above.pop().is_some() {
        match model.get(&above) {
            Some(Node::Directory(_)) => break,
            Some(Node::Leaf(_)) => return Err(()),
            None => missing.push(above.clone()),
        }
    }
    let there = model.get(at).cloned();
    match (change, there) {
        (Edit::Remove, None) => return Err(()),
        (Edit::Remove, Some(_)) => {
            let names = at.names();
            model.retain(|path, _| !path.names().starts_with(names));
            return Ok(());
        }
        (Edit::Leaf(_), Some(Node::Directory(_))) | (Edit::Directory(_), Some(Node::Leaf(_))) => {
            return Err(());
        }
        (Edit::Leaf(leaf), _) => drop(model.insert(at.clone(), Node::Leaf(leaf.clone()))),
        (Edit::Directory(attributes), _) => {
            model.insert(at.clone(), Node::Directory(attributes.clone()));
        }
        (Edit::Tree(_), _) => unreachable!("not made here"),
    }
    for path in missing {
        model.insert(path, Node::Directory(Attributes::implied_directory()));
    }
    Ok(())
}

fn to_edit(kind: u8) -> Edit {
    match kind {
        0 | 1 => Edit::Remove,
        2 => Edit::Directory(Attributes::of_root(0o700)),
        3 => Edit::Leaf(leaf(Content::Symlink(b"target"[..].into()))),
        4 => Edit::Leaf(leaf(Content::File(BlobRef::of(b"x")))),
        _ => Edit::Leaf(leaf(Content::Fifo)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn editing_is_what_it_does_to_a_map_of_paths(steps in prop::collection::vec(changes(), 1..30)) {
        let home = fast_directory();
        let store = Store::create(&home.path().join("store")).unwrap();
        let mut transaction = store.begin().unwrap();
        let mut root = transaction.put_tree(Tree::empty(Attributes::of_root(0o755))).unwrap();
        let mut model = flatten(&transaction, root);
        for step in steps {
            let edits: BTreeMap<TreePath, Edit> =
                step.iter().map(|(at, kind)| (path(at), to_edit(*kind))).collect();
            let mut expected = model.clone();
            let fits = edits.iter().all(|(at, change)| apply(&mut expected, at, change).is_ok());
            match edit(&mut transaction, root, &edits) {
                Ok(edited) => {
                    prop_assert!(fits, "{edits:?} on {model:?}");
                    prop_assert_eq!(&flatten(&transaction, edited), &expected);
                    let told = told_by_diff(&transaction, root, edited);
                    prop_assert_eq!(told, told_by_models(&model, &expected));
                    (root, model) = (edited, expected);
                }
                Err(Error::NotADirectory(_) | Error::NoSuchPath(_)) => {
                    prop_assert!(!fits, "{edits:?} on {model:?}");
                }
                Err(err) => panic!("{err}"),
            }
        }
    }

    #[test]
    fn what_a_tree_encodes_to_decodes_to_it(tree in any_tree()) {
        prop_assert_eq!(decode(&tree.encode()).unwrap(), tree);
    }

    #[test]
    fn what_decodes_is_canonical(tree in any_tree(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let whole = tree.encode();
        let mut changed = whole.clone();
        let in_page = changed.pages.len() > usize::from(bit);
        let bytes = if in_page {
            &mut changed.pages[usize::from(bit)].1
        } else {
            &mut changed.bytes
        };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(decoded) = decode(&changed) {
            let again = decoded.encode();
            let pages = |tree: &EncodedTree| -> Vec<Vec<u8>> {
                tree.pages.iter().map(|page| page.1.clone()).collect()
            };
            prop_assert_eq!(pages(&again), pages(&changed));
            prop_assert!(in_page || again.bytes == changed.bytes);
        }
        let cut = at.min(whole.bytes.len() - 1);
        let cut = EncodedTree { bytes: whole.bytes[..cut].to_vec(), ..whole };
        prop_assert!(decode(&cut).is_err());
    }
}

/// Decodes with the pages that are there, under the ids that they had.
fn decode(encoded: &EncodedTree) -> Result<Tree, InvalidTree> {
    Tree::decode(&encoded.bytes, |id| {
        let page = encoded.pages.iter().find(|(other, _)| *other == id);
        Ok(page.map(|(_, bytes)| bytes.clone()).unwrap_or_default())
    })
}

#[test]
fn a_page_ends_where_its_names_say() {
    let entries = (0..1_000).map(|at| {
        let name = cairn_store::Name::new(format!("file {at}").as_bytes()).unwrap();
        (name, Entry::Leaf(leaf(Content::Fifo)))
    });
    let tree = Tree::new(Attributes::of_root(0o755), entries.collect()).unwrap();
    let encoded = tree.encode();
    assert!((15..60).contains(&encoded.pages.len()), "{} pages", encoded.pages.len());
    assert_eq!(decode(&encoded).unwrap(), tree);
    // Two pages made into one, and one cut in two.
    let list = encoded.bytes.len() - 36 * encoded.pages.len();
    let count = |at: usize| {
        let at = list + 36 * at + 32;
        u32::from_le_bytes(encoded.bytes[at..at + 4].try_into().unwrap())
    };
    let mut joined = encoded.clone();
    let second = joined.pages.remove(1).1;
    joined.pages[0].1.extend(second);
    let sum = count(0) + count(1);
    joined.bytes.drain(list + 36..list + 72);
    joined.bytes[list + 32..list + 36].copy_from_slice(&sum.to_le_bytes());
    assert!(decode(&joined).is_err());
    let mut changed = tree.clone();
    changed.remove(b"file 500");
    let again = changed.encode();
    let new = again.pages.iter().filter(|page| !encoded.pages.contains(page)).count();
    assert!(new <= 2, "{new} pages changed for one entry");
}

/// Paths at which trees differ: those told, and all below added and removed
/// directories.
fn told_by_diff(from: &impl TreeReader, old: TreeId, new: TreeId) -> Vec<TreePath> {
    let mut told = Vec::new();
    let mut whole = |at: &TreePath, entry: &Entry| match entry {
        Entry::Leaf(_) => told.push(at.clone()),
        Entry::Directory(subtree) => {
            let below = flatten(from, subtree.id).into_keys();
            told.extend(below.map(|path| at.names().iter().chain(path.names()).cloned().collect()));
        }
    };
    diff(from, old, new, &mut |at, difference| {
        match difference {
            Difference::Added(entry) | Difference::Removed(entry) => whole(at, entry),
            Difference::Changed(old, new) => {
                whole(at, old);
                whole(at, new);
            }
            Difference::Attributes(..) => {
                whole(at, &Entry::Leaf(leaf(Content::Fifo)));
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    told.sort();
    told.dedup();
    told
}

fn told_by_models(old: &Model, new: &Model) -> Vec<TreePath> {
    let mut paths: Vec<TreePath> = old.keys().chain(new.keys()).cloned().collect();
    paths.retain(|path| old.get(path) != new.get(path));
    paths.sort();
    paths.dedup();
    paths
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let attributes = (0u16..=0o7777, any::<u32>(), any::<i64>(), 0u32..1_000_000_000, 0usize..3)
        .prop_map(|(mode, uid, seconds, nanoseconds, xattrs)| Attributes {
            mode,
            uid,
            gid: uid ^ 1,
            mtime: Timestamp::new(seconds, nanoseconds).unwrap(),
            xattrs: (0..xattrs)
                .map(|at| Xattr {
                    name: format!("user.{at}").into_bytes().into(),
                    value: vec![at as u8; at].into(),
                })
                .collect(),
        });
    let entry = (attributes.clone(), 0u8..8, any::<u64>(), any::<bool>()).prop_map(
        |(attributes, kind, number, linked)| {
            let device = Device { major: number as u32, minor: (number >> 32) as u32 };
            let content = match kind {
                0 => {
                    let id = TreeId::of(&number.to_le_bytes());
                    let summary = Summary { entries: number, bytes: 1, linked: 2 };
                    return Entry::Directory(Subtree { id, summary });
                }
                1 | 2 => Content::File(BlobRef::of(&number.to_le_bytes())),
                3 => Content::Symlink(b"../x"[..].into()),
                4 => Content::CharDevice(device),
                5 => Content::BlockDevice(device),
                6 => Content::Fifo,
                _ => Content::Socket,
            };
            let link = HardLink { group: LinkGroup([7; 16]), count: 2 };
            let mode = if kind == 3 { 0o777 } else { attributes.mode };
            let attributes = Attributes { mode, ..attributes };
            Entry::Leaf(Leaf { attributes, content, link: linked.then_some(link) })
        },
    );
    let name = prop::collection::vec(1u8..=255, 1..20);
    (
        attributes,
        prop_oneof![
            9 => prop::collection::btree_map(name.clone(), entry.clone(), 0..12),
            1 => prop::collection::btree_map(name, entry, 250..400),
        ],
    )
        .prop_map(|(attributes, map)| {
            let entries = map
                .into_iter()
                .filter_map(|(name, entry)| Some((cairn_store::Name::new(&name).ok()?, entry)));
            Tree::new(attributes, entries.collect()).unwrap()
        })
}

/// A group of three hard links in two directories.
fn linked_tree(transaction: &mut Transaction) -> TreeId {
    let link = HardLink { group: LinkGroup::of(b"/a/one"), count: 3 };
    let member = Leaf { link: Some(link), ..leaf(Content::File(BlobRef::of(b"x"))) };
    let edits = ["a/one", "a/two", "b/three"].map(|at| (path(at), Edit::Leaf(member.clone())));
    let empty = transaction.put_tree(Tree::empty(Attributes::of_root(0o755))).unwrap();
    edit(transaction, empty, &edits.into_iter().collect()).unwrap()
}

#[test]
fn the_counts_of_hard_links_follow_their_members() {
    let home = fast_directory();
    let store = Store::create(&home.path().join("store")).unwrap();
    let mut transaction = store.begin().unwrap();
    let root = linked_tree(&mut transaction);
    let count = |transaction: &Transaction, root, at: &str| {
        let entry = resolve(transaction, root, &path(at)).unwrap().unwrap();
        entry.as_leaf().unwrap().link.map(|link| link.count)
    };
    assert_eq!(count(&transaction, root, "b/three"), Some(3));
    let without = |transaction: &mut Transaction, root, at: &str| {
        edit(transaction, root, &BTreeMap::from([(path(at), Edit::Remove)])).unwrap()
    };
    let two = without(&mut transaction, root, "a/one");
    assert_eq!(count(&transaction, two, "a/two"), Some(2));
    assert_eq!(count(&transaction, two, "b/three"), Some(2));
    let one = without(&mut transaction, two, "a");
    assert_eq!(count(&transaction, one, "b/three"), None);
}

#[test]
fn the_time_of_a_directory_is_no_reason_for_a_conflict() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::create(&home.path().join("store")).unwrap();
    let mut transaction = store.begin().unwrap();
    let mut tree = |mode, seconds, name: Option<&str>| {
        let mtime = Timestamp::new(seconds, 0).unwrap();
        let entries = name.map(|name| {
            let content = leaf(Content::Fifo);
            (Name::new(name.as_bytes()).unwrap(), Entry::Leaf(content))
        });
        let attributes = Attributes { mtime, ..Attributes::of_root(mode) };
        let below = Tree::new(attributes, entries.into_iter().collect()).unwrap();
        let below = transaction.put_subtree(below).unwrap();
        let root = vec![(Name::new(b"d").unwrap(), below)];
        let root = Tree::new(Attributes::implied_directory(), root).unwrap();
        transaction.put_tree(root).unwrap()
    };
    // Something was changed in the directory of the base.
    let (base, part) = (tree(0o700, 77, Some("changed")), tree(0o700, 0, Some("part")));
    let (implied, other) = (tree(0o755, 88, None), tree(0o750, 0, None));
    let merged = merge(&mut transaction, base, &[part]).unwrap().unwrap().tree;
    let attributes = |transaction: &Transaction, root| {
        let entry = resolve(transaction, root, &path("d")).unwrap().unwrap();
        let tree = transaction.read_tree(entry.as_directory().unwrap().id).unwrap();
        (tree.attributes.mode, tree.attributes.mtime.seconds(), tree.entries().len())
    };
    assert_eq!(attributes(&transaction, merged), (0o700, 77, 2));
    // What no side wants otherwise is as the one that says something.
    let merged = merge(&mut transaction, implied, &[part]).unwrap().unwrap().tree;
    assert_eq!(attributes(&transaction, merged), (0o700, 88, 1));
    // Other modes are a conflict as ever.
    assert!(merge(&mut transaction, base, &[other]).unwrap().is_err());
}

#[test]
fn a_diff_and_a_merge_read_only_what_differs() {
    let home = fast_directory();
    let store = Store::create(&home.path().join("store")).unwrap();
    let mut transaction = store.begin().unwrap();
    let empty = transaction.put_tree(Tree::empty(Attributes::of_root(0o755))).unwrap();
    let edits = (0..2_000).map(|at| {
        let at = path(&format!("{}/{}/{at}", at % 20, at % 7));
        (at, Edit::Leaf(leaf(Content::Fifo)))
    });
    let old = edit(&mut transaction, empty, &edits.collect()).unwrap();
    let change = BTreeMap::from([(path("3/3/new"), Edit::Leaf(leaf(Content::Socket)))]);
    let new = edit(&mut transaction, old, &change).unwrap();
    let draft = Draft { parent: None, request: String::new(), tree: new, packages: old };
    transaction.commit(draft).unwrap();

    struct Counting<'a>(&'a Store, std::cell::Cell<usize>);
    impl TreeReader for Counting<'_> {
        fn read_tree(&self, id: TreeId) -> Result<std::sync::Arc<Tree>, Error> {
            self.1.set(self.1.get() + 1);
            self.0.tree(id)
        }
    }
    let counting = Counting(&store, std::cell::Cell::new(0));
    let mut differences = 0;
    diff(&counting, old, new, &mut |_, _| {
        differences += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((differences, counting.1.get()), (1, 6));
}

#[test]
fn two_large_directories_are_compared_page_by_page() {
    let home = fast_directory();
    let store = Store::create(&home.path().join("store")).unwrap();
    let put = |changed: &[usize], count| {
        let entries = (0..count).map(|at| {
            let content = if changed.contains(&at) { Content::Socket } else { Content::Fifo };
            let name = Name::new(format!("file {at:05}").as_bytes()).unwrap();
            (name, Entry::Leaf(leaf(content)))
        });
        let tree = Tree::new(Attributes::of_root(0o755), entries.collect()).unwrap();
        let mut transaction = store.begin().unwrap();
        let tree = transaction.put_tree(tree).unwrap();
        let draft = Draft { parent: None, request: String::new(), tree, packages: tree };
        transaction.commit(draft).unwrap();
        tree
    };
    let changes: [(&[usize], usize); 5] =
        [(&[], 5_000), (&[0, 2_500], 5_000), (&[4_999], 5_000), (&[7], 200), (&[], 0)];
    let trees = changes.map(|(changed, count)| put(changed, count));
    for (old, new) in trees.into_iter().flat_map(|old| trees.map(|new| (old, new))) {
        // Not kept by what was read before.
        let store = Store::open(store.path()).unwrap();
        let (some_old, some_new) = store.differing(old, new).unwrap();
        let (all_old, all_new) = (store.tree(old).unwrap(), store.tree(new).unwrap());
        let told = |old, new| -> Vec<(Name, Option<Entry>, Option<Entry>)> {
            let differing = pairs(old, new).filter(|(_, old, new)| old != new);
            differing.map(|(name, old, new)| (name.clone(), old.cloned(), new.cloned())).collect()
        };
        assert_eq!(told(&some_old, &some_new), told(&all_old, &all_new));
        assert_eq!(some_old.attributes, all_old.attributes);
        if all_old.entries().len() == 5_000 && all_new.entries().len() == 5_000 {
            let read = some_old.entries().len() + some_new.entries().len();
            assert!(read < 1_200, "{read} entries were read to find at most three");
        }
        // What is incomplete is not kept as if it were whole.
        assert_eq!(
            *store.tree(old).unwrap(),
            *Store::open(store.path()).unwrap().tree(old).unwrap()
        );
    }
}
