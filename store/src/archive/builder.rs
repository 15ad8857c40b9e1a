//! A tree that grows in memory, path by path and in any order.

use std::collections::{BTreeMap, HashMap};

use super::error::EntryProblem;
use crate::error::Result;
use crate::hash::TreeId;
use crate::name::{Name, TreePath};
use crate::transaction::Transaction;
use crate::tree::{Attributes, Content, Entry, HardLink, Leaf, LinkGroup, Tree};

/// A tree that grows in memory, path by path and in any order.
///
/// Nothing is ever reached through a symbolic link: a path through anything but
/// a directory is refused, whichever of the two comes first. Layers may lie on
/// each other, as in images of containers: then what a later one has wins.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    root: Directory,
    files: Vec<File>,
    layer: u32,
}

/// Names something that is not a directory in a [`TreeBuilder`], whatever paths
/// it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(usize);

#[derive(Debug)]
struct File {
    attributes: Attributes,
    /// `None` for a regular file until it is known.
    content: Option<Content>,
}

#[derive(Debug, Default)]
struct Directory {
    /// `None` as long as there is only something below it.
    attributes: Option<Attributes>,
    entries: BTreeMap<Name, Node>,
    /// The layer that has it, or something below it; and the one that has listed
    /// it.
    layer: u32,
    listed: Option<u32>,
}

/// Why the last directory of a path has to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// The archive has an entry for it.
    Listed,
    /// The archive has an entry below it.
    Implied,
}

#[derive(Debug)]
enum Node {
    Directory(Directory),
    File { file: FileId, layer: u32 },
}

impl TreeBuilder {
    /// An empty root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins another layer above those before.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Adds a directory, or gives the one there its attributes.
    pub fn directory(
        &mut self,
        path: &TreePath,
        attributes: Attributes,
    ) -> Result<(), EntryProblem> {
        let layer = self.layer;
        let directory = self.make(path.names(), Last::Listed)?;
        if directory.listed == Some(layer) {
            return Err(EntryProblem::Twice);
        }
        directory.listed = Some(layer);
        directory.attributes = Some(attributes);
        Ok(())
    }

    /// Adds anything but a directory; the content of a regular file may follow.
    pub fn file(
        &mut self,
        path: &TreePath,
        attributes: Attributes,
        content: Option<Content>,
    ) -> Result<FileId, EntryProblem> {
        let file = FileId(self.files.len());
        self.place(path, file)?;
        self.files.push(File { attributes, content });
        Ok(file)
    }

    /// Adds another name of a file that is there.
    pub fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<(), EntryProblem> {
        let missing = || EntryProblem::LinkTarget(target.to_bytes());
        let (parent, name) = target.split_last().ok_or_else(missing)?;
        let parent = self.find(parent.names()).ok_or_else(missing)?;
        let Some(Node::File { file, .. }) = parent.entries.get(name) else {
            return Err(missing());
        };
        let file = *file;
        self.place(path, file)
    }

    /// Says what a regular file holds.
    pub fn set_content(&mut self, file: FileId, content: Content) {
        self.files[file.0].content = Some(content);
    }

    /// Takes away what layers before this one have at `path`, if there is anything.
    pub fn white_out(&mut self, path: &TreePath) {
        let layer = self.layer;
        let Some((parent, name)) = path.split_last() else { return };
        let Some(parent) = self.find_mut(parent.names()) else { return };
        if parent.entries.get_mut(name).is_some_and(|node| !node.strip(layer)) {
            parent.entries.remove(name);
        }
    }

    /// Takes away all that layers before this one have in the directory `path`.
    pub fn make_opaque(&mut self, path: &TreePath) {
        let layer = self.layer;
        if let Some(directory) = self.find_mut(path.names()) {
            directory.entries.retain(|_, node| node.strip(layer));
        }
    }

    /// Adds the whole tree to a transaction; directories that were only implied
    /// are those of [`Attributes::implied_directory`].
    ///
    /// # Panics
    /// If the content of a file was never said.
    pub fn put(self, transaction: &mut Transaction) -> Result<TreeId> {
        let mut groups: HashMap<FileId, (Vec<u8>, u32)> = HashMap::new();
        self.root.count_names(&mut Vec::new(), &mut groups);
        let root = self.root.put(transaction, &self.files, &groups)?;
        transaction.put_tree(root)
    }

    fn find(&self, names: &[Name]) -> Option<&Directory> {
        names.iter().try_fold(&self.root, |directory, name| match directory.entries.get(name)? {
            Node::Directory(below) => Some(below),
            Node::File { .. } => None,
        })
    }

    fn find_mut(&mut self, names: &[Name]) -> Option<&mut Directory> {
        names.iter().try_fold(&mut self.root, |directory, name| {
            match directory.entries.get_mut(name)? {
                Node::Directory(below) => Some(below),
                Node::File { .. } => None,
            }
        })
    }

