//! From a layer and the trees below it to one tree.

use std::collections::HashMap;

use cairn_store::host::{ScannedEntry, ScannedLeaf};
use cairn_store::tree::{HardLink, LinkGroup};
use cairn_store::{
    Attributes, Entry, Leaf, Name, Subtree, Timestamp, Tree, TreeId, TreeWriter, recount_links,
};

use super::{Layer, Place};
use crate::error::Result;

/// What makes two names of a layer one file: filesystem and inode.
type FileId = (u64, u64);

/// A file of the layer with several names.
struct Group {
    /// The bytewise smallest path.
    first: Vec<u8>,
    count: u32,
}

impl Layer {
    /// Makes the tree that the overlay shows: that of the uppermost of the trees
    /// below, with the changes of this layer. Contents of files are known by now.
    ///
    /// Costs the directories in which something is changed, and, when names of hard
    /// links come or go, those that hold hard links.
    ///
    /// # Errors
    /// Those of reading and writing trees.
    pub fn put(&self, trees: &mut impl TreeWriter, base: TreeId) -> Result<TreeId> {
        let mut build = Build { layer: self, base, groups: self.groups(), moves_links: false };
        let tree = build.directory(trees, 0)?;
        if build.moves_links { Ok(recount_links(trees, tree)?) } else { Ok(tree) }
    }

    /// The files with several names in the layer.
    fn groups(&self) -> HashMap<FileId, Group> {
        let mut groups: HashMap<FileId, Group> = HashMap::new();
        let mut stack = vec![(0, Vec::new())];
        while let Some((number, path)) = stack.pop() {
            let Some(directory) = self.scan.directory(number) else { continue };
            for (name, entry) in &directory.entries {
                let path = || [&path[..], b"/", name].concat();
                match entry {
                    ScannedEntry::Directory(number) => stack.push((*number, path())),
                    ScannedEntry::Leaf(leaf)
                        if leaf.status.links > 1 && !self.is_whiteout(number, leaf) =>
                    {
                        let path = path();
                        let group = groups
                            .entry(file_id(leaf))
                            .or_insert_with(|| Group { first: path.clone(), count: 0 });
                        group.count += 1;
                        if path < group.first {
                            group.first = path;
                        }
                    }
                    ScannedEntry::Leaf(_) => {}
                }
            }
        }
        groups.retain(|_, group| group.count > 1);
        groups
    }
}

fn file_id(leaf: &ScannedLeaf) -> FileId {
    (leaf.status.filesystem, leaf.status.inode)
}

struct Build<'a> {
    layer: &'a Layer,
    base: TreeId,
    groups: HashMap<FileId, Group>,
    moves_links: bool,
}

