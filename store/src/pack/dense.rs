//! Putting objects into large frames, several of which are compressed at once.

use std::path::PathBuf;

use super::{Compressor, Density, FinishedPack, Frame, ObjectId, PACK_LEN, PackWriter};
use crate::disk::Disk;
use crate::error::{Error, Result};

/// Fills the frames of dense packs with objects, in the order in which they come.
///
/// Needs as many times twice the bytes of a frame as there are processors.
pub(crate) struct DensePacker<'a> {
    disk: &'a dyn Disk,
    path: &'a mut dyn FnMut() -> PathBuf,
    compressors: Vec<Compressor>,
    pack: Option<PackWriter>,
    finished: Vec<FinishedPack>,
    /// Frames that wait to be compressed; the last one may grow.
    plain: Vec<Plain>,
}

#[derive(Default)]
struct Plain {
    bytes: Vec<u8>,
    /// Objects that begin in it, with where, and their length.
    objects: Vec<(ObjectId, u32, u64)>,
    /// Whether nothing else may lie in it.
    is_closed: bool,
}

impl<'a> DensePacker<'a> {
    /// `path` gives paths for new packs, at which nothing is.
    pub(crate) fn new(disk: &'a dyn Disk, path: &'a mut dyn FnMut() -> PathBuf) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, Into::into);
        let compressor = |_| Compressor::new(Density::Dense).map_err(Error::io("memory"));
        let compressors = (0..threads).map(compressor).collect::<Result<_>>()?;
        let (finished, plain) = (Vec::new(), Vec::new());
        Ok(Self { disk, path, compressors, pack: None, finished, plain })
    }

    /// Begins an object of so many bytes, which then come to [`Self::extend`].
    pub(crate) fn begin(&mut self, id: ObjectId, len: u64) -> Result<()> {
        let most = Density::Dense.frame_len();
        let is_long = len > most as u64;
        let room = self.plain.last().filter(|last| !last.is_closed);
        let room = room.map_or(0, |last| most - last.bytes.len());
        if is_long || room == 0 || len > room as u64 {
            self.begin_frame()?;
        }
        if let Some(last) = self.plain.last_mut() {
            let offset = u32::try_from(last.bytes.len()).expect("a frame is below 4 GiB");
            last.objects.push((id, offset, len));
        }
        Ok(())
    }

    /// Appends bytes of the object that was begun last.
    pub(crate) fn extend(&mut self, mut bytes: &[u8]) -> Result<()> {
        let most = Density::Dense.frame_len();
        while !bytes.is_empty() {
            if self.plain.last().is_none_or(|last| last.bytes.len() >= most) {
                self.begin_frame()?;
            }
            let Some(last) = self.plain.last_mut() else { break };
            let len = bytes.len().min(most - last.bytes.len());
            let (some, rest) = bytes.split_at(len);
            last.bytes.extend_from_slice(some);
            bytes = rest;
        }
        Ok(())
    }

    /// Ends an object that is longer than a frame: nothing else lies in its frames.
    pub(crate) fn end(&mut self) {
        let most = Density::Dense.frame_len() as u64;
        let is_short = |plain: &Plain| plain.objects.last().is_some_and(|(_, _, len)| *len <= most);
        if let Some(last) = self.plain.last_mut() {
            last.is_closed = !is_short(last);
        }
    }

    /// All packs, of which nothing is durable yet.
    pub(crate) fn finish(mut self) -> Result<Vec<FinishedPack>> {
        self.flush()?;
        self.finished.extend(self.pack.take().map(PackWriter::finish).transpose()?);
        Ok(self.finished)
    }

    fn begin_frame(&mut self) -> Result<()> {
        // An object that is longer than a frame lies in one pack.
        if self.plain.len() >= self.compressors.len() {
            self.flush()?;
        }
        self.plain.push(Plain::default());
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let plain = std::mem::take(&mut self.plain);
        let frames: Vec<std::io::Result<Frame>> = std::thread::scope(|scope| {
            let threads: Vec<_> = plain
                .iter()
                .zip(&mut self.compressors)
                .map(|(plain, compressor)| scope.spawn(move || compressor.frame(&plain.bytes)))
                .collect();
            let lost = || Err(std::io::Error::other("a thread has failed"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
        });
        for (plain, frame) in plain.into_iter().zip(frames) {
            let begins = !plain.objects.is_empty();
            if begins && self.pack.as_ref().is_some_and(|pack| pack.len() >= PACK_LEN) {
                self.finished.extend(self.pack.take().map(PackWriter::finish).transpose()?);
            }
            let pack = match &mut self.pack {
                Some(pack) => pack,
                None => {
                    let path = (self.path)();
                    self.pack.insert(PackWriter::create(self.disk, &path, Density::Dense)?)
                }
            };
            let number = pack.frame_count();
            pack.push_frame(&frame.map_err(Error::io(pack.path()))?)?;
            for (id, offset, len) in plain.objects {
                pack.place(id, number, offset, len);
            }
        }
        Ok(())
    }
}
