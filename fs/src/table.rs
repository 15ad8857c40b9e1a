//! What the kernel knows: the nodes that it was told of and has not forgotten.
//!
//! A directory is a name in another one; what it shows is not kept but found
//! out from the root on, and remembered until the next switch. So nothing here
//! can be out of date after one.
//!
//! A directory stays known as long as anything below it is, whatever the kernel
//! says: it forgets a directory before what is below when that is watched, for
//! example. A switch therefore reaches all that is known by walking down.
//!
//! What changes here is noted in a ledger, if there is one, from which a
//! successor makes the same table.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;

use cairn_store::{Name, TreeId};

use crate::ledger::{Ledger, Record};
use crate::node::{NodeId, PathHash};
use crate::places::{Location, Places};

/// Where a directory stands on the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// The root of a mount of all states.
    Top,
    /// `states` or `tags`.
    Group,
    /// In a state's tree, at the path of this hash.
    Inside(PathHash),
}

impl Position {
    /// Where the directory `name` of a directory here stands.
    pub(crate) fn child(self, name: &Name) -> Self {
        match self {
            Self::Top if name.as_bytes() != b"current" => Self::Group,
            Self::Top | Self::Group => Self::Inside(PathHash::ROOT),
            Self::Inside(path) => Self::Inside(path.child(name)),
        }
    }
}

/// A directory that the kernel knows, or that is on the way to something that
/// it knows.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) parent: NodeId,
    pub(crate) name: Option<Name>,
    pub(crate) position: Position,
    /// What it showed when it was last looked at; nothing if a switch had taken
    /// it away.
    pub(crate) tree: Option<TreeId>,
    /// The switch after which that was.
    seen: u64,
    /// What it showed before, the latest last: cookies of readdir(2) may still
    /// refer to it.
    pub(crate) earlier: Vec<TreeId>,
    lookups: Lookups,
    /// Known directories in it, and places of known files.
    dependents: u32,
}

/// The switches that a readdir(2) in progress may sleep through.
const EARLIER_KEPT: usize = 4;

impl Directory {
    fn saw(&mut self, tree: Option<TreeId>, switch: u64) {
        if let Some(before) = self.tree.filter(|before| Some(*before) != tree) {
            if self.earlier.len() == EARLIER_KEPT {
                self.earlier.remove(0);
            }
            self.earlier.push(before);
        }
        (self.tree, self.seen) = (tree, switch);
    }
}

/// How to find out what a directory shows.
pub(crate) struct Way {
    /// What the nearest directory above shows of which that is known.
    pub(crate) from: Option<TreeId>,
    /// The directories from there on.
    pub(crate) steps: Vec<(NodeId, Name)>,
}

/// A node that the kernel may have forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubted {
    File(NodeId),
    Directory(NodeId),
}

#[derive(Clone, Copy, Debug)]
struct File {
    place: u32,
    entry: u32,
    lookups: Lookups,
}

/// How often the kernel was told of a node, less how often it has forgotten it.
///
/// Of a node that was taken over the count may be too high, never too low: what
/// was noted may not have been answered, and what was forgotten not noted. So
/// the kernel is asked for such a node when it may have forgotten it.
#[derive(Clone, Copy, Debug, Default)]
struct Lookups(u32);

/// What to do after the kernel has forgotten something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The kernel has forgotten the node altogether.
    Nothing,
    /// The kernel knows it.
    Some,
    /// The kernel may know it, and has to be asked.
    Perhaps,
}

impl Lookups {
    /// Set where the count may be too high.
    const INHERITED: u32 = 1 << 31;
    /// How far asking the kernel has come, see [`Doubt`].
    const DOUBT: u32 = 0b11 << 29;
    const MAX: u32 = (1 << 29) - 1;

    fn count(self) -> u32 {
        self.0 & Self::MAX
    }

    fn doubt(self) -> Doubt {
        match (self.0 & Self::DOUBT) >> 29 {
            0 => Doubt::None,
            1 => Doubt::New,
            2 => Doubt::Aged,
            _ => Doubt::Unknown,
        }
    }

    fn set_doubt(&mut self, doubt: Doubt) {
        self.0 = self.0 & !Self::DOUBT | (doubt as u32) << 29;
    }

    fn add(&mut self) {
        self.set_doubt(Doubt::None);
        // A full count is one of which more may be true; only asking ends it.
        if self.count() < Self::MAX {
            self.0 += 1;
        }
    }

