//! Where the bytes of an object come from: the index says which frame of which pack, and
//! what was read lately is kept.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::{Frames, Inner};
use crate::error::{Error, Result};
use crate::hash::{BlobRef, PackId, PageId, TreeId};
use crate::index::Index;
use crate::name::Name;
use crate::pack::{Density, FRAME_LEN, Location, Pack};
use crate::tree::{Entry, Listed, Tree};

/// Plain bytes of one frame from some offset on.
pub(crate) struct Piece {
    frame: Option<Arc<Vec<u8>>>,
    from: usize,
    to: usize,
}

impl Piece {
    /// The bytes of an object from `offset` to the end of the frame or object;
    /// `frame` gives the frame of a number. `piece_len` is what [`Pack::piece_len`] says; for
    /// an object of at most [`FRAME_LEN`] bytes anything that is not less than its length.
    pub(crate) fn of(
        location: &Location,
        offset: u64,
        piece_len: u64,
        frame: impl FnOnce(u32) -> Result<Arc<Vec<u8>>>,
    ) -> Result<Self> {
        if offset >= location.len {
            return Ok(Self { frame: None, from: 0, to: 0 });
        }
        let rest = location.len - offset;
        let number = u64::from(location.frame) + offset / piece_len;
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let frame = frame(number)?;
        let before = usize::try_from(offset % piece_len).unwrap_or(usize::MAX);
        let from = (location.offset as usize).saturating_add(before);
        let to = usize::try_from(rest)
            .map_or(frame.len(), |rest| frame.len().min(from.saturating_add(rest)));
        let is_whole = to - from.min(to) == usize::try_from(rest).unwrap_or(usize::MAX);
        // Nothing else lies in a frame after which the object goes on.
        let is_full = before as u64 + (to - from.min(to)) as u64 == piece_len;
        if from >= to || !(is_whole || is_full) {
            let (pack, problem) = (location.pack, "it is shorter than an object in it");
            return Err(Error::DamagedFrame { pack, frame: number, problem });
        }
        Ok(Self { frame: Some(frame), from, to })
    }

    /// Fills `buf` with pieces from the one at offset 0 on; returns how many bytes
    /// there were.
    pub(crate) fn fill(
        buf: &mut [u8],
        mut piece: impl FnMut(u64) -> Result<Self>,
    ) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let piece = piece(done as u64)?;
            if piece.is_empty() {
                break;
            }
            let bytes = piece.bytes();
            let len = bytes.len().min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&bytes[..len]);
            done += len;
        }
        Ok(done)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.frame.as_ref().map_or(&[], |frame| &frame[self.from..self.to])
    }
}

