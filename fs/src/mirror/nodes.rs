//! The nodes of a mirror: what the kernel knows of it, each as an open descriptor.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// The node of the root directory, as the kernel calls it.
pub(super) const ROOT: u64 = 1;

/// All nodes. Costs a descriptor for each that the kernel knows.
#[derive(Debug)]
pub(super) struct Nodes(Mutex<Known>);

#[derive(Debug)]
struct Known {
    nodes: HashMap<u64, Node>,
    keys: HashMap<Key, u64>,
    /// The last number that was made up.
    last: u64,
}

#[derive(Debug)]
struct Node {
    /// Opened with `O_PATH`.
    file: Arc<File>,
    /// How it is found again; none where another file has its name now.
    key: Option<Key>,
    /// How often the kernel has been told of it.
    lookups: u64,
}

/// What makes two names one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// The numbers of the device and of the file.
    File(u64, u64),
    /// The directory, and the name in it.
    Name(u64, OsString),
}

/// Whether a name is one of a hard link that lies below an overlay. Until it is written,
/// the overlay takes each name for a file of its own, though all have one number: what is
/// written to one does not change the others.
///
/// Mounts of Cairn know no time of creation, and what may be the upper layer of an overlay
/// does. Where it does not, names of one file are only kept apart too often.
fn is_apart(attributes: &Metadata) -> bool {
    !attributes.is_dir() && attributes.nlink() > 1 && attributes.created().is_err()
}

/// A node that the kernel is to be told of.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) node: u64,
    pub(super) attributes: Metadata,
}

impl Nodes {
    pub(super) fn new(root: File) -> Self {
        let node = Node { file: Arc::new(root), key: None, lookups: 1 };
        let nodes = HashMap::from([(ROOT, node)]);
        Self(Mutex::new(Known { nodes, keys: HashMap::new(), last: u64::MAX }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the node stands for.
    ///
    /// # Errors
    /// `ESTALE` when there is none.
    pub(super) fn get(&self, node: u64) -> io::Result<Arc<File>> {
        Ok(self.known().nodes.get(&node).ok_or(Errno::STALE)?.file.clone())
    }

    /// The node of a file that was found in `parent` under `name`.
    pub(super) fn enter(&self, file: File, parent: u64, name: &OsStr) -> io::Result<Entered> {
        let attributes = file.metadata()?;
        let by_number = Key::File(attributes.dev(), attributes.ino());
        let by_name = Key::Name(parent, name.into());
        let key = if is_apart(&attributes) { &by_name } else { &by_number };
        let mut known = self.known();
        let found = known.keys.get(key).or_else(|| known.keys.get(&by_name)).copied();
        let node = match found {
            Some(node) if known.is_still(node, &attributes) => node,
            Some(_) | None => known.free_number(attributes.ino()),
        };
        let new = || Node { file: Arc::new(file), key: None, lookups: 0 };
        known.nodes.entry(node).or_insert_with(new).lookups += 1;
        known.find_by(node, key);
        Ok(Entered { node, attributes })
    }

    /// Tells the kernel once more of a node, which has one name more.
    pub(super) fn enter_again(&self, node: u64) -> io::Result<Entered> {
        let mut known = self.known();
        let found = known.nodes.get_mut(&node).ok_or(Errno::STALE)?;
        let attributes = found.file.metadata()?;
        found.lookups += 1;
        if !is_apart(&attributes) {
            known.find_by(node, &Key::File(attributes.dev(), attributes.ino()));
        }
        Ok(Entered { node, attributes })
    }

    /// Notes that the kernel has forgotten some of the times that it was told of a node.
    pub(super) fn forget(&self, node: u64, lookups: u64) {
        let mut known = self.known();
        let Some(found) = known.nodes.get_mut(&node) else { return };
        found.lookups = found.lookups.saturating_sub(lookups);
        if found.lookups > 0 || node == ROOT {
            return;
        }
        let gone = known.nodes.remove(&node);
        if let Some(key) = gone.as_ref().and_then(|gone| gone.key.as_ref()) {
            known.keys.remove(key);
        }
        // Closing a file that was removed takes its content away, which may take long.
        drop(known);
        drop(gone);
    }
}

impl Known {
    /// Whether a node that has been found by its key is the file with `attributes`.
    fn is_still(&self, node: u64, attributes: &Metadata) -> bool {
        let known = self.nodes.get(&node).and_then(|node| node.file.metadata().ok());
        known.is_some_and(|known| {
            (known.dev(), known.ino()) == (attributes.dev(), attributes.ino())
                && is_apart(&known) == is_apart(attributes)
        })
    }

    /// Finds `node` by `key` from now on, and by nothing else.
    fn find_by(&mut self, node: u64, key: &Key) {
        let Some(found) = self.nodes.get_mut(&node) else { return };
        if found.key.as_ref() == Some(key) {
            return;
        }
        if let Some(before) = found.key.replace(key.clone()) {
            self.keys.remove(&before);
        }
        let other = self.keys.insert(key.clone(), node);
        if let Some(other) = other.and_then(|other| self.nodes.get_mut(&other)) {
            other.key = None;
        }
    }

    /// A number for a node: `wanted`, or one made up where others have it.
    fn free_number(&mut self, wanted: u64) -> u64 {
        if wanted > ROOT && !self.nodes.contains_key(&wanted) {
            return wanted;
        }
        while self.nodes.contains_key(&self.last) {
            self.last -= 1;
        }
        self.last
    }
}