    fn forget(&mut self, count: u64) -> Left {
        let known = self.count();
        let rest = match u32::try_from(count) {
            _ if count == u64::MAX => 0,
            _ if known == Self::MAX => known,
            Ok(count) => known.saturating_sub(count),
            Err(_) => 0,
        };
        if rest == 0 {
            self.0 = 0;
            return Left::Nothing;
        }
        self.0 = self.0 - known + rest;
        if self.0 & Self::INHERITED == 0 && known != Self::MAX {
            return Left::Some;
        }
        if self.doubt() != Doubt::None {
            return Left::Some;
        }
        self.set_doubt(Doubt::New);
        Left::Perhaps
    }
}

/// How far asking has come for a node that the kernel may have forgotten without
/// being heard; anew from the beginning whenever the kernel is told of it.
///
/// Between two rounds of asking, callers run who have got an answer, and what
/// the kernel has forgotten is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// There is none.
    None,
    /// There is since the last round: the kernel may have been told just before.
    New,
    /// The next round asks.
    Aged,
    /// The kernel does not know it. What it has forgotten may still be on its
    /// way, and must not meet a count that begins anew: the next round drops it.
    Unknown,
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
    places: Places,
    /// How far from its computed number a node was ever put, because others
    /// had it; nearly always 0.
    reach: usize,
    /// Nodes of which there is doubt, as much as of [`Doubt::New`] and so on; of
    /// some there may be none by now.
    doubted: [Vec<NodeId>; 3],
    ledger: Option<Ledger>,
}

impl Table {
    /// A table that knows the root alone, which is never forgotten.
    pub(crate) fn new(position: Position) -> Self {
        let directory = Directory {
            parent: NodeId::ROOT,
            name: None,
            position,
            tree: None,
            seen: 0,
            earlier: Vec::new(),
            lookups: Lookups(1),
            dependents: 0,
        };
        Self {
            files: HashMap::default(),
            directories: HashMap::from_iter([(NodeId::ROOT, directory)]),
            places: Places::default(),
            reach: 0,
            doubted: Default::default(),
            ledger: None,
        }
    }

    /// How many nodes are known.
    pub(crate) fn len(&self) -> usize {
        self.files.len() + self.directories.len()
    }

    /// All files that are known.
    #[cfg(test)]
    pub(crate) fn files(&self) -> impl Iterator<Item = &NodeId> {
        self.files.keys()
    }

    pub(crate) fn directory(&self, id: NodeId) -> Option<&Directory> {
        self.directories.get(&id)
    }

    /// Where the entry of a file lies.
    pub(crate) fn file(&self, id: NodeId) -> Option<Location> {
        let file = self.files.get(&id)?;
        let (directory, tree) = self.places.get(file.place);
        Some(Location { directory, tree, entry: file.entry })
    }

    /// Notes that the root shows `tree` from switch number `switch` on. Of all
    /// other directories it has to be found out anew what they show.
    pub(crate) fn show(&mut self, tree: TreeId, switch: u64) {
        self.saw(NodeId::ROOT, Some(tree), switch);
    }

