//! What only old states need, in denser packs.
//!
//! ```text
//! find what is cold ── choose packs ──> copy, cold apart from the rest ── lock ──> replace
//! ```
//!
//! Packs of which a good part is cold are replaced by dense ones of that, and ordinary ones of the
//! rest, all at once: each step as in a collection, which cannot run meanwhile. What a pack has
//! that the index does not know to be there goes with it.

use std::cell::Cell;
use std::collections::HashMap;

use super::census::Amount;
use super::cold::Cold;
use super::mark::{Mark, Marks};
use super::rewrite::Rewrite;
use super::{GcPhase, GcProgress, mark_records};
use crate::error::{Error, Result};
use crate::hash::{BlobHasher, BlobRef, PackId};
use crate::lock::Lock;
use crate::pack::{
    Compressor, DensePacker, Density, FinishedPack, Location, ObjectId, PACK_LEN, Pack, PackWriter,
    Packer,
};
use crate::store::{Inner, Store};

/// Of a pack that is replaced at least one part in so many is cold.
const ONE_OF: u64 = 4;

/// Frames that are compressed for a preview.
const SAMPLES: u64 = 16;

/// What a compaction did, or would do.
#[derive(Debug, Default)]
pub struct Compacted {
    /// States that are old.
    pub states: u64,
    /// What only they need, in packs that were replaced.
    pub moved: Amount,
    /// Packs that were replaced.
    pub packs_replaced: u64,
    /// Packs that took their place.
    pub packs_made: u64,
    /// Bytes of the packs that were replaced.
    pub before: u64,
    /// Bytes of those in their place; in a preview, about so many.
    pub after: u64,
    /// Bytes of all packs afterwards.
    pub stored: u64,
    /// Packs that were left alone, since they cannot be read.
    pub unreadable: Vec<Error>,
}

/// Packs that are to be replaced.
#[derive(Default)]
struct Choice {
    packs: Vec<Chosen>,
    /// Where what is cold lies in them.
    places: HashMap<ObjectId, Location>,
    /// Which pack keeps a record of a state.
    records: HashMap<ObjectId, PackId>,
    /// Bytes of all packs.
    stored: u64,
    unreadable: Vec<Error>,
}

struct Chosen {
    id: PackId,
    len: u64,
    cold: Amount,
    other: Amount,
}

/// Why a copy failed: damage in a pack, or something else.
enum Failure {
    Damage(PackId, Error),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Self::Other(err)
    }
}

impl Failure {
    fn of(pack: PackId) -> impl Fn(Error) -> Self {
        move |err| if err.is_damage() { Self::Damage(pack, err) } else { Self::Other(err) }
    }
}

impl Store {
    /// Puts what only old states need into denser packs: all states are old but the current one,
    /// those with tags, and what mounts and workspaces show.
    ///
    /// It stays as readable as before, in more time: a frame has up to 4 MiB. Runs beside
    /// readers and transactions. Costs the directories of all states, compressing thoroughly what
    /// is moved, room for the new packs before the old ones go, and some 60 MiB of memory for
    /// each processor.
    ///
    /// # Errors
    /// A directory that cannot be read is an error, and then nothing is changed.
    /// [`Error::Locked`] when another process collects.
    pub fn compact(&self, progress: &dyn GcProgress) -> Result<Compacted> {
        let inner = self.inner();
        let _collector = Lock::take_collector(&inner.path)?;
        inner.remove_leftovers()?;
        let (cold, mut choice, mut compacted) = self.look(progress)?;
        let marks = Marks::default();
        mark_records(&marks, &inner.log().refs);
        let records = std::mem::take(&mut choice.records);
        let work =
            Rewrite { inner, marks: &marks, records: &records, moved: Some(&cold.marks), progress };
        let copies = loop {
            if choice.packs.is_empty() {
                return Ok(compacted);
            }
            match work.copy_apart(&cold, &choice) {
                Ok(copies) => break copies,
                Err(Failure::Damage(pack, err)) => {
                    // It stays as it is, with what is still sound in it.
                    choice.packs.retain(|chosen| chosen.id != pack);
                    choice.places.retain(|_, at| at.pack != pack);
                    compacted.unreadable.push(err);
                    inner.remove_leftovers()?;
                }
                Err(Failure::Other(err)) => {
                    // Above all where the disk is full.
                    let _ = inner.remove_leftovers();
                    return Err(err);
                }
            }
        };
        let (before, made) = (choice.len(), copies.len() as u64);
        let after = copies.iter().map(|copy| copy.len).sum();
        if after >= before {
            return inner.remove_leftovers().map(|()| compacted);
        }
        let ids: Vec<PackId> = choice.packs.iter().map(|chosen| chosen.id).collect();
        if work.publish(copies, &ids)? {
            compacted.replaces(&choice, after);
            compacted.packs_made = made;
        }
        Ok(compacted)
    }

