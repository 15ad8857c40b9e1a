//! The requests of the kernel, answered from trees.
//!
//! Knows nothing of FUSE, so that it is tested without a mount. Whatever
//! depends on what the mount shows now is asked through a [`View`]: as long as
//! one exists, no switch happens.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use cairn_store::tree::Content;
use cairn_store::{Attributes, BlobRef, Entry, Leaf, Name, StateId, Summary, Tree, TreeId};

use crate::serve::ahead::Ahead;
use crate::serve::awake::Awake;
use crate::serve::counters::Counters;
use crate::serve::ledger::{Ledger, Record, Said};
use crate::serve::listing::{Cookie, Listing};
use crate::serve::node::NodeId;
use crate::serve::places::Location;
use crate::serve::stat::Stat;
use crate::serve::switch::Switched;
use crate::serve::table::{Comparison, Directory, Doubted, Position, Table, Way};
use crate::serve::xattrs::Xattrs;
use crate::shape::{Selection, Shape, Shown};
use crate::source::Source;

/// Why the kernel does not get what it asked for.
#[derive(Debug)]
pub enum Refusal {
    /// No node has this number.
    Stale,
    /// The directory was taken away by a switch.
    Gone,
    /// It is not a directory, but should be one.
    NotADirectory,
    /// It is a directory, but should be a file.
    IsADirectory,
    /// It is not what the request is for, such as a file for readlink(2).
    Invalid,
    /// The name is longer than any name.
    NameTooLong,
    /// There is no such extended attribute.
    NoAttribute,
    /// No extended attribute has such a name.
    NotSupported,
    /// The answer does not fit into the caller's buffer.
    TooSmall,
    /// `what` cannot be read.
    Unreadable { what: String, source: cairn_store::Error },
    /// The source gave fewer bytes of a file than its tree says it has.
    Short { what: String },
}

/// What a mount shows, and what the kernel knows of it.
pub(crate) struct Filesystem<S> {
    pub(crate) source: Arc<S>,
    pub(crate) shape: Shape,
    pub(crate) xattrs: Xattrs,
    pub(crate) shown: RwLock<Shown>,
    table: Mutex<Table>,
    pub(crate) counters: Counters,
    pub(crate) awake: Awake,
    ahead: Ahead,
}

/// What a mount shows for as long as this exists.
pub(crate) struct View<'a, S> {
    filesystem: &'a Filesystem<S>,
    shown: RwLockReadGuard<'a, Shown>,
}

impl<S: Source> Filesystem<S> {
    /// Shows what the source has of `shape`.
    pub(crate) fn new(source: S, shape: Shape) -> cairn_store::Result<Self> {
        let shown = Shown::of(shape, &source.refs())?;
        let mut table = Table::new(shape.position());
        table.show(shown.root, shown.switch);
        Ok(Self {
            source: Arc::new(source),
            shape,
            xattrs: Xattrs::default(),
            shown: RwLock::new(shown),
            table: Mutex::new(table),
            counters: Counters::default(),
            awake: Awake::default(),
            ahead: Ahead::default(),
        })
    }

    /// Takes over what a predecessor has noted in `ledger`. Returns as well what
    /// the mount is, as the predecessor said it, and what the kernel has to be
    /// told, since the predecessor may not have come to it.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the ledger cannot be understood.
    pub(crate) fn resume(source: S, ledger: File) -> io::Result<(Self, Vec<u8>, Switched)> {
        let shown = |text: &[u8]| {
            let selection: Selection = serde_json::from_slice(text)?;
            Shown::new(selection).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
        };
        let mut table: Option<Table> = None;
        let ledger = Ledger::open(ledger, |record| match (&mut table, record) {
            (Some(table), record) => table.take_over(&record),
            // It begins with these two.
            (None, Record::About(_)) => Some(()),
            (None, Record::Showing(what)) => {
                table = Some(Table::new(shown(what).ok()?.selection.shape.position()));
                Some(())
            }
            (None, _) => None,
        })?;
        let mut table = table.ok_or(io::ErrorKind::InvalidData)?;
        let said = ledger.said().clone();
        table.go_on_in(ledger);
        let told = shown(&said.told)?;
        table.show(told.root, told.switch);
        let shape = told.selection.shape;
        let filesystem = Self {
            source: Arc::new(source),
            shape,
            xattrs: Xattrs::default(),
            shown: RwLock::new(told),
            table: Mutex::new(table),
            counters: Counters::default(),
            awake: Awake::default(),
            ahead: Ahead::default(),
        };
        let switched = match said.telling {
            Some(telling) => filesystem.switch(shown(&telling)?),
            None => Switched::default(),
        };
        Ok((filesystem, said.about, switched))
    }

