//! What a program in a workspace finds beside its state: a tree that lies below the
//! state, where it shines through.
//!
//! It has what usr/share/defaults/etc of the state has and /etc has not, what name
//! services need where neither has it, and /var/tmp. It is not a part of the
//! workspace: a file of it becomes one when it is changed.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use cairn_store::{
    Attributes, BlobKey, BlobRef, BytesSource, Content, Entry, Leaf, Name, Result, Scratch,
    Subtree, Transaction, Tree, TreeId, TreePath, TreeReader, TreeWriter, resolve,
};

use serde::{Deserialize, Serialize};

use crate::run::inside::{BELOW, FILES, STATE};

/// A tree that is nowhere but in memory, with its contents.
#[derive(Clone, Debug)]
pub(crate) struct Completion {
    /// The root directory.
    pub(crate) root: TreeId,
    trees: HashMap<TreeId, Arc<Tree>>,
    contents: HashMap<BlobKey, Vec<u8>>,
}

/// All of a completion as bytes: of each directory its encoding and its pages, and the
/// contents of files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noted {
    root: TreeId,
    trees: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    contents: Vec<Vec<u8>>,
}

impl Completion {
    /// All of it as bytes: what it was made of may have changed by the time that it is needed.
    pub(crate) fn note(&self) -> Noted {
        let parts = |tree: &Arc<Tree>| {
            let encoded = tree.encode();
            (encoded.bytes, encoded.pages.into_iter().map(|(_, page)| page).collect())
        };
        Noted {
            root: self.root,
            trees: self.trees.values().map(parts).collect(),
            contents: self.contents.values().cloned().collect(),
        }
    }

    /// What was noted.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(crate) fn of(noted: Noted) -> Result<Self> {
        let mut trees = HashMap::new();
        for (bytes, pages) in noted.trees {
            let mut pages = pages.into_iter();
            let tree: Result<Tree> = Tree::decode(&bytes, |_| Ok(pages.next().unwrap_or_default()));
            let tree = tree?;
            trees.insert(tree.encode().id, Arc::new(tree));
        }
        let contents = noted.contents.into_iter().map(|bytes| (BlobRef::of(&bytes).key, bytes));
        Ok(Self { root: noted.root, trees, contents: contents.collect() })
    }

    /// Completes the state whose root is `state`.
    ///
    /// Costs four trees.
    pub(crate) fn new(from: &impl TreeReader, state: TreeId) -> Result<Self> {
        let mut trees = Scratch::new(from);
        let mut contents = HashMap::new();
        let defaults = TreePath::new(b"usr/share/defaults/etc").expect("it is a path");
        let defaults = resolve(from, state, &defaults)?;
        let mut etc = match defaults.as_ref().and_then(Entry::as_directory) {
            Some(defaults) => Tree::clone(&*from.read_tree(defaults.id)?),
            None => Tree::empty(Attributes::implied_directory()),
        };
        let files = FILES.map(|(name, text)| (name, text.as_bytes().to_vec()));
        let resolver = ("resolv.conf", fs::read("/etc/resolv.conf").unwrap_or_default());
        for (name, bytes) in files.into_iter().chain([resolver]) {
            if etc.get(name.as_bytes()).is_none() {
                let blob = BlobRef::of(&bytes);
                let attributes = Attributes::of_root(0o644);
                let leaf = Leaf { attributes, content: Content::File(blob), link: None };
                etc.insert(self::name(name), Entry::Leaf(leaf));
                contents.insert(blob.key, bytes);
            }
        }
        let etc = put(&mut trees, etc)?;
        let tmp = put(&mut trees, Tree::empty(Attributes::of_root(0o1777)))?;
        let var = Tree::new(Attributes::implied_directory(), vec![(name("tmp"), tmp)]);
        let var = put(&mut trees, var.expect("it has one name"))?;
        let root = vec![(name("etc"), etc), (name("var"), var)];
        let root = Tree::new(Attributes::implied_directory(), root);
        let root = trees.write_tree(root.expect("it has two names"))?;
        Ok(Self { root, trees: trees.into_trees(), contents })
    }

    /// Adds a directory that has the state as `state` and this as `below`.
    pub(crate) fn beside(&mut self, from: &impl TreeReader, state: TreeId) -> Result<TreeId> {
        let entry = |id, tree: &Tree| Entry::Directory(Subtree { id, summary: tree.summary() });
        let own = self.trees[&self.root].clone();
        let entries = vec![
            (name(STATE), entry(state, &*from.read_tree(state)?)),
            (name(BELOW), entry(self.root, &own)),
        ];
        let tree = Tree::new(Attributes::implied_directory(), entries).expect("it has two names");
        let id = tree.encode().id;
        self.trees.insert(id, Arc::new(tree));
        Ok(id)
    }

    /// All of its directories.
    pub(crate) fn trees(&self) -> impl Iterator<Item = Tree> {
        self.trees.values().map(|tree| Tree::clone(tree))
    }

    /// The directory `id`, if it is of this.
    pub(crate) fn tree(&self, id: TreeId) -> Option<&Arc<Tree>> {
        self.trees.get(&id)
    }

    /// The content of a file, if it is of this.
    pub(crate) fn content(&self, key: BlobKey) -> Option<&[u8]> {
        self.contents.get(&key).map(Vec::as_slice)
    }

    /// Adds all of it to a transaction, because a part of it became one of the
    /// workspace.
    pub(crate) fn put(&self, transaction: &mut Transaction) -> Result<()> {
        let sources: Vec<_> =
            self.contents.values().map(|bytes| BytesSource { name: "a file", bytes }).collect();
        transaction.ingest(&sources, &())?;
        self.trees().try_for_each(|tree| transaction.put_tree(tree).map(drop))
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a constant")
}

fn put(trees: &mut impl TreeWriter, tree: Tree) -> Result<Entry> {
    let summary = tree.summary();
    Ok(Entry::Directory(Subtree { id: trees.write_tree(tree)?, summary }))
}
