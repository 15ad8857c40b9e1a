//! The upper layer of an overlay, read as changes of the trees below it.
//!
//! overlayfs keeps in its upper layer what differs from below: files as they are
//! now, *whiteouts* for what is gone (character devices 0/0), directories that
//! lie over those below unless they are marked *opaque*, and marks that send it
//! elsewhere: *redirect* names the directory below that a renamed one came from,
//! *metacopy* says that a file has new attributes and the content from below.
//!
//! Only the layer is walked. What it does not mention is as it was.

pub(crate) mod overlay;
mod tree;

use std::path::Path;

use cairn_store::host::{Scan, ScanOptions, ScanProgress, ScannedEntry, ScannedLeaf, scan};
use cairn_store::tree::Device;
use cairn_store::workspace::LayerMarks;
use cairn_store::{Attributes, Content, Entry, Name, TreeId, TreePath, TreeReader, Xattr, resolve};

use crate::error::{Error, Result};
use crate::serve::xattrs::ESCAPE;
use overlay::prefix;

/// How a layer is read.
#[derive(Clone, Copy, Debug)]
pub struct LayerRules {
    /// Which attributes are overlayfs's own.
    pub marks: LayerMarks,
    /// Whether everything belongs to root, whoever it belongs to in the layer:
    /// so it is where an ordinary user is root in a namespace of its own.
    pub all_of_root: bool,
    /// Whether times tell nothing: files get the time 0, directories keep that
    /// which they have below, and what differs by its time alone does not differ.
    pub without_times: bool,
}

impl LayerRules {
    /// Everything is as the layer says.
    #[must_use]
    pub const fn plain(marks: LayerMarks) -> Self {
        Self { marks, all_of_root: false, without_times: false }
    }
}

/// A layer that was read; the bytes of its files were not.
#[derive(Debug)]
pub struct Layer {
    /// What lies in it. Contents of files have to be taken in, or named, before
    /// [`Self::put`].
    pub scan: Scan,
    rules: LayerRules,
    /// What lies below each directory of the scan.
    places: Vec<Option<Place>>,
    /// Whether something in it has its content in another tree than the uppermost
    /// of those below.
    pub(crate) takes_from_below: bool,
}

/// What lies below a directory of the layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The directories over which it lies, the uppermost first, each with the
    /// number of the tree that has it.
    pub(crate) below: Vec<(usize, TreeId)>,
    /// Whether the directory, or one above it, came from elsewhere.
    pub(crate) is_moved: bool,
}

impl Layer {
    /// Reads the layer in `upper`, which lies over the trees `below`, the uppermost
    /// first.
    ///
    /// Costs the entries of the layer and the trees that lie right below them.
    ///
    /// # Errors
    /// [`Error::DamagedLayer`] when a mark leads to nothing.
    pub(crate) fn read(
        upper: &Path,
        marks: LayerMarks,
        trees: &impl TreeReader,
        below: &[TreeId],
        progress: &dyn ScanProgress,
    ) -> Result<Self> {
        let scan = scan(upper, &ScanOptions::default(), progress)?;
        Self::of(scan, LayerRules::plain(marks), trees, below)
    }

    /// Understands a layer that was scanned, and lies over the trees `below`, the uppermost
    /// first.
    ///
    /// # Errors
    /// [`Error::DamagedLayer`] when a mark leads to nothing.
    pub fn of(
        scan: Scan,
        rules: LayerRules,
        trees: &impl TreeReader,
        below: &[TreeId],
    ) -> Result<Self> {
        let mut layer = Self { scan, rules, places: Vec::new(), takes_from_below: false };
        layer.resolve(trees, below)?;
        Ok(layer)
    }

    /// What lies below the directory `number` of the scan.
    pub(crate) fn place(&self, number: usize) -> Option<&Place> {
        self.places.get(number)?.as_ref()
    }

