//! What a transaction has taken in so far, readable before it commits.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Cache;
use crate::edit::{BlobReader, TreeReader};
use crate::error::{Error, Result};
use crate::hash::{BlobKey, BlobRef, Digest, TreeId};
use crate::pack::{Location, ObjectId, Pack};
use crate::store::Store;
use crate::store::objects::Piece;
use crate::transaction::Transaction;
use crate::tree::Tree;

/// Plain bytes of frames that are kept in memory.
const FRAMES_KEPT: usize = 16 << 20;

/// The trees and blobs of a transaction as they were when this was made, and
/// those of its store.
///
/// It can be read from several threads while the transaction goes on, and must
/// not outlive it: the packs that it reads get other names, or go.
#[derive(Debug)]
pub struct Staged {
    store: Store,
    trees: HashMap<TreeId, Arc<Tree>>,
    /// Packs that have no name yet.
    packs: Vec<Pack>,
    /// The number of its pack, and where each blob lies in it.
    blobs: HashMap<BlobKey, (Digest, u32, Location)>,
    frames: Cache<(u32, u32), Arc<Vec<u8>>>,
}

impl Transaction {
    /// A view of everything so far.
    ///
    /// Costs a copy of the tables of what was taken in; nothing is synced.
    pub fn staged(&mut self) -> Result<Staged> {
        let mut views = Vec::new();
        for pack in self.packs() {
            views.push((Pack::open(&pack.temporary, pack.id)?, pack.objects.clone()));
        }
        if let Some(pack) = self.open_pack() {
            views.push(pack.view()?);
        }
        let mut packs = Vec::with_capacity(views.len());
        let mut blobs = HashMap::new();
        for (number, (pack, objects)) in (0..).zip(views) {
            packs.push(pack);
            blobs.extend(objects.into_iter().filter_map(|(id, location)| match id {
                ObjectId::Blob(key, digest) => Some((key, (digest, number, location))),
                _ => None,
            }));
        }
        let trees = self.trees().clone();
        let store = self.store().clone();
        Ok(Staged { store, trees, packs, blobs, frames: Cache::new(FRAMES_KEPT) })
    }
}

impl Staged {
    /// The directory `id`.
    pub fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        match self.trees.get(&id) {
            Some(tree) => Ok(tree.clone()),
            None => self.store.tree(id),
        }
    }

    /// Like [`Store::read_at`].
    pub fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let Some((digest, pack, location)) = self.blobs.get(&blob.key) else {
            return self.store.read_at(blob, offset, buf);
        };
        if *digest != blob.digest || location.len != blob.size {
            return Err(Error::DamagedBlob { key: blob.key });
        }
        Piece::fill(buf, |done| {
            let piece_len = self.packs[*pack as usize].piece_len(location);
            Piece::of(location, offset + done, piece_len, |number| self.frame(*pack, number))
        })
    }

    /// Like [`Store::read`].
    pub fn read(&self, blob: &BlobRef) -> Result<Vec<u8>> {
        if !self.blobs.contains_key(&blob.key) {
            return self.store.read(blob);
        }
        let damaged = || Error::DamagedBlob { key: blob.key };
        // It lies in a pack that this process has just written.
        let mut bytes = vec![0; usize::try_from(blob.size).map_err(|_| damaged())?];
        let read = self.read_at(blob, 0, &mut bytes)?;
        if read < bytes.len() || Digest::of(&bytes) != blob.digest {
            return Err(damaged());
        }
        Ok(bytes)
    }

    fn frame(&self, pack: u32, number: u32) -> Result<Arc<Vec<u8>>> {
        if let Some(frame) = self.frames.get(&(pack, number)) {
            return Ok(frame);
        }
        let frame = Arc::new(self.packs[pack as usize].frame(number)?);
        self.frames.insert((pack, number), frame.clone(), frame.len());
        Ok(frame)
    }
}

impl TreeReader for Staged {
    fn read_tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        self.tree(id)
    }
}

impl BlobReader for Staged {
    fn read_blob(&self, blob: &BlobRef) -> Result<Vec<u8>> {
        self.read(blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attributes, BytesSource, Content, Draft, Entry, Leaf, Name};

    #[test]
    fn what_was_taken_in_can_be_read_before_and_after_the_commit() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let large: Vec<u8> =
            (0..700_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let texts: [&[u8]; 4] = [b"first", b"", b"second", &large];
        let mut transaction = store.begin().unwrap();
        let sources = texts.map(|bytes| BytesSource { name: "x", bytes });
        let before = transaction.ingest(&sources[..2], &()).unwrap();
        let early = transaction.staged().unwrap();
        let after = transaction.ingest(&sources[2..], &()).unwrap();
        let blobs = [before, after].concat();
        let leaf = |blob| {
            let attributes = Attributes::of_root(0o644);
            Entry::Leaf(Leaf { attributes, content: Content::File(blob), link: None })
        };
        let name = |number: usize| Name::new(number.to_string().as_bytes()).unwrap();
        let entries = blobs.iter().enumerate().map(|(at, blob)| (name(at), leaf(*blob)));
        let tree = Tree::new(Attributes::of_root(0o755), entries.collect()).unwrap();
        let id = transaction.put_tree(tree.clone()).unwrap();

        let staged = transaction.staged().unwrap();
        assert_eq!(*staged.tree(id).unwrap(), tree);
        for (blob, text) in blobs.iter().zip(texts) {
            assert!(staged.read(blob).unwrap() == text);
            let mut middle = [0; 3];
            let len = staged.read_at(blob, 2, &mut middle).unwrap();
            assert_eq!(middle[..len], text[text.len().min(2)..text.len().min(5)]);
        }
        assert!(early.read(&blobs[0]).is_ok());
        assert!(matches!(early.read(&blobs[2]), Err(Error::MissingBlob { .. })));
        assert!(matches!(early.tree(id), Err(Error::MissingTree { .. })));
        let mut forged = blobs[0];
        forged.size += 1;
        assert!(matches!(staged.read(&forged), Err(Error::DamagedBlob { .. })));

        let packages = id;
        let request = String::new();
        transaction.commit(Draft { parent: None, request, tree: id, packages }).unwrap();
        for (blob, text) in blobs.iter().zip(texts) {
            assert!(store.read(blob).unwrap() == text);
        }
    }
}
