//! What an upper layer of overlayfs makes of the tree below it.
//!
//! The layer is a tree as well, read as it lies on the disk: a character device
//! 0/0 stands for something that was taken away, and extended attributes of
//! overlayfs mark directories that hide what is below them.
//!
//! Source: Documentation/filesystems/overlayfs.rst of Linux, "whiteouts and opaque
//! directories".

use crate::edit::{TreeReader, recount_links};
use crate::error::Result;
use crate::hash::TreeId;
use crate::transaction::Transaction;
use crate::tree::{Attributes, Content, Device, Entry, Leaf, Timestamp, Tree};

/// How a layer is read.
#[derive(Clone, Copy, Debug)]
pub struct LayerRules<'a> {
    /// What the names of overlayfs's own attributes begin with:
    /// `trusted.overlay.` or `user.overlay.`.
    pub marks: &'a [u8],
    /// Whether everything belongs to root, whoever it belongs to in the layer:
    /// so it is where an ordinary user is root in a namespace of its own.
    pub all_of_root: bool,
    /// Whether times tell nothing: files get the time 0, directories keep that
    /// which they have below, and what differs by its time alone does not differ.
    pub without_times: bool,
}

/// Puts the tree `layer` over the tree `below`.
///
/// Costs the directories of the layer, and, if hard links are in it, those that
/// hold some.
pub fn apply_layer(
    transaction: &mut Transaction,
    below: TreeId,
    layer: TreeId,
    rules: &LayerRules<'_>,
) -> Result<TreeId> {
    let mut apply = Apply { rules, moves_links: false };
    let applied = apply.directory(transaction, Some(below), layer)?;
    if apply.moves_links { recount_links(transaction, applied) } else { Ok(applied) }
}

struct Apply<'a> {
    rules: &'a LayerRules<'a>,
    moves_links: bool,
}

impl Apply<'_> {
    fn directory(
        &mut self,
        transaction: &mut Transaction,
        below: Option<TreeId>,
        layer: TreeId,
    ) -> Result<TreeId> {
        let layer = transaction.read_tree(layer)?;
        let below = below.filter(|_| !self.is_opaque(&layer.attributes));
        let below = below.map(|id| transaction.read_tree(id)).transpose()?;
        let mut attributes = self.attributes(&layer.attributes);
        if self.rules.without_times {
            attributes.mtime =
                below.as_ref().map_or_else(Timestamp::default, |it| it.attributes.mtime);
        }
        let mut tree = match &below {
            Some(below) => Tree::clone(below),
            None => Tree::empty(attributes.clone()),
        };
        tree.attributes = attributes;
        for (name, entry) in layer.entries() {
            let present = tree.get(name).cloned();
            let entry = self.entry(transaction, present.as_ref(), entry)?;
            for side in [&present, &entry].into_iter().flatten() {
                self.moves_links |= entry != present && side.summary().linked > 0;
            }
            match entry {
                Some(entry) => drop(tree.insert(name.clone(), entry)),
                None => drop(tree.remove(name)),
            }
        }
        transaction.put_tree(tree)
    }

    fn entry(
        &mut self,
        transaction: &mut Transaction,
        present: Option<&Entry>,
        entry: &Entry,
    ) -> Result<Option<Entry>> {
        match entry {
            Entry::Directory(subtree) => {
                let below = present.and_then(Entry::as_directory).map(|subtree| subtree.id);
                let id = self.directory(transaction, below, subtree.id)?;
                let tree = transaction.read_tree(id)?;
                transaction.put_subtree(Tree::clone(&tree)).map(Some)
            }
            Entry::Leaf(leaf) if leaf.content == WHITEOUT => Ok(None),
            Entry::Leaf(leaf) => {
                let mut leaf =
                    Leaf { attributes: self.attributes(&leaf.attributes), ..leaf.clone() };
                if self.rules.without_times {
                    leaf.attributes.mtime = Timestamp::default();
                    if let Some(Entry::Leaf(present)) = present
                        && is_same_but_for_time(present, &leaf)
                    {
                        return Ok(Some(Entry::Leaf(present.clone())));
                    }
                }
                Ok(Some(Entry::Leaf(leaf)))
            }
        }
    }

    fn is_opaque(&self, attributes: &Attributes) -> bool {
        attributes.xattr(&[self.rules.marks, b"opaque"].concat()) == Some(b"y")
    }

    fn attributes(&self, attributes: &Attributes) -> Attributes {
        let mut attributes = attributes.clone();
        attributes.xattrs.retain(|xattr| !xattr.name.starts_with(self.rules.marks));
        if self.rules.all_of_root {
            (attributes.uid, attributes.gid) = (0, 0);
        }
        attributes
    }
}

