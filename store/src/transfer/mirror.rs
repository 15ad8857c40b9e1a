//! Packs that arrive: files below cache/pull of the length of the pack, with holes where frames
//! are missing.
//!
//! The tables come first, at their own place, and are believed when they hash to the id of the
//! pack. From then on the checksum of each frame says whether it is there, after any interruption.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{PackAt, PackRange, PullPhase, PullProgress, PullSource};
use crate::cache::Cache;
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::hash::PackId;
use crate::pack::{Density, FOOTER_LEN, Location, MAGIC_LEN, ObjectId, Pack, tables_len};
use crate::store::Store;
use crate::store::objects::Piece;

/// Where packs arrive, below the store.
pub(super) const DIRECTORY: &str = "cache/pull";

/// Bytes at the end of a pack that are asked for first: the tables of most.
const TAIL: u64 = 16 << 10;

/// More bytes than the tables of a pack can need, lest somebody fills the memory with them.
const MOST_TABLES: u64 = 1 << 30;

/// More bytes than the encoding of a directory or page has.
pub(super) const MOST_TREE: u64 = 256 << 20;

/// A gap of so many bytes between two ranges travels as well, rather than a question more.
const GAP: u64 = 64 << 10;

/// Packs that are kept open, and asked for at once.
pub(super) const OPEN: usize = 64;

/// Objects that are asked for at once.
const ASK: usize = 4096;

/// What a source gives, as far as it has arrived.
pub(super) struct Mirror<'a> {
    pub(super) store: &'a Store,
    source: &'a dyn PullSource,
    progress: &'a dyn PullProgress,
    pub(super) directory: PathBuf,
    open: Cache<PackId, Arc<Arriving>>,
    frames: Cache<(PackId, u32), Arc<Vec<u8>>>,
    tables: Mutex<Option<Tables>>,
    lens: Mutex<HashMap<PackId, u64>>,
    transferred: AtomicU64,
    is_copying: AtomicBool,
}

/// Where objects lie at a source that cannot tell: the packs that were not read yet, and what
/// lies in the others.
struct Tables {
    /// All of them.
    all: Vec<PackAt>,
    unread: Vec<PackAt>,
    known: HashMap<ObjectId, PackAt>,
}

/// A pack of which the tables have arrived.
pub(super) struct Arriving {
    pub(super) id: PackId,
    pub(super) path: PathBuf,
    pub(super) pack: Pack,
    objects: HashMap<ObjectId, Location>,
    /// Frames that were seen to be there.
    there: Mutex<HashSet<u32>>,
}

impl<'a> Mirror<'a> {
    pub(super) fn new(
        store: &'a Store,
        source: &'a dyn PullSource,
        progress: &'a dyn PullProgress,
    ) -> Result<Self> {
        let directory = store.path().join(DIRECTORY);
        for directory in [&store.path().join("cache"), &directory] {
            store.inner().disk.create_directory(directory).map_err(Error::io(directory))?;
        }
        Ok(Self {
            store,
            source,
            progress,
            directory,
            open: Cache::new(2 * OPEN),
            frames: Cache::new(32 << 20),
            tables: Mutex::new(None),
            lens: Mutex::default(),
            transferred: AtomicU64::new(0),
            is_copying: AtomicBool::new(false),
        })
    }

    /// Bytes that have arrived so far.
    pub(super) fn transferred(&self) -> u64 {
        self.transferred.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self, phase: PullPhase, total: Option<u64>) {
        self.is_copying.store(phase == PullPhase::Copy, Ordering::Relaxed);
        self.progress.begin(phase, total);
    }