impl Inner {
    pub(crate) fn pack(&self, id: PackId) -> Result<Arc<Pack>> {
        if let Some(pack) = self.packs.get(&id) {
            return Ok(pack);
        }
        let pack = match Pack::open(&self.pack_path(id), id) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::MissingPack { pack: id });
            }
            opened => Arc::new(opened?),
        };
        self.packs.insert(id, pack.clone(), 1);
        Ok(pack)
    }

    /// A frame of files.
    fn frame_of_files(&self, pack: PackId, number: u32) -> Result<Arc<Vec<u8>>> {
        let (frame, was_kept) = self.frame(&self.frames, pack, number)?;
        if self.readahead.frame_was_used((pack, number), was_kept) {
            self.counts.frame_read_ahead_was_used();
        }
        Ok(frame)
    }

    /// Decodes a frame of files that is wanted.
    pub(super) fn read_ahead(&self) {
        let Some((pack, number)) = self.readahead.next() else { return };
        // Whoever asks for what cannot be read is told why. A dense frame would take the place
        // of 32 others.
        let is_there = self
            .pack(pack)
            .is_ok_and(|it| it.density() == Density::Ordinary && number < it.frame_count());
        if is_there && self.frame(&self.frames, pack, number).is_ok() {
            self.counts.frame_was_read_ahead();
        }
    }

    /// Notes that a file, which lies there, was read to its end.
    pub(super) fn file_ended(&self, location: &Location) {
        // What was read is right, whether or not its pack is there any more.
        let Ok(piece_len) = self.piece_len(location) else { return };
        let behind = location.len.saturating_sub(1) / piece_len;
        let last = u64::from(location.frame) + behind;
        let frame = (location.pack, u32::try_from(last).unwrap_or(u32::MAX));
        self.readahead.file_ended(frame, |frame| self.frames.has(frame));
    }

    /// A frame, decoded unless it is in `kept`, and whether it is.
    fn frame(&self, kept: &Frames, pack: PackId, number: u32) -> Result<(Arc<Vec<u8>>, bool)> {
        if let Some(frame) = kept.get(&(pack, number)) {
            self.counts.frame_was_cached();
            return Ok((frame, true));
        }
        // Requests for the parts of a frame come side by side: one decodes it, the others wait.
        let decoding = &self.decoding[number as usize % self.decoding.len()];
        let _decoding = decoding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = kept.get(&(pack, number)) {
            self.counts.frame_was_cached();
            return Ok((frame, true));
        }
        let begun = Instant::now();
        let frame = Arc::new(self.frame_from_disk(pack, number)?);
        self.counts.frame_was_decoded(frame.len(), begun);
        kept.insert((pack, number), frame.clone(), frame.len());
        Ok((frame, false))
    }

    /// A disk that went away and came back is another one for the kernel: what was open on
    /// it gives errors for ever, and what is opened anew does not.
    fn frame_from_disk(&self, pack: PackId, number: u32) -> Result<Vec<u8>> {
        match self.pack(pack)?.frame(number) {
            Err(Error::Io { .. }) => {
                self.forget_packs();
                self.pack(pack)?.frame(number)
            }
            read => read,
        }
    }

    /// The bytes of a file from `offset` to the end of the frame or object.
    pub(crate) fn piece(&self, location: &Location, offset: u64) -> Result<Piece> {
        let frame = |number| self.frame_of_files(location.pack, number);
        Piece::of(location, offset, self.piece_len(location)?, frame)
    }

    /// How many bytes of an object lie in each frame but the last, if it lies in several.
    fn piece_len(&self, location: &Location) -> Result<u64> {
        if location.len <= FRAME_LEN as u64 {
            return Ok(FRAME_LEN as u64);
        }
        Ok(self.pack(location.pack)?.piece_len(location))
    }

    /// Looks up where an object lies, and reads it there; `None` when it is nowhere.
    ///
    /// gc moves objects and removes packs while others read: where a pack is gone,
    /// the object is looked up again in a new view of the index, and, if that says the
    /// same, in one that was made to agree with the packs.
    fn at<T>(
        &self,
        look_up: impl Fn(&Index) -> Result<Option<Location>>,
        mut read: impl FnMut(&Location) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut before = None;
        let mut is_healed = false;
        loop {
            let Some(location) = self.find(&look_up)? else { return Ok(None) };
            let err = match read(&location) {
                Err(err @ Error::MissingPack { .. }) => err,
                result => return result.map(Some),
            };
            if before != Some(location) {
                before = Some(location);
                self.drop_view();
            } else if !is_healed && self.heal().is_ok() {
                is_healed = true;
            } else {
                return Err(err);
            }
        }
    }

    /// Looks a blob up, and reads it with `read`.
    pub(crate) fn at_blob<T>(
        &self,
        blob: &BlobRef,
        read: impl FnMut(&Location) -> Result<T>,
    ) -> Result<T> {
        let key = blob.key;
        let look_up = |index: &Index| match index.blob(key)? {
            Some((digest, location)) if digest == blob.digest && location.len == blob.size => {
                Ok(Some(location))
            }
            Some(_) => Err(Error::DamagedBlob { key }),
            None => Ok(None),
        };
        self.at(look_up, read)?.ok_or(Error::MissingBlob { key })
    }

    /// Where a blob lies: its pack, its first frame, and the offset in that; to read many in
    /// an order that decompresses each frame once. It may move.
    pub(crate) fn place(&self, blob: &BlobRef) -> Result<Option<(PackId, u32, u32)>> {
        let found = self.with_index(|index| index.blob(blob.key))?;
        Ok(found.map(|(_, at)| (at.pack, at.frame, at.offset)))
    }

    pub(super) fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        if let Some(tree) = self.trees.get(&id) {
            self.counts.tree_was_cached();
            return Ok(tree);
        }
        self.tree_without(id, &self.tree_bytes(id)?, &HashSet::new())
    }

    pub(super) fn differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        if let (Some(old), Some(new)) = (self.trees.get(&old), self.trees.get(&new)) {
            return Ok((old, new));
        }
        let (old_bytes, new_bytes) = (self.tree_bytes(old)?, self.tree_bytes(new)?);
        let pages: HashSet<PageId> = Listed::of_tree(&old_bytes)?.pages().collect();
        let both = Listed::of_tree(&new_bytes)?.pages().filter(|id| pages.contains(id)).collect();
        Ok((self.tree_without(old, &old_bytes, &both)?, self.tree_without(new, &new_bytes, &both)?))
    }

    /// The tree `id`, whose encoding is `bytes`, without the entries of some of its pages;
    /// kept if there are none of these.
    fn tree_without(
        &self,
        id: TreeId,
        bytes: &[u8],
        left_out: &HashSet<PageId>,
    ) -> Result<Arc<Tree>> {
        let mut weight = 2 * bytes.len();
        let tree = Tree::decode_some(bytes, |id| {
            if left_out.contains(&id) {
                return Ok(None);
            }
            let bytes = self.page_bytes(id)?;
            weight += 2 * bytes.len();
            Ok::<_, Error>(Some(bytes))
        })?;
        self.counts.tree_was_decoded();
        let tree = Arc::new(tree);
        if left_out.is_empty() {
            self.trees.insert(id, tree.clone(), weight);
        }
        Ok(tree)
    }

    /// The encoding of a tree without its pages, verified.
    pub(crate) fn tree_bytes(&self, id: TreeId) -> Result<Vec<u8>> {
        let bytes = self.at(|index| index.tree(id), |location| self.object(location))?;
        let bytes = bytes.ok_or(Error::MissingTree { id })?;
        if TreeId::of(&bytes) == id { Ok(bytes) } else { Err(Error::DamagedTree { id }) }
    }

    /// The encoding of a page, verified.
    pub(crate) fn page_bytes(&self, id: PageId) -> Result<Vec<u8>> {
        let bytes = self.at(|index| index.page(id), |location| self.object(location))?;
        let bytes = bytes.ok_or(Error::MissingPage { id })?;
        if PageId::of(&bytes) == id { Ok(bytes) } else { Err(Error::DamagedPage { id }) }
    }

    /// What a directory holds, without that of its pages.
    pub(crate) fn listed(&self, id: TreeId) -> Result<Listed> {
        Ok(Listed::of_tree(&self.tree_bytes(id)?)?)
    }

    /// The entries of a page.
    pub(crate) fn page_entries(&self, id: PageId) -> Result<Vec<(Name, Entry)>> {
        Ok(Listed::of_page(&self.page_bytes(id)?)?)
    }

    /// All bytes of an object that is no file.
    pub(crate) fn object(&self, location: &Location) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let frame = |number| Ok(self.frame(&self.tree_frames, location.pack, number)?.0);
            let piece_len = self.piece_len(location)?;
            let piece = Piece::of(location, bytes.len() as u64, piece_len, frame)?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(piece.bytes());
        }
    }
}