impl Build<'_> {
    fn directory(&mut self, trees: &mut impl TreeWriter, number: usize) -> Result<TreeId> {
        let layer = self.layer;
        let mut tree = match layer.place(number) {
            Some(place) => below(trees, place)?,
            None => Tree::empty(Attributes::implied_directory()),
        };
        // A directory that went while the layer was read holds nothing.
        let Some(directory) = layer.scan.directory(number) else {
            return Ok(trees.write_tree(tree)?);
        };
        let time_below = tree.attributes.mtime;
        tree.attributes = layer.shown(&directory.attributes);
        if layer.rules.without_times {
            tree.attributes.mtime = time_below;
        }
        for (name, entry) in &directory.entries {
            let (before, is_linked) = match entry {
                ScannedEntry::Directory(number) => {
                    let id = self.directory(trees, *number)?;
                    let summary = trees.read_tree(id)?.summary();
                    let goes_on = self.goes_on(*number, tree.get(name));
                    let before =
                        tree.insert(name.clone(), Entry::Directory(Subtree { id, summary }));
                    // What comes from elsewhere brings its links; what goes on as
                    // it was has been looked at.
                    let comes = layer.place(*number).is_some_and(|place| place.is_moved);
                    (before.filter(|_| !goes_on), comes && summary.linked > 0)
                }
                ScannedEntry::Leaf(leaf) if layer.is_whiteout(number, leaf) => {
                    (tree.remove(name), false)
                }
                ScannedEntry::Leaf(leaf) => {
                    let leaf = self.leaf(leaf);
                    if layer.rules.without_times
                        && let Some(Entry::Leaf(before)) = tree.get(name)
                        && is_same_but_for_time(before, &leaf)
                    {
                        continue;
                    }
                    let is_linked = leaf.link.is_some();
                    (tree.insert(name.clone(), Entry::Leaf(leaf)), is_linked)
                }
            };
            self.moves_links |= is_linked;
            self.moves_links |= before.is_some_and(|before| before.summary().linked > 0);
        }
        Ok(trees.write_tree(tree)?)
    }

    /// Whether the directory `number` is the one that was there, with changes.
    fn goes_on(&self, number: usize, before: Option<&Entry>) -> bool {
        let before = before.and_then(Entry::as_directory);
        let below = self.layer.place(number).and_then(|place| place.below.first());
        matches!((before, below), (Some(before), Some((_, below))) if before.id == *below)
    }

    fn leaf(&self, leaf: &ScannedLeaf) -> Leaf {
        let group = self.groups.get(&file_id(leaf)).filter(|_| leaf.status.links > 1);
        let link = group.map(|group| HardLink {
            // The tree below may have a group of this name already, of which other
            // members are left. It cannot have one that is named after itself.
            group: LinkGroup::of(&[&group.first[..], b"\0", self.base.as_bytes()].concat()),
            count: group.count,
        });
        let content = leaf.content.clone().expect("all contents were found out before");
        let mut attributes = self.layer.shown(&leaf.attributes);
        if self.layer.rules.without_times {
            attributes.mtime = Timestamp::default();
        }
        Leaf { attributes, content, link }
    }
}

fn is_same_but_for_time(one: &Leaf, other: &Leaf) -> bool {
    let mtime = other.attributes.mtime;
    let timeless = |leaf: &Leaf| Attributes { mtime, ..leaf.attributes.clone() };
    // Copying a file up takes it out of its group of hard links.
    one.content == other.content && timeless(one) == timeless(other) && other.link.is_none()
}

/// What a directory of the layer lies over, as one directory.
///
/// In its own place that is what the uppermost tree has there: what trees below
/// that one have shines through on the overlay and is not a part of the result. A
/// directory that was moved takes all of it along.
fn below(trees: &mut impl TreeWriter, place: &Place) -> Result<Tree> {
    let shown: Vec<TreeId> = place
        .below
        .iter()
        .filter(|(number, _)| *number == 0 || place.is_moved)
        .map(|(_, tree)| *tree)
        .collect();
    Ok(match united(trees, &shown)? {
        Some(tree) => Tree::clone(&*trees.read_tree(tree)?),
        None => Tree::empty(Attributes::implied_directory()),
    })
}

/// The directories `ids` one over the other, the uppermost first.
fn united(trees: &mut impl TreeWriter, ids: &[TreeId]) -> Result<Option<TreeId>> {
    let (top, others) = match ids {
        [] => return Ok(None),
        [only] => return Ok(Some(*only)),
        [top, others @ ..] => (*top, united(trees, others)?),
    };
    let Some(other) = others else { return Ok(Some(top)) };
    let mut tree = Tree::clone(&*trees.read_tree(top)?);
    let entries: Vec<(Name, Entry)> = trees.read_tree(other)?.entries().to_vec();
    for (name, entry) in entries {
        let united = match (tree.get(&name).and_then(Entry::as_directory), entry.as_directory()) {
            (Some(above), Some(under)) => {
                let ids = [above.id, under.id];
                let id = united(trees, &ids)?.expect("two directories make one");
                let summary = trees.read_tree(id)?.summary();
                Entry::Directory(Subtree { id, summary })
            }
            _ if tree.get(&name).is_some() => continue,
            _ => entry,
        };
        tree.insert(name, united);
    }
    Ok(Some(trees.write_tree(tree)?))
}
