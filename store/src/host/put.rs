//! From a scan to a tree: bytes are read, links joined, directories added.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::file::{Below, HostFile, OpenFile};
use super::known::{self, Seen};
use super::scan::{
    Found, Scan, ScannedDirectory, ScannedEntry, ScannedLeaf, full_path, has_gone, read_entry,
};
use super::status::{Kind, Status};
use crate::error::{Error, Result};
use crate::hash::TreeId;
use crate::ingest::IngestProgress;
use crate::name::{Name, TreePath};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::tree::{Content, Entry, HardLink, Leaf, LinkGroup, Tree};

/// How often a file is read anew that is changed while it is read.
const ATTEMPTS: usize = 3;

/// What makes two names one file: filesystem and inode.
type FileId = (u64, u64);

/// Files and bytes that are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Regular files; one with several names counts once.
    pub files: u64,
    /// Their bytes, as of the scan.
    pub bytes: u64,
}

/// A file that is to be read, and where it is in the scan: the number of the
/// directory, and the place in it.
struct Spot {
    directory: usize,
    at: usize,
    path: TreePath,
}

impl Scan {
    /// What [`Self::take_in`] has to read.
    #[must_use]
    pub fn unread(&self) -> Unread {
        let mut unread = Unread::default();
        for spot in self.unread_spots() {
            unread.files += 1;
            unread.bytes += self.leaf(&spot).status.size;
        }
        unread
    }

    /// Has the dirty pages of files written that are to be read and to be known the next
    /// time (see [`known`]); of those of a filesystem where that fails nothing will be known.
    ///
    /// [`Self::take_in`] comes after it. Costs what syncfs(2) does, which is nothing where
    /// nothing is to be read.
    pub(crate) fn write_back(&mut self) {
        let mut left = std::mem::take(&mut self.dirty);
        for spot in self.unread_spots() {
            if left.is_empty() {
                break;
            }
            let filesystem = self.leaf(&spot).status.filesystem;
            if !left.remove(&filesystem) {
                continue;
            }
            let names = spot.path.names();
            let written = self.root.open_deep(&names[..names.len() - 1]).and_then(|directory| {
                directory.write_back()?;
                Ok(directory.own_status()?.filesystem == filesystem)
            });
            if !written.unwrap_or(false) {
                self.dirty.insert(filesystem);
            }
        }
        self.dirty.extend(left);
    }

    /// Filesystems that keep times of changes, and have files that are to be read and were
    /// not changed lately.
    pub(super) fn unread_filesystems(&self) -> HashSet<u64> {
        let mut filesystems = HashSet::new();
        for directory in self.directories() {
            for (_, entry) in &directory.entries {
                if let ScannedEntry::Leaf(leaf) = entry
                    && leaf.content.is_none()
                    && directory.seen(&leaf.status, self.begun).is_known()
                {
                    filesystems.insert(leaf.status.filesystem);
                }
            }
        }
        filesystems
    }

    /// Has the bytes of all regular files read that are not known, each file
    /// once, and puts their names into the leaves.
    ///
    /// A file that is changed meanwhile is read again. Returns the paths of those
    /// that somebody goes on writing to: they are what was read of them last.
    ///
    /// # Errors
    /// [`Error::Source`] names a file that cannot be read; and those of
    /// [`Transaction::ingest`].
    pub fn take_in(
        &mut self,
        transaction: &mut Transaction,
        progress: &dyn IngestProgress,
    ) -> Result<Vec<TreePath>> {
        let spots = self.unread_spots();
        let below = Below { root: &self.root, path: &self.path };
        let files = spots
            .iter()
            .map(|spot| HostFile::new(below, spot.path.clone(), self.leaf(spot).status));
        let files: Vec<HostFile<'_>> = files.collect();
        let blobs = transaction.ingest(&files, progress)?;
        let changed: Vec<bool> = files.iter().map(HostFile::has_changed).collect();
        drop(files);

        let mut restless = Vec::new();
        let mut gone = Vec::new();
        for ((spot, blob), has_changed) in spots.into_iter().zip(blobs).zip(changed) {
            if !has_changed {
                self.leaf_mut(&spot).content = Some(Content::File(blob));
                continue;
            }
            match self.read_again(&spot.path, transaction)? {
                None => gone.push(spot),
                Some((leaf, is_settled)) => {
                    *self.leaf_mut(&spot) = leaf;
                    if !is_settled {
                        restless.push(spot.path);
                    }
                }
            }
        }
        // The last ones first, so that the places of the others stay.
        for Spot { directory, at, .. } in gone.into_iter().rev() {
            if let Some(directory) = &mut self.directories[directory] {
                directory.entries.remove(at);
            }
        }
        self.share_contents();
        Ok(restless)
    }

