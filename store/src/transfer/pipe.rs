//! A store at the other end of a pipe.
//!
//! One side asks ([`Pipe`]), the other one answers from its store ([`serve`]). Questions and the
//! heads of answers are lines of JSON; bytes of packs follow as they are.
//!
//! Format: docs/transfer.md, "Through a pipe".

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{PackAt, PackRange, PullSource, TakeBytes};
use crate::error::{Error, Result};
use crate::hash::{BlobKey, Digest, PackId, PageId, TreeId};
use crate::log::Refs;
use crate::pack::ObjectId;
use crate::store::Store;

/// The first line that the answering side says.
const GREETING: &str = "cairn transfer 1";

/// More bytes than a line has.
const MOST_LINE: u64 = 4 << 20;

/// More bytes than a log has.
const MOST_LOG: u64 = 1 << 30;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ask {
    Log,
    Locate(Vec<Named>),
    Packs,
    Read(Vec<(PackId, u64, u64)>),
    /// So many bytes will be read. No answer.
    Expect(u64),
    /// It is over, and this came of it. No answer.
    Done(serde_json::Value),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// So many bytes follow.
    Bytes(u64),
    Packs(Vec<Option<(PackId, u64)>>),
    /// This pack is no longer there.
    Gone(PackId),
    Failed(String),
}

/// The name of an object.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Named {
    Blob(BlobKey, Digest),
    Tree(TreeId),
    Page(PageId),
}

impl Named {
    fn of(object: ObjectId) -> Option<Self> {
        match object {
            ObjectId::Blob(key, digest) => Some(Self::Blob(key, digest)),
            ObjectId::Tree(id) => Some(Self::Tree(id)),
            ObjectId::Page(id) => Some(Self::Page(id)),
            ObjectId::State(_) => None,
        }
    }

    fn object(self) -> ObjectId {
        match self {
            Self::Blob(key, digest) => ObjectId::Blob(key, digest),
            Self::Tree(id) => ObjectId::Tree(id),
            Self::Page(id) => ObjectId::Page(id),
        }
    }
}

/// The side that asks.
#[derive(Debug)]
pub struct Pipe<R: Read, W> {
    name: String,
    ends: Mutex<(BufReader<R>, W)>,
}

impl<R: Read, W: Write> Pipe<R, W> {
    /// Waits for the greeting of the other side, which people call `name`.
    ///
    /// # Errors
    /// [`Error::Remote`] when something else is there.
    pub fn open(name: String, from: R, to: W) -> Result<Self> {
        let mut from = BufReader::with_capacity(256 << 10, from);
        let line = read_line(&mut from).map_err(remote(&name))?;
        if line.as_deref().map(str::trim_end) != Some(GREETING) {
            let said = line.unwrap_or_default();
            let text = match said.trim() {
                "" => "it ends at once".to_owned(),
                said => format!("it says {said:?} instead of {GREETING:?}"),
            };
            return Err(remote(&name)(io::Error::other(text)));
        }
        Ok(Self { name, ends: Mutex::new((from, to)) })
    }

    /// Ends the conversation; `result` is what came of it.
    pub fn done(&self, result: serde_json::Value) -> Result<()> {
        self.ask(&mut self.ends(), &Ask::Done(result))
    }

