//! Packs of which little is needed, replaced by that little.

use std::collections::HashSet;
use std::path::PathBuf;

use super::census::PackCensus;
use super::mark::{Mark, Marks};
use super::{Collected, GcPhase, GcProgress, Writer};
use crate::error::{Error, Result};
use crate::hash::PackId;
use crate::index::{Batch, Index};
use crate::pack::{FRAME_LEN, FinishedPack, Location, ObjectId, Pack, PackWriter, Packer};
use crate::store::Inner;

/// About so many bytes are copied before the packs that they come from go.
const BATCH_LEN: u64 = 64 << 20;

/// Replaces `sparse` packs, those first of which the least is needed.
pub(super) fn rewrite(
    inner: &Inner,
    marks: &Marks,
    mut sparse: Vec<PackCensus>,
    progress: &dyn GcProgress,
    collected: &mut Collected,
) -> Result<()> {
    if sparse.is_empty() {
        return Ok(());
    }
    progress.begin(GcPhase::Rewrite, Some(sparse.iter().map(|pack| pack.live.bytes).sum()));
    sparse.sort_by_key(|pack| (pack.live_len(), pack.id));
    let mut sparse = sparse.into_iter().peekable();
    while let Some(first) = sparse.next() {
        let mut len = first.live_len();
        let mut batch = vec![first];
        while let Some(next) = sparse.next_if(|next| len + next.live_len() <= BATCH_LEN) {
            len += next.live_len();
            batch.push(next);
        }
        let work = Rewrite { inner, marks, progress };
        work.replace(batch, collected)?;
    }
    Ok(())
}

struct Rewrite<'a> {
    inner: &'a Inner,
    marks: &'a Marks,
    progress: &'a dyn GcProgress,
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
        if self.publish(copy, &batch)? {
            let kept: u64 = batch.iter().map(PackCensus::live_len).sum();
            for pack in &batch {
                // The new pack is shared out among those that it replaces.
                let share = u128::from(new_len) * u128::from(pack.live_len());
                let share = u64::try_from(share / u128::from(kept.max(1))).unwrap_or(new_len);
                collected.is_replaced(pack, share);
            }
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
        let begin = || {
            let path = self.temporary()?;
            let index = inner.index()?;
            Ok((index, Packer::new(PackWriter::create(&*inner.disk, &path)?)?))
        };
        let any = batch.first().expect("a batch has a pack").id;
        let (index, mut packer) = begin().map_err(|err| (any, err))?;
        for pack in batch {
            self.copy_pack(pack.id, &index, &mut packer).map_err(|err| (pack.id, err))?;
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
        match object {
            // The index does not know them; they lie beside the trees of their state.
            ObjectId::State(_) => Ok(self.marks.contains(Mark::of(object))),
            _ => Ok(index.location_of(object)? == Some(*at)),
        }
    }

    fn copy_pack(&self, id: PackId, index: &Index, packer: &mut Packer) -> Result<()> {
        let pack = Pack::open(&self.inner.pack_path(id), id)?;
        let mut objects = pack.objects()?;
        objects.sort_by_key(|(_, at)| (at.frame, at.offset));
        for group in objects.chunk_by(|left, right| left.1.frame == right.1.frame) {
            let mut needed = Vec::with_capacity(group.len());
            for (object, at) in group {
                if self.is_needed(index, *object, at)? {
                    needed.push((*object, *at));
                }
            }
            let Some((_, first)) = needed.first() else { continue };
            self.progress.advance(needed.iter().map(|(_, at)| at.len).sum());
            let frames = first.len.div_ceil(FRAME_LEN as u64).max(1);
            let plain: u64 = group.iter().map(|(_, at)| at.len).sum();
            let is_full = plain >= FRAME_LEN as u64 / 2;
            if needed.len() == group.len() && is_full {
                let frames = (0..frames).map(|number| {
                    let number = u64::from(first.frame) + number;
                    pack.stored_frame(u32::try_from(number).unwrap_or(u32::MAX))
                });
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

    /// Puts the copy in the place of the packs.
    ///
    /// Returns false, and removes the copy, if the index now says of an object that
    /// it lies in one of the packs which was not copied: it was made anew
    /// meanwhile, and a transaction may have relied on it. Also if the copy is one of
    /// the packs: an index that was made anew since the sweep knows of garbage again, and a
    /// record of a state that lies in several packs is copied from each.
    fn publish(&self, copy: Option<FinishedPack>, batch: &[PackCensus]) -> Result<bool> {
        let inner = self.inner;
        let _lock = inner.wait_for_lock()?;
        let writer = Writer::open(inner)?;
        let Some(index) = &writer.index else {
            let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(Error::io(inner.index_path())(full));
        };
        // It would go with what it replaces.
        if copy.as_ref().is_some_and(|copy| batch.iter().any(|pack| pack.id == copy.id)) {
            return inner.remove_leftovers().map(|()| false);
        }
        let copied: HashSet<ObjectId> =
            copy.iter().flat_map(|copy| &copy.objects).map(|(object, _)| *object).collect();
        for PackCensus { id, .. } in batch {
            for (object, at) in Pack::open(&inner.pack_path(*id), *id)?.objects()? {
                if !copied.contains(&object) && index.location_of(object)? == Some(at) {
                    return inner.remove_leftovers().map(|()| false);
                }
            }
        }
        let mut changes = Batch::default();
        if let Some(copy) = copy {
            let (path, directory) = (inner.pack_path(copy.id), inner.path.join("packs"));
            inner.disk.rename(&copy.temporary, &path).map_err(Error::io(&path))?;
            inner.disk.sync_directory(&directory).map_err(Error::io(&directory))?;
            changes.add(copy.id, copy.len, copy.objects);
        }
        let ids: Vec<PackId> = batch.iter().map(|pack| pack.id).collect();
        ids.iter().for_each(|id| changes.remove(*id));
        index.write(changes)?;
        inner.note_repack(index)?;
        inner.remove_packs(&ids)?;
        Ok(true)
    }
}
