//! What the kernel knows: the nodes that it was told of and has not forgotten.
//!
//! A file is kept as the place where its entry lies (a tree and a position in
//! it), not as its attributes, so that it takes 24 bytes here; trees are read
//! again from the source when they are needed. A directory also keeps its name
//! and the tree that it shows now.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use cairn_store::{Name, TreeId};

use crate::node::{NodeId, PathHash};

/// Where a directory stands on the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// The root of a mount of all states.
    Top,
    /// `states` or `tags`.
    Group,
    /// In a state's tree.
    Inside {
        path: PathHash,
        /// Whether it belongs to the view that lasts longest. What is reached
        /// through it as well is remembered as lying there.
        is_lasting: bool,
    },
}

impl Position {
    /// Where the directory `name` of a directory here stands.
    pub(crate) fn child(self, name: &Name) -> Self {
        match self {
            Self::Top if name.as_bytes() != b"current" => Self::Group,
            Self::Top => Self::Inside { path: PathHash::ROOT, is_lasting: true },
            Self::Group => Self::Inside { path: PathHash::ROOT, is_lasting: false },
            Self::Inside { path, is_lasting } => {
                Self::Inside { path: path.child(name), is_lasting }
            }
        }
    }
}

/// A directory that the kernel knows.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) parent: NodeId,
    pub(crate) name: Option<Name>,
    pub(crate) position: Position,
    /// What it shows; of one that is gone, what it showed last.
    pub(crate) tree: TreeId,
    /// Whether a switch took it away while somebody was in it.
    pub(crate) is_gone: bool,
    /// What it showed before, the latest last: cookies of readdir(2) may still
    /// refer to it.
    pub(crate) earlier: Vec<TreeId>,
    lookups: u64,
}

/// The switches that a readdir(2) in progress may sleep through.
const EARLIER_KEPT: usize = 4;

impl Directory {
    /// Shows `tree` from now on, or that the directory is gone.
    pub(crate) fn show(&mut self, tree: Option<TreeId>) {
        self.is_gone = tree.is_none();
        let Some(tree) = tree.filter(|tree| *tree != self.tree) else { return };
        if self.earlier.len() == EARLIER_KEPT {
            self.earlier.remove(0);
        }
        self.earlier.push(self.tree);
        self.tree = tree;
    }
}

#[derive(Clone, Copy, Debug)]
struct File {
    tree: u32,
    entry: u32,
    lookups: u32,
    is_lasting: bool,
}

/// Entry number `entry` (the first is 0) of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) tree: TreeId,
    pub(crate) entry: u32,
}

/// What a look at two locations says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The same file lies at both.
    Same,
    /// Two files, whose numbers collide.
    Different,
    /// The known location can no longer be read, so that it can give no other
    /// content either.
    Unreadable,
}

/// The nodes that the kernel knows, and how often it was told of each.
#[derive(Debug)]
pub(crate) struct Table {
    files: HashMap<NodeId, File, BuildHasherDefault<NodeHasher>>,
    directories: HashMap<NodeId, Directory, BuildHasherDefault<NodeHasher>>,
    trees: Trees,
    /// How far from its computed number a node was ever put, because others
    /// had it; nearly always 0.
    reach: usize,
}

impl Table {
    /// A table that knows the root alone, which is never forgotten.
    pub(crate) fn new(root: TreeId, position: Position) -> Self {
        let directory = Directory {
            parent: NodeId::ROOT,
            name: None,
            position,
            tree: root,
            is_gone: false,
            earlier: Vec::new(),
            lookups: 1,
        };
        Self {
            files: HashMap::default(),
            directories: HashMap::from_iter([(NodeId::ROOT, directory)]),
            trees: Trees::default(),
            reach: 0,
        }
    }

    /// How many nodes are known.
    pub(crate) fn len(&self) -> usize {
        self.files.len() + self.directories.len()
    }

    pub(crate) fn directory(&self, id: NodeId) -> Option<&Directory> {
        self.directories.get(&id)
    }