    fn ends(&self) -> MutexGuard<'_, (BufReader<R>, W)> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, ends: &mut (BufReader<R>, W), ask: &Ask) -> Result<()> {
        let asked = write_line(&mut ends.1, ask).and_then(|()| ends.1.flush());
        asked.map_err(remote(&self.name))
    }

    fn answer(&self, ends: &mut (BufReader<R>, W)) -> Result<Answer> {
        let line = read_line(&mut ends.0).map_err(remote(&self.name))?;
        let line = line.ok_or_else(|| {
            remote(&self.name)(io::Error::new(io::ErrorKind::UnexpectedEof, "it has gone"))
        })?;
        match serde_json::from_str(&line) {
            Ok(Answer::Gone(pack)) => Err(Error::MissingPack { pack }),
            Ok(Answer::Failed(text)) => Err(remote(&self.name)(io::Error::other(text))),
            Ok(answer) => Ok(answer),
            Err(err) => Err(remote(&self.name)(err.into())),
        }
    }

    /// Takes the answer of a question for ranges.
    fn take(
        &self,
        ends: &mut (BufReader<R>, W),
        ranges: &[PackRange],
        take: TakeBytes<'_>,
    ) -> Result<()> {
        let mut buf = vec![0; 256 << 10];
        for (number, range) in ranges.iter().enumerate() {
            match self.answer(ends)? {
                Answer::Bytes(len) if len == range.len => {}
                _ => return Err(self.unexpected()),
            }
            let mut done = 0;
            while done < range.len {
                let want = usize::try_from(range.len - done).unwrap_or(buf.len()).min(buf.len());
                ends.0.read_exact(&mut buf[..want]).map_err(remote(&self.name))?;
                take(number, &buf[..want])?;
                done += want as u64;
            }
        }
        Ok(())
    }

    fn unexpected(&self) -> Error {
        remote(&self.name)(io::Error::other("it answers something else than it was asked"))
    }

    fn packs_of(&self, ask: &Ask) -> Result<Vec<Option<PackAt>>> {
        let mut ends = self.ends();
        self.ask(&mut ends, ask)?;
        match self.answer(&mut ends)? {
            Answer::Packs(packs) => {
                Ok(packs.into_iter().map(|pack| pack.map(|(id, len)| PackAt { id, len })).collect())
            }
            _ => Err(self.unexpected()),
        }
    }
}

impl<R: Read + Send, W: Write + Send> PullSource for Pipe<R, W> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn refs(&self) -> Result<Refs> {
        let mut ends = self.ends();
        self.ask(&mut ends, &Ask::Log)?;
        let Answer::Bytes(len) = self.answer(&mut ends)? else { return Err(self.unexpected()) };
        if len > MOST_LOG {
            return Err(self.unexpected());
        }
        let mut bytes = Vec::new();
        let read = ends.0.by_ref().take(len).read_to_end(&mut bytes);
        read.map_err(remote(&self.name))?;
        Refs::of_log(&self.name, &bytes)
    }

    fn locate(&self, objects: &[ObjectId]) -> Result<Option<Vec<Option<PackAt>>>> {
        let named = objects.iter().filter_map(|object| Named::of(*object)).collect();
        self.packs_of(&Ask::Locate(named)).map(Some)
    }

    fn packs(&self) -> Result<Vec<PackAt>> {
        Ok(self.packs_of(&Ask::Packs)?.into_iter().flatten().collect())
    }

    fn read(&self, ranges: &[PackRange], take: TakeBytes<'_>) -> Result<()> {
        let mut ends = self.ends();
        let asks = |some: &[PackRange]| {
            Ask::Read(some.iter().map(|range| (range.pack, range.from, range.len)).collect())
        };
        let mut next = ranges.chunks(RANGES);
        if let Some(first) = next.next() {
            self.ask(&mut ends, &asks(first))?;
        }
        for (first, some) in ranges.chunks(RANGES).enumerate() {
            // The next question is there before the answer of this one ends.
            let next = next.next();
            if let Some(next) = next {
                self.ask(&mut ends, &asks(next))?;
            }
            let mut take = |number, bytes: &[u8]| take(first * RANGES + number, bytes);
            let taken = self.take(&mut ends, some, &mut take);
            if let (Err(Error::MissingPack { .. }), Some(next)) = (&taken, next) {
                // It is answered all the same.
                match self.take(&mut ends, next, &mut |_, _| Ok(())) {
                    Ok(()) | Err(Error::MissingPack { .. }) => {}
                    broken => return broken,
                }
            }
            taken?;
        }
        Ok(())
    }

    fn expect(&self, bytes: u64) -> Result<()> {
        self.ask(&mut self.ends(), &Ask::Expect(bytes))
    }
}

/// Ranges that are asked for at once. Two such questions are shorter than what a pipe holds:
/// none waits for a reader that waits for this side to read.
const RANGES: usize = 256;

