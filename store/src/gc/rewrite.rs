//! Packs of which little is needed, replaced by that little.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::census::PackCensus;
use super::mark::{Mark, Marks};
use super::{Collected, GcPhase, GcProgress, Writer};
use crate::error::{Error, Result};
use crate::hash::PackId;
use crate::index::{Batch, Index};
use crate::lock::Purpose;
use crate::pack::{FinishedPack, Location, ObjectId, Pack, PackWriter, Packer};
use crate::store::Inner;

/// About so many bytes are copied before the packs that they come from go.
const BATCH_LEN: u64 = 64 << 20;

/// Replaces `sparse` packs, those first of which the least is needed.
pub(super) fn rewrite(
    inner: &Arc<Inner>,
    marks: &Marks,
    mut sparse: Vec<PackCensus>,
    records: &HashMap<ObjectId, PackId>,
    progress: &dyn GcProgress,
    collected: &mut Collected,
) -> Result<()> {
    if sparse.is_empty() {
        return Ok(());
    }
    progress.begin(GcPhase::Rewrite, Some(sparse.iter().map(|pack| pack.live.bytes).sum()));
    sparse.sort_by_key(|pack| (pack.density, pack.live_len(), pack.id));
    let mut sparse = sparse.into_iter().peekable();
    while let Some(first) = sparse.next() {
        let (mut len, density) = (first.live_len(), first.density);
        let mut batch = vec![first];
        while let Some(next) =
            sparse.next_if(|next| next.density == density && len + next.live_len() <= BATCH_LEN)
        {
            len += next.live_len();
            batch.push(next);
        }
        let work = Rewrite { inner, marks, records, moved: None, progress };
        work.replace(batch, collected)?;
    }
    Ok(())
}

pub(super) struct Rewrite<'a> {
    pub(super) inner: &'a Arc<Inner>,
    /// What is kept; records of states are found in it.
    pub(super) marks: &'a Marks,
    /// Which pack keeps a record that lies in several.
    pub(super) records: &'a HashMap<ObjectId, PackId>,
    /// What goes elsewhere than to the copies made here.
    pub(super) moved: Option<&'a Marks>,
    pub(super) progress: &'a dyn GcProgress,
}