    /// Notes from here on what the kernel is told, in `ledger`, an empty file;
    /// `about` says what the mount is.
    pub(crate) fn keep_in(&self, ledger: File, about: Vec<u8>) -> io::Result<()> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let told = serde_json::to_vec(&shown.selection)?;
        let ledger = Ledger::create(ledger, Said { about, told, telling: None })?;
        self.table().keep_in(ledger)
    }

    /// To be called before the kernel gets an answer that tells it of nodes.
    ///
    /// # Errors
    /// From here on there can be no successor.
    pub(crate) fn keep(&self) -> io::Result<()> {
        self.table().keep()
    }

    /// Notes that the kernel has been told what a switch has changed.
    pub(crate) fn has_told(&self) -> io::Result<()> {
        let mut table = self.table();
        table.note(Record::Told);
        table.keep()
    }

    /// Asks the kernel for the nodes that it may have forgotten without being
    /// heard. `knows_file` and `knows_directory` ask for one each.
    ///
    /// To be called again and again. Between two calls whoever waits for an answer
    /// has to have got it: the kernel knows a node when the caller runs to whom it
    /// was told, some time after the answer was written.
    pub(crate) fn ask_for_doubted(
        &self,
        knows_file: impl Fn(NodeId) -> io::Result<bool>,
        knows_directory: impl Fn(NodeId) -> io::Result<bool>,
    ) -> io::Result<()> {
        let doubted = self.table().begin_round();
        for node in doubted {
            let (id, is_known) = match node {
                Doubted::File(id) => (id, knows_file(id)?),
                Doubted::Directory(id) => (id, knows_directory(id)?),
            };
            self.table().answered(id, is_known);
        }
        Ok(())
    }

    /// Begins to read ahead, and to keep processors from sleeping in bursts of requests
    /// unless it is to save power. Where one cannot be, all is the same but slower.
    pub(crate) fn hurry(&self, power_save: bool) {
        let first = self.view().shown.main;
        let _ = self.ahead.begin(&self.source, first);
        if !power_save {
            let _ = self.awake.begin();
        }
    }

    /// Ends what [`Filesystem::hurry`] has begun to read.
    pub(crate) fn stop_reading_ahead(&self) {
        self.ahead.end();
    }

    /// What is shown now; no switch happens before it is dropped.
    pub(crate) fn view(&self) -> View<'_, S> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        View { filesystem: self, shown }
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        // Each method of the table leaves it whole, whatever panics around it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the kernel has forgotten a node `count` times.
    pub(crate) fn forget(&self, id: NodeId, count: u64) {
        let mut table = self.table();
        table.forget(id, count);
        table.shrink();
    }

    /// Reads at most `len` bytes of a file into `buf`, in place of what it
    /// holds: fewer only at the end of the file.
    pub(crate) fn read(
        &self,
        id: NodeId,
        offset: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.with_leaf(id, |name, leaf| {
            let blob = leaf.blob().ok_or(Refusal::Invalid)?;
            let rest = blob.size.saturating_sub(offset);
            let len = usize::try_from(rest).map_or(len, |rest| len.min(rest));
            buf.resize(len, 0);
            let read = self
                .source
                .read_at(blob, offset, buf)
                .map_err(|source| Refusal::Unreadable { what: name.to_string(), source })?;
            if read < len {
                // Zeroes in its place would be wrong bytes.
                return Err(Refusal::Short { what: name.to_string() });
            }
            if self.source.wants_to_read_ahead() {
                self.ahead.is_wanted();
            }
            Ok(())
        })
    }

    /// The content of a file.
    pub(crate) fn blob(&self, id: NodeId) -> Result<BlobRef, Refusal> {
        self.with_leaf(id, |_, leaf| leaf.blob().copied().ok_or(Refusal::Invalid))
    }

    /// The text of a symbolic link.
    pub(crate) fn read_link<R>(
        &self,
        id: NodeId,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Refusal> {
        self.with_leaf(id, |_, leaf| match &leaf.content {
            Content::Symlink(target) => Ok(f(target)),
            _ => Err(Refusal::Invalid),
        })
    }

    fn with_leaf<R>(
        &self,
        id: NodeId,
        f: impl FnOnce(&Name, &Leaf) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let Some(location) = self.table().file(id) else {
            let is_directory = self.table().has_directory(id);
            return Err(if is_directory { Refusal::IsADirectory } else { Refusal::Stale });
        };
        let unreadable =
            |source| Refusal::Unreadable { what: format!("file {}", id.get()), source };
        let tree = self.source.tree(location.tree).map_err(unreadable)?;
        match tree.entries().get(location.entry as usize) {
            Some((name, Entry::Leaf(leaf))) => f(name, leaf),
            // The same tree had a leaf there when the node was told.
            _ => Err(Refusal::Stale),
        }
    }

    /// Whether the leaf of a directory that is looked at is the one that is
    /// known by another location.
    fn compare(&self, leaf: &Leaf, known: Location) -> Comparison {
        let Ok(tree) = self.source.tree(known.tree) else { return Comparison::Unreadable };
        match tree.entries().get(known.entry as usize) {
            Some((_, Entry::Leaf(known))) if known == leaf => Comparison::Same,
            _ => Comparison::Different,
        }
    }
}