/// Is told how far the other side has come.
pub trait ServeProgress {
    /// So many bytes are about to be asked for.
    fn expect(&self, bytes: u64);
    /// So many more have gone.
    fn advance(&self, bytes: u64);
}

impl ServeProgress for () {
    fn expect(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}

/// Answers from `store` until the other side is done or gone; returns what came of it, if that
/// was told.
///
/// Whoever is at the other side can read all packs of the store.
///
/// # Errors
/// [`Error::Remote`] when the pipe breaks, or when something is asked that nobody asks.
pub fn serve(
    store: &Store,
    from: impl Read,
    to: impl Write,
    progress: &dyn ServeProgress,
) -> Result<Option<serde_json::Value>> {
    let name = "the other side";
    let failed = || remote(name);
    let mut from = BufReader::new(from);
    let mut to = BufWriter::with_capacity(256 << 10, to);
    writeln!(to, "{GREETING}").and_then(|()| to.flush()).map_err(failed())?;
    while let Some(line) = read_line(&mut from).map_err(failed())? {
        let ask = serde_json::from_str(&line).map_err(|err| failed()(err.into()))?;
        match ask {
            Ask::Log => {
                let path = store.inner().log_path();
                match std::fs::read(&path) {
                    Ok(bytes) => write_line(&mut to, &Answer::Bytes(bytes.len() as u64))
                        .and_then(|()| to.write_all(&bytes))
                        .map_err(failed())?,
                    Err(err) => tell(&mut to, &Error::io(path)(err))?,
                }
                store.refresh()?;
            }
            Ask::Locate(named) => {
                let objects: Vec<ObjectId> = named.into_iter().map(Named::object).collect();
                match store.locate(&objects) {
                    Ok(found) => {
                        let found = found.unwrap_or_default().into_iter();
                        let packs = found.map(|at| at.map(|at| (at.id, at.len))).collect();
                        write_line(&mut to, &Answer::Packs(packs)).map_err(failed())?;
                    }
                    Err(err) => tell(&mut to, &err)?,
                }
            }
            Ask::Packs => match store.packs() {
                Ok(packs) => {
                    let packs = packs.into_iter().map(|at| Some((at.id, at.len))).collect();
                    write_line(&mut to, &Answer::Packs(packs)).map_err(failed())?;
                }
                Err(err) => tell(&mut to, &err)?,
            },
            Ask::Read(ranges) => {
                for (id, from, len) in ranges {
                    // Held open, it can be read to its end even if gc removes it.
                    let pack = match store.inner().pack(id) {
                        Ok(pack) if from.checked_add(len).is_some_and(|end| end <= pack.len()) => {
                            pack
                        }
                        Ok(_) => {
                            let problem = "it is shorter than what was asked for";
                            let path = store.inner().pack_path(id);
                            tell(&mut to, &Error::DamagedPack { path, problem })?;
                            break;
                        }
                        Err(err) => {
                            tell(&mut to, &err)?;
                            break;
                        }
                    };
                    write_line(&mut to, &Answer::Bytes(len)).map_err(failed())?;
                    pack.read(from, len, &mut |bytes| {
                        progress.advance(bytes.len() as u64);
                        to.write_all(bytes).map_err(failed())
                    })?;
                }
            }
            Ask::Expect(bytes) => progress.expect(bytes),
            Ask::Done(result) => return Ok(Some(result)),
        }
        to.flush().map_err(failed())?;
    }
    Ok(None)
}

/// Tells the other side why it gets no answer.
fn tell(to: &mut impl Write, error: &Error) -> Result<()> {
    if let Error::MissingPack { pack } = error {
        return write_line(to, &Answer::Gone(*pack)).map_err(remote("the other side"));
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    write_line(to, &Answer::Failed(text)).map_err(remote("the other side"))
}

fn remote(name: &str) -> impl FnOnce(io::Error) -> Error + use<> {
    let name = name.to_owned();
    move |source| Error::Remote { name, source: Box::new(source) }
}

/// A line with its end; `None` at the end of all.
fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.take(MOST_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it ends in the middle of a line",
        ));
    }
    String::from_utf8(line).map(Some).map_err(io::Error::other)
}

fn write_line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, value)?;
    to.write_all(b"\n")
}
