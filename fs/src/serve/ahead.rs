//! Reads directories before they are asked for, while somebody walks a tree.
//!
//! Listing a directory tells the attributes of the directories in it, for which each of these
//! has to be read. A walk goes on in the directories below the listed one, and then in those
//! beside it: what listing the first one of each that has directories will take is read while
//! the kernel and whoever walks deal with the answer. Of a directory without directories all
//! has been read when the one above it was listed.
//!
//! Of the contents of files the source says what to read.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cairn_store::{Name, Tree, TreeId};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::serve::listing::Listing;
use crate::serve::node::NodeId;
use crate::serve::table::Position;
use crate::source::Source;

/// So many directories that were listed lately are remembered: those above one that is
/// listed, in several walks at a time.
const REMEMBERED: usize = 32;

/// Of the directories in one so many are read: about as many as the answer to one request
/// can tell of.
const IN_ONE: usize = 128;

/// Among so many of the next directories one is looked for that has directories.
const NEXT: usize = 32;

/// So many messages may wait to be looked at; whoever is so far behind is of no use.
const WAITING: usize = 8;

/// After so long without a listing nothing is remembered.
const QUIET: Duration = Duration::from_secs(1);

/// Reads ahead, once it has begun to.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    begun: OnceLock<Begun>,
}

#[derive(Debug)]
struct Begun {
    messages: Sender<Message>,
    /// Gone when it has ended.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Message {
    Listed(Listed),
    /// The source wants to read something.
    Wanted,
    End,
}

/// A directory that was listed.
#[derive(Debug)]
struct Listed {
    id: NodeId,
    parent: NodeId,
    name: Option<Name>,
    tree: Arc<Tree>,
}

