//! Reading a pack: a frame at a time, each verified.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::{Frame, FrameRecord};
use super::{
    Density, FOOTER_LEN, FRAME_LEN, FRAME_RECORD_LEN, Location, MAGIC_LEN, OBJECT_RECORD_LEN,
    ObjectId,
};
use crate::error::{Error, Result};
use crate::hash::{BlobKey, Checksum, Digest, PackId, PageId, TreeId};

/// An open pack with its frame table in memory: 24 bytes a frame.
#[derive(Debug)]
pub(crate) struct Pack {
    file: File,
    path: PathBuf,
    id: PackId,
    density: Density,
    frames: Vec<(u64, FrameRecord)>,
    objects_at: u64,
    object_count: u32,
    objects_checksum: Checksum,
}

/// A line of a pack's object table.
type PackedObject = (ObjectId, Location);

impl Pack {
    /// Opens a pack and checks its frame table.
    ///
    /// # Errors
    /// [`Error::DamagedPack`] also when it does not have the id `expected`.
    pub(crate) fn open(path: &Path, expected: PackId) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let damaged = |problem| Error::DamagedPack { path: path.into(), problem };
        let read =
            |offset: u64, buf: &mut [u8]| file.read_exact_at(buf, offset).map_err(Error::io(path));

        let smallest = (MAGIC_LEN + FOOTER_LEN) as u64;
        if len < smallest {
            return Err(damaged("it is too short"));
        }
        let mut magic = [0; MAGIC_LEN];
        read(0, &mut magic)?;
        let mut footer = [0; FOOTER_LEN];
        read(len - FOOTER_LEN as u64, &mut footer)?;
        let density = Density::of_footer(&footer).filter(|density| *density.magic() == magic);
        let Some(density) = density else {
            return Err(damaged("it does not begin and end as a pack does"));
        };
        let [f0, f1, f2, f3, o0, o1, o2, o3, rest @ ..] = footer;
        let frame_count = u32::from_le_bytes([f0, f1, f2, f3]);
        let object_count = u32::from_le_bytes([o0, o1, o2, o3]);
        let word = |at: usize| {
            u64::from_le_bytes(rest[at..at + 8].try_into().expect("the slice has 8 bytes"))
        };
        let (frames_checksum, objects_checksum) = (Checksum(word(0)), Checksum(word(8)));
        let id = PackId::from_bytes(rest[16..32].try_into().expect("the slice has 16 bytes"));
        if id != expected {
            return Err(damaged("it is another pack than its name says"));
        }