    /// Counts, and stops if that is wanted.
    pub(super) fn advance(&self, count: u64) -> Result<()> {
        self.progress.advance(count);
        if self.progress.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// From now on the bytes that arrive are counted.
    pub(super) fn begin_copy(&self, bytes: u64) -> Result<()> {
        self.begin(PullPhase::Copy, Some(bytes));
        self.source.expect(bytes)
    }

    /// Has what the source says of its packs be asked again.
    pub(super) fn look_again(&self) {
        *self.tables.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Says of a pack that the source lacks that the source has changed.
    fn changed(&self, error: Error) -> Error {
        match error {
            Error::MissingPack { .. } => Error::SourceChanged { name: self.source.name() },
            error => error,
        }
    }

    /// Says of an error about what has arrived that it is about the source.
    pub(super) fn damaged(&self, error: Error) -> Error {
        match error {
            Error::Io { .. } | Error::DamagedSource { .. } | Error::Cancelled => error,
            error => Error::DamagedSource { name: self.source.name(), source: Box::new(error) },
        }
    }

    /// Removes everything that has arrived.
    pub(super) fn clear(&self) -> Result<()> {
        let failed = || Error::io(&self.directory);
        for entry in fs::read_dir(&self.directory).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            self.store.inner().disk.remove(&path).map_err(Error::io(&path))?;
        }
        Ok(())
    }

    /// Where objects lie, by the tables of their packs; each has to be somewhere.
    pub(super) fn locate(&self, objects: &[ObjectId]) -> Result<Vec<(ObjectId, Location)>> {
        let mut found = Vec::with_capacity(objects.len());
        for some in objects.chunks(ASK) {
            let at = match self.source.locate(some).map_err(|err| self.changed(err))? {
                Some(at) if at.len() == some.len() => at,
                Some(_) => return Err(self.damaged(missing(some[0]))),
                None => self.look_up(some)?,
            };
            let mut by_pack: HashMap<PackId, (PackAt, Vec<ObjectId>)> = HashMap::new();
            for (object, at) in some.iter().zip(at) {
                let at = at.ok_or_else(|| self.damaged(missing(*object)))?;
                by_pack.entry(at.id).or_insert((at, Vec::new())).1.push(*object);
            }
            let mut packs: Vec<PackAt> = by_pack.values().map(|(at, _)| *at).collect();
            packs.sort_unstable_by_key(|at| at.id);
            for packs in packs.chunks(OPEN) {
                for pack in self.open(packs)? {
                    for object in &by_pack[&pack.id].1 {
                        let at = pack.objects.get(object);
                        let at = at.ok_or_else(|| self.damaged(missing(*object)))?;
                        pack.pack.frames_of(at).map_err(|err| self.damaged(err))?;
                        found.push((*object, *at));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Reads tables, those of the newest packs first, until all objects are found.
    fn look_up(&self, objects: &[ObjectId]) -> Result<Vec<Option<PackAt>>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = match &mut *tables {
            Some(tables) => tables,
            none => {
                let all = self.source.packs()?;
                none.insert(Tables { unread: all.clone(), all, known: HashMap::new() })
            }
        };
        while objects.iter().any(|object| !tables.known.contains_key(object)) {
            let from = tables.unread.len().saturating_sub(OPEN / 8);
            let some = tables.unread.split_off(from);
            if some.is_empty() {
                // A list that was older than the log may have lacked it.
                if self.source.packs()? != tables.all {
                    return Err(Error::SourceChanged { name: self.source.name() });
                }
                break;
            }
            for (at, pack) in some.iter().zip(self.open(&some)?) {
                tables.known.extend(pack.objects.keys().map(|object| (*object, *at)));
            }
        }
        Ok(objects.iter().map(|object| tables.known.get(object).copied()).collect())
    }

    /// A pack that [`Self::locate`] has found something in.
    pub(super) fn arriving(&self, id: PackId) -> Result<Arc<Arriving>> {
        let lens = self.lens.lock().unwrap_or_else(PoisonError::into_inner);
        let at = PackAt { id, len: lens.get(&id).copied().unwrap_or_default() };
        drop(lens);
        let mut packs = self.open(&[at])?;
        packs.pop().ok_or(Error::MissingPack { pack: id })
    }

    /// Has the tables of packs arrive.
    fn open(&self, packs: &[PackAt]) -> Result<Vec<Arc<Arriving>>> {
        let mut opened: Vec<Option<Arc<Arriving>>> = Vec::with_capacity(packs.len());
        let mut absent = Vec::new();
        for at in packs {
            let known = self.open.get(&at.id);
            let pack = match known {
                Some(pack) => Some(pack),
                None => self.open_file(at)?,
            };
            if pack.is_none() {
                absent.push(*at);
            }
            opened.push(pack);
        }
        self.fetch_tables(&absent)?;
        let mut lens = self.lens.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packs_of = Vec::with_capacity(packs.len());
        for (at, pack) in packs.iter().zip(opened) {
            let pack = match pack {
                Some(pack) => pack,
                None => {
                    let problem = "its tables are not those that its id names";
                    let path = PathBuf::from(format!("{}.pack", at.id));
                    let damaged = || self.damaged(Error::DamagedPack { path, problem });
                    self.open_file(at)?.ok_or_else(damaged)?
                }
            };
            lens.insert(at.id, at.len);
            self.open.insert(at.id, pack.clone(), 1);
            packs_of.push(pack);
        }
        Ok(packs_of)
    }

    /// Opens what has arrived of a pack; removes what cannot be gone on with.
    fn open_file(&self, at: &PackAt) -> Result<Option<Arc<Arriving>>> {
        let path = self.directory.join(format!("{}.pack", at.id));
        match Arriving::open(path.clone(), at) {
            Ok(pack) => Ok(Some(Arc::new(pack))),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) if err.is_damage() => {
                self.store.inner().disk.remove(&path).map_err(Error::io(&path))?;
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    /// Makes the files of packs, and has their tables arrive.
    fn fetch_tables(&self, packs: &[PackAt]) -> Result<()> {
        let disk = &self.store.inner().disk;
        let (mut files, mut tails, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        let is_whole =
            !packs.is_empty() && !self.source.gives_parts().map_err(|err| self.changed(err))?;
        for PackAt { id, len } in packs {
            if *len < (MAGIC_LEN + FOOTER_LEN) as u64 || i64::try_from(*len).is_err() {
                let path = PathBuf::from(format!("{id}.pack"));
                let problem = "it is too short";
                return Err(self.damaged(Error::DamagedPack { path, problem }));
            }
            let path = self.directory.join(format!("{id}.pack"));
            let file = disk.create(&path).and_then(|mut file| {
                file.set_len(*len)?;
                Ok(file)
            });
            files.push((file.map_err(Error::io(&path))?, path));
            let tail = if is_whole { *len } else { TAIL.min(len - MAGIC_LEN as u64) };
            ranges.push(PackRange { pack: *id, from: len - tail, len: tail });
            tails.push(Vec::new());
        }
        self.read(&ranges, |number, at, bytes| {
            let (file, path) = &mut files[number];
            // The rest of a whole one is there with it.
            if !is_whole {
                tails[number].extend_from_slice(bytes);
            }
            file.write_at(bytes, at).map_err(Error::io(&*path))
        })?;
        let (mut rest, mut of) = (Vec::new(), Vec::new());
        for (number, (PackAt { id, len }, tail)) in packs.iter().zip(&tails).enumerate() {
            let Some(footer) = tail.last_chunk::<FOOTER_LEN>() else { continue };
            // It begins as its end says, or is none.
            if let Some(density) = Density::of_footer(footer) {
                let (file, path) = &mut files[number];
                file.write_at(density.magic(), 0).map_err(Error::io(&*path))?;
            }
            let wanted = tables_len(footer) + FOOTER_LEN as u64;
            let have = tail.len() as u64;
            if wanted > have && wanted <= (*len - MAGIC_LEN as u64).min(MOST_TABLES) {
                rest.push(PackRange { pack: *id, from: len - wanted, len: wanted - have });
                of.push(number);
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        self.read(&rest, |number, at, bytes| {
            let (file, path) = &mut files[of[number]];
            file.write_at(bytes, at).map_err(Error::io(&*path))
        })
    }

    /// Reads ranges, and gives `write` each piece with the number of its range and its offset in
    /// the pack.
    fn read(
        &self,
        ranges: &[PackRange],
        mut write: impl FnMut(usize, u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut done = vec![0; ranges.len()];
        let read = self.source.read(ranges, &mut |number, bytes| {
            let (range, done) = (&ranges[number], &mut done[number]);
            let at = range.from + *done;
            *done += bytes.len() as u64;
            if *done > range.len {
                let path = PathBuf::from(format!("{}.pack", range.pack));
                let problem = "more of it comes than was asked for";
                return Err(self.damaged(Error::DamagedPack { path, problem }));
            }
            write(number, at, bytes)?;
            self.transferred.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            // Bytes of directories are not counted, their number is.
            let is_copying = self.is_copying.load(Ordering::Relaxed);
            self.advance(if is_copying { bytes.len() as u64 } else { 0 })
        });
        read.map_err(|err| self.changed(err))
    }

    /// Reads directories and pages, which arrive where they are missing.
    pub(super) fn fetch(
        &self,
        objects: &[(ObjectId, Location)],
    ) -> Result<HashMap<ObjectId, Vec<u8>>> {
        let mut by_pack: HashMap<PackId, Vec<&(ObjectId, Location)>> = HashMap::new();
        for object in objects {
            by_pack.entry(object.1.pack).or_default().push(object);
        }
        let mut all = HashMap::new();
        for (id, objects) in by_pack {
            let pack = self.arriving(id)?;
            let mut frames = Vec::new();
            for (_, at) in &objects {
                if at.len > MOST_TREE {
                    return Err(self.damaged(Error::DamagedPack {
                        path: format!("{id}.pack").into(),
                        problem: "it has a directory that is larger than any",
                    }));
                }
                frames.extend(pack.pack.frames_of(at).map_err(|err| self.damaged(err))?);
            }
            self.ensure(&[(pack.clone(), frames)])?;
            for (object, at) in objects {
                let bytes = self.object(&pack, at).map_err(|err| self.damaged(err))?;
                if !object.names(&bytes) {
                    return Err(self.damaged(match *object {
                        ObjectId::Page(id) => Error::DamagedPage { id },
                        ObjectId::Tree(id) => Error::DamagedTree { id },
                        object => missing(object),
                    }));
                }
                all.insert(*object, bytes);
            }
        }
        Ok(all)
    }

    fn object(&self, pack: &Arriving, at: &Location) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let piece_len = pack.pack.piece_len(at);
            let piece = Piece::of(at, bytes.len() as u64, piece_len, |number| {
                if let Some(frame) = self.frames.get(&(pack.id, number)) {
                    return Ok(frame);
                }
                let frame = Arc::new(pack.pack.frame(number)?);
                self.frames.insert((pack.id, number), frame.clone(), frame.len());
                Ok(frame)
            })?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(piece.bytes());
        }
    }

    /// Has frames arrive that are missing.
    pub(super) fn ensure(&self, wanted: &[(Arc<Arriving>, Vec<u32>)]) -> Result<()> {
        let (mut ranges, mut of) = (Vec::new(), Vec::new());
        for (number, (pack, frames)) in wanted.iter().enumerate() {
            for (from, to) in joined(pack, &pack.absent(frames)?) {
                ranges.push(PackRange { pack: pack.id, from, len: to - from });
                of.push(number);
            }
        }
        if ranges.is_empty() {
            return Ok(());
        }
        let disk = &self.store.inner().disk;
        // Several packs may come at once.
        let mut open: HashMap<PackId, Box<dyn DiskFile>> = HashMap::new();
        self.read(&ranges, |number, at, bytes| {
            let pack = &wanted[of[number]].0;
            let file = match open.entry(pack.id) {
                Entry::Occupied(file) => file.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(disk.open(&pack.path).map_err(Error::io(&pack.path))?)
                }
            };
            file.write_at(bytes, at).map_err(Error::io(&pack.path))
        })?;
        for (pack, frames) in wanted {
            if let Some(frame) = pack.absent(frames)?.first() {
                let problem = "its checksum differs";
                let err = Error::DamagedFrame { pack: pack.id, frame: *frame, problem };
                return Err(self.damaged(err));
            }
        }
        Ok(())
    }
}

impl Arriving {
    fn open(path: PathBuf, at: &PackAt) -> Result<Self> {
        let pack = Pack::open(&path, at.id)?;
        let damaged = |problem| Error::DamagedPack { path: path.clone(), problem };
        if pack.len() != at.len {
            return Err(damaged("it has another length"));
        }
        if !pack.has_its_id()? {
            return Err(damaged("its tables are not those that its id names"));
        }
        let objects = pack.objects()?.into_iter().collect();
        Ok(Self { id: at.id, path, pack, objects, there: Mutex::default() })
    }

    /// Those of `frames` that have not arrived, sorted.
    pub(super) fn absent(&self, frames: &[u32]) -> Result<Vec<u32>> {
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frames: Vec<u32> =
            frames.iter().copied().filter(|frame| !there.contains(frame)).collect();
        frames.sort_unstable();
        frames.dedup();
        let mut absent = Vec::new();
        for frame in frames {
            match self.pack.stored_frame(frame) {
                Ok(_) => drop(there.insert(frame)),
                Err(Error::DamagedFrame { .. }) => absent.push(frame),
                Err(err) => return Err(err),
            }
        }
        Ok(absent)
    }

    /// Bytes that travel for `frames`.
    pub(super) fn bytes_of(&self, frames: &[u32]) -> u64 {
        joined(self, frames).iter().map(|(from, to)| to - from).sum()
    }
}

/// The ranges of a pack in which `frames` lie, which are sorted.
fn joined(pack: &Arriving, frames: &[u32]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for frame in frames {
        let Some((from, to)) = pack.pack.place_of(*frame) else { continue };
        match ranges.last_mut() {
            Some((_, end)) if from <= *end + GAP => *end = to,
            _ => ranges.push((from, to)),
        }
    }
    ranges
}

fn missing(object: ObjectId) -> Error {
    match object {
        ObjectId::Blob(key, _) => Error::MissingBlob { key },
        ObjectId::Tree(id) => Error::MissingTree { id },
        ObjectId::Page(id) => Error::MissingPage { id },
        ObjectId::State(_) => Error::NoState,
    }
}