    /// Finds out what lies below each directory, and what files hold whose content
    /// is below.
    fn resolve(&mut self, trees: &impl TreeReader, roots: &[TreeId]) -> Result<()> {
        let roots: Vec<(usize, TreeId)> = roots.iter().copied().enumerate().collect();
        let top = Place { below: roots.clone(), is_moved: false };
        let mut stack = vec![(0, top, TreePath::root())];
        let mut contents = Vec::new();
        let mut takes_from_below = false;
        while let Some((number, place, path)) = stack.pop() {
            let Some(directory) = self.scan.directory(number) else { continue };
            for (at, (name, entry)) in directory.entries.iter().enumerate() {
                let path = path.join(name);
                let origin = Origin { trees, roots: &roots, place: &place, name };
                match entry {
                    ScannedEntry::Directory(number) => {
                        let Some(found) = self.scan.directory(*number) else { continue };
                        let next = match self.mark(&found.attributes, b"opaque") {
                            Some(b"y") => Place::default(),
                            _ => {
                                let redirect = self.mark(&found.attributes, b"redirect");
                                let below = origin.directories(redirect);
                                let below = below.map_err(|err| err.at(&path))?;
                                let is_moved = place.is_moved || redirect.is_some();
                                takes_from_below |=
                                    is_moved && below.iter().any(|(number, _)| *number > 0);
                                Place { below, is_moved }
                            }
                        };
                        stack.push((*number, next, path));
                    }
                    ScannedEntry::Leaf(leaf) => {
                        if self.mark(&leaf.attributes, b"metacopy").is_none() {
                            continue;
                        }
                        let redirect = self.mark(&leaf.attributes, b"redirect");
                        let (from, content) =
                            origin.content(redirect).map_err(|err| err.at(&path))?;
                        takes_from_below |= from > 0;
                        contents.push((number, at, content));
                    }
                }
            }
            self.set_place(number, place);
        }
        self.takes_from_below = takes_from_below;
        for (number, at, content) in contents {
            self.scan.set_content(number, at, content);
        }
        Ok(())
    }

    fn set_place(&mut self, number: usize, place: Place) {
        if self.places.len() <= number {
            self.places.resize_with(number + 1, || None);
        }
        self.places[number] = Some(place);
    }

    /// The value of overlayfs's own attribute `name`.
    fn mark<'a>(&self, attributes: &'a Attributes, name: &[u8]) -> Option<&'a [u8]> {
        attributes.xattr(&[prefix(self.rules.marks), name].concat())
    }

    /// Whether a leaf of the directory `number` says that there is nothing.
    pub(crate) fn is_whiteout(&self, number: usize, leaf: &ScannedLeaf) -> bool {
        match &leaf.content {
            Some(Content::CharDevice(Device { major: 0, minor: 0 })) => true,
            // Since Linux 6.7 an empty file can stand for one, in a directory that
            // says so.
            Some(Content::File(_)) | None => {
                leaf.status.size == 0
                    && self.mark(&leaf.attributes, b"whiteout").is_some()
                    && self.scan.directory(number).is_some_and(|directory| {
                        self.mark(&directory.attributes, b"opaque") == Some(b"x")
                    })
            }
            _ => false,
        }
    }

    /// The attributes as programs on the overlay see them.
    pub(crate) fn shown(&self, attributes: &Attributes) -> Attributes {
        let prefix = prefix(self.rules.marks);
        let xattrs = attributes.xattrs.iter().filter_map(|Xattr { name, value }| {
            let name = match name.strip_prefix(prefix) {
                Some(own) => [prefix, own.strip_prefix(ESCAPE)?].concat().into(),
                None => name.clone(),
            };
            Some(Xattr { name, value: value.clone() })
        });
        let mut xattrs: Vec<Xattr> = xattrs.collect();
        xattrs.sort_unstable();
        let mut attributes = Attributes { xattrs, ..attributes.clone() };
        if self.rules.all_of_root {
            (attributes.uid, attributes.gid) = (0, 0);
        }
        attributes
    }
}

/// Where the kernel looks for what lies below an entry of a layer.
struct Origin<'a, R> {
    trees: &'a R,
    roots: &'a [(usize, TreeId)],
    place: &'a Place,
    name: &'a Name,
}

/// Why what lies below an entry is not known.
enum Lost {
    Store(cairn_store::Error),
    Mark(&'static str),
}

impl Lost {
    fn at(self, path: &TreePath) -> Error {
        match self {
            Self::Store(err) => err.into(),
            Self::Mark(problem) => Error::DamagedLayer { path: path.clone(), problem },
        }
    }
}

impl<R: TreeReader> Origin<'_, R> {
    /// The entries below, the uppermost first.
    fn entries(&self, redirect: Option<&[u8]>) -> Result<Vec<(usize, Entry)>, Lost> {
        let mut found = Vec::new();
        match redirect {
            Some(path) if path.starts_with(b"/") => {
                let path = TreePath::new(path).map_err(|_| Lost::Mark("its origin is no path"))?;
                for (number, root) in self.roots {
                    let entry = resolve(self.trees, *root, &path).map_err(Lost::Store)?;
                    found.extend(entry.map(|entry| (*number, entry)));
                }
            }
            _ => {
                let name = match redirect {
                    None => self.name.clone(),
                    Some(name) => {
                        Name::new(name).map_err(|_| Lost::Mark("its origin is no name"))?
                    }
                };
                for (number, tree) in &self.place.below {
                    let tree = self.trees.read_tree(*tree).map_err(Lost::Store)?;
                    found.extend(tree.get(&name).map(|entry| (*number, entry.clone())));
                }
            }
        }
        Ok(found)
    }

