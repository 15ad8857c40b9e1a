//! Taking contents into the store: hashed once, in parallel, kept once.
//!
//! The sources are dealt to jobs in their given order: a frame's worth of
//! small ones, one of longer ones, or one large one. So whoever reads small files in any
//! order finds many of them in each frame. Workers read, hash, compare with what the
//! store has and compress, each source read once; the calling thread writes the
//! frames in the order of the jobs, so that what is installed together lies
//! together. Large ones have packs of their own and wait for nobody.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::hash::{BlobHasher, BlobKey, BlobRef, Digest};
use crate::pack::{
    Compressor, Density, FRAME_LEN, FinishedPack, Frame, LARGE_BLOB, ObjectId, PackWriter,
};
use crate::store::IndexWriter;

/// Where the bytes of a blob come from.
pub trait Source: Sync {
    /// How errors call it.
    fn name(&self) -> Cow<'_, str>;
    /// How many bytes it has.
    fn size(&self) -> u64;
    /// Whether it is an error if it has more or fewer bytes; if not, it is read
    /// to its end, wherever that is.
    fn is_exact(&self) -> bool {
        true
    }
    /// Begins to read it.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;
    /// What it is, if the caller has just hashed these very bytes; they are
    /// then not hashed again, and not read if the store has them.
    fn identity(&self) -> Option<BlobRef> {
        None
    }
}

/// A file to take in.
#[derive(Clone, Debug)]
pub struct FileSource {
    /// Where it is.
    pub path: PathBuf,
    /// What stat(2) says of its size.
    pub size: u64,
}

impl Source for FileSource {
    fn name(&self) -> Cow<'_, str> {
        self.path.to_string_lossy()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(&self.path)?))
    }
}

/// Bytes in memory to take in.
#[derive(Clone, Copy, Debug)]
pub struct BytesSource<'a> {
    /// How errors call them.
    pub name: &'a str,
    /// All of them.
    pub bytes: &'a [u8],
}

impl Source for BytesSource<'_> {
    fn name(&self) -> Cow<'_, str> {
        self.name.into()
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.bytes))
    }
}

/// Is told how far an ingest has come; called from several threads.
pub trait IngestProgress: Sync {
    /// So many more files, with so many bytes in sum, were taken in.
    fn advance(&self, files: u64, bytes: u64);
    /// Whether to stop, which makes the ingest fail with [`Error::Cancelled`].
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl IngestProgress for () {
    fn advance(&self, _: u64, _: u64) {}
}

/// Contents that this transaction has already met.
pub(crate) type Claims = Mutex<HashMap<BlobKey, Digest>>;

/// What the jobs of an ingest share.
pub(crate) struct Ingest<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) index: &'a IndexWriter,
    pub(crate) claims: &'a Claims,
    /// Gives the path of the next temporary pack.
    pub(crate) temporary: &'a (dyn Fn() -> PathBuf + Sync),
    pub(crate) progress: &'a dyn IngestProgress,
}

/// Sources of at most so many bytes have frames of their own. Three quarters of the files of a
/// system are no longer, and all of those together are a tenth of it.
const SMALL: u64 = 16 << 10;

/// A large source up to this many bytes is read into memory, so that it is only
/// compressed if it is new; a larger one is compressed while it is read.
const IN_MEMORY: u64 = 32 << 20;

/// What a job gave: the blobs of its sources, and those that are new.
#[derive(Default)]
struct Done {
    blobs: Vec<BlobRef>,
    frames: Vec<Frame>,
    /// Frame (the job's first is 0), offset and blob.
    placed: Vec<(u32, u32, BlobRef)>,
    own_pack: Option<FinishedPack>,
}