/// What stands for something that was taken away.
const WHITEOUT: Content = Content::CharDevice(Device { major: 0, minor: 0 });

fn is_same_but_for_time(one: &Leaf, other: &Leaf) -> bool {
    let mtime = other.attributes.mtime;
    let timeless = |leaf: &Leaf| Attributes { mtime, ..leaf.attributes.clone() };
    // Copying a file up takes it out of its group of hard links.
    one.content == other.content && timeless(one) == timeless(other) && other.link.is_none()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{BlobRef, Edit, Store, TreePath, Xattr, edit};

    const RULES: LayerRules<'static> =
        LayerRules { marks: b"trusted.overlay.", all_of_root: false, without_times: true };

    fn leaf(content: Content, seconds: i64) -> Edit {
        let mut attributes = Attributes::of_root(0o644);
        attributes.mtime = Timestamp::new(seconds, 0).unwrap();
        Edit::Leaf(Leaf { attributes, content, link: None })
    }

    fn file(text: &str, seconds: i64) -> Edit {
        leaf(Content::File(BlobRef::of(text.as_bytes())), seconds)
    }

    fn put(transaction: &mut Transaction, edits: &[(&str, Edit)]) -> TreeId {
        let empty = transaction.put_tree(Tree::empty(Attributes::implied_directory())).unwrap();
        let path = |text: &str| TreePath::new(text.as_bytes()).unwrap();
        let edits: BTreeMap<TreePath, Edit> =
            edits.iter().map(|(text, edit)| (path(text), edit.clone())).collect();
        edit(transaction, empty, &edits).unwrap()
    }

    #[test]
    fn a_layer_adds_replaces_hides_and_takes_away() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let mut transaction = store.begin().unwrap();
        let whiteout = leaf(WHITEOUT, 9);
        let mark = |name: &[u8]| Xattr { name: name.into(), value: (*b"y").into() };
        let marked = |name| Attributes { xattrs: vec![mark(name)], ..Attributes::of_root(0o755) };
        let below = put(
            &mut transaction,
            &[
                ("a/gone", file("1", 1)),
                ("a/stays", file("1", 1)),
                ("b/x", file("1", 1)),
                ("c/x", file("1", 1)),
                ("d", file("1", 1)),
                ("e/x", file("1", 1)),
                ("touched", file("1", 1)),
            ],
        );
        let layer = put(
            &mut transaction,
            &[
                ("a/gone", whiteout.clone()),
                ("a/never", whiteout.clone()),
                ("a/new", file("2", 9)),
                ("b", Edit::Directory(marked(b"trusted.overlay.opaque"))),
                ("b/y", file("2", 9)),
                ("c", Edit::Directory(marked(b"trusted.overlay.impure"))),
                ("c/y", file("2", 9)),
                ("d/z", file("2", 9)),
                ("e", whiteout),
                ("touched", file("1", 9)),
            ],
        );
        let expected = [
            ("a/stays", file("1", 1)),
            ("a/new", file("2", 0)),
            ("b/y", file("2", 0)),
            ("c/x", file("1", 1)),
            ("c/y", file("2", 0)),
            ("d/z", file("2", 0)),
            ("touched", file("1", 1)),
        ];
        let expected = put(&mut transaction, &expected);
        assert_eq!(apply_layer(&mut transaction, below, layer, &RULES).unwrap(), expected);
        // With times, and a mark that belongs to others.
        let rules = LayerRules { marks: b"user.overlay.", without_times: false, ..RULES };
        let applied = apply_layer(&mut transaction, below, layer, &rules).unwrap();
        let entry = |path: &str| {
            let path = TreePath::new(path.as_bytes()).unwrap();
            crate::resolve(&transaction, applied, &path).unwrap()
        };
        let b = entry("b").unwrap().as_directory().unwrap().id;
        assert_eq!(transaction.read_tree(b).unwrap().attributes.xattrs.len(), 1);
        assert!(entry("b/x").is_some() && entry("b/y").is_some());
        let touched = entry("touched").unwrap();
        assert_eq!(touched.as_leaf().unwrap().attributes.mtime.seconds(), 9);
    }
}
