//! Writing a pack: frames as they come, tables and footer at the end.

use std::path::{Path, PathBuf};

use super::frame::Frame;
use super::{Density, FOOTER_LEN, FRAME_RECORD_LEN, Location, OBJECT_RECORD_LEN, ObjectId, Pack};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::hash::{Checksum, PackId};

/// A pack that grows under a temporary name.
#[derive(Debug)]
pub(crate) struct PackWriter {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    density: Density,
    len: u64,
    frames: Vec<u8>,
    objects: Vec<Placed>,
    buf: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    id: ObjectId,
    frame: u32,
    offset: u32,
    len: u64,
}

/// A pack whose bytes are all written, still under its temporary name.
#[derive(Debug)]
pub(crate) struct FinishedPack {
    pub(crate) id: PackId,
    pub(crate) temporary: PathBuf,
    pub(crate) len: u64,
    pub(crate) objects: Vec<(ObjectId, Location)>,
    file: Box<dyn DiskFile>,
    /// Whether its bytes are durable.
    pub(crate) is_synced: bool,
}

impl PackWriter {
    /// Small writes are gathered up to this many bytes.
    const WRITE_LEN: usize = 1 << 20;

    pub(crate) fn create(disk: &dyn Disk, path: &Path, density: Density) -> Result<Self> {
        let file = disk.create(path).map_err(Error::io(path))?;
        Ok(Self {
            file,
            path: path.into(),
            density,
            len: 0,
            frames: Vec::new(),
            objects: Vec::new(),
            buf: density.magic().to_vec(),
        })
    }

    /// Where it grows.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn density(&self) -> Density {
        self.density
    }

    /// Bytes so far, tables excluded.
    pub(crate) fn len(&self) -> u64 {
        self.len + self.buf.len() as u64
    }

    /// How many frames there are: the number that the next one gets.
    pub(crate) fn frame_count(&self) -> u32 {
        let count = self.frames.len() / FRAME_RECORD_LEN;
        u32::try_from(count).expect("a pack has fewer than 2^32 frames")
    }

    /// Appends a frame.
    pub(crate) fn push_frame(&mut self, frame: &Frame) -> Result<()> {
        self.frames.extend_from_slice(&frame.record.to_bytes());
        self.buf.extend_from_slice(&frame.stored);
        if self.buf.len() >= Self::WRITE_LEN { self.flush() } else { Ok(()) }
    }

    /// Notes that `id` begins in frame `frame` at plain byte `offset`.
    pub(crate) fn place(&mut self, id: ObjectId, frame: u32, offset: u32, len: u64) {
        self.objects.push(Placed { id, frame, offset, len });
    }

    /// What was written so far, as a pack without tables in its file; with where each
    /// object lies.
    pub(crate) fn view(&mut self) -> Result<(Pack, Vec<(ObjectId, Location)>)> {
        self.flush()?;
        // It has no id before all of it is there.
        let id = PackId::from_bytes([0; PackId::LEN]);
        let pack = Pack::unfinished(&self.path, id, self.density, &self.frames)?;
        let objects = self.objects.iter().map(|placed| placed.in_pack(id));
        Ok((pack, objects.collect()))
    }

    /// Writes the tables and the footer. Nothing is durable yet.
    pub(crate) fn finish(mut self) -> Result<FinishedPack> {
        let mut tables = std::mem::take(&mut self.frames);
        let frames_len = tables.len();
        for placed in &self.objects {
            tables.extend_from_slice(&placed.to_bytes());
        }
        let id = self.density.id_of(&tables);
        let (frames, objects) = tables.split_at(frames_len);
        let mut footer = Vec::with_capacity(FOOTER_LEN);
        let count = |len: usize| u32::try_from(len).expect("a pack has fewer than 2^32 objects");
        footer.extend_from_slice(&count(frames_len / FRAME_RECORD_LEN).to_le_bytes());
        footer.extend_from_slice(&count(self.objects.len()).to_le_bytes());
        footer.extend_from_slice(&Checksum::of(frames).0.to_le_bytes());
        footer.extend_from_slice(&Checksum::of(objects).0.to_le_bytes());
        footer.extend_from_slice(id.as_bytes());
        footer.extend_from_slice(self.density.end_magic());
        self.buf.extend_from_slice(&tables);
        self.buf.extend_from_slice(&footer);
        self.flush()?;
        let objects = self.objects.iter().map(|placed| placed.in_pack(id));
        Ok(FinishedPack {
            id,
            objects: objects.collect(),
            temporary: self.path,
            len: self.len,
            file: self.file,
            is_synced: false,
        })
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at(&self.buf, self.len).map_err(Error::io(&self.path))?;
        self.len += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }
}

impl FinishedPack {
    /// Makes the bytes durable; not the name.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(Error::io(&self.temporary))?;
        self.is_synced = true;
        Ok(())
    }

    /// A pack that has come as it is; `file` is the one at `temporary`.
    pub(crate) fn of(
        pack: &Pack,
        temporary: PathBuf,
        objects: Vec<(ObjectId, Location)>,
        file: Box<dyn DiskFile>,
    ) -> Self {
        Self { id: pack.id(), temporary, len: pack.len(), objects, file, is_synced: false }
    }
}

impl Placed {
    fn in_pack(self, pack: PackId) -> (ObjectId, Location) {
        let Self { id, frame, offset, len } = self;
        (id, Location { pack, frame, offset, len })
    }

    fn to_bytes(self) -> [u8; OBJECT_RECORD_LEN] {
        let (kind, hash, key) = match self.id {
            ObjectId::Blob(key, digest) => (1, *digest.as_bytes(), *key.as_bytes()),
            ObjectId::Tree(id) => (2, *id.as_bytes(), [0; 16]),
            ObjectId::Page(id) => (4, *id.as_bytes(), [0; 16]),
            ObjectId::State(digest) => (3, *digest.as_bytes(), [0; 16]),
        };
        let mut bytes = [0; OBJECT_RECORD_LEN];
        bytes[0] = kind;
        bytes[1..33].copy_from_slice(&hash);
        bytes[33..49].copy_from_slice(&key);
        bytes[49..53].copy_from_slice(&self.frame.to_le_bytes());
        bytes[53..57].copy_from_slice(&self.offset.to_le_bytes());
        bytes[57..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }
}