    /// The directory at a path; it and those above it are made where they are
    /// missing.
    fn make(&mut self, names: &[Name], last: Last) -> Result<&mut Directory, EntryProblem> {
        let layer = self.layer;
        let mut directory = &mut self.root;
        directory.layer = layer;
        for (at, name) in names.iter().enumerate() {
            let node = directory
                .entries
                .entry(name.clone())
                .or_insert_with(|| Node::Directory(Directory { layer, ..Directory::default() }));
            let is_listed = at + 1 == names.len() && last == Last::Listed;
            if let Node::File { layer: there, .. } = node {
                // A layer may put a directory over a file, but it has to say so.
                if !is_listed {
                    let above: TreePath = names[..=at].iter().cloned().collect();
                    return Err(EntryProblem::NotBelowDirectory(above.to_bytes()));
                }
                if *there == layer {
                    return Err(EntryProblem::Twice);
                }
                *node = Node::Directory(Directory { layer, ..Directory::default() });
            }
            directory = match node {
                Node::Directory(below) => below,
                Node::File { .. } => unreachable!("it was replaced above"),
            };
            directory.layer = layer;
        }
        Ok(directory)
    }

    fn place(&mut self, path: &TreePath, file: FileId) -> Result<(), EntryProblem> {
        let layer = self.layer;
        let (parent, name) = path.split_last().ok_or(EntryProblem::NotADirectory)?;
        let parent = self.make(parent.names(), Last::Implied)?;
        match parent.entries.get(name) {
            Some(Node::File { layer: there, .. }) if *there == layer => {
                return Err(EntryProblem::Twice);
            }
            Some(Node::Directory(there)) if there.layer == layer => {
                return Err(match there.listed == Some(layer) {
                    true => EntryProblem::Twice,
                    false => EntryProblem::NotADirectory,
                });
            }
            _ => {}
        }
        parent.entries.insert(name.clone(), Node::File { file, layer });
        Ok(())
    }
}

impl Node {
    /// Takes away all that is not of `layer`; says whether anything stays.
    fn strip(&mut self, layer: u32) -> bool {
        match self {
            Self::File { layer: there, .. } => *there == layer,
            Self::Directory(directory) => {
                directory.entries.retain(|_, node| node.strip(layer));
                if directory.listed != Some(layer) {
                    directory.attributes = None;
                }
                directory.layer == layer
            }
        }
    }
}

impl Directory {
    fn count_names(&self, path: &mut Vec<u8>, groups: &mut HashMap<FileId, (Vec<u8>, u32)>) {
        for (name, node) in &self.entries {
            let len = path.len();
            path.push(b'/');
            path.extend_from_slice(name);
            match node {
                Node::Directory(directory) => directory.count_names(path, groups),
                Node::File { file, .. } => {
                    let (first, count) = groups.entry(*file).or_insert_with(|| (path.clone(), 0));
                    *count += 1;
                    if path < first {
                        first.clone_from(path);
                    }
                }
            }
            path.truncate(len);
        }
    }

