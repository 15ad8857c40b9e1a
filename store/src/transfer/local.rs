//! A store on this machine as one that gives.

use std::fs::{self, File};
use std::io;
use std::time::SystemTime;

use super::{PackAt, PackRange, PullSource, TakeBytes};
use crate::error::{Error, Result};
use crate::hash::PackId;
use crate::log::Refs;
use crate::pack::{ObjectId, read_range};
use crate::store::{Inner, Store};

impl PullSource for Store {
    fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn refs(&self) -> Result<Refs> {
        self.refresh()?;
        Ok(Self::refs(self))
    }

    fn locate(&self, objects: &[ObjectId]) -> Result<Option<Vec<Option<PackAt>>>> {
        let mut found = Vec::with_capacity(objects.len());
        for object in objects {
            let at = self.inner().with_index(|index| index.location_of(*object));
            // Where the index cannot be used, as on a disk that is read-only, the packs tell.
            let Ok(at) = at else { return Ok(None) };
            let pack = at.map(|at| self.inner().pack(at.pack)).transpose()?;
            found.push(pack.map(|pack| PackAt { id: pack.id(), len: pack.len() }));
        }
        Ok(Some(found))
    }

    fn packs(&self) -> Result<Vec<PackAt>> {
        self.inner().by_age(self.inner().list_packs()?)
    }

    fn read(&self, ranges: &[PackRange], take: TakeBytes<'_>) -> Result<()> {
        for (number, PackRange { pack, from, len }) in ranges.iter().enumerate() {
            let path = self.inner().pack_path(*pack);
            let file = match File::open(&path) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::MissingPack { pack: *pack });
                }
                file => file.map_err(Error::io(&path))?,
            };
            read_range(&file, &path, *from, *len, &mut |bytes| take(number, bytes))?;
        }
        Ok(())
    }
}

impl Inner {
    /// Those of `ids` that are there, the newest last.
    pub(super) fn by_age(&self, ids: Vec<PackId>) -> Result<Vec<PackAt>> {
        let mut packs = Vec::new();
        for id in ids {
            packs.extend(self.stat_pack(id)?);
        }
        packs.sort_unstable_by_key(|(time, at)| (*time, at.id));
        Ok(packs.into_iter().map(|(_, at)| at).collect())
    }

    /// When a pack was written; `None` if it has gone.
    fn stat_pack(&self, id: PackId) -> Result<Option<(SystemTime, PackAt)>> {
        let path = self.pack_path(id);
        match fs::metadata(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(Error::io(path)(err)),
            Ok(data) => {
                let time = data.modified().map_err(Error::io(&path))?;
                Ok(Some((time, PackAt { id, len: data.len() })))
            }
        }
    }
}