    /// Adds the directory with all below it to a transaction, with the links that
    /// have more than one name in it.
    ///
    /// [`Self::take_in`] comes first.
    pub fn put(&self, transaction: &mut Transaction) -> Result<TreeId> {
        let groups = self.link_groups();
        let root = self.tree(0, transaction, &groups)?;
        // A root that has gone would have failed the scan.
        let root = root.unwrap_or_else(|| Tree::empty(crate::Attributes::implied_directory()));
        transaction.put_tree(root)
    }

    /// Keeps what was seen for the next scan of the same directory (see
    /// [`known::Known`]), which the state that has `tree` has to outlive.
    pub(crate) fn remember(&self, store: &Store, tree: TreeId) -> Result<()> {
        let mut seen = Vec::new();
        self.push_seen(0, &mut seen);
        known::save(store, &self.path, tree, &seen)
    }

    /// The files to be read, in the order of their paths: no file twice, and none
    /// of which another name is known.
    fn unread_spots(&self) -> Vec<Spot> {
        let mut met: HashSet<FileId> = HashSet::new();
        for leaf in self.leaves().filter(|leaf| leaf.status.links > 1 && leaf.content.is_some()) {
            met.insert(leaf.file_id());
        }
        let mut spots = Vec::new();
        let mut stack = vec![(0, TreePath::root())];
        while let Some((number, path)) = stack.pop() {
            let Some(directory) = self.directory(number) else { continue };
            let mut below = Vec::new();
            for (at, (name, entry)) in directory.entries.iter().enumerate() {
                match entry {
                    ScannedEntry::Directory(number) => below.push((*number, path.join(name))),
                    ScannedEntry::Leaf(leaf) => {
                        let is_unread = leaf.content.is_none();
                        if is_unread && (leaf.status.links < 2 || met.insert(leaf.file_id())) {
                            spots.push(Spot { directory: number, at, path: path.join(name) });
                        }
                    }
                }
            }
            stack.extend(below.into_iter().rev());
        }
        spots
    }

    fn leaves(&self) -> impl Iterator<Item = &ScannedLeaf> {
        let entries = self.directories().flat_map(|directory| &directory.entries);
        entries.filter_map(|(_, entry)| match entry {
            ScannedEntry::Leaf(leaf) => Some(leaf),
            ScannedEntry::Directory(_) => None,
        })
    }

    fn leaf(&self, spot: &Spot) -> &ScannedLeaf {
        let directory = self.directory(spot.directory);
        match directory.map(|directory| &directory.entries[spot.at].1) {
            Some(ScannedEntry::Leaf(leaf)) => leaf,
            _ => unreachable!("a spot is that of a leaf"),
        }
    }

    fn leaf_mut(&mut self, spot: &Spot) -> &mut ScannedLeaf {
        let directory = self.directories[spot.directory].as_mut();
        match directory.map(|directory| &mut directory.entries[spot.at].1) {
            Some(ScannedEntry::Leaf(leaf)) => leaf,
            _ => unreachable!("a spot is that of a leaf"),
        }
    }

