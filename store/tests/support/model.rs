//! States as plain maps, put into a store and read back.

use std::collections::BTreeMap;

use cairn_store::tree::{Content, Entry, Leaf};
use cairn_store::{Attributes, BytesSource, Draft, Name, Result, State, Store, Tree, TreeId};

/// Directory and name of each file, with its content.
pub type Files = BTreeMap<(String, String), Vec<u8>>;

/// Random numbers that a seed repeats.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    /// Bytes that do not compress.
    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.roll(256)).unwrap()).collect()
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// Commits a state that has exactly these files.
pub fn publish(store: &Store, files: &Files) -> Result<State> {
    let mut transaction = store.begin()?;
    let sources: Vec<BytesSource<'_>> = files
        .iter()
        .map(|((_, name), bytes)| BytesSource { name: name.as_str(), bytes: bytes.as_slice() })
        .collect();
    let blobs = transaction.ingest(&sources, &())?;
    let mut directories: BTreeMap<&str, Vec<(Name, Entry)>> = BTreeMap::new();
    for (((directory, file), _), blob) in files.iter().zip(blobs) {
        let content = Content::File(blob);
        let leaf = Leaf { attributes: Attributes::of_root(0o644), content, link: None };
        directories.entry(directory).or_default().push((name(file), Entry::Leaf(leaf)));
    }
    let mut top = Vec::new();
    for (directory, entries) in directories {
        let tree = Tree::new(Attributes::of_root(0o755), entries).unwrap();
        top.push((name(directory), transaction.put_subtree(tree)?));
    }
    let tree = transaction.put_tree(Tree::new(Attributes::of_root(0o755), top).unwrap())?;
    let packages = transaction.put_tree(Tree::empty(Attributes::of_root(0o700)))?;
    let parent = store.refs().current;
    transaction.commit(Draft { parent, request: "test".into(), tree, packages })
}

/// Reads everything below a root.
pub fn read_back(store: &Store, tree: TreeId) -> Result<Files> {
    let mut files = Files::new();
    for (directory, below) in store.tree(tree)?.entries() {
        let id = below.as_directory().expect("the top has directories").id;
        for (file, entry) in store.tree(id)?.entries() {
            let blob = entry.as_leaf().and_then(Leaf::blob).expect("they have files");
            files.insert((directory.to_string(), file.to_string()), store.read(blob)?);
        }
    }
    Ok(files)
}