        let objects_len = u64::from(object_count) * OBJECT_RECORD_LEN as u64;
        let frames_len = u64::from(frame_count) * FRAME_RECORD_LEN as u64;
        let Some(frames_at) = len
            .checked_sub(smallest)
            .and_then(|rest| rest.checked_sub(objects_len + frames_len))
            .map(|stored_len| stored_len + MAGIC_LEN as u64)
        else {
            return Err(damaged("its tables are longer than itself"));
        };
        // The tables lie in the file, so that their length is bounded by its.
        let mut table =
            vec![0; usize::try_from(frames_len).map_err(|_| damaged("it is too long"))?];
        read(frames_at, &mut table)?;
        if Checksum::of(&table) != frames_checksum {
            return Err(damaged("the checksum of its frame table differs"));
        }
        let (frames, end) = frames_of(&table);
        // What compression would have made longer is stored as it is.
        let longest = |record: &FrameRecord| record.plain_len.max(record.stored_len);
        if frames.iter().any(|(_, record)| longest(record) as usize > density.frame_len()) {
            return Err(damaged(match density {
                Density::Ordinary => "it has a frame of more than 128 KiB",
                Density::Dense => "it has a frame of more than 4 MiB",
            }));
        }
        if end != frames_at {
            return Err(damaged("its frames do not fill it"));
        }
        let objects_at = frames_at + frames_len;
        let path = path.into();
        Ok(Self { file, path, id, density, frames, objects_at, object_count, objects_checksum })
    }

    /// What its tables hash to.
    pub(crate) fn id(&self) -> PackId {
        self.id
    }

    pub(crate) fn density(&self) -> Density {
        self.density
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        let tables = u64::from(self.object_count) * OBJECT_RECORD_LEN as u64;
        self.objects_at + tables + FOOTER_LEN as u64
    }

    /// Bytes of its frames, decompressed.
    pub(crate) fn plain_len(&self) -> u64 {
        self.frames.iter().map(|(_, record)| u64::from(record.plain_len)).sum()
    }

    /// A pack whose frames lie in the file at `path`, and whose tables do not yet;
    /// `table` is that of its frames. Its objects cannot be listed.
    pub(crate) fn unfinished(
        path: &Path,
        id: PackId,
        density: Density,
        table: &[u8],
    ) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let (frames, objects_at) = frames_of(table);
        let objects_checksum = Checksum::of(b"");
        Ok(Self {
            file,
            path: path.into(),
            id,
            density,
            frames,
            objects_at,
            object_count: 0,
            objects_checksum,
        })
    }

    /// Whether its tables are those that its id names.
    pub(crate) fn has_its_id(&self) -> Result<bool> {
        let mut tables: Vec<u8> =
            self.frames.iter().flat_map(|(_, record)| record.to_bytes()).collect();
        let frames_len = tables.len();
        tables.resize(frames_len + self.object_count as usize * OBJECT_RECORD_LEN, 0);
        let objects = &mut tables[frames_len..];
        self.file.read_exact_at(objects, self.objects_at).map_err(Error::io(&self.path))?;
        Ok(self.density.id_of(&tables) == self.id)
    }

    /// Where the stored bytes of a frame begin in the file, and where they end.
    pub(crate) fn place_of(&self, number: u32) -> Option<(u64, u64)> {
        let (offset, record) = self.frames.get(number as usize)?;
        Some((*offset, offset + u64::from(record.stored_len)))
    }

    /// How many frames there are.
    pub(crate) fn frame_count(&self) -> u32 {
        u32::try_from(self.frames.len()).expect("the count was read from a u32")
    }

    /// Reads, verifies and decompresses one frame.
    pub(crate) fn frame(&self, number: u32) -> Result<Vec<u8>> {
        let Frame { stored, record } = self.stored_frame(number)?;
        if record.is_raw {
            return Ok(stored);
        }
        let damaged = |problem| Error::DamagedFrame { pack: self.id, frame: number, problem };
        let plain = zstd::bulk::decompress(&stored, record.plain_len as usize)
            .map_err(|_| damaged("it does not decompress"))?;
        if plain.len() != record.plain_len as usize {
            return Err(damaged("it decompresses to another length"));
        }
        Ok(plain)
    }

    /// Reads and verifies one frame as it is stored.
    pub(crate) fn stored_frame(&self, number: u32) -> Result<Frame> {
        let damaged = |problem| Error::DamagedFrame { pack: self.id, frame: number, problem };
        let Some((offset, record)) = self.frames.get(number as usize) else {
            return Err(damaged("the pack has no such frame"));
        };
        // `open` has checked that the frames fill the file.
        let mut stored = vec![0; record.stored_len as usize];
        match self.file.read_exact_at(&mut stored, *offset) {
            Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(damaged("the pack ends before it"));
            }
            result => result.map_err(Error::io(&self.path))?,
        }
        if Checksum::of(&stored) != record.checksum {
            return Err(damaged("its checksum differs"));
        }
        Ok(Frame { stored, record: *record })
    }

    /// Gives `take` bytes of the file as they are, which must lie in it.
    pub(crate) fn read(
        &self,
        from: u64,
        len: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        read_range(&self.file, &self.path, from, len, take)
    }

    /// How many bytes of an object lie in each frame but the last, if it lies in several.
    pub(crate) fn piece_len(&self, at: &Location) -> u64 {
        let least = FRAME_LEN as u64;
        match self.density {
            Density::Ordinary => least,
            // No smaller object is cut; a shorter frame before another one is no such frame.
            Density::Dense => self
                .frames
                .get(at.frame as usize)
                .map_or(least, |(_, record)| u64::from(record.plain_len).max(least)),
        }
    }

    /// The frames in which an object lies.
    pub(crate) fn frames_of(&self, at: &Location) -> Result<Range<u32>> {
        let count = at.len.div_ceil(self.piece_len(at)).max(1);
        let end = u32::try_from(u64::from(at.frame).saturating_add(count)).ok();
        match end.filter(|end| *end <= self.frame_count()) {
            Some(end) => Ok(at.frame..end),
            None => {
                let problem = "it has an object outside of its frames";
                Err(Error::DamagedPack { path: self.path.clone(), problem })
            }
        }
    }

    /// Whether an object can lie there: within a frame, or in several, from the beginning
    /// of the first one to the end of the last one.
    fn has_room_at(&self, at: &Location) -> bool {
        let full = self.piece_len(at);
        let before = at.len.saturating_sub(1) / full;
        let last = usize::try_from(u64::from(at.frame) + before).ok();
        let Some((_, record)) = last.and_then(|last| self.frames.get(last)) else {
            return false;
        };
        let (offset, room) = (u64::from(at.offset), u64::from(record.plain_len));
        let is_alone = offset == 0 && at.len - before * full == room;
        let (_, first) = self.frames[at.frame as usize];
        let is_full = self.density == Density::Ordinary || u64::from(first.plain_len) == full;
        if before == 0 { offset + at.len <= room } else { is_alone && is_full }
    }

    /// Reads and checks the object table: each object lies in frames that there are.
    pub(crate) fn objects(&self) -> Result<Vec<PackedObject>> {
        let damaged = |problem| Error::DamagedPack { path: self.path.clone(), problem };
        // `open` has checked that the table lies inside the file.
        let mut table = vec![0; self.object_count as usize * OBJECT_RECORD_LEN];
        self.file.read_exact_at(&mut table, self.objects_at).map_err(Error::io(&self.path))?;
        if Checksum::of(&table) != self.objects_checksum {
            return Err(damaged("the checksum of its object table differs"));
        }
        let (records, _) = table.as_chunks::<OBJECT_RECORD_LEN>();
        let mut objects = Vec::with_capacity(records.len());
        for record in records {
            let hash: [u8; 32] = record[1..33].try_into().expect("the slice has 32 bytes");
            let key: [u8; 16] = record[33..49].try_into().expect("the slice has 16 bytes");
            let id = match record[0] {
                1 => ObjectId::Blob(BlobKey::from_bytes(key), Digest::from_bytes(hash)),
                2 => ObjectId::Tree(TreeId::from_bytes(hash)),
                3 => ObjectId::State(Digest::from_bytes(hash)),
                4 => ObjectId::Page(PageId::from_bytes(hash)),
                _ => return Err(damaged("it has an object of an unknown kind")),
            };
            let place: [u8; 16] = record[49..].try_into().expect("the slice has 16 bytes");
            let [f0, f1, f2, f3, o0, o1, o2, o3, len @ ..] = place;
            let location = Location {
                pack: self.id,
                frame: u32::from_le_bytes([f0, f1, f2, f3]),
                offset: u32::from_le_bytes([o0, o1, o2, o3]),
                len: u64::from_le_bytes(len),
            };
            if !self.has_room_at(&location) {
                return Err(damaged("it has an object that lies in none of its frames"));
            }
            objects.push((id, location));
        }
        Ok(objects)
    }
}