    /// What [`Store::compact`] would do; changes nothing. How much smaller it gets is estimated
    /// from samples.
    pub fn preview_compact(&self, progress: &dyn GcProgress) -> Result<Compacted> {
        let (cold, choice, mut compacted) = self.look(progress)?;
        let stored = self.inner().estimate(&cold, &choice)?;
        let rest = choice.packs.iter().map(|Chosen { len, cold, other, .. }| {
            share(*len, other.bytes, cold.bytes + other.bytes)
        });
        let after = stored + rest.sum::<u64>();
        if after < choice.len() {
            compacted.replaces(&choice, after);
        }
        Ok(compacted)
    }

    fn look(&self, progress: &dyn GcProgress) -> Result<(Cold, Choice, Compacted)> {
        let inner = self.inner();
        self.refresh()?;
        let cold = Cold::find(self, &inner.log().refs, progress)?;
        let mut choice = inner.choose(&cold.marks)?;
        let unreadable = std::mem::take(&mut choice.unreadable);
        let (states, stored) = (cold.states, choice.stored);
        Ok((cold, choice, Compacted { states, stored, unreadable, ..Compacted::default() }))
    }
}

impl Compacted {
    fn replaces(&mut self, choice: &Choice, after: u64) {
        self.moved = choice.packs.iter().map(|chosen| chosen.cold).sum();
        self.packs_replaced = choice.packs.len() as u64;
        (self.before, self.after) = (choice.len(), after);
        self.stored = self.stored.saturating_sub(self.before) + after;
    }
}

impl Choice {
    fn len(&self) -> u64 {
        self.packs.iter().map(|chosen| chosen.len).sum()
    }

    /// What is cold in the packs, in its order.
    fn of<'a>(&'a self, cold: &'a Cold) -> impl Iterator<Item = (ObjectId, Location)> + 'a {
        cold.objects.iter().filter_map(|object| Some((*object, *self.places.get(object)?)))
    }
}

/// So much of `len` as `part` is of `all`.
fn share(len: u64, part: u64, all: u64) -> u64 {
    let share = u128::from(len) * u128::from(part) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(len)
}

impl Inner {
    /// Chooses ordinary packs of which enough is cold.
    fn choose(&self, cold: &Marks) -> Result<Choice> {
        self.with_whole_index(|index| {
            let mut choice = Choice::default();
            for id in self.list_packs()? {
                let opened = Pack::open(&self.pack_path(id), id);
                let opened = opened.and_then(|pack| Ok((pack.objects()?, pack)));
                let (objects, pack) = match opened {
                    Err(err) if err.is_damage() => {
                        choice.unreadable.push(err);
                        continue;
                    }
                    opened => opened?,
                };
                choice.stored += pack.len();
                let is_dense = pack.density() == Density::Dense;
                let mut chosen = Chosen {
                    id,
                    len: pack.len(),
                    cold: Amount::default(),
                    other: Amount::default(),
                };
                let mut places = Vec::new();
                for (object, at) in objects {
                    if matches!(object, ObjectId::State(_)) {
                        choice.records.entry(object).or_insert(id);
                        continue;
                    }
                    if is_dense {
                        continue;
                    }
                    if index.location_of(object)? != Some(at) {
                        continue;
                    }
                    if cold.contains(Mark::of(object)) {
                        chosen.cold.add(at.len);
                        places.push((object, at));
                    } else {
                        chosen.other.add(at.len);
                    }
                }
                let all = chosen.cold.bytes + chosen.other.bytes;
                if chosen.cold.objects > 0 && chosen.cold.bytes.saturating_mul(ONE_OF) >= all {
                    choice.packs.push(chosen);
                    choice.places.extend(places);
                }
            }
            Ok(choice)
        })
    }