    pub(crate) fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        self.directories.get_mut(&id)
    }

    /// Where the entry of a file lies.
    pub(crate) fn file(&self, id: NodeId) -> Option<Location> {
        let file = self.files.get(&id)?;
        Some(Location { tree: self.trees.get(file.tree), entry: file.entry })
    }

    /// Notes that the kernel is told of the directory `name` in `parent`,
    /// which shows `tree`, and returns its number: `home` or the next free.
    pub(crate) fn enter_directory(
        &mut self,
        home: NodeId,
        parent: NodeId,
        name: &Name,
        position: Position,
        tree: TreeId,
    ) -> NodeId {
        let (id, distance) = self.find(home, |table, id| table.is_directory(id, parent, name));
        self.reach = self.reach.max(distance);
        let directory = self.directories.entry(id).or_insert_with(|| Directory {
            parent,
            name: Some(name.clone()),
            position,
            tree,
            is_gone: false,
            earlier: Vec::new(),
            lookups: 0,
        });
        directory.show(Some(tree));
        directory.lookups += 1;
        id
    }

    /// The number of the directory `name` in `parent`, if it is known.
    pub(crate) fn known_directory(
        &self,
        home: NodeId,
        parent: NodeId,
        name: &Name,
    ) -> Option<NodeId> {
        let (id, _) = self.find(home, |table, id| table.is_directory(id, parent, name));
        self.directories.contains_key(&id).then_some(id)
    }

    fn is_directory(&self, id: NodeId, parent: NodeId, name: &Name) -> bool {
        self.directories
            .get(&id)
            .is_some_and(|known| known.parent == parent && known.name.as_ref() == Some(name))
    }

    /// Notes that the kernel is told of the file at `location`, and returns its
    /// number: `home` or the next free.
    ///
    /// `compare` is asked whether the file that has the number already is this
    /// one, when it is known by another location.
    pub(crate) fn enter_file(
        &mut self,
        home: NodeId,
        location: Location,
        is_lasting: bool,
        mut compare: impl FnMut(Location) -> Comparison,
    ) -> NodeId {
        let (id, distance) = self.find(home, |table, id| match table.file(id) {
            None => false,
            Some(known) if known == location => true,
            Some(known) => compare(known) != Comparison::Different,
        });
        self.reach = self.reach.max(distance);
        match self.files.get(&id).copied() {
            None => {
                let tree = self.trees.add(location.tree);
                let file = File { tree, entry: location.entry, lookups: 1, is_lasting };
                self.files.insert(id, file);
            }
            Some(known) => {
                if is_lasting || !known.is_lasting {
                    self.relocate(id, location, is_lasting);
                }
                if let Some(file) = self.files.get_mut(&id) {
                    file.lookups = file.lookups.saturating_add(1);
                }
            }
        }
        id
    }

    /// Notes that the entry of a file lies elsewhere as well, and is read there
    /// from now on.
    pub(crate) fn relocate(&mut self, id: NodeId, location: Location, is_lasting: bool) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let before = file.tree;
        file.tree = self.trees.add(location.tree);
        file.entry = location.entry;
        file.is_lasting = is_lasting;
        self.trees.release(before);
    }

    /// The number of the file at `location`, if it is known by this location.
    pub(crate) fn known_file(&self, home: NodeId, location: Location) -> Option<NodeId> {
        let (id, _) = self.find(home, |table, id| table.file(id) == Some(location));
        (self.file(id) == Some(location)).then_some(id)
    }

    /// Whether files are known by their entries in `tree`.
    pub(crate) fn has_files_of(&self, tree: TreeId) -> bool {
        self.trees.numbers.contains_key(&tree)
    }

    /// Notes that the kernel has forgotten a node `count` times. A number that
    /// was never given out is ignored.
    pub(crate) fn forget(&mut self, id: NodeId, count: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            // A count that has overflowed is not known: such a node stays.
            if file.lookups != u32::MAX {
                file.lookups -= u32::try_from(count).unwrap_or(u32::MAX).min(file.lookups);
            }
            if file.lookups == 0 {
                let tree = file.tree;
                self.files.remove(&id);
                self.trees.release(tree);
            }
        } else if let Some(directory) = self.directories.get_mut(&id).filter(|_| id != NodeId::ROOT)
        {
            directory.lookups = directory.lookups.saturating_sub(count);
            if directory.lookups == 0 {
                self.directories.remove(&id);
            }
        }
    }

    /// Gives memory back when most of it is no longer needed.
    pub(crate) fn shrink(&mut self) {
        fn shrink<V>(map: &mut HashMap<NodeId, V, BuildHasherDefault<NodeHasher>>) {
            if map.capacity() > 4096 && map.len() < map.capacity() / 8 {
                map.shrink_to(2 * map.len());
            }
        }
        shrink(&mut self.files);
        shrink(&mut self.directories);
        self.trees.shrink();
    }

    /// The number at which a node is, or else the first free one, and how far
    /// it is from `home`.
    fn find(&self, home: NodeId, mut is_it: impl FnMut(&Self, NodeId) -> bool) -> (NodeId, usize) {
        let (mut id, mut free, mut distance) = (home, None, 0);
        loop {
            let is_known = self.files.contains_key(&id) || self.directories.contains_key(&id);
            if is_known && is_it(self, id) {
                return (id, distance);
            }
            if !is_known {
                free.get_or_insert((id, distance));
            }
            // A node may be further away than a number that has become free.
            if let Some(free) = free.filter(|_| distance >= self.reach) {
                return free;
            }
            id = id.next();
            distance += 1;
        }
    }
}

