//! The upper layer of an overlay, read as changes of the trees below it.
//!
//! overlayfs keeps in its upper layer what differs from below: files as they are
//! now, *whiteouts* for what is gone (character devices 0/0), directories that
//! lie over those below unless they are marked *opaque*, and marks that send it
//! elsewhere: *redirect* names the directory below that a renamed one came from,
//! *metacopy* says that a file has new attributes and the content from below.
//!
//! Only the layer is walked. What it does not mention is as it was.

use std::path::Path;

use cairn_store::host::{Scan, ScanOptions, ScanProgress, ScannedEntry, ScannedLeaf, scan};
use cairn_store::tree::Device;
use cairn_store::workspace::LayerMarks;
use cairn_store::{Attributes, Content, Entry, Name, TreeId, TreePath, TreeReader, Xattr, resolve};

use super::overlay;
use crate::error::{Error, Result};
use crate::xattrs::ESCAPE;

/// A layer that was read; the bytes of its files were not.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) scan: Scan,
    marks: LayerMarks,
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
        let mut layer = Self { scan, marks, places: Vec::new(), takes_from_below: false };
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
        attributes.xattr(&[overlay::prefix(self.marks), name].concat())
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
        let prefix = overlay::prefix(self.marks);
        let xattrs = attributes.xattrs.iter().filter_map(|Xattr { name, value }| {
            let name = match name.strip_prefix(prefix) {
                Some(own) => [prefix, own.strip_prefix(ESCAPE)?].concat().into(),
                None => name.clone(),
            };
            Some(Xattr { name, value: value.clone() })
        });
        let mut xattrs: Vec<Xattr> = xattrs.collect();
        xattrs.sort_unstable();
        Attributes { xattrs, ..attributes.clone() }
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