    /// Notes what a directory shows after switch number `switch`.
    pub(crate) fn saw(&mut self, id: NodeId, tree: Option<TreeId>, switch: u64) {
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.saw(tree, switch);
        }
    }

    /// How to find out what the directory `id` shows after switch number
    /// `switch`; no steps if that is known.
    pub(crate) fn way_to(&self, id: NodeId, switch: u64) -> Option<Way> {
        let mut steps = Vec::new();
        let mut at = id;
        loop {
            let directory = self.directories.get(&at)?;
            match &directory.name {
                Some(name) if directory.seen != switch => steps.push((at, name.clone())),
                _ => {
                    steps.reverse();
                    return Some(Way { from: directory.tree, steps });
                }
            }
            at = directory.parent;
        }
    }

    /// Notes that the kernel is told of the directory `name` in `parent`, and
    /// returns its number: `home` or the next free. Nothing if `parent` is not
    /// known.
    pub(crate) fn enter_directory(
        &mut self,
        home: NodeId,
        parent: NodeId,
        name: &Name,
    ) -> Option<NodeId> {
        let position = self.directories.get(&parent)?.position.child(name);
        let (id, distance) = self.find(home, |table, id| table.is_directory(id, parent, name));
        self.reach_to(distance);
        let directory = self.insert_directory(id, parent, name, position);
        let is_new = directory.lookups.0 == 0;
        directory.lookups.add();
        let count = directory.lookups.count();
        if is_new {
            self.note(Record::Directory { id, parent, name });
        } else {
            self.note(Record::Lookups { id, count });
        }
        Some(id)
    }

    /// The directory `id`, made unless it is there.
    fn insert_directory(
        &mut self,
        id: NodeId,
        parent: NodeId,
        name: &Name,
        position: Position,
    ) -> &mut Directory {
        if !self.directories.contains_key(&id) {
            self.depend_on(parent);
        }
        self.directories.entry(id).or_insert_with(|| Directory {
            parent,
            name: Some(name.clone()),
            position,
            tree: None,
            seen: 0,
            earlier: Vec::new(),
            lookups: Lookups::default(),
            dependents: 0,
        })
    }

    /// The number of the directory `name` in `parent`, if it is known.
    pub(crate) fn known_directory(&self, parent: NodeId, name: &Name) -> Option<NodeId> {
        let home = NodeId::of_directory(parent, name);
        let (id, _) = self.find(home, |table, id| table.is_directory(id, parent, name));
        self.directories.contains_key(&id).then_some(id)
    }

    fn is_directory(&self, id: NodeId, parent: NodeId, name: &Name) -> bool {
        self.directories
            .get(&id)
            .is_some_and(|known| known.parent == parent && known.name.as_ref() == Some(name))
    }

    /// Notes that the kernel is told of the file at `location`, and returns its
    /// number: `home` or the next free. Nothing if its directory is not known.
    ///
    /// `compare` is asked whether the file that has the number already is this
    /// one, when it is known by another location.
    pub(crate) fn enter_file(
        &mut self,
        home: NodeId,
        location: Location,
        mut compare: impl FnMut(Location) -> Comparison,
    ) -> Option<NodeId> {
        self.directories.get(&location.directory)?;
        let mut is_lost = false;
        let (id, distance) = self.find(home, |table, id| match table.file(id) {
            None => false,
            Some(known) if known == location => true,
            Some(known) => {
                let comparison = compare(known);
                is_lost = comparison == Comparison::Unreadable;
                comparison != Comparison::Different
            }
        });
        self.reach_to(distance);
        if !self.files.contains_key(&id) {
            let place = self.add_place(location);
            self.files.insert(id, File { place, entry: location.entry, lookups: Lookups(1) });
            self.note(Record::File { id, location });
            return Some(id);
        }
        if is_lost {
            self.relocate(id, location);
        }
        let lookups = &mut self.files.get_mut(&id)?.lookups;
        lookups.add();
        let count = lookups.count();
        self.note(Record::Lookups { id, count });
        Some(id)
    }

    /// Notes that the entry of a file lies elsewhere as well, and is read there
    /// from now on.
    pub(crate) fn relocate(&mut self, id: NodeId, location: Location) {
        if !self.files.contains_key(&id) {
            return;
        }
        let place = self.add_place(location);
        let Some(file) = self.files.get_mut(&id) else { return };
        let before = std::mem::replace(&mut file.place, place);
        file.entry = location.entry;
        self.release_place(before);
        self.note(Record::File { id, location });
    }

    /// The number of the file at `location`, if it is known by this location.
    pub(crate) fn known_file(&self, home: NodeId, location: Location) -> Option<NodeId> {
        if self.file(home) == Some(location) {
            return Some(home);
        }
        let (id, _) = self.find(home, |table, id| table.file(id) == Some(location));
        (self.file(id) == Some(location)).then_some(id)
    }

    /// Whether files are known by their entries in `tree`, as `directory`
    /// showed it.
    pub(crate) fn has_files_of(&self, directory: NodeId, tree: TreeId) -> bool {
        self.places.number(directory, tree).is_some()
    }

    /// Holds `root` for files that are known in `tree`, as `directory` showed
    /// it; or notes that `directory` shows it again.
    pub(crate) fn hold(&mut self, directory: NodeId, tree: TreeId, root: Option<TreeId>) {
        if let Some(number) = self.places.number(directory, tree)
            && self.places.hold(number, root)
        {
            self.note(Record::Held { directory, tree, root });
        }
    }

    /// Holds `root` for all files that are known in `directory` and below.
    pub(crate) fn hold_below(&mut self, directory: NodeId, root: Option<TreeId>) {
        let is_below = |mut at: NodeId| loop {
            match self.directories.get(&at) {
                _ if at == directory => return true,
                Some(known) if at != NodeId::ROOT => at = known.parent,
                _ => return false,
            }
        };
        let shown = self.places.iter().filter(|(_, _, held)| held.is_none());
        let below: Vec<u32> =
            shown.filter(|(_, at, _)| is_below(*at)).map(|(number, ..)| number).collect();
        for number in below {
            let (directory, tree) = self.places.get(number);
            self.hold(directory, tree, root);
        }
    }

    /// The roots that are held, each once.
    pub(crate) fn held(&self) -> impl Iterator<Item = TreeId> {
        self.places.held()
    }

    /// Notes that the kernel has forgotten a node `count` times. A number that
    /// was never given out is ignored.
    pub(crate) fn forget(&mut self, id: NodeId, count: u64) {
        let is_file = self.files.contains_key(&id);
        let Some(lookups) = self.lookups(id).filter(|_| id != NodeId::ROOT) else { return };
        if lookups.0 == 0 {
            return;
        }
        let (left, rest) = (lookups.forget(count), lookups.count());
        if left != Left::Nothing {
            self.note(Record::Lookups { id, count: rest });
            if left == Left::Perhaps {
                self.doubted[0].push(id);
            }
            return;
        }
        if is_file {
            if let Some(file) = self.files.remove(&id) {
                self.release_place(file.place);
            }
        } else {
            self.drop_unknown(id);
        }
        self.note(Record::Forgotten(id));
    }

    fn lookups(&mut self, id: NodeId) -> Option<&mut Lookups> {
        match self.files.get_mut(&id) {
            Some(file) => Some(&mut file.lookups),
            None => Some(&mut self.directories.get_mut(&id)?.lookups),
        }
    }

    /// Notes what changes from here on in `ledger`, as well as all that is known.
    pub(crate) fn keep_in(&mut self, ledger: Ledger) -> io::Result<()> {
        self.ledger = Some(ledger);
        self.rewrite()
    }

    /// Notes something that is not about nodes.
    pub(crate) fn note(&mut self, record: Record<'_>) {
        if let Some(ledger) = &mut self.ledger {
            ledger.note(&record);
            // If it cannot be written now, the next `keep` says so.
            let _ = ledger.flush_some();
        }
    }

    /// Writes what has been noted: from here on a successor knows it.
    ///
    /// # Errors
    /// Nothing is noted any more, and there can be no successor.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let kept = ledger.flush();
        let is_long = ledger.is_long();
        match kept {
            Ok(()) if is_long => self.rewrite(),
            result => self.give_up_on_failure(result),
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let Some(mut ledger) = self.ledger.take() else { return Ok(()) };
        let result = ledger.rewrite(|note| self.describe(note));
        self.ledger = Some(ledger);
        self.give_up_on_failure(result)
    }

    fn give_up_on_failure(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.ledger.take().into_iter().for_each(Ledger::invalidate);
        }
        result
    }

    /// Notes all that is known, so that [`Table::take_over`] makes it again.
    fn describe(&self, note: &mut dyn FnMut(Record<'_>)) {
        // One is what the first record of a node says.
        let note_count = |id, lookups: Lookups, note: &mut dyn FnMut(Record<'_>)| {
            if lookups.count() > 1 {
                note(Record::Lookups { id, count: lookups.count() });
            }
        };
        note(Record::Reach(u32::try_from(self.reach).unwrap_or(u32::MAX)));
        let mut below: HashMap<NodeId, Vec<(NodeId, &Name)>> = HashMap::new();
        for (id, directory) in &self.directories {
            if let Some(name) = &directory.name {
                below.entry(directory.parent).or_default().push((*id, name));
            }
        }
        let mut parents = vec![NodeId::ROOT];
        while let Some(parent) = parents.pop() {
            for (id, name) in below.remove(&parent).unwrap_or_default() {
                note(Record::Directory { id, parent, name });
                note_count(id, self.directories[&id].lookups, note);
                parents.push(id);
            }
        }
        // Those of a place lie side by side, so that it is named once.
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_unstable_by_key(|(_, file)| (file.place, file.entry));
        for (id, file) in files {
            let (directory, tree) = self.places.get(file.place);
            note(Record::File {
                id: *id,
                location: Location { directory, tree, entry: file.entry },
            });
            note_count(*id, file.lookups, note);
        }
        for (number, directory, held) in self.places.iter().filter(|(_, _, held)| held.is_some()) {
            let (_, tree) = self.places.get(number);
            note(Record::Held { directory, tree, root: held });
        }
        for (id, _) in self.directories.iter().filter(|(_, known)| known.lookups.0 == 0) {
            note(Record::Forgotten(*id));
        }
    }

    /// Does what a predecessor has noted; nothing if that cannot be.
    pub(crate) fn take_over(&mut self, record: &Record<'_>) -> Option<()> {
        const INHERITED: Lookups = Lookups(Lookups::INHERITED | 1);
        match *record {
            Record::Directory { id, parent, name } => {
                let name = Name::new(name).ok()?;
                let position = self.directories.get(&parent)?.position.child(&name);
                if self.files.contains_key(&id) {
                    return None;
                }
                self.insert_directory(id, parent, &name, position).lookups = INHERITED;
            }
            Record::File { id, location } => {
                self.directories.get(&location.directory)?;
                if self.files.contains_key(&id) {
                    self.relocate(id, location);
                } else if self.directories.contains_key(&id) {
                    return None;
                } else {
                    let place = self.add_place(location);
                    let entry = location.entry;
                    self.files.insert(id, File { place, entry, lookups: INHERITED });
                }
            }
            Record::Lookups { id, count } => {
                let lookups = self.lookups(id).filter(|lookups| lookups.0 != 0)?;
                if !(1..=Lookups::MAX).contains(&count) {
                    return None;
                }
                *lookups = Lookups(Lookups::INHERITED | count);
            }
            Record::Forgotten(id) => self.forget(id, u64::MAX),
            Record::Held { directory, tree, root } => self.hold(directory, tree, root),
            Record::Reach(reach) => self.reach_to(reach as usize),
            Record::About(_) | Record::Showing(_) | Record::Told => {}
        }
        Some(())
    }

    /// Goes on in the ledger that was taken over, and doubts all that it says of
    /// nodes.
    pub(crate) fn go_on_in(&mut self, ledger: Ledger) {
        self.ledger = Some(ledger);
        let files = self.files.iter_mut().map(|(id, file)| (id, &mut file.lookups));
        let directories = self.directories.iter_mut().map(|(id, known)| (id, &mut known.lookups));
        for (id, lookups) in files.chain(directories) {
            if lookups.0 & Lookups::INHERITED != 0 {
                // Whatever its process answered is older than this one.
                lookups.set_doubt(Doubt::Aged);
                self.doubted[1].push(*id);
            }
        }
    }

    /// Begins a round of asking: returns the nodes for which the kernel is to be
    /// asked.
    pub(crate) fn begin_round(&mut self) -> Vec<Doubted> {
        let [new, aged, unknown] = std::mem::take(&mut self.doubted);
        for id in unknown {
            if self.doubt_of(id) == Some(Doubt::Unknown) {
                self.forget(id, u64::MAX);
            }
        }
        let of = |id| {
            let is_file = self.files.contains_key(&id);
            if is_file { Doubted::File(id) } else { Doubted::Directory(id) }
        };
        let is_aged = |id: &NodeId| self.doubt_of(*id) == Some(Doubt::Aged);
        let asked = aged.into_iter().filter(is_aged).map(of).collect();
        for id in new {
            if let Some(lookups) = self.lookups(id).filter(|it| it.doubt() == Doubt::New) {
                lookups.set_doubt(Doubt::Aged);
                self.doubted[1].push(id);
            }
        }
        asked
    }

    fn doubt_of(&self, id: NodeId) -> Option<Doubt> {
        let file = self.files.get(&id).map(|file| file.lookups);
        Some(file.or_else(|| Some(self.directories.get(&id)?.lookups))?.doubt())
    }

    /// Notes whether the kernel knows a node for which it was asked, unless it was
    /// told of it meanwhile.
    pub(crate) fn answered(&mut self, id: NodeId, is_known: bool) {
        let Some(lookups) = self.lookups(id).filter(|it| it.doubt() == Doubt::Aged) else { return };
        if is_known {
            lookups.set_doubt(Doubt::None);
        } else {
            lookups.set_doubt(Doubt::Unknown);
            self.doubted[2].push(id);
        }
    }

    fn reach_to(&mut self, distance: usize) {
        if distance > self.reach {
            self.reach = distance;
            self.note(Record::Reach(u32::try_from(distance).unwrap_or(u32::MAX)));
        }
    }

    fn add_place(&mut self, Location { directory, tree, .. }: Location) -> u32 {
        let (place, is_new) = self.places.add(directory, tree);
        if is_new {
            self.depend_on(directory);
        }
        place
    }

    fn release_place(&mut self, place: u32) {
        if let Some(directory) = self.places.release(place) {
            self.depend_less_on(directory);
        }
    }

    fn depend_on(&mut self, directory: NodeId) {
        if let Some(directory) = self.directories.get_mut(&directory) {
            directory.dependents += 1;
        }
    }

    fn depend_less_on(&mut self, id: NodeId) {
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.dependents -= 1;
            self.drop_unknown(id);
        }
    }

    /// Drops a directory that neither the kernel knows nor anything depends on,
    /// and those above that were only on the way to it.
    fn drop_unknown(&mut self, mut id: NodeId) {
        while let Some(directory) = self.directories.get_mut(&id)
            && (directory.lookups.0, directory.dependents) == (0, 0)
        {
            let parent = directory.parent;
            self.directories.remove(&id);
            if let Some(directory) = self.directories.get_mut(&parent) {
                directory.dependents -= 1;
            }
            id = parent;
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
        self.places.shrink();
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
        Location { directory: NodeId::ROOT, tree: tree(number), entry }
    }

    fn table() -> Table {
        Table::new(Position::Inside(PathHash::ROOT))
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn enter_file(table: &mut Table, location: Location, comparison: Comparison) -> NodeId {
        table.enter_file(HOME, location, |_| comparison).unwrap()
    }

    fn enter_directory(table: &mut Table, parent: NodeId, text: &str) -> NodeId {
        let name = name(text);
        table.enter_directory(NodeId::of_directory(parent, &name), parent, &name).unwrap()
    }

    const HOME: NodeId = NodeId::from_kernel(1000);

    #[test]
    fn a_node_is_known_until_it_was_forgotten_as_often_as_told() {
        let mut table = table();
        let enter_both = |table: &mut Table| {
            let file = enter_file(table, at(1, 7), Comparison::Different);
            (file, enter_directory(table, NodeId::ROOT, "usr"))
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
        assert!(!table.has_files_of(NodeId::ROOT, tree(1)));
        table.forget(NodeId::ROOT, u64::MAX);
        table.forget(NodeId::from_kernel(4711), 3);
        assert!(table.directory(NodeId::ROOT).is_some());
    }

    #[test]
    fn the_way_to_what_is_known_stays_known() {
        let mut table = table();
        let usr = enter_directory(&mut table, NodeId::ROOT, "usr");
        let lib = enter_directory(&mut table, usr, "lib");
        let file =
            enter_file(&mut table, Location { directory: lib, ..at(1, 7) }, Comparison::Same);
        for id in [usr, lib] {
            table.forget(id, 1);
            assert!(table.directory(usr).is_some() && table.directory(lib).is_some());
        }
        assert_eq!(table.known_directory(usr, &name("lib")), Some(lib));
        // Told of again, it is forgotten again without harm.
        assert_eq!(enter_directory(&mut table, usr, "lib"), lib);
        table.forget(lib, 1);
        assert!(table.directory(lib).is_some());
        table.forget(file, 1);
        assert_eq!(table.len(), 1);
        assert_eq!(table.enter_directory(HOME, usr, &name("lib")), None);
    }

    #[test]
    fn files_whose_numbers_collide_get_different_ones_and_keep_them() {
        let mut table = table();
        let enter =
            |table: &mut Table, entry| enter_file(table, at(1, entry), Comparison::Different);
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
        let usr = name("usr");
        let home = NodeId::of_directory(NodeId::ROOT, &usr);
        let file = table.enter_file(home, at(1, 0), |_| Comparison::Same).unwrap();
        let directory = table.enter_directory(home, NodeId::ROOT, &usr).unwrap();
        assert_ne!(file, directory);
        assert_eq!(table.known_directory(NodeId::ROOT, &usr), Some(directory));
    }

    #[test]
    fn a_file_is_read_where_it_was_met_first_unless_that_is_lost() {
        for (comparison, place) in
            [(Comparison::Same, at(1, 0)), (Comparison::Unreadable, at(2, 5))]
        {
            let mut table = table();
            let id = enter_file(&mut table, at(1, 0), Comparison::Different);
            assert_eq!(enter_file(&mut table, at(2, 5), comparison), id);
            assert_eq!(table.file(id), Some(place));
            for number in [1, 2] {
                let has_files = table.has_files_of(NodeId::ROOT, tree(number));
                assert_eq!(has_files, place.tree == tree(number));
            }
        }
    }

    #[test]
    fn what_a_directory_shows_is_asked_for_after_each_switch_and_once() {
        let mut table = table();
        table.show(tree(1), 1);
        let usr = enter_directory(&mut table, NodeId::ROOT, "usr");
        let lib = enter_directory(&mut table, usr, "lib");
        let steps = |table: &Table, switch| {
            let way = table.way_to(lib, switch).unwrap();
            (way.from, way.steps.into_iter().map(|(id, _)| id).collect::<Vec<_>>())
        };
        assert_eq!(steps(&table, 1), (Some(tree(1)), vec![usr, lib]));
        table.saw(usr, Some(tree(2)), 1);
        assert_eq!(steps(&table, 1), (Some(tree(2)), vec![lib]));
        table.saw(lib, Some(tree(3)), 1);
        assert_eq!(steps(&table, 1), (Some(tree(3)), vec![]));
        table.show(tree(4), 2);
        assert_eq!(steps(&table, 2), (Some(tree(4)), vec![usr, lib]));
        assert_eq!(table.directory(NodeId::ROOT).unwrap().earlier, [tree(1)]);
        table.saw(lib, None, 2);
        table.saw(lib, Some(tree(5)), 2);
        assert_eq!(table.directory(lib).unwrap().earlier, [tree(3)]);
    }

    #[test]
    fn a_count_that_is_full_ends_only_by_asking() {
        let mut table = table();
        let id = enter_file(&mut table, at(1, 0), Comparison::Same);
        table.files.get_mut(&id).unwrap().lookups = Lookups(Lookups::MAX - 1);
        for _ in 0..2 {
            enter_file(&mut table, at(1, 0), Comparison::Same);
        }
        table.forget(id, u64::from(Lookups::MAX) + 1);
        assert!(table.file(id).is_some());
        assert_eq!(table.begin_round(), []);
        assert_eq!(table.begin_round(), [Doubted::File(id)]);
        table.answered(id, false);
        assert_eq!(table.begin_round(), []);
        assert_eq!(table.file(id), None);
    }

    /// A table that was taken over with one file, of which its predecessor told
    /// the kernel so often.
    fn inherited(count: u32) -> (Table, NodeId) {
        let mut table = table();
        table.take_over(&Record::File { id: HOME, location: at(1, 0) }).unwrap();
        if count > 1 {
            table.take_over(&Record::Lookups { id: HOME, count }).unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        table.go_on_in(Ledger::create(file, crate::ledger::Said::default()).unwrap());
        (table, HOME)
    }

    #[test]
    fn what_was_forgotten_before_a_look_up_does_not_use_up_that_look_up() {
        let (mut table, id) = inherited(2);
        // The kernel has forgotten it twice, and asked anew; it delivers the
        // question first.
        enter_file(&mut table, at(1, 0), Comparison::Same);
        table.forget(id, 2);
        assert!(table.file(id).is_some());
        table.forget(id, 1);
        assert_eq!(table.file(id), None);
    }

    #[test]
    fn the_kernel_is_asked_only_for_what_it_was_not_told_of_for_a_round() {
        let (mut table, id) = inherited(1);
        let asked = table.begin_round();
        assert_eq!(asked, [Doubted::File(id)]);
        // Told of it while it is asked.
        enter_file(&mut table, at(1, 0), Comparison::Same);
        table.answered(id, false);
        assert_eq!(table.begin_round(), []);
        assert!(table.file(id).is_some());
        table.forget(id, 1);
        assert_eq!(table.begin_round(), []);
        let asked = table.begin_round();
        assert_eq!(asked, [Doubted::File(id)]);
        table.answered(id, true);
        assert_eq!((table.begin_round(), table.begin_round()), (vec![], vec![]));
        assert!(table.file(id).is_some());
        table.forget(id, 1);
        assert_eq!(table.file(id), None);
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
                table.enter_file(home, at(1, i), |_| Comparison::Different).unwrap()
            })
            .collect();
        assert!(table.files.capacity() >= 100_000);
        ids.iter().for_each(|id| table.forget(*id, 1));
        table.shrink();
        assert!(table.files.capacity() < 100, "{}", table.files.capacity());
    }
}