/// What a name stands for.
pub(crate) enum Found {
    /// This, of which the kernel is told now.
    Node(Stat),
    /// Nothing, for as long as no switch says otherwise.
    Nothing,
}

impl<S: Source> View<'_, S> {
    /// The state that is followed or pinned.
    pub(crate) fn state(&self) -> Option<StateId> {
        self.shown.state
    }

    pub(crate) fn shape(&self) -> Shape {
        self.filesystem.shape
    }

    pub(crate) fn state_of_tag(&self, tag: &str) -> Option<StateId> {
        self.shown.selection.state_of_tag(tag)
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.filesystem.table()
    }

    /// Gives the entry of a file to `f`.
    pub(crate) fn with_leaf<R>(
        &self,
        id: NodeId,
        f: impl FnOnce(&Leaf) -> R,
    ) -> Result<R, Refusal> {
        self.filesystem.with_leaf(id, |_, leaf| Ok(f(leaf)))
    }

    /// Finds `name` in a directory.
    pub(crate) fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Found, Refusal> {
        if name.len() > Name::MAX {
            return Err(Refusal::NameTooLong);
        }
        let listing = self.list(parent, Cookie::START)?;
        match listing.tree.position(name) {
            Some(entry) => self.enter(&listing, entry).map(Found::Node),
            None => Ok(Found::Nothing),
        }
    }

    /// What stat(2) says of a node.
    pub(crate) fn stat(&self, id: NodeId) -> Result<Stat, Refusal> {
        match self.filesystem.with_leaf(id, |_, leaf| Ok(Stat::of_leaf(id, leaf))) {
            Err(Refusal::IsADirectory) => {
                let directory = self.directory(id)?;
                match directory.tree {
                    Some(tree) => Ok(Stat::of_directory(id, &*self.tree_of(&directory, tree)?)),
                    None => Ok(self.stat_of_gone(id, &directory)),
                }
            }
            answer => answer,
        }
    }

    /// The entries of a directory from `cookie` on.
    pub(crate) fn list(&self, id: NodeId, cookie: Cookie) -> Result<Listing, Refusal> {
        let directory = self.directory(id)?;
        let tree_id = directory.tree.ok_or(Refusal::Gone)?;
        let tree = self.tree_of(&directory, tree_id)?;
        let first = cookie.position(&directory, &tree, |id| self.tree_by_id(id).ok());
        Ok(Listing::new(id, directory, (tree_id, tree), first))
    }

    /// The entries of a directory from `cookie` on, for somebody who is told of each.
    pub(crate) fn list_all(&self, id: NodeId, cookie: Cookie) -> Result<Listing, Refusal> {
        let listing = self.list(id, cookie)?;
        if cookie == Cookie::START {
            self.filesystem.ahead.is_listed(&listing);
        }
        Ok(listing)
    }

    /// Tells the kernel of an entry: it has to forget the node once more.
    pub(crate) fn enter(&self, listing: &Listing, entry: usize) -> Result<Stat, Refusal> {
        let (name, what) = &listing.tree.entries()[entry];
        match what {
            Entry::Directory(subtree) => {
                let tree = self.tree_by_id(subtree.id).map_err(|source| Refusal::Unreadable {
                    what: format!("directory {name}"),
                    source,
                })?;
                Ok(Stat::of_directory(self.enter_directory(listing, name)?, &tree))
            }
            Entry::Leaf(leaf) => {
                let Position::Inside(path) = listing.directory.position else {
                    return Err(Refusal::Stale);
                };
                let home = NodeId::of_leaf(path, name, leaf);
                let location = listing.location(entry);
                let compare = |known| self.filesystem.compare(leaf, known);
                let id = self.filesystem.table().enter_file(home, location, compare);
                Ok(Stat::of_leaf(id.ok_or(Refusal::Stale)?, leaf))
            }
        }
    }

    /// Tells the kernel of a directory that exists and is not read, or cannot be, so
    /// that it can be listed by name; whoever looks at it closer asks for it.
    pub(crate) fn enter_unread(&self, listing: &Listing, entry: usize) -> Option<Stat> {
        let (name, what) = &listing.tree.entries()[entry];
        what.as_directory()?;
        let id = self.enter_directory(listing, name).ok()?;
        Some(Stat::of_directory(id, &Tree::empty(Attributes::of_root(0))))
    }

    fn enter_directory(&self, listing: &Listing, name: &Name) -> Result<NodeId, Refusal> {
        let home = NodeId::of_directory(listing.id, name);
        let id = self.filesystem.table().enter_directory(home, listing.id, name);
        id.ok_or(Refusal::Stale)
    }

    /// Gives the attributes of a node to `f`.
    pub(crate) fn with_attributes<R>(
        &self,
        id: NodeId,
        f: impl Fn(&Attributes) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        match self.filesystem.with_leaf(id, |_, leaf| f(&leaf.attributes)) {
            Err(Refusal::IsADirectory) => {
                let directory = self.directory(id)?;
                let tree = directory.tree.ok_or(Refusal::Gone)?;
                f(&self.tree_of(&directory, tree)?.attributes)
            }
            answer => answer,
        }
    }

    /// What lies below the state that is followed or pinned.
    pub(crate) fn summary(&self) -> Summary {
        let tree = self.shown.main.and_then(|id| self.tree_by_id(id).ok());
        tree.map_or_else(Summary::default, |tree| tree.summary())
    }

    /// A directory with what it shows now.
    pub(crate) fn directory(&self, id: NodeId) -> Result<Directory, Refusal> {
        // The table is not kept locked while trees are read.
        let way = self.filesystem.table().way_to(id, self.shown.switch);
        if let Some(Way { from, steps }) = way {
            let mut shown = from;
            for (id, name) in steps {
                shown = match shown {
                    Some(above) => {
                        let above = self.tree_by_id(above).map_err(|source| {
                            Refusal::Unreadable { what: format!("the directory of {name}"), source }
                        })?;
                        above.get(&name).and_then(|entry| Some(entry.as_directory()?.id))
                    }
                    None => None,
                };
                self.filesystem.table().saw(id, shown, self.shown.switch);
            }
        }
        let table = self.filesystem.table();
        match table.directory(id) {
            Some(directory) => Ok(directory),
            None if table.file(id).is_some() => Err(Refusal::NotADirectory),
            None => Err(Refusal::Stale),
        }
    }

    /// What is left of a directory that a switch has taken away.
    fn stat_of_gone(&self, id: NodeId, directory: &Directory) -> Stat {
        // gc may have taken what it showed last.
        let last = directory.earlier.last().and_then(|tree| self.tree_by_id(*tree).ok());
        let mut attributes = Attributes::implied_directory();
        if let Some(last) = last {
            attributes = last.attributes.clone();
        }
        let mut stat = Stat::of_directory(id, &Tree::empty(attributes));
        stat.links = 0;
        stat
    }

    fn tree_of(&self, directory: &Directory, tree: TreeId) -> Result<Arc<Tree>, Refusal> {
        self.tree_by_id(tree).map_err(|source| {
            let name = directory.name.as_ref().map_or_else(|| "/".into(), Name::to_string);
            Refusal::Unreadable { what: format!("directory {name}"), source }
        })
    }

    /// The tree of the root.
    pub(crate) fn root(&self) -> TreeId {
        self.shown.root
    }

    /// A tree of the source, or one that was made to be shown.
    pub(crate) fn tree_by_id(&self, id: TreeId) -> cairn_store::Result<Arc<Tree>> {
        match self.shown.made.get(&id) {
            Some(tree) => Ok(tree.clone()),
            None => self.filesystem.source.tree(id),
        }
    }
}