impl Ingest<'_> {
    /// Takes in all of `sources`; returns their blobs in the same order.
    ///
    /// `write` gets each job's frames and where blobs lie in them, in order.
    pub(crate) fn run<S: Source>(
        &self,
        sources: &[S],
        mut write: impl FnMut(&[Frame], &[(u32, u32, BlobRef)]) -> Result<()>,
    ) -> Result<(Vec<BlobRef>, Vec<FinishedPack>)> {
        let jobs = deal(sources);
        let workers = std::thread::available_parallelism().map_or(1, Into::into).min(jobs.len());
        let next = AtomicUsize::new(0);
        let (sender, receiver) = crossbeam::channel::bounded(2 * workers);
        let mut blobs = vec![None; sources.len()];
        let mut own_packs = Vec::new();

        std::thread::scope(|scope| {
            for _ in 0..workers {
                let sender = sender.clone();
                scope.spawn(|| {
                    // The sender goes with this closure, which ends the receiver.
                    let sender = sender;
                    let mut compressor = Compressor::new(Density::Ordinary);
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(number) else { break };
                        let done = match &mut compressor {
                            _ if self.progress.is_cancelled() => Err(Error::Cancelled),
                            Ok(compressor) => self.job(job, compressor),
                            Err(err) => Err(no_memory(err)),
                        };
                        let failed = done.is_err();
                        if sender.send((number, done)).is_err() || failed {
                            break;
                        }
                    }
                });
            }
            drop(sender);

            // An early return drops it, at which the workers stop: else they would wait for
            // room in it for ever.
            let receiver = receiver;
            let mut waiting = BTreeMap::new();
            let mut small = jobs.iter().enumerate().filter(|(_, job)| !is_large(job));
            let mut expected = small.next();
            for (number, done) in &receiver {
                let done: Done = done?;
                for ((at, _), blob) in jobs[number].iter().zip(done.blobs) {
                    blobs[*at] = Some(blob);
                }
                own_packs.extend(done.own_pack);
                waiting.insert(number, (done.frames, done.placed));
                while let Some((number, _)) = expected
                    && let Some((frames, placed)) = waiting.remove(&number)
                {
                    write(&frames, &placed)?;
                    expected = small.next();
                }
            }
            Ok::<(), Error>(())
        })?;
        let blobs = blobs.into_iter().map(|blob| blob.expect("each source is in a job"));
        Ok((blobs.collect(), own_packs))
    }

    fn job<S: Source>(&self, job: &[(usize, &S)], compressor: &mut Compressor) -> Result<Done> {
        let mut done = Done::default();
        match job {
            [(_, large)] if is_large(job) => self.large(*large, compressor, &mut done)?,
            _ => self.small(job, compressor, &mut done)?,
        }
        let bytes = job.iter().map(|(_, source)| source.size()).sum();
        self.progress.advance(job.len() as u64, bytes);
        Ok(done)
    }

    /// Sources that together fill at most a frame, or one that fills several.
    fn small<S: Source>(
        &self,
        job: &[(usize, &S)],
        compressor: &mut Compressor,
        done: &mut Done,
    ) -> Result<()> {
        let mut plain = Vec::with_capacity(FRAME_LEN);
        for &(_, source) in job {
            let begin = plain.len();
            let known = source.identity();
            if known.is_none() {
                read_all(source, &mut plain)?;
            }
            let blob = known.unwrap_or_else(|| BlobRef::of(&plain[begin..]));
            done.blobs.push(blob);
            if self.claim(&blob)? {
                if known.is_some() {
                    read_all(source, &mut plain)?;
                }
                let offset = u32::try_from(begin).expect("small sources are below 4 GiB");
                done.placed.push((0, offset, blob));
            } else {
                plain.truncate(begin);
            }
        }
        for piece in plain.chunks(FRAME_LEN) {
            done.frames.push(compressor.frame(piece).map_err(|err| no_memory(&err))?);
        }
        // An empty blob lies in a frame, too, even if nothing else does.
        if done.frames.is_empty() && !done.placed.is_empty() {
            done.frames.push(compressor.frame(b"").map_err(|err| no_memory(&err))?);
        }
        Ok(())
    }

    /// A source that gets a pack of its own.
    fn large<S: Source>(
        &self,
        source: &S,
        compressor: &mut Compressor,
        done: &mut Done,
    ) -> Result<()> {
        match source.identity() {
            Some(blob) => {
                done.blobs.push(blob);
                if self.claim(&blob)? {
                    let (pack, _) = self.pack_of(source, compressor, |_| {})?;
                    done.own_pack = Some(finish(pack, &blob)?);
                }
            }
            None if source.size() <= IN_MEMORY => {
                let mut plain = Vec::new();
                read_all(source, &mut plain)?;
                let blob = BlobRef::of(&plain);
                done.blobs.push(blob);
                if self.claim(&blob)? {
                    let bytes = BytesSource { name: &source.name(), bytes: &plain };
                    let (pack, _) = self.pack_of(&bytes, compressor, |_| {})?;
                    done.own_pack = Some(finish(pack, &blob)?);
                }
            }
            None => {
                let mut hasher = BlobHasher::default();
                let (pack, path) =
                    self.pack_of(source, compressor, |piece| hasher.update(piece))?;
                let blob = hasher.finish();
                done.blobs.push(blob);
                if self.claim(&blob)? {
                    done.own_pack = Some(finish(pack, &blob)?);
                } else {
                    drop(pack);
                    self.disk.remove(&path).map_err(Error::io(path))?;
                }
            }
        }
        Ok(())
    }

    /// Writes the frames of a pack, which is then to be finished; `each` gets
    /// their plain bytes.
    fn pack_of<S: Source>(
        &self,
        source: &S,
        compressor: &mut Compressor,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(PackWriter, PathBuf)> {
        let path = (self.temporary)();
        let mut pack = PackWriter::create(self.disk, &path, Density::Ordinary)?;
        pieces(source, |piece| {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            each(piece);
            pack.push_frame(&compressor.frame(piece).map_err(|err| no_memory(&err))?)
        })?;
        Ok((pack, path))
    }

    /// Whether the blob is new to the store and to this transaction.
    ///
    /// # Errors
    /// [`Error::Collision`] when its key is taken by another content.
    fn claim(&self, blob: &BlobRef) -> Result<bool> {
        let (key, offered) = (blob.key, blob.digest);
        let same = |stored| {
            if stored == offered { Ok(()) } else { Err(Error::Collision { key, stored, offered }) }
        };
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = claims.get(&key) {
            return same(*stored).map(|()| false);
        }
        claims.insert(key, offered);
        drop(claims);
        match self.index.with(|index| index.blob(key))? {
            Some((stored, _)) => same(stored).map(|()| false),
            None => Ok(true),
        }
    }
}