/// Gives `take` the bytes of a file in `path` that are asked for, piece by piece.
pub(crate) fn read_range(
    file: &File,
    path: &Path,
    from: u64,
    len: u64,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buf = vec![0; 256 << 10];
    let mut done = 0;
    while done < len {
        let want = usize::try_from(len - done).unwrap_or(buf.len()).min(buf.len());
        file.read_exact_at(&mut buf[..want], from.saturating_add(done)).map_err(Error::io(path))?;
        take(&buf[..want])?;
        done += want as u64;
    }
    Ok(())
}

/// Bytes of the two tables of a pack, as its footer tells.
pub(crate) fn tables_len(footer: &[u8; FOOTER_LEN]) -> u64 {
    let [f0, f1, f2, f3, o0, o1, o2, o3, ..] = *footer;
    let frames = u64::from(u32::from_le_bytes([f0, f1, f2, f3]));
    let objects = u64::from(u32::from_le_bytes([o0, o1, o2, o3]));
    frames * FRAME_RECORD_LEN as u64 + objects * OBJECT_RECORD_LEN as u64
}

/// Where each frame of a frame table begins, and where the last one ends.
fn frames_of(table: &[u8]) -> (Vec<(u64, FrameRecord)>, u64) {
    let mut offset = MAGIC_LEN as u64;
    let (records, _) = table.as_chunks();
    let mut frames = Vec::with_capacity(records.len());
    for record in records {
        let record = FrameRecord::from_bytes(record);
        frames.push((offset, record));
        offset += u64::from(record.stored_len);
    }
    (frames, offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::pack::{Compressor, PackWriter};

    /// The objects of a pack of two full frames and one of 100 bytes, one of which is said
    /// to lie there.
    fn listed(frame: u32, offset: u32, len: u64) -> Result<Vec<PackedObject>> {
        listed_in(Density::Ordinary, &[FRAME_LEN, FRAME_LEN, 100], (frame, offset, len))
    }

    /// The same for a pack of frames of these lengths.
    fn listed_in(
        density: Density,
        frames: &[usize],
        (frame, offset, len): (u32, u32, u64),
    ) -> Result<Vec<PackedObject>> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut compressor = Compressor::new(density).expect("memory");
        let mut pack = PackWriter::create(&RealDisk, &directory.path().join("pack"), density)?;
        for (byte, len) in frames.iter().enumerate() {
            let plain = vec![u8::try_from(byte).expect("few frames"); *len];
            let plain = &plain[..];
            pack.push_frame(&compressor.frame(plain).expect("memory"))?;
        }
        pack.place(ObjectId::Tree(TreeId::of(b"")), frame, offset, len);
        let finished = pack.finish()?;
        Pack::open(&finished.temporary, finished.id)?.objects()
    }

    #[test]
    fn an_object_lies_in_frames_or_the_table_is_refused() {
        let full = FRAME_LEN as u64;
        for (frame, offset, len) in [
            (0, 0, full),
            (1, 131_072, 0),
            (2, 50, 50),
            (2, 100, 0),
            (0, 0, 2 * full),
            (0, 0, 2 * full + 100),
            (1, 0, full + 100),
        ] {
            let objects = listed(frame, offset, len).expect("it can be so");
            let (_, at) = objects[0];
            assert_eq!((at.frame, at.offset, at.len), (frame, offset, len));
        }
        for (frame, offset, len) in [
            (3, 0, 0),
            (u32::MAX, 0, 1),
            (2, 101, 0),
            (2, 50, 51),
            (2, u32::MAX, full),
            (0, 0, 2 * full + 99),
            (0, 0, 2 * full + 101),
            (0, 1, 2 * full),
            (1, 0, 2 * full),
            (0, 0, u64::MAX),
            (0, 9, u64::MAX),
        ] {
            let err = listed(frame, offset, len).expect_err("it cannot be so");
            assert!(matches!(err, Error::DamagedPack { .. }), "{frame} {offset} {len}: {err}");
        }
    }

    #[test]
    fn in_a_dense_pack_the_first_frame_of_an_object_says_how_it_is_cut() {
        let full = FRAME_LEN as u64;
        let frames = [3 * FRAME_LEN, 3 * FRAME_LEN, 50, FRAME_LEN, FRAME_LEN - 1, 7];
        let check = |at| listed_in(Density::Dense, &frames, at);
        for at in [
            (0, 9, 2 * full),
            (0, 0, 3 * full),
            (0, 0, 6 * full),
            (0, 0, 6 * full + 50),
            (1, 0, 3 * full + 50),
            (3, 0, 2 * full - 1),
            (4, 0, full - 1),
            (5, 7, 0),
        ] {
            let objects = check(at).expect("it can be so");
            let (_, location) = objects[0];
            assert_eq!((location.frame, location.offset, location.len), at);
        }
        for at in [
            (0, 1, 3 * full),
            (0, 0, 4 * full),
            (0, 0, 6 * full + 51),
            (2, 0, 57),
            (4, 0, full + 6),
            (5, 0, u64::MAX),
            (6, 0, 0),
        ] {
            assert!(check(at).is_err(), "{at:?}");
        }
        let long = [4 * FRAME_LEN];
        assert!(listed_in(Density::Ordinary, &long, (0, 0, 1)).is_err(), "an ordinary pack");
        let long = [Density::Dense.frame_len() + 1];
        assert!(listed_in(Density::Dense, &long, (0, 0, 1)).is_err(), "longer than any");
    }
}