    /// Reads an entry that was a regular file and has changed; returns it, and
    /// whether nobody wrote to it meanwhile. `None` when it has gone.
    fn read_again(
        &self,
        path: &TreePath,
        transaction: &mut Transaction,
    ) -> Result<Option<(ScannedLeaf, bool)>> {
        let name = full_path(&self.path, path).display().to_string();
        let failed = |source| Error::Source { name: name.clone(), source };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let Some((parent, entry)) = path.split_last() else { return Ok(None) };
            let parent = match self.root.open_deep(parent.names()) {
                Err(err) if has_gone(&err) => return Ok(None),
                opened => opened.map_err(failed)?,
            };
            let leaf = match read_entry(&parent, entry, None).map_err(failed)? {
                Some(Found::Leaf(leaf)) if leaf.status.kind == Kind::File => leaf,
                Some(Found::Leaf(leaf)) => return Ok(Some((leaf, true))),
                // A directory that has come in its place is as one that came late.
                Some(Found::Directory(_)) | None => return Ok(None),
            };
            let file = match parent.open_file(std::slice::from_ref(entry)) {
                Err(err) if has_gone(&err) => continue,
                opened => opened.map_err(failed)?,
            };
            let changed = AtomicBool::new(false);
            let source = OpenFile { name: &name, file: &file, status: leaf.status, changed };
            let blobs = transaction.ingest(std::slice::from_ref(&source), &())?;
            let content = blobs.into_iter().next().map(Content::File);
            let is_settled = !source.changed.into_inner();
            let leaf = ScannedLeaf { content, ..leaf };
            if is_settled {
                return Ok(Some((leaf, true)));
            }
            last = Some((leaf, false));
        }
        Ok(last)
    }

    /// Gives each name of a file the content that was read under another.
    fn share_contents(&mut self) {
        let mut contents: HashMap<FileId, Content> = HashMap::new();
        for leaf in self.leaves().filter(|leaf| leaf.status.links > 1) {
            if let Some(content) = &leaf.content {
                contents.insert(leaf.file_id(), content.clone());
            }
        }
        for directory in self.directories.iter_mut().flatten() {
            directory.entries.retain_mut(|(_, entry)| {
                let ScannedEntry::Leaf(leaf) = entry else { return true };
                if leaf.content.is_none() {
                    leaf.content = contents.get(&leaf.file_id()).cloned();
                }
                // The name under which it was to be read was given to another file.
                leaf.content.is_some()
            });
        }
    }

    /// The files with several names in the tree.
    fn link_groups(&self) -> HashMap<FileId, Group<'_>> {
        let mut groups: HashMap<FileId, Group<'_>> = HashMap::new();
        let mut stack = vec![(0, Vec::new())];
        while let Some((number, path)) = stack.pop() {
            let Some(directory) = self.directory(number) else { continue };
            for (name, entry) in &directory.entries {
                let path = || [&path[..], b"/", name].concat();
                match entry {
                    ScannedEntry::Directory(number) => stack.push((*number, path())),
                    ScannedEntry::Leaf(leaf) if leaf.status.links > 1 => {
                        let path = path();
                        let group = groups.entry(leaf.file_id()).or_insert_with(|| Group {
                            first: path.clone(),
                            count: 0,
                            leaf,
                        });
                        group.count += 1;
                        if path < group.first {
                            group.first = path;
                        }
                    }
                    ScannedEntry::Leaf(_) => {}
                }
            }
        }
        groups
    }

    fn tree(
        &self,
        number: usize,
        transaction: &mut Transaction,
        groups: &HashMap<FileId, Group<'_>>,
    ) -> Result<Option<Tree>> {
        let Some(directory) = self.directory(number) else { return Ok(None) };
        let mut entries: Vec<(Name, Entry)> = Vec::with_capacity(directory.entries.len());
        for (name, entry) in &directory.entries {
            let entry = match entry {
                ScannedEntry::Directory(number) => match self.tree(*number, transaction, groups)? {
                    Some(tree) => transaction.put_subtree(tree)?,
                    None => continue,
                },
                ScannedEntry::Leaf(leaf) => Entry::Leaf(leaf.put(groups)),
            };
            entries.push((name.clone(), entry));
        }
        let tree = Tree::new(directory.attributes.clone(), entries);
        Ok(Some(tree.expect("a directory has no name twice")))
    }

    fn push_seen(&self, number: usize, seen: &mut Vec<Seen>) {
        let Some(directory) = self.directory(number) else { return };
        seen.push(directory.seen(&directory.status, self.begun));
        for (_, entry) in &directory.entries {
            match entry {
                ScannedEntry::Directory(number) => self.push_seen(*number, seen),
                ScannedEntry::Leaf(leaf) => {
                    let is_dirty = self.dirty.contains(&leaf.status.filesystem);
                    let known = (!is_dirty).then(|| directory.seen(&leaf.status, self.begun));
                    seen.push(known.unwrap_or_default());
                }
            }
        }
    }
}

/// A file with several names.
struct Group<'a> {
    /// The bytewise smallest path.
    first: Vec<u8>,
    /// How many of its names are in the tree.
    count: u32,
    /// What all of them are.
    leaf: &'a ScannedLeaf,
}

impl ScannedDirectory {
    /// What is to be kept of it, or of an entry of it, after a scan that began then.
    fn seen(&self, status: &Status, begun: SystemTime) -> Seen {
        let is_here = status.filesystem == self.status.filesystem;
        if self.keeps_change_times && is_here { Seen::new(status, begun) } else { Seen::default() }
    }
}

impl ScannedLeaf {
    fn file_id(&self) -> FileId {
        (self.status.filesystem, self.status.inode)
    }

    fn put(&self, groups: &HashMap<FileId, Group<'_>>) -> Leaf {
        let group = groups.get(&self.file_id()).filter(|_| self.status.links > 1);
        let (of, link) = match group {
            Some(Group { count: 0..=1, .. }) | None => (self, None),
            Some(Group { first, count, leaf }) => {
                (*leaf, Some(HardLink { group: LinkGroup::of(first), count: *count }))
            }
        };
        let content = of.content.clone().expect("it was taken in before");
        Leaf { attributes: of.attributes.clone(), content, link }
    }
}