fn finish(mut pack: PackWriter, blob: &BlobRef) -> Result<FinishedPack> {
    pack.place(ObjectId::Blob(blob.key, blob.digest), 0, 0, blob.size);
    pack.finish()
}

/// What a worker takes in at a time: sources with their places among all.
type Job<'a, S> = Vec<(usize, &'a S)>;

/// Whether a job is one source that gets a pack of its own.
fn is_large<S: Source>(job: &[(usize, &S)]) -> bool {
    matches!(job, [(_, only)] if only.size() >= LARGE_BLOB)
}

/// Deals sources to jobs of at most a frame of one kind each, or of one source. Jobs come in
/// the order in which they are full.
fn deal<S: Source>(sources: &[S]) -> Vec<Job<'_, S>> {
    let mut jobs = Vec::new();
    let mut open = [(Job::new(), 0), (Job::new(), 0)];
    for (at, source) in sources.iter().enumerate() {
        let (job, bytes) = &mut open[usize::from(source.size() > SMALL)];
        if !job.is_empty() && *bytes + source.size() > FRAME_LEN as u64 {
            jobs.push(std::mem::take(job));
            *bytes = 0;
        }
        job.push((at, source));
        *bytes += source.size();
    }
    jobs.extend(open.into_iter().map(|(job, _)| job).filter(|job| !job.is_empty()));
    jobs
}

/// Reads a small source to the end of `plain`.
fn read_all<S: Source>(source: &S, plain: &mut Vec<u8>) -> Result<()> {
    let failed = |err| Error::Source { name: source.name().into(), source: err };
    let begin = plain.len();
    // One byte more than promised shows that a file has grown.
    let limit = if source.is_exact() { source.size() + 1 } else { u64::MAX };
    plain.reserve(usize::try_from(source.size()).map_or(0, |size| size + 1));
    source.open().map_err(failed)?.take(limit).read_to_end(plain).map_err(failed)?;
    if source.is_exact() && (plain.len() - begin) as u64 != source.size() {
        return Err(Error::SourceChanged { name: source.name().into() });
    }
    Ok(())
}

/// Reads a source in pieces of [`FRAME_LEN`] bytes, the last one shorter.
fn pieces<S: Source>(source: &S, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let failed = |err| Error::Source { name: source.name().into(), source: err };
    let mut from = source.open().map_err(failed)?;
    let mut buf = Vec::with_capacity(FRAME_LEN);
    let mut read = 0;
    loop {
        buf.clear();
        from.by_ref().take(FRAME_LEN as u64).read_to_end(&mut buf).map_err(failed)?;
        if buf.is_empty() {
            break;
        }
        read += buf.len() as u64;
        each(&buf)?;
    }
    if source.is_exact() && read != source.size() {
        return Err(Error::SourceChanged { name: source.name().into() });
    }
    Ok(())
}

fn no_memory(err: &io::Error) -> Error {
    let source = io::Error::new(err.kind(), err.to_string());
    Error::Source { name: "the compressor".into(), source }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::disk::RealDisk;
    use crate::index::Index;
    use crate::store::Store;

    #[test]
    fn workers_end_when_nothing_can_be_written() {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let home = tempfile::tempdir().expect("a temporary directory");
            let store = Store::create(&home.path().join("store")).expect("a store");
            let index = Index::in_memory(&home.path().join("index")).expect("memory");
            let contents: Vec<Vec<u8>> =
                (0_u32..500).map(|number| number.to_le_bytes().repeat(FRAME_LEN / 8)).collect();
            let sources: Vec<BytesSource<'_>> =
                contents.iter().map(|bytes| BytesSource { name: "a test", bytes }).collect();
            let ingest = Ingest {
                disk: &RealDisk,
                index: &IndexWriter::new(store.inner(), index),
                claims: &Claims::default(),
                temporary: &|| "a test".into(),
                progress: &(),
            };
            let full = || Error::io("a test")(io::Error::from(io::ErrorKind::StorageFull));
            let _ = sender.send(ingest.run(&sources, |_, _| Err(full())).map(drop));
        });
        let ended = receiver.recv_timeout(Duration::from_secs(60)).expect("it ends");
        assert!(matches!(ended, Err(Error::Io { .. })), "{ended:?}");
    }
}
