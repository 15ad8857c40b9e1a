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

mod directory;
mod lookups;
mod nodes;
mod opens;
mod succession;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use cairn_store::{Name, TreeId};

use crate::serve::ledger::{Ledger, Record};
use crate::serve::node::NodeId;
use crate::serve::places::{Location, PlaceId, Places};
use directory::{CompactName, Earlier, Known};
pub(crate) use directory::{Directory, Position};
use lookups::{Left, Lookups};
use nodes::Nodes;
use opens::Opens;
pub(crate) use opens::Reading;
pub(crate) use succession::Doubted;

/// How to find out what a directory shows.
pub(crate) struct Way {
    /// What the nearest directory above shows of which that is known.
    pub(crate) from: Option<TreeId>,
    /// The directories from there on.
    pub(crate) steps: Vec<(NodeId, Name)>,
}

#[derive(Clone, Copy, Debug)]
struct File {
    place: PlaceId,
    entry: u32,
    lookups: Lookups,
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
    files: Nodes<File>,
    directories: Nodes<Known>,
    /// What directories showed before, of those of which there is something to tell.
    earlier: HashMap<NodeId, Earlier>,
    places: Places,
    /// Of which [`Table::next_unsettled`] has not told yet; some may be settled by now.
    unsettled: Vec<PlaceId>,
    /// How far from its computed number a node was ever put, because others
    /// had it; nearly always 0.
    reach: usize,
    /// Nodes of which there is doubt, as much as of [`lookups::Doubt::New`] and so on; of
    /// some there may be none by now.
    doubted: [Vec<NodeId>; 3],
    opens: Opens,
    ledger: Option<Ledger>,
}

impl Table {
    /// A table that knows the root alone, which is never forgotten.
    pub(crate) fn new(position: Position) -> Self {
        let root = Known { lookups: Lookups(1), ..Known::new(NodeId::ROOT, None, position) };
        let mut directories = Nodes::default();
        directories.get_or_insert_with(NodeId::ROOT, || root);
        Self {
            files: Nodes::default(),
            directories,
            earlier: HashMap::new(),
            places: Places::default(),
            unsettled: Vec::new(),
            reach: 0,
            doubted: Default::default(),
            opens: Opens::default(),
            ledger: None,
        }
    }

    /// How many nodes are known.
    pub(crate) fn len(&self) -> usize {
        self.files.len() + self.directories.len()
    }

    /// All files that are known.
    #[cfg(test)]
    pub(crate) fn files(&self) -> impl Iterator<Item = NodeId> {
        self.files.iter().map(|(id, _)| id)
    }

    pub(crate) fn directory(&self, id: NodeId) -> Option<Directory> {
        let known = self.directories.get(id)?;
        Some(Directory {
            parent: known.parent,
            name: known.name.as_ref().map(CompactName::to_name),
            position: known.position.get(),
            tree: self.places.tree(known.shown),
            earlier: self.earlier.get(&id).map_or_else(Vec::new, |earlier| earlier.0.clone()),
        })
    }

    /// Whether a directory is known or on the way to something that is.
    pub(crate) fn has_directory(&self, id: NodeId) -> bool {
        self.directories.contains(id)
    }

    /// Where a directory stands.
    pub(crate) fn position(&self, id: NodeId) -> Option<Position> {
        Some(self.directories.get(id)?.position.get())
    }

    /// Where the entry of a file lies.
    pub(crate) fn file(&self, id: NodeId) -> Option<Location> {
        let file = self.files.get(id)?;
        let (directory, tree) = self.places.get(file.place);
        Some(Location { directory, tree, entry: file.entry })
    }

    /// Notes that the root shows `tree` from switch number `switch` on. Of all
    /// other directories it has to be found out anew what they show.
    pub(crate) fn show(&mut self, tree: TreeId, switch: u32) {
        self.saw(NodeId::ROOT, Some(tree), switch);
    }