    fn put(
        self,
        transaction: &mut Transaction,
        files: &[File],
        groups: &HashMap<FileId, (Vec<u8>, u32)>,
    ) -> Result<Tree> {
        let mut entries = Vec::with_capacity(self.entries.len());
        for (name, node) in self.entries {
            let entry = match node {
                Node::Directory(directory) => {
                    let tree = directory.put(transaction, files, groups)?;
                    transaction.put_subtree(tree)?
                }
                Node::File { file, .. } => {
                    let (first, count) = &groups[&file];
                    let group = LinkGroup::of(first);
                    let link = (*count > 1).then_some(HardLink { group, count: *count });
                    let File { attributes, content } = &files[file.0];
                    let content = content.clone().expect("the content of each file was said");
                    Entry::Leaf(Leaf { attributes: attributes.clone(), content, link })
                }
            };
            entries.push((name, entry));
        }
        let attributes = self.attributes.unwrap_or(Attributes::implied_directory());
        Ok(Tree::new(attributes, entries).expect("a map has no name twice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a path")
    }

    /// Builds from words: `d PATH`, `f PATH`, `l PATH TARGET`, `w PATH` (white
    /// out), `o PATH` (opaque), `-` (next layer). Returns the paths, or the
    /// first problem.
    fn build(words: &[&str]) -> Result<Vec<String>, String> {
        let mut builder = TreeBuilder::new();
        for word in words {
            let parts: Vec<&str> = word.split(' ').collect();
            let attributes = || Attributes::of_root(0o700);
            let done = match parts[..] {
                ["d", at] => builder.directory(&path(at), attributes()),
                ["f", at] => builder.file(&path(at), attributes(), Some(Content::Fifo)).map(|_| ()),
                ["l", at, target] => builder.hard_link(&path(at), &path(target)),
                ["w", at] => {
                    builder.white_out(&path(at));
                    Ok(())
                }
                ["o", at] => {
                    builder.make_opaque(&path(at));
                    Ok(())
                }
                _ => {
                    builder.begin_layer();
                    Ok(())
                }
            };
            done.map_err(|problem| format!("{word}: {problem}"))?;
        }
        let mut found = Vec::new();
        fn list(directory: &Directory, above: &str, found: &mut Vec<String>) {
            for (name, node) in &directory.entries {
                let path = format!("{above}/{name}");
                match node {
                    Node::Directory(below) => {
                        let mark = if below.attributes.is_some() { "/" } else { "?" };
                        found.push(format!("{path}{mark}"));
                        list(below, &path, found);
                    }
                    Node::File { file, .. } => found.push(format!("{path} {}", file.0)),
                }
            }
        }
        list(&builder.root, "", &mut found);
        Ok(found)
    }

    #[test]
    fn the_order_of_entries_does_not_matter() {
        let expected = ["/a/", "/a/b/", "/a/b/c 0", "/d 0"].map(str::to_owned);
        for words in [
            ["d a", "d a/b", "f a/b/c", "l d a/b/c"],
            ["f a/b/c", "d a/b", "l d a/b/c", "d a"],
            ["d a/b", "f a/b/c", "d a", "l d a/b/c"],
        ] {
            assert_eq!(build(&words).expect("a tree"), expected, "{words:?}");
        }
        assert_eq!(build(&["f a/b"]).expect("a tree"), ["/a?", "/a/b 0"]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_in_either_order() {
        let check = |words: &[&str], expected: &str| {
            let problem = build(words).expect_err(expected);
            assert_eq!(problem, expected, "{words:?}");
        };
        check(&["f a", "f a"], "f a: the archive has it twice");
        check(&["d a", "d a"], "d a: the archive has it twice");
        check(&["d a", "f a"], "f a: the archive has it twice");
        check(&["f a", "d a"], "d a: the archive has it twice");
        check(&["f a", "f a/b"], "f a/b: \"/a\" above it is not a directory");
        check(&["f a", "f a/b/c"], "f a/b/c: \"/a\" above it is not a directory");
        check(&["f a", "d a/b"], "d a/b: \"/a\" above it is not a directory");
        check(&["f a/b", "f a"], "f a: it is not a directory, but other entries lie below it");
        check(&["f "], "f : it is not a directory, but other entries lie below it");
        check(&["l a b"], "l a b: \"/b\" is not a file before it in the archive");
        check(&["d b", "l a b"], "l a b: \"/b\" is not a file before it in the archive");
        check(&["l a a"], "l a a: \"/a\" is not a file before it in the archive");
        check(&["f b", "l a b/c"], "l a b/c: \"/b/c\" is not a file before it in the archive");
    }

    #[test]
    fn a_layer_wins_over_those_below_it() {
        let check = |words: &[&str], expected: &[&str]| {
            assert_eq!(build(words).expect("a tree"), expected, "{words:?}");
        };
        check(&["f a", "-", "f a"], &["/a 1"]);
        check(&["d a", "f a/b", "-", "d a"], &["/a/", "/a/b 0"]);
        check(&["d a", "f a/b", "-", "f a"], &["/a 1"]);
        check(&["f a", "-", "d a", "f a/b"], &["/a/", "/a/b 1"]);
        check(&["f a", "f b", "-", "w a"], &["/b 1"]);
        check(&["d a", "f a/b", "-", "w a"], &[]);
        // A whiteout is for layers below, wherever it stands in its own.
        check(&["f a", "-", "f a", "w a"], &["/a 1"]);
        check(&["f a/b", "-", "f a/c", "w a"], &["/a?", "/a/c 1"]);
        check(&["d a", "f a/b", "-", "f a/c", "o a"], &["/a/", "/a/c 1"]);
        check(&["d a", "f a/b", "-", "o a", "f a/c"], &["/a/", "/a/c 1"]);
        check(&["f a", "-", "l b a", "w a"], &["/b 0"]);
        check(&["-", "w a", "w b/c", "o d"], &[]);
        // Some programs white out what lay below a directory that is a file now.
        check(&["d a", "f a/b", "-", "f a", "w a/b", "o a"], &["/a 1"]);
        check(&["d a", "f a/b", "-", "w a/b", "o a", "f a"], &["/a 1"]);
        for word in ["f a/b", "f a/b/c", "d a/b"] {
            let through = build(&["f a", "-", word]).expect_err("a link below");
            assert_eq!(through, format!("{word}: \"/a\" above it is not a directory"));
        }
    }
}