    /// About how many bytes what is cold would have in dense frames.
    fn estimate(&self, cold: &Cold, choice: &Choice) -> Result<u64> {
        let most = Density::Dense.frame_len();
        let all: u64 = choice.places.values().map(|at| at.len).sum();
        let step = (all / SAMPLES).max(most as u64);
        let no_memory = Error::io("memory");
        let mut compressor = Compressor::new(Density::Dense).map_err(no_memory)?;
        let (mut taken, mut stored) = (0, 0_u64);
        let (mut begin, mut sample, mut wanted) = (0, Vec::new(), 0);
        let mut compress = |sample: &mut Vec<u8>| -> Result<()> {
            for piece in sample.chunks(most) {
                let frame = compressor.frame(piece).map_err(Error::io("memory"))?;
                stored += u64::from(frame.record.stored_len);
                taken += piece.len() as u64;
            }
            sample.clear();
            Ok(())
        };
        for (_, at) in choice.of(cold) {
            if begin >= wanted && sample.len() < most {
                let mut done = 0;
                while done < at.len && sample.len() < most {
                    let piece = self.piece(&at, done)?;
                    done += piece.bytes().len() as u64;
                    sample.extend_from_slice(piece.bytes());
                }
            }
            begin += at.len;
            if sample.len() >= most {
                compress(&mut sample)?;
                wanted += step;
            }
        }
        compress(&mut sample)?;
        Ok(share(stored, all, taken))
    }
}

impl Rewrite<'_> {
    /// Copies what is cold into dense packs, and what else is needed of the packs into ordinary
    /// ones; all of them are durable under temporary names.
    fn copy_apart(&self, cold: &Cold, choice: &Choice) -> Result<Vec<FinishedPack>, Failure> {
        let inner = self.inner;
        let directory = inner.rewrite_directory();
        inner.disk.create_directory(&directory).map_err(Error::io(&directory))?;
        let plain = choice.packs.iter().map(|it| it.cold.bytes + it.other.bytes).sum();
        self.progress.begin(GcPhase::Rewrite, Some(plain));
        let number = Cell::new(0);
        let mut path = || directory.join(format!("{}.pack", number.replace(number.get() + 1)));

        let mut packer = DensePacker::new(&*inner.disk, &mut path)?;
        for (object, at) in choice.of(cold) {
            inner.repack(object, &at, &mut packer).map_err(Failure::of(at.pack))?;
            self.progress.advance(at.len);
        }
        let mut finished = packer.finish()?;

        let mut packer: Option<Packer> = None;
        let end = |packer: Packer, finished: &mut Vec<FinishedPack>| -> Result<()> {
            let pack = packer.into_pack()?.finish()?;
            if pack.objects.is_empty() {
                return inner.disk.remove(&pack.temporary).map_err(Error::io(&pack.temporary));
            }
            finished.push(pack);
            Ok(())
        };
        for chosen in &choice.packs {
            if packer.as_ref().is_some_and(|packer| packer.len() >= PACK_LEN)
                && let Some(full) = packer.take()
            {
                end(full, &mut finished)?;
            }
            let packer = match &mut packer {
                Some(packer) => packer,
                None => {
                    let pack = PackWriter::create(&*inner.disk, &path(), Density::Ordinary)?;
                    packer.insert(Packer::new(pack)?)
                }
            };
            let failed = Failure::of(chosen.id);
            inner
                .with_whole_index(|index| self.copy_pack(chosen.id, index, packer))
                .map_err(failed)?;
        }
        packer.map_or(Ok(()), |packer| end(packer, &mut finished))?;
        finished.iter_mut().try_for_each(FinishedPack::sync)?;
        Ok(finished)
    }
}

impl Inner {
    /// Gives an object to a packer, and hashes it on the way.
    fn repack(&self, object: ObjectId, at: &Location, packer: &mut DensePacker<'_>) -> Result<()> {
        packer.begin(object, at.len)?;
        let mut blob = BlobHasher::default();
        let (mut small, mut done) = (Vec::new(), 0);
        while done < at.len {
            let piece = self.piece(at, done)?;
            let bytes = piece.bytes();
            match object {
                ObjectId::Blob(..) => blob.update(bytes),
                _ => small.extend_from_slice(bytes),
            }
            packer.extend(bytes)?;
            done += bytes.len() as u64;
        }
        packer.end();
        let is_right = match object {
            ObjectId::Blob(key, digest) => blob.finish() == BlobRef { key, digest, size: at.len },
            object => object.names(&small),
        };
        if is_right {
            return Ok(());
        }
        let problem = "an object in it is not what its hash names";
        Err(Error::DamagedFrame { pack: at.pack, frame: at.frame, problem })
    }
}