    /// The directories below: what is no directory hides those under it.
    fn directories(&self, redirect: Option<&[u8]>) -> Result<Vec<(usize, TreeId)>, Lost> {
        let entries = self.entries(redirect)?.into_iter();
        let directories = entries.map_while(|(number, entry)| match entry {
            Entry::Directory(subtree) => Some((number, subtree.id)),
            Entry::Leaf(_) => None,
        });
        Ok(directories.collect())
    }

    /// The content of the regular file below, and the number of the tree that has
    /// it.
    fn content(&self, redirect: Option<&[u8]>) -> Result<(usize, Content), Lost> {
        match self.entries(redirect)?.into_iter().next() {
            Some((from, Entry::Leaf(leaf))) if leaf.blob().is_some() => Ok((from, leaf.content)),
            _ => Err(Lost::Mark("its content is not below it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, lchown};

    use cairn_store::{Edit, Leaf, Store, Timestamp, Transaction, Tree, edit};
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

    use super::*;

    fn file(text: &str, seconds: i64) -> Edit {
        let mut attributes = Attributes::of_root(0o644);
        attributes.mtime = Timestamp::new(seconds, 0).unwrap();
        let content = Content::File(cairn_store::BlobRef::of(text.as_bytes()));
        Edit::Leaf(Leaf { attributes, content, link: None })
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
        let home = tempfile::tempdir().unwrap();
        let store = Store::create(&home.path().join("store")).unwrap();
        let mut transaction = store.begin().unwrap();
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
        // As an ordinary user may make it; the time of everything is now.
        let upper = home.path().join("upper");
        for (path, text) in
            [("a/new", "2"), ("b/y", "2"), ("c/y", "2"), ("d/z", "2"), ("touched", "1")]
        {
            let path = upper.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        for whiteout in ["a/gone", "a/never", "e"] {
            let path = upper.join(whiteout);
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        for directory in ["", "a", "b", "c", "d"] {
            let path = upper.join(directory);
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // A filesystem that has no such attributes shows nothing of these two.
        let mark = |of: &str, name: &str| {
            setxattr(upper.join(of), name, b"y", XattrFlags::empty()).is_ok()
        };
        let is_marked = mark("b", "user.overlay.opaque") && mark("c", "user.overlay.impure");
        let _ = lchown(upper.join("a/new"), Some(1), Some(1));

        let mut expected = vec![
            ("a/stays", file("1", 1)),
            ("a/new", file("2", 0)),
            ("b/y", file("2", 0)),
            ("c/x", file("1", 1)),
            ("c/y", file("2", 0)),
            ("d/z", file("2", 0)),
            ("touched", file("1", 1)),
        ];
        if !is_marked {
            expected.push(("b/x", file("1", 1)));
        }
        let expected = put(&mut transaction, &expected);
        let mut applied = |rules| {
            let scan = scan(&upper, &ScanOptions::default(), &()).unwrap();
            let mut layer = Layer::of(scan, rules, &transaction, &[below]).unwrap();
            layer.scan.take_in(&mut transaction, &()).unwrap();
            layer.put(&mut transaction, below).unwrap()
        };
        let marks = LayerMarks::User;
        let rules = LayerRules { marks, all_of_root: true, without_times: true };
        assert_eq!(applied(rules), expected);
        // With times, and a mark that belongs to others.
        let applied = applied(LayerRules::plain(LayerMarks::Trusted));
        let entry = |path: &str| {
            let path = TreePath::new(path.as_bytes()).unwrap();
            resolve(&transaction, applied, &path).unwrap()
        };
        assert!(entry("b/x").is_some() && entry("b/y").is_some());
        let touched = entry("touched").unwrap();
        assert!(touched.as_leaf().unwrap().attributes.mtime.seconds() > 9);
    }
}
