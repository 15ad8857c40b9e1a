//! Putting objects one after the other into frames.

use super::{Compressor, Frame, ObjectId, PackWriter};
use crate::error::{Error, Result};

/// Fills the frames of a pack with objects, in the order in which they come.
pub(crate) struct Packer {
    pack: PackWriter,
    compressor: Compressor,
    plain: Vec<u8>,
    /// Objects in `plain`, with where they begin and their length.
    pending: Vec<(ObjectId, u32, u64)>,
}

impl Packer {
    /// Goes on with a pack after the frames that it has.
    pub(crate) fn new(pack: PackWriter) -> Result<Self> {
        let compressor = Compressor::new(pack.density()).map_err(Error::io(pack.path()))?;
        Ok(Self { pack, compressor, plain: Vec::new(), pending: Vec::new() })
    }

    /// Appends an object.
    pub(crate) fn push(&mut self, id: ObjectId, bytes: &[u8]) -> Result<()> {
        if self.plain.len() + bytes.len() > self.pack.density().frame_len() {
            self.flush()?;
        }
        let offset = u32::try_from(self.plain.len()).expect("a frame is below 4 GiB");
        self.plain.extend_from_slice(bytes);
        self.pending.push((id, offset, bytes.len() as u64));
        Ok(())
    }

    /// Appends frames of another pack of the same density as they are, with the objects that begin in
    /// them: frame (the first of these is 0), offset and length of each.
    pub(crate) fn push_frames(
        &mut self,
        frames: &[Frame],
        objects: impl IntoIterator<Item = (ObjectId, u32, u32, u64)>,
    ) -> Result<()> {
        self.flush()?;
        let first = self.pack.frame_count();
        frames.iter().try_for_each(|frame| self.pack.push_frame(frame))?;
        for (id, frame, offset, len) in objects {
            self.pack.place(id, first + frame, offset, len);
        }
        Ok(())
    }

    /// Bytes of the pack so far, roughly.
    pub(crate) fn len(&self) -> u64 {
        self.pack.len() + self.plain.len() as u64
    }

    /// Ends the last frame.
    pub(crate) fn into_pack(mut self) -> Result<PackWriter> {
        self.flush()?;
        Ok(self.pack)
    }

    fn flush(&mut self) -> Result<()> {
        let first = self.pack.frame_count();
        let has_objects = !self.pending.is_empty();
        for (id, offset, len) in self.pending.drain(..) {
            self.pack.place(id, first, offset, len);
        }
        for piece in self.plain.chunks(self.pack.density().frame_len()) {
            let frame = self.compressor.frame(piece).map_err(Error::io(self.pack.path()))?;
            self.pack.push_frame(&frame)?;
        }
        // An empty object lies in a frame, too, even if nothing else does.
        if has_objects && self.plain.is_empty() {
            let frame = self.compressor.frame(b"").map_err(Error::io(self.pack.path()))?;
            self.pack.push_frame(&frame)?;
        }
        self.plain.clear();
        Ok(())
    }
}
