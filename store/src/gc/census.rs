//! What lies in the packs, and how much of it is reached.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::mark::{ByMark, Mark, Marks};
use crate::error::{Error, Result};
use crate::hash::PackId;
use crate::index::Index;
use crate::pack::{Density, Location, ObjectId, Pack};
use crate::store::Inner;

/// What a pack holds.
#[derive(Clone, Debug)]
pub(super) struct PackCensus {
    pub(super) id: PackId,
    pub(super) density: Density,
    /// Bytes of the file.
    pub(super) len: u64,
    /// Objects that are reached, and found here rather than in another pack.
    pub(super) live: Amount,
    /// All others.
    pub(super) dead: Amount,
}

/// Objects and their plain bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many objects.
    pub objects: u64,
    /// Their bytes before compression.
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, len: u64) {
        self.objects += 1;
        self.bytes += len;
    }

    pub(crate) fn take(&mut self, len: u64) {
        self.objects -= 1;
        self.bytes -= len;
    }

    /// Counts `some` of this as `other` instead.
    pub(super) fn move_to(&mut self, other: &mut Self, some: Self) {
        self.objects -= some.objects;
        self.bytes -= some.bytes;
        other.objects += some.objects;
        other.bytes += some.bytes;
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            objects: sum.objects + it.objects,
            bytes: sum.bytes + it.bytes,
        })
    }
}

impl PackCensus {
    /// About how many bytes of the file are needed.
    pub(super) fn live_len(&self) -> u64 {
        let all = self.live.bytes + self.dead.bytes;
        if all == 0 {
            return if self.live.objects > 0 { self.len } else { 0 };
        }
        let part = u128::from(self.len) * u128::from(self.live.bytes) / u128::from(all);
        u64::try_from(part).expect("it is less than the whole")
    }

    /// Whether less than `percent` of it is needed, but some.
    pub(super) fn is_sparse(&self, percent: u64) -> bool {
        let all = self.live.bytes + self.dead.bytes;
        let is_small = u128::from(self.live.bytes) * 100 < u128::from(all) * u128::from(percent);
        self.live.objects > 0 && self.dead.objects > 0 && is_small
    }

    /// Whether nothing of it is needed.
    pub(super) fn is_dead(&self) -> bool {
        self.live.objects == 0
    }
}

/// All packs.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) packs: Vec<PackCensus>,
    /// Objects that nothing reaches.
    pub(super) garbage: Vec<ObjectId>,
    /// Of each record of a state that lies in several packs, the one that keeps it: the index
    /// does not know them.
    pub(super) records: HashMap<ObjectId, PackId>,
    copies: Vec<Copies>,
    /// Why some packs could not be read; they are left alone.
    pub(super) unreadable: Vec<Error>,
}

/// An object that is reached and lies in several packs.
#[derive(Debug)]
struct Copies {
    object: ObjectId,
    /// Which of [`Census::packs`] have it, and how long each says that it is.
    packs: Vec<(u32, u64)>,
}

impl Census {
    /// Reads the object tables of all packs, in parallel.
    ///
    /// Costs 65 bytes of reading an object that is stored.
    pub(super) fn take(inner: &Inner, marks: &Marks) -> Result<Self> {
        let ids = inner.list_packs()?;
        let next = AtomicUsize::new(0);
        let gathered = Mutex::new(Gathered::default());
        let threads = std::thread::available_parallelism().map_or(1, Into::into);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let table = Pack::open(&inner.pack_path(*id), *id)
                            .and_then(|pack| Ok((pack.density(), pack.len(), pack.objects()?)));
                        let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                        match table {
                            Ok((density, len, objects)) => {
                                let (live, dead) = Default::default();
                                let pack = PackCensus { id: *id, density, len, live, dead };
                                gathered.add(pack, &objects, marks);
                            }
                            // It went while nobody kept another gc from it.
                            Err(Error::Io { source, .. })
                                if source.kind() == io::ErrorKind::NotFound => {}
                            Err(err) => gathered.census.unreadable.push(err),
                        }
                    }
                });
            }
        });
        Ok(gathered.into_inner().unwrap_or_else(PoisonError::into_inner).census)
    }

    /// Of objects that lie in several packs, counts only one copy as needed, and returns in
    /// which pack: that which the index names, or any if it names none of them. Of a record of
    /// a state, which the index does not know, that in the pack of which the most is needed
    /// besides.
    pub(super) fn settle_copies(
        &mut self,
        index: Option<&Index>,
    ) -> Result<Vec<(ObjectId, PackId)>> {
        // All at first: an index that proves to be damaged is asked again.
        let mut places = Vec::with_capacity(self.copies.len());
        for Copies { object, .. } in &self.copies {
            places.push(index.map(|index| index.location_of(*object)).transpose()?.flatten());
        }
        let copies = std::mem::take(&mut self.copies).into_iter().zip(places);
        let (records, others): (Vec<_>, Vec<_>) =
            copies.partition(|(copies, _)| matches!(copies.object, ObjectId::State(_)));
        let mut settled = Vec::with_capacity(others.len());
        for (copies, named) in others {
            let named = named.map(|location| location.pack);
            let named = copies.packs.iter().find(|(at, _)| Some(self.pack(*at).id) == named);
            let (chosen, _) = *named.unwrap_or(&copies.packs[0]);
            settled.push((copies.object, self.pack(chosen).id));
            self.keep_one(&copies, chosen);
        }
        for (copies, _) in records {
            let most = copies.packs.iter().map(|(at, _)| *at).max_by_key(|at| {
                let pack = self.pack(*at);
                (pack.live.bytes, pack.id)
            });
            let chosen = most.expect("it lies in several packs");
            self.records.insert(copies.object, self.pack(chosen).id);
            self.keep_one(&copies, chosen);
        }
        Ok(settled)
    }

    fn keep_one(&mut self, copies: &Copies, chosen: u32) {
        for (at, len) in copies.packs.iter().filter(|(at, _)| *at != chosen) {
            let pack = &mut self.packs[*at as usize];
            pack.live.take(*len);
            pack.dead.add(*len);
        }
    }

    fn pack(&self, at: u32) -> &PackCensus {
        &self.packs[at as usize]
    }
}

#[derive(Default)]
struct Gathered {
    census: Census,
    /// Which of the packs has an object that is reached, and its length.
    met: ByMark<(u32, u64)>,
    /// Which of the copies tells of an object.
    copied: ByMark<usize>,
}

impl Gathered {
    fn add(&mut self, mut pack: PackCensus, objects: &[(ObjectId, Location)], marks: &Marks) {
        let ordinal = u32::try_from(self.census.packs.len()).expect("fewer than 2^32 packs");
        for (object, location) in objects {
            let mark = Mark::of(*object);
            if !marks.contains(mark) {
                pack.dead.add(location.len);
                self.census.garbage.push(*object);
                continue;
            }
            pack.live.add(location.len);
            if let Some(first) = self.met.insert(mark, (ordinal, location.len)) {
                let copies = &mut self.census.copies;
                let at = *self.copied.entry(mark).or_insert_with(|| {
                    copies.push(Copies { object: *object, packs: vec![first] });
                    copies.len() - 1
                });
                copies[at].packs.push((ordinal, location.len));
            }
        }
        self.census.packs.push(pack);
    }
}
