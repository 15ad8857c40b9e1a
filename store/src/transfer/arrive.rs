//! What has arrived becomes packs of this store: those of which most is needed as they are, and
//! of the others what is needed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::PullPhase;
use super::mirror::{Arriving, MOST_TREE, Mirror, OPEN};
use super::walk::Needs;
use crate::error::{Error, Result};
use crate::hash::{BlobHasher, BlobRef, PackId};
use crate::pack::{Density, FinishedPack, Location, ObjectId, PACK_LEN, Pack, PackWriter, Packer};
use crate::store::objects::Piece;

/// A pack stays as it is if of 4 bytes in it at least so many lie in frames that are needed.
const MOSTLY: u64 = 3;

/// What is to arrive.
pub(super) struct Arrivals {
    packs: Vec<Arrival>,
    /// Bytes of it that have not.
    pub(super) missing: u64,
}

struct Arrival {
    id: PackId,
    frames: Vec<u32>,
    /// What is needed of it; `None` for all of it.
    part: Option<HashSet<ObjectId>>,
}

impl Mirror<'_> {
    /// Finds out which frames have to come.
    pub(super) fn arrivals(&self, needs: &Needs) -> Result<Arrivals> {
        let mut arrivals = Arrivals { packs: Vec::with_capacity(needs.packs.len()), missing: 0 };
        for (id, objects) in &needs.packs {
            let pack = self.arriving(*id)?;
            let mut frames = Vec::new();
            for (_, at) in objects {
                frames.extend(pack.pack.frames_of(at).map_err(|err| self.damaged(err))?);
            }
            frames.sort_unstable();
            frames.dedup();
            let stored = |frames: &mut dyn Iterator<Item = u32>| -> u64 {
                let places = frames.filter_map(|frame| pack.pack.place_of(frame));
                places.map(|(from, to)| to - from).sum()
            };
            let all = 0..pack.pack.frame_count();
            let needed = stored(&mut frames.iter().copied());
            let is_whole = needed.saturating_mul(4) >= stored(&mut all.clone()) * MOSTLY;
            let part = if is_whole {
                frames = all.collect();
                None
            } else {
                Some(objects.iter().map(|(object, _)| *object).collect())
            };
            arrivals.missing += pack.bytes_of(&pack.absent(&frames)?);
            arrivals.packs.push(Arrival { id: *id, frames, part });
        }
        Ok(arrivals)
    }

    /// Lets it arrive, and makes durable packs of it, in which each object was hashed.
    pub(super) fn receive(&self, arrivals: Arrivals) -> Result<Vec<FinishedPack>> {
        let Arrivals { packs, missing } = arrivals;
        self.begin_copy(missing)?;
        for some in packs.chunks(OPEN) {
            let wanted = some.iter().map(|it| Ok((self.arriving(it.id)?, it.frames.clone())));
            self.ensure(&wanted.collect::<Result<Vec<_>>>()?)?;
        }
        let disk = &self.store.inner().disk;
        let mut finished = Vec::with_capacity(packs.len());
        let mut mixer =
            Mixer { mirror: self, packers: BTreeMap::new(), made: 0, finished: Vec::new() };
        for Arrival { id, part, .. } in packs {
            let pack = self.arriving(id)?;
            match part {
                Some(needed) => mixer.add(&pack, &needed)?,
                None => {
                    let file = disk.open(&pack.path).map_err(Error::io(&pack.path))?;
                    let objects = pack.pack.objects()?;
                    finished.push(FinishedPack::of(&pack.pack, pack.path.clone(), objects, file));
                }
            }
        }
        finished.extend(mixer.finish()?);
        self.check(&finished)?;
        match &mut finished[..] {
            [only] => only.sync()?,
            packs => {
                let failed = Error::io(&self.directory);
                disk.sync_filesystem(&self.directory).map_err(failed)?;
                packs.iter_mut().for_each(|pack| pack.is_synced = true);
            }
        }
        Ok(finished)
    }

    /// Hashes what lies on the disk, in parallel.
    fn check(&self, packs: &[FinishedPack]) -> Result<()> {
        self.begin(PullPhase::Check, Some(packs.iter().map(|pack| pack.len).sum()));
        let packs: Vec<_> =
            packs.iter().map(|pack| (pack.id, &pack.temporary, pack.len, &pack.objects)).collect();
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let threads = std::thread::available_parallelism().map_or(1, Into::into);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(packs.len()) {
                scope.spawn(|| {
                    while let Some((id, path, len, objects)) =
                        packs.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let checked = Pack::open(path, *id)
                            .and_then(|pack| check_pack(&pack, objects))
                            .map_err(|err| self.damaged(err))
                            .and_then(|()| self.advance(*len));
                        if let Err(err) = checked {
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.get_or_insert(err);
                            next.store(packs.len(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Gathers what is needed of packs that do not stay.
struct Mixer<'a> {
    mirror: &'a Mirror<'a>,
    packers: BTreeMap<Density, Packer>,
    /// How many packs were begun.
    made: usize,
    finished: Vec<FinishedPack>,
}

impl Mixer<'_> {
    fn add(&mut self, from: &Arriving, needed: &HashSet<ObjectId>) -> Result<()> {
        let mut objects = from.pack.objects()?;
        objects.sort_by_key(|(_, at)| (at.frame, at.offset));
        for group in objects.chunk_by(|left, right| left.1.frame == right.1.frame) {
            if group.iter().any(|(object, _)| needed.contains(object)) {
                self.add_frame(from, group, needed)?;
            }
        }
        Ok(())
    }

    /// Adds what is needed of the objects that begin in a frame.
    fn add_frame(
        &mut self,
        from: &Arriving,
        group: &[(ObjectId, Location)],
        needed: &HashSet<ObjectId>,
    ) -> Result<()> {
        let density = from.pack.density();
        if self.packers.get(&density).is_some_and(|packer| packer.len() >= PACK_LEN)
            && let Some(full) = self.packers.remove(&density)
        {
            self.finished.push(full.into_pack()?.finish()?);
        }
        let packer = match self.packers.entry(density) {
            Entry::Occupied(packer) => packer.into_mut(),
            Entry::Vacant(new) => {
                let pack = self.mirror.create_pack(self.made, density)?;
                self.made += 1;
                new.insert(Packer::new(pack)?)
            }
        };
        let is_needed = |(object, _): &&(ObjectId, Location)| needed.contains(object);
        let sum = |objects: &mut dyn Iterator<Item = &(ObjectId, Location)>| -> u64 {
            objects.map(|(_, at)| at.len).sum()
        };
        let (_, first) = group[0];
        let wanted = sum(&mut group.iter().filter(is_needed));
        let is_dense = wanted.saturating_mul(2) >= sum(&mut group.iter());
        let longest = group.iter().map(|(_, at)| from.pack.frames_of(at));
        let longest = longest.collect::<Result<Vec<_>>>()?;
        let is_full = is_dense && wanted >= density.frame_len() as u64 / 2;
        if is_full || longest.iter().any(|frames| frames.len() > 1) {
            let end = longest.iter().map(|frames| frames.end).max().unwrap_or(first.frame);
            let frames = (first.frame..end).map(|number| from.pack.stored_frame(number));
            let frames = frames.collect::<Result<Vec<_>>>()?;
            let placed = group.iter().map(|(object, at)| (*object, 0, at.offset, at.len));
            return packer.push_frames(&frames, placed);
        }
        let plain = from.pack.frame(first.frame)?;
        for (object, at) in group.iter().filter(is_needed) {
            let bytes = usize::try_from(at.len).ok().and_then(|len| {
                let from = at.offset as usize;
                plain.get(from..from.checked_add(len)?)
            });
            let problem = "it is shorter than an object in it";
            let frame = at.frame;
            let short = Error::DamagedFrame { pack: from.id, frame, problem };
            packer.push(*object, bytes.ok_or_else(|| self.mirror.damaged(short))?)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<FinishedPack>> {
        for packer in self.packers.into_values() {
            self.finished.push(packer.into_pack()?.finish()?);
        }
        Ok(self.finished)
    }
}

impl Mirror<'_> {
    /// A pack that is made here.
    fn create_pack(&self, number: usize, density: Density) -> Result<PackWriter> {
        let disk = &*self.store.inner().disk;
        let path = self.directory.join(format!("{number}.new"));
        if path.exists() {
            // What an interrupted pull has made.
            disk.remove(&path).map_err(Error::io(&path))?;
        }
        PackWriter::create(disk, &path, density)
    }
}

/// Reads each object as readers do, and hashes it; decodes also the frames that none lies in.
fn check_pack(pack: &Pack, objects: &[(ObjectId, Location)]) -> Result<()> {
    let mut sorted: Vec<&(ObjectId, Location)> = objects.iter().collect();
    sorted.sort_by_key(|(_, at)| (at.frame, at.offset));
    let mut last: Option<(u32, Arc<Vec<u8>>)> = None;
    let mut touched = HashSet::new();
    let mut digests = HashMap::new();
    for (object, at) in sorted {
        let mut blob = BlobHasher::default();
        let mut gathered = Vec::new();
        let mut done = 0;
        // An empty object lies in a frame as well.
        touched.insert(at.frame);
        while done < at.len {
            let piece = Piece::of(at, done, pack.piece_len(at), |number| {
                touched.insert(number);
                match &last {
                    Some((of, frame)) if *of == number => Ok(frame.clone()),
                    _ => {
                        let frame = Arc::new(pack.frame(number)?);
                        last = Some((number, frame.clone()));
                        Ok(frame)
                    }
                }
            })?;
            done += piece.bytes().len() as u64;
            match object {
                ObjectId::Blob(..) => blob.update(piece.bytes()),
                _ if done > MOST_TREE => break,
                _ => gathered.extend_from_slice(piece.bytes()),
            }
        }
        let is_right = match object {
            ObjectId::Blob(key, digest) => {
                let (key, digest, size) = (*key, *digest, at.len);
                // One key for two contents would hide one of them.
                let is_only = digests.insert(key, digest).is_none_or(|other| other == digest);
                blob.finish() == BlobRef { key, digest, size } && is_only
            }
            object => object.names(&gathered),
        };
        if !is_right {
            return Err(match *object {
                ObjectId::Blob(key, _) => Error::DamagedBlob { key },
                ObjectId::Tree(id) => Error::DamagedTree { id },
                ObjectId::Page(id) => Error::DamagedPage { id },
                ObjectId::State(_) => {
                    let problem = "the record of its state differs from its hash";
                    Error::DamagedPack { path: at.pack.to_string().into(), problem }
                }
            });
        }
    }
    (0..pack.frame_count())
        .filter(|frame| !touched.contains(frame))
        .try_for_each(|frame| pack.frame(frame).map(drop))
}