impl Rewrite<'_> {
    fn replace(&self, mut batch: Vec<PackCensus>, collected: &mut Collected) -> Result<()> {
        let copy = loop {
            match self.copy(&batch) {
                Ok(copy) => break copy,
                Err((pack, err)) if err.is_damage() => {
                    // It stays as it is, with what is still sound in it.
                    batch.retain(|other| other.id != pack);
                    collected.unreadable.push(err);
                    if batch.is_empty() {
                        return Ok(());
                    }
                }
                Err((_, err)) => return Err(err),
            }
        };
        let new_len = copy.as_ref().map_or(0, |copy| copy.len);
        let ids: Vec<PackId> = batch.iter().map(|pack| pack.id).collect();
        if self.publish(copy.into_iter().collect(), &ids)? {
            collected.are_replaced(&batch, new_len);
        }
        Ok(())
    }

    /// Copies what the index says lies in the packs into a new one, and makes that
    /// durable under a temporary name; `None` if it is nothing.
    fn copy(
        &self,
        batch: &[PackCensus],
    ) -> std::result::Result<Option<FinishedPack>, (PackId, Error)> {
        let inner = self.inner;
        let first = batch.first().expect("a batch has a pack");
        let begin = || {
            let path = self.temporary()?;
            Packer::new(PackWriter::create(&*inner.disk, &path, first.density)?)
        };
        let any = first.id;
        let mut packer = begin().map_err(|err| (any, err))?;
        for pack in batch {
            let copied =
                inner.with_whole_index(|index| self.copy_pack(pack.id, index, &mut packer));
            copied.map_err(|err| (pack.id, err))?;
        }
        let finish = || {
            let mut finished = packer.into_pack()?.finish()?;
            if finished.objects.is_empty() {
                inner.disk.remove(&finished.temporary).map_err(Error::io(&finished.temporary))?;
                return Ok(None);
            }
            finished.sync()?;
            Ok(Some(finished))
        };
        finish().map_err(|err| (any, err))
    }

    /// A path for the new pack, at which nothing is.
    fn temporary(&self) -> Result<PathBuf> {
        let directory = self.inner.rewrite_directory();
        self.inner.disk.create_directory(&directory).map_err(Error::io(&directory))?;
        self.inner.remove_leftovers()?;
        Ok(directory.join("0.pack"))
    }

    fn is_needed(&self, index: &Index, object: ObjectId, at: &Location) -> Result<bool> {
        if self.moved.is_some_and(|moved| moved.contains(Mark::of(object))) {
            return Ok(false);
        }
        match object {
            // The index does not know them; they lie beside the trees of their state.
            ObjectId::State(_) => Ok(self.marks.contains(Mark::of(object))
                && self.records.get(&object).is_none_or(|pack| *pack == at.pack)),
            _ => Ok(index.location_of(object)? == Some(*at)),
        }
    }

    /// Copies what the index says lies in a pack.
    pub(super) fn copy_pack(&self, id: PackId, index: &Index, packer: &mut Packer) -> Result<()> {
        let pack = Pack::open(&self.inner.pack_path(id), id)?;
        let mut objects = pack.objects()?;
        objects.sort_by_key(|(_, at)| (at.frame, at.offset));
        // All at first: an index that proves to be damaged is asked again.
        let mut is_needed = Vec::with_capacity(objects.len());
        for (object, at) in &objects {
            is_needed.push(self.is_needed(index, *object, at)?);
        }
        let mut is_needed = is_needed.into_iter();
        for group in objects.chunk_by(|left, right| left.1.frame == right.1.frame) {
            let needed: Vec<(ObjectId, Location)> =
                group.iter().zip(&mut is_needed).filter(|(_, it)| *it).map(|(it, _)| *it).collect();
            let Some((_, first)) = needed.first() else { continue };
            self.progress.advance(needed.iter().map(|(_, at)| at.len).sum());
            let frames = pack.frames_of(first)?;
            let plain: u64 = group.iter().map(|(_, at)| at.len).sum();
            let is_full = plain >= pack.density().frame_len() as u64 / 2;
            if frames.len() > 1 || (needed.len() == group.len() && is_full) {
                let frames = frames.map(|number| pack.stored_frame(number));
                let frames = frames.collect::<Result<Vec<_>>>()?;
                packer.push_frames(
                    &frames,
                    needed.iter().map(|(object, at)| (*object, 0, at.offset, at.len)),
                )?;
                continue;
            }
            let plain = pack.frame(first.frame)?;
            for (object, at) in needed {
                let from = at.offset as usize;
                let bytes = usize::try_from(at.len)
                    .ok()
                    .and_then(|len| plain.get(from..from.checked_add(len)?));
                match bytes {
                    Some(bytes) if object.names(bytes) => packer.push(object, bytes)?,
                    _ => {
                        let problem = "an object in it is not what its hash names";
                        return Err(Error::DamagedFrame { pack: id, frame: at.frame, problem });
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts copies in the place of packs.
    ///
    /// Returns false, and removes the copies, if the index now says of an object that
    /// it lies in one of the packs which was not copied: it was made anew
    /// meanwhile, and a transaction may have relied on it. Also if a copy is one of
    /// the packs: an index that was made anew since the sweep knows of garbage again.
    pub(super) fn publish(&self, copies: Vec<FinishedPack>, batch: &[PackId]) -> Result<bool> {
        let inner = self.inner;
        let _lock = inner.wait_for_lock(Purpose::Upkeep)?;
        let writer = Writer::open(inner)?;
        // It would go with what it replaces.
        if copies.iter().any(|copy| batch.contains(&copy.id)) {
            return inner.remove_leftovers().map(|()| false);
        }
        let copied: HashSet<ObjectId> =
            copies.iter().flat_map(|copy| &copy.objects).map(|(object, _)| *object).collect();
        let is_complete = |index: &Index| -> Result<bool> {
            for id in batch {
                for (object, at) in Pack::open(&inner.pack_path(*id), *id)?.objects()? {
                    if !copied.contains(&object) && index.location_of(object)? == Some(at) {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        };
        let mut changes = None;
        let is_replaced = writer.with_whole(|index| {
            let index = index.ok_or_else(|| {
                let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
                Error::io(inner.index_path())(full)
            })?;
            // One that was made anew because it could not be written knows of garbage, and of
            // the copies.
            if !is_complete(index)? {
                return Ok(false);
            }
            let changes = match &changes {
                Some(changes) => changes,
                None => changes.insert(self.name(&copies, batch)?),
            };
            index.write(changes)?;
            inner.note_repack(index)?;
            Ok(true)
        })?;
        if !is_replaced {
            return inner.remove_leftovers().map(|()| false);
        }
        inner.remove_packs(batch)?;
        Ok(true)
    }

    /// Gives copies their names, and returns what the index is to know then.
    fn name(&self, copies: &[FinishedPack], batch: &[PackId]) -> Result<Batch> {
        let inner = self.inner;
        let mut changes = Batch::default();
        for copy in copies {
            let path = inner.pack_path(copy.id);
            inner.disk.rename(&copy.temporary, &path).map_err(Error::io(&path))?;
            changes.add(copy.id, copy.len, copy.objects.clone());
        }
        if !copies.is_empty() {
            let directory = inner.path.join("packs");
            inner.disk.sync_directory(&directory).map_err(Error::io(&directory))?;
        }
        batch.iter().for_each(|id| changes.remove(*id));
        Ok(changes)
    }
}
