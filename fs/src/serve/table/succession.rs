//! What a table leaves to a successor, which may find that the kernel has
//! forgotten some of it.

use std::collections::HashMap;
use std::io;

use cairn_store::Name;

use super::directory::{CompactName, Known};
use super::lookups::{Doubt, Lookups};
use super::{File, Table};
use crate::serve::ledger::{Ledger, Record};
use crate::serve::node::NodeId;
use crate::serve::places::Location;

/// A node that the kernel may have forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubted {
    File(NodeId),
    Directory(NodeId),
}

impl Table {
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
        let mut below: HashMap<NodeId, Vec<(NodeId, &Known)>> = HashMap::new();
        for (id, directory) in self.directories.iter().filter(|(_, known)| known.name.is_some()) {
            below.entry(directory.parent).or_default().push((id, directory));
        }
        let mut parents = vec![NodeId::ROOT];
        while let Some(parent) = parents.pop() {
            for (id, directory) in below.remove(&parent).unwrap_or_default() {
                let name = directory.name.as_ref().map_or(&[][..], CompactName::as_bytes);
                note(Record::Directory { id, parent, name });
                note_count(id, directory.lookups, note);
                parents.push(id);
            }
        }
        // Those of a place lie side by side, so that it is named once.
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_unstable_by_key(|(_, file)| (file.place, file.entry));
        for (id, file) in files {
            let (directory, tree) = self.places.get(file.place);
            note(Record::File { id, location: Location { directory, tree, entry: file.entry } });
            note_count(id, file.lookups, note);
        }
        for (place, root) in self.places.held() {
            let (directory, tree) = self.places.get(place);
            note(Record::Held { directory, tree, root: Some(root) });
        }
        for (id, _) in self.directories.iter().filter(|(_, known)| known.lookups.0 == 0) {
            note(Record::Forgotten(id));
        }
        self.opens.describe(note);
    }

    /// Does what a predecessor has noted; nothing if that cannot be.
    pub(crate) fn take_over(&mut self, record: &Record<'_>) -> Option<()> {
        const INHERITED: Lookups = Lookups(Lookups::INHERITED | 1);
        match *record {
            Record::Directory { id, parent, name } => {
                let name = Name::new(name).ok()?;
                let position = self.directories.get(parent)?.position.get().child(&name);
                if self.files.contains(id) {
                    return None;
                }
                self.insert_directory(id, parent, &name, position).lookups = INHERITED;
            }
            Record::File { id, location } => {
                self.directories.get(location.directory)?;
                if self.files.contains(id) {
                    self.relocate(id, location);
                } else if self.directories.contains(id) {
                    return None;
                } else {
                    let place = self.add_place(location);
                    let entry = location.entry;
                    let file = File { place, entry, lookups: INHERITED };
                    self.files.get_or_insert_with(id, || file);
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
            Record::Opens { id, reading, count } => self.opens.set(id, reading, count)?,
            Record::Backed { id, blob } => self.opens.back(id, blob),
            Record::Unbacked(id) => self.opens.drop_backing(id),
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
                self.doubted[1].push(id);
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
            let is_file = self.files.contains(id);
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
        let file = self.files.get(id).map(|file| file.lookups);
        Some(file.or_else(|| Some(self.directories.get(id)?.lookups))?.doubt())
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
}