/// Trees in which files are known, each kept once and counted.
#[derive(Debug, Default)]
struct Trees {
    slots: Vec<(TreeId, u32)>,
    free: Vec<u32>,
    numbers: HashMap<TreeId, u32>,
}

impl Trees {
    fn get(&self, number: u32) -> TreeId {
        self.slots[number as usize].0
    }

    fn add(&mut self, tree: TreeId) -> u32 {
        if let Some(number) = self.numbers.get(&tree) {
            self.slots[*number as usize].1 += 1;
            return *number;
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = (tree, 1);
                number
            }
            None => {
                self.slots.push((tree, 1));
                u32::try_from(self.slots.len() - 1).expect("2^32 trees do not fit into memory")
            }
        };
        self.numbers.insert(tree, number);
        number
    }

    fn release(&mut self, number: u32) {
        let (tree, count) = &mut self.slots[number as usize];
        *count -= 1;
        if *count == 0 {
            self.numbers.remove(tree);
            self.free.push(number);
        }
    }

    fn shrink(&mut self) {
        if self.numbers.is_empty() {
            *self = Self::default();
        }
    }
}

/// Spreads node numbers, which are hashes in their lower 56 bits.
#[derive(Default)]
pub(crate) struct NodeHasher(u64);

impl Hasher for NodeHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The map tells buckets apart by the topmost bits, which are 0 in `id`.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(number: u8) -> TreeId {
        TreeId::from_bytes([number; 32])
    }

    fn at(number: u8, entry: u32) -> Location {
        Location { tree: tree(number), entry }
    }

    fn table() -> Table {
        Table::new(tree(0), Position::Inside { path: PathHash::ROOT, is_lasting: true })
    }

    const HOME: NodeId = NodeId::from_kernel(1000);

    #[test]
    fn a_node_is_known_until_it_was_forgotten_as_often_as_told() {
        let mut table = table();
        let name = Name::new(b"usr").unwrap();
        let enter_both = |table: &mut Table| {
            let file = table.enter_file(HOME, at(1, 7), true, |_| Comparison::Different);
            let home = NodeId::of_directory(NodeId::ROOT, &name);
            let position = table.directory(NodeId::ROOT).unwrap().position.child(&name);
            (file, table.enter_directory(home, NodeId::ROOT, &name, position, tree(1)))
        };
        let (file, directory) = enter_both(&mut table);
        assert_eq!(enter_both(&mut table), (file, directory));
        assert_eq!(table.file(file), Some(at(1, 7)));
        assert_eq!(table.len(), 3);
        for id in [file, directory] {
            table.forget(id, 1);
            assert!(
                table.file(file).is_some() && table.directory(directory).is_some()
                    || id == directory
            );
            table.forget(id, 1);
        }
        assert_eq!((table.file(file), table.len()), (None, 1));
        assert!(!table.has_files_of(tree(1)));
        table.forget(NodeId::ROOT, u64::MAX);
        table.forget(NodeId::from_kernel(4711), 3);
        assert!(table.directory(NodeId::ROOT).is_some());
    }

    #[test]
    fn files_whose_numbers_collide_get_different_ones_and_keep_them() {
        let mut table = table();
        let enter = |table: &mut Table, entry| {
            table.enter_file(HOME, at(1, entry), true, |_| Comparison::Different)
        };
        let ids: Vec<NodeId> = (0..4).map(|entry| enter(&mut table, entry)).collect();
        assert_eq!(ids, [1000, 1001, 1002, 1003].map(NodeId::from_kernel));
        // The first number becomes free; the others are still found behind it.
        table.forget(ids[0], 1);
        for entry in 1..4 {
            assert_eq!(enter(&mut table, entry), ids[entry as usize]);
            assert_eq!(table.known_file(HOME, at(1, entry)), Some(ids[entry as usize]));
        }
        assert_eq!(table.known_file(HOME, at(1, 0)), None);
        assert_eq!(enter(&mut table, 0), ids[0]);
    }

    #[test]
    fn a_directory_and_a_file_never_share_a_number() {
        let mut table = table();
        let file = table.enter_file(HOME, at(1, 0), true, |_| Comparison::Same);
        let name = Name::new(b"usr").unwrap();
        let directory = table.enter_directory(HOME, NodeId::ROOT, &name, Position::Group, tree(2));
        assert_ne!(file, directory);
        assert_eq!(table.known_directory(HOME, NodeId::ROOT, &name), Some(directory));
    }

    #[test]
    fn a_file_is_read_where_it_lasts_longest() {
        // Known as lasting, met as lasting, answer: is it read at the new place?
        for (known, met, expected) in
            [(false, false, true), (false, true, true), (true, false, false), (true, true, true)]
        {
            let mut table = table();
            let id = table.enter_file(HOME, at(1, 0), known, |_| Comparison::Different);
            assert_eq!(table.enter_file(HOME, at(2, 5), met, |_| Comparison::Same), id);
            let place = if expected { at(2, 5) } else { at(1, 0) };
            assert_eq!(table.file(id), Some(place), "known {known}, met {met}");
            assert_eq!(table.has_files_of(tree(2)), expected);
            assert_eq!(table.has_files_of(tree(1)), !expected);
        }
    }

    #[test]
    fn a_count_that_overflows_is_never_taken_for_zero() {
        let mut table = table();
        let id = table.enter_file(HOME, at(1, 0), true, |_| Comparison::Same);
        table.files.get_mut(&id).unwrap().lookups = u32::MAX - 1;
        table.enter_file(HOME, at(1, 0), true, |_| Comparison::Same);
        table.enter_file(HOME, at(1, 0), true, |_| Comparison::Same);
        table.forget(id, u64::from(u32::MAX));
        assert!(table.file(id).is_some());
    }

    #[test]
    fn a_file_takes_24_bytes() {
        assert_eq!(size_of::<(NodeId, File)>(), 24);
    }

    #[test]
    fn memory_comes_back_when_the_kernel_has_forgotten() {
        let mut table = table();
        let ids: Vec<NodeId> = (0..100_000_u32)
            .map(|i| {
                let home = NodeId::from_kernel(2 + u64::from(i) * 0x12_3456_789a);
                table.enter_file(home, at(1, i), true, |_| Comparison::Different)
            })
            .collect();
        assert!(table.files.capacity() >= 100_000);
        ids.iter().for_each(|id| table.forget(*id, 1));
        table.shrink();
        assert!(table.files.capacity() < 100, "{}", table.files.capacity());
    }
}