impl Ahead {
    /// Reads ahead from here on, for as long as there is `source`. `first`, where whatever is
    /// asked for begins, is read at once, for which a store opens its index.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(crate) fn begin<S: Source>(
        &self,
        source: &Arc<S>,
        first: Option<TreeId>,
    ) -> io::Result<()> {
        let (sender, messages) = bounded(WAITING);
        let source = Arc::downgrade(source);
        let work = move || {
            if let (Some(source), Some(first)) = (source.upgrade(), first) {
                // Whoever asks for it is told what is wrong with it.
                let tree = source.tree(first).ok();
                tree.iter().flat_map(|tree| directories(tree, 0)).take(IN_ONE).for_each(|id| {
                    let _ = source.tree(id);
                });
            }
            follow(&source, &messages);
        };
        let thread = thread::Builder::new().name("ahead".into()).spawn(work)?;
        let begun = Begun { messages: sender, thread: Mutex::new(Some(thread)) };
        // The first one stays, if this is called twice.
        let _ = self.begun.set(begun);
        Ok(())
    }

    /// Reads nothing any more when it returns. To be called before the process ends: an index
    /// must not be in use then.
    pub(crate) fn end(&self) {
        let Some(begun) = self.begun.get() else { return };
        let thread = begun.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // If it has ended, it hears nothing, and has nothing to return.
        let _ = begun.messages.send(Message::End);
        let _ = thread.join();
    }

    /// Notes that the source wants to read something.
    pub(crate) fn is_wanted(&self) {
        let Some(begun) = self.begun.get() else { return };
        // Whatever waits has it looked at as well, and directories need the room.
        if begun.messages.is_empty() {
            let _ = begun.messages.try_send(Message::Wanted);
        }
    }

    /// Notes that a directory is listed from its beginning.
    pub(crate) fn is_listed(&self, listing: &Listing) {
        let Some(begun) = self.begun.get() else { return };
        let is_inside = matches!(listing.directory.position, Position::Inside(_));
        if !is_inside || directories(&listing.tree, 0).next().is_none() {
            return;
        }
        let _ = begun.messages.try_send(Message::Listed(Listed {
            id: listing.id,
            parent: listing.directory.parent,
            name: listing.directory.name.clone(),
            tree: listing.tree.clone(),
        }));
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads what will be asked for after each of `messages`, until there are no more.
fn follow<S: Source>(source: &Weak<S>, messages: &Receiver<Message>) {
    let mut walks = Walks::default();
    loop {
        let message = match messages.recv_timeout(QUIET) {
            Err(RecvTimeoutError::Timeout) => {
                walks = Walks::default();
                messages.recv().ok()
            }
            message => message.ok(),
        };
        let Some(source) = source.upgrade() else { return };
        let mut message = message;
        // A directory takes less time than a frame of files, and is waited for sooner.
        loop {
            match message {
                Some(Message::Listed(listed)) => read_after(&*source, &mut walks, listed),
                Some(Message::Wanted) => source.read_ahead(),
                Some(Message::End) | None => return,
            }
            let wanted = || source.wants_to_read_ahead().then_some(Message::Wanted);
            let Some(next) = messages.try_recv().ok().or_else(wanted) else { break };
            message = Some(next);
        }
    }
}

/// Reads what listing the next directories of a walk will take.
fn read_after(source: &impl Source, walks: &mut Walks, listed: Listed) {
    for next in walks.after(listed) {
        // Whoever asks for what cannot be read is told why.
        let mut trees = next.into_iter().filter_map(|id| source.tree(id).ok());
        let Some(tree) = trees.find(|tree| directories(tree, 0).next().is_some()) else { continue };
        for id in directories(&tree, 0).take(IN_ONE) {
            let _ = source.tree(id);
        }
    }
}

/// The directories that were listed lately, the last one first.
#[derive(Debug, Default)]
struct Walks {
    listed: VecDeque<Listed>,
}

impl Walks {
    /// The directories below `listed` and those beside it that come next, if it is part of a
    /// walk: if the one that it lies in was listed lately as well.
    fn after(&mut self, listed: Listed) -> [Vec<TreeId>; 2] {
        let mut next = [Vec::new(), Vec::new()];
        if let Some(above) = self.listed.iter().find(|it| it.id == listed.parent) {
            let own = listed.name.as_ref().and_then(|name| above.tree.position(name));
            let behind = own.map_or(usize::MAX, |position| position + 1);
            next = [(&listed.tree, 0), (&above.tree, behind)]
                .map(|(tree, from)| directories(tree, from).take(NEXT).collect());
        }
        // Those above it stay as long as something below them is listed.
        let mut above = listed.parent;
        self.listed.retain(|it| it.id != listed.id);
        self.listed.push_front(listed);
        for place in 1..REMEMBERED {
            let found = self.listed.iter().skip(place).position(|it| it.id == above);
            let Some(found) = found.and_then(|at| self.listed.remove(place + at)) else { break };
            above = found.parent;
            self.listed.insert(place, found);
        }
        self.listed.truncate(REMEMBERED);
        next
    }
}

/// The directories in `tree` from the entry `from` on.
fn directories(tree: &Tree, from: usize) -> impl Iterator<Item = TreeId> {
    let entries = tree.entries().get(from..).unwrap_or_default();
    entries.iter().filter_map(|(_, entry)| Some(entry.as_directory()?.id))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use cairn_store::{Attributes, BlobRef, Entry, Error, Refs, Result, Subtree, Summary};

    use super::*;

    /// Trees, and which of them were asked for.
    #[derive(Default)]
    struct Memory {
        trees: HashMap<TreeId, Arc<Tree>>,
        asked: Mutex<HashSet<TreeId>>,
    }

    impl Source for Memory {
        fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
            self.asked.lock().unwrap().insert(id);
            self.trees.get(&id).cloned().ok_or(Error::MissingTree { id })
        }

        fn read_at(&self, _: &BlobRef, _: u64, _: &mut [u8]) -> Result<usize> {
            unreachable!("no file is read ahead")
        }

        fn refs(&self) -> Refs {
            Refs::default()
        }

        fn refresh(&self) -> Result<()> {
            Ok(())
        }
    }

    impl Memory {
        /// A directory `number` with `width` directories, each with one less, and so on.
        fn grow(&mut self, number: &mut u32, width: u32) -> TreeId {
            *number += 1;
            let attributes = Attributes::of_root(0o755);
            let attributes = Attributes { uid: *number, ..attributes };
            let below = (0..width).map(|at| {
                let id = self.grow(number, width - 1);
                let subtree = Subtree { id, summary: Summary::default() };
                (Name::new(format!("{at}").as_bytes()).unwrap(), Entry::Directory(subtree))
            });
            let tree = Tree::new(attributes, below.collect()).unwrap();
            let id = tree.encode().id;
            self.trees.insert(id, Arc::new(tree));
            id
        }

        /// Lists a directory; returns how much of what that takes was not asked for before.
        fn list(
            &self,
            walks: &mut Walks,
            (id, parent): (NodeId, NodeId),
            name: Option<&Name>,
            tree: TreeId,
        ) -> usize {
            let listed = self.trees[&tree].clone();
            let takes = std::iter::once(tree).chain(directories(&listed, 0));
            let missing = takes.filter(|it| self.asked.lock().unwrap().insert(*it)).count();
            if directories(&listed, 0).next().is_some() {
                let name = name.cloned();
                read_after(self, walks, Listed { id, parent, name, tree: listed });
            }
            missing
        }

        /// Lists everything below a directory; returns what of it was not asked for before.
        fn walk(&self, walks: &mut Walks, above: NodeId, id: TreeId) -> usize {
            let tree = self.trees[&id].clone();
            tree.entries().iter().fold(0, |missing, (name, entry)| {
                let (id, node) =
                    (entry.as_directory().unwrap().id, NodeId::of_directory(above, name));
                let here = self.list(walks, (node, above), Some(name), id);
                missing + here + self.walk(walks, node, id)
            })
        }
    }

    #[test]
    fn of_a_walk_all_is_read_before_it_is_asked_for_but_where_it_begins() {
        let mut memory = Memory::default();
        let root = memory.grow(&mut 0, 5);
        let (mut walks, at) = (Walks::default(), (NodeId::ROOT, NodeId::ROOT));
        // The root itself and what is in it: nobody walks yet.
        assert_eq!(memory.list(&mut walks, at, None, root), 6);
        assert_eq!(memory.asked.lock().unwrap().len(), 6);
        // The directories in the first one.
        assert_eq!(memory.walk(&mut walks, NodeId::ROOT, root), 4);
        assert_eq!(memory.asked.lock().unwrap().len(), memory.trees.len());
        assert!(walks.listed.len() <= REMEMBERED);
    }
}