    /// Notes what a directory shows after switch number `switch`.
    pub(crate) fn saw(&mut self, id: NodeId, tree: Option<TreeId>, switch: u32) {
        let Some(known) = self.directories.get_mut(id) else { return };
        let before = self.places.tree(known.shown);
        known.shown = self.places.show(id, known.shown, tree);
        known.seen = switch;
        if let Some(before) = before.filter(|before| Some(*before) != tree) {
            self.earlier.entry(id).or_default().push(before);
        }
    }

    /// How to find out what the directory `id` shows after switch number
    /// `switch`; no steps if that is known.
    pub(crate) fn way_to(&self, id: NodeId, switch: u32) -> Option<Way> {
        let mut steps = Vec::new();
        let mut at = id;
        loop {
            let directory = self.directories.get(at)?;
            match &directory.name {
                Some(name) if directory.seen != switch => steps.push((at, name.to_name())),
                _ => {
                    steps.reverse();
                    return Some(Way { from: self.places.tree(directory.shown), steps });
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
        let position = self.directories.get(parent)?.position.get().child(name);
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
    ) -> &mut Known {
        if !self.directories.contains(id) {
            self.depend_on(parent);
        }
        let new = || Known::new(parent, Some(name), position);
        self.directories.get_or_insert_with(id, new)
    }

    /// The number of the directory `name` in `parent`, if it is known.
    pub(crate) fn known_directory(&self, parent: NodeId, name: &Name) -> Option<NodeId> {
        let home = NodeId::of_directory(parent, name);
        let (id, _) = self.find(home, |table, id| table.is_directory(id, parent, name));
        self.directories.contains(id).then_some(id)
    }

    fn is_directory(&self, id: NodeId, parent: NodeId, name: &Name) -> bool {
        self.directories.get(id).is_some_and(|known| known.parent == parent && known.has_name(name))
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
        self.directories.get(location.directory)?;
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
        if !self.files.contains(id) {
            let place = self.add_place(location);
            let file = File { place, entry: location.entry, lookups: Lookups(1) };
            self.files.get_or_insert_with(id, || file);
            self.note(Record::File { id, location });
            return Some(id);
        }
        if is_lost {
            self.relocate(id, location);
        }
        let lookups = &mut self.files.get_mut(id)?.lookups;
        lookups.add();
        let count = lookups.count();
        self.note(Record::Lookups { id, count });
        Some(id)
    }

    /// Notes that the entry of a file lies elsewhere as well, and is read there
    /// from now on.
    pub(crate) fn relocate(&mut self, id: NodeId, location: Location) {
        if !self.files.contains(id) {
            return;
        }
        let place = self.add_place(location);
        let Some(file) = self.files.get_mut(id) else { return };
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
        self.place(directory, tree).is_some_and(|place| self.places.has_files(place))
    }

    fn place(&self, directory: NodeId, tree: TreeId) -> Option<PlaceId> {
        let shown = self.directories.get(directory)?.shown;
        self.places.find(directory, shown, tree)
    }

    /// Holds `root` for files that are known in `tree`, as `directory` showed
    /// it; or notes that `directory` shows it again.
    pub(crate) fn hold(&mut self, directory: NodeId, tree: TreeId, root: Option<TreeId>) {
        let Some(place) = self.place(directory, tree) else { return };
        if self.places.has_files(place) && self.places.hold(place, root) {
            if root.is_some() {
                self.unsettled.push(place);
            }
            self.note(Record::Held { directory, tree, root });
        }
    }

    /// Holds `root` for all files that are known in `directory` and below.
    pub(crate) fn hold_below(&mut self, directory: NodeId, root: Option<TreeId>) {
        let is_below = |mut at: NodeId| loop {
            match self.directories.get(at) {
                _ if at == directory => return true,
                Some(known) if at != NodeId::ROOT => at = known.parent,
                _ => return false,
            }
        };
        let places = self.places.with_files().filter(|(place, _)| !self.places.is_held(*place));
        let below: Vec<PlaceId> =
            places.filter(|(_, at)| is_below(*at)).map(|(place, _)| place).collect();
        for place in below {
            let (directory, tree) = self.places.get(place);
            self.hold(directory, tree, root);
        }
    }

    /// A place in which files lie that are no longer shown there, and for which nobody has
    /// looked whether they are shown elsewhere. Each is given once.
    pub(crate) fn next_unsettled(&mut self) -> Option<(NodeId, TreeId)> {
        while let Some(place) = self.unsettled.pop() {
            if self.places.is_held(place) {
                return Some(self.places.get(place));
            }
        }
        None
    }

    /// The roots that are held, each once.
    pub(crate) fn held(&self) -> impl Iterator<Item = TreeId> {
        self.places.roots()
    }

    /// Notes that the kernel has forgotten a node `count` times. A number that
    /// was never given out is ignored.
    pub(crate) fn forget(&mut self, id: NodeId, count: u64) {
        let is_file = self.files.contains(id);
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
            if let Some(file) = self.files.remove(id) {
                self.release_place(file.place);
            }
            self.opens.set(id, Reading::Asked, 0);
        } else {
            self.drop_unknown(id);
        }
        self.note(Record::Forgotten(id));
    }

    fn lookups(&mut self, id: NodeId) -> Option<&mut Lookups> {
        match self.files.get_mut(id) {
            Some(file) => Some(&mut file.lookups),
            None => Some(&mut self.directories.get_mut(id)?.lookups),
        }
    }

    fn reach_to(&mut self, distance: usize) {
        if distance > self.reach {
            self.reach = distance;
            self.note(Record::Reach(u32::try_from(distance).unwrap_or(u32::MAX)));
        }
    }

    fn add_place(&mut self, Location { directory, tree, .. }: Location) -> PlaceId {
        let shown = self.directories.get(directory).and_then(|known| known.shown);
        let (place, is_new) = self.places.add(directory, shown, tree);
        if is_new {
            self.depend_on(directory);
        }
        place
    }

    fn release_place(&mut self, place: PlaceId) {
        if let Some(directory) = self.places.release(place) {
            self.depend_less_on(directory);
        }
    }

    fn depend_on(&mut self, directory: NodeId) {
        if let Some(directory) = self.directories.get_mut(directory) {
            directory.dependents += 1;
        }
    }

    fn depend_less_on(&mut self, id: NodeId) {
        if let Some(directory) = self.directories.get_mut(id) {
            directory.dependents -= 1;
            self.drop_unknown(id);
        }
    }

    /// Drops a directory that neither the kernel knows nor anything depends on,
    /// and those above that were only on the way to it.
    fn drop_unknown(&mut self, mut id: NodeId) {
        while let Some(directory) = self.directories.get_mut(id)
            && (directory.lookups.0, directory.dependents) == (0, 0)
        {
            let (parent, shown) = (directory.parent, directory.shown);
            self.directories.remove(id);
            self.earlier.remove(&id);
            shown.into_iter().for_each(|place| self.places.hide(place));
            if let Some(directory) = self.directories.get_mut(parent) {
                directory.dependents -= 1;
            }
            id = parent;
        }
    }

    /// Gives memory back when most of it is no longer needed.
    pub(crate) fn shrink(&mut self) {
        self.files.shrink();
        self.directories.shrink();
        if self.len() == 1
            && let Some(root) = self.directories.get_mut(NodeId::ROOT)
        {
            let tree = self.places.tree(root.shown);
            self.places = Places::default();
            root.shown = self.places.show(NodeId::ROOT, None, tree);
        }
    }

    /// The number at which a node is, or else the first free one, and how far
    /// it is from `home`.
    fn find(&self, home: NodeId, mut is_it: impl FnMut(&Self, NodeId) -> bool) -> (NodeId, usize) {
        let (mut id, mut free, mut distance) = (home, None, 0);
        loop {
            let is_known = self.files.contains(id) || self.directories.contains(id);
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
