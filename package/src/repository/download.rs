//! Bytes from servers: files in memory, and stones that go on where they were
//! cut.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::RepositoryName;
use super::error::{Error, Result};
use super::hash::{Expected, Hasher};
use super::http::{Answer, Ask, Client, Incoming, MAX_DELAY, Network, NetworkProblem, Validators};
use super::url::Url;

/// Is told how far downloads have come; called from several threads.
pub trait DownloadProgress: Sync {
    /// So many more bytes are to come than was known before.
    fn expect(&self, _bytes: u64) {}
    /// So many more bytes are there.
    fn advance(&self, _bytes: u64) {}
    /// So many bytes that were there have to come again.
    fn lose(&self, _bytes: u64) {}
    /// An attempt has failed, and another one follows.
    fn retry(&self, _retry: &Retry<'_>) {}
}

impl DownloadProgress for () {}

/// An attempt that has failed, and the wait before the next one.
#[derive(Debug)]
pub struct Retry<'a> {
    /// What was asked for.
    pub url: &'a Url,
    /// What went wrong.
    pub problem: &'a NetworkProblem,
    /// Time before the next attempt.
    pub delay: Duration,
}

/// A file that was read into memory.
pub(super) struct InMemory {
    pub(super) bytes: Vec<u8>,
    pub(super) validators: Validators,
}

/// How long failures are put up with.
pub(super) struct Patience<'a> {
    network: &'a Network,
    progress: &'a dyn DownloadProgress,
    pub(super) failures: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(network: &'a Network, progress: &'a dyn DownloadProgress) -> Self {
        Self { network, progress, failures: 0 }
    }

    /// Waits before the next attempt, or gives up.
    pub(super) fn wait(
        &mut self,
        url: &Url,
        problem: NetworkProblem,
    ) -> Result<(), NetworkProblem> {
        self.failures += 1;
        if !problem.is_passing() || self.failures >= self.network.attempts {
            return Err(problem);
        }
        let mut delay = self.network.delay.saturating_mul(1 << (self.failures - 1).min(16));
        if let NetworkProblem::Status { retry_after: Some(wanted), .. } = &problem {
            delay = delay.max(*wanted);
        }
        let delay = delay.min(MAX_DELAY);
        self.progress.retry(&Retry { url, problem: &problem, delay });
        std::thread::sleep(delay);
        Ok(())
    }
}

/// Reads a file of at most `limit` bytes from a server; `None` if it has not
/// changed since `known`.
pub(super) fn read(
    client: &Client,
    url: &Url,
    limit: u64,
    known: Option<&Validators>,
    anew: bool,
    progress: &dyn DownloadProgress,
) -> Result<Option<InMemory>, NetworkProblem> {
    let mut patience = Patience::new(&client.network, progress);
    let ask = Ask { known, anew, len: limit, ..Ask::default() };
    let mut told = Told::default();
    loop {
        let mut bytes = Vec::new();
        let answer = client.get(url, &ask).and_then(|answer| match answer {
            Answer::Unchanged => Ok(None),
            Answer::Body(mut incoming) => {
                copy(&mut incoming, limit, &mut bytes, &mut told, progress)?;
                Ok(Some(incoming.validators))
            }
        });
        match answer {
            Ok(None) => return Ok(None),
            Ok(Some(validators)) => return Ok(Some(InMemory { bytes, validators })),
            Err(problem) => {
                progress.lose(std::mem::take(&mut told.written));
                patience.wait(url, problem)?;
            }
        }
    }
}

/// What the attempts of one download have told.
#[derive(Default)]
struct Told {
    /// Bytes that are expected.
    expected: u64,
    /// Bytes that this attempt has written.
    written: u64,
}

/// Writes what comes in, of at most `limit` bytes.
fn copy(
    from: &mut Incoming,
    limit: u64,
    to: &mut impl Write,
    told: &mut Told,
    progress: &dyn DownloadProgress,
) -> Result<(), NetworkProblem> {
    told.written = 0;
    if let Some(len) = from.len {
        if len > limit {
            return Err(NetworkProblem::TooLong { limit });
        }
        // What is tried again was expected before.
        progress.expect(len.saturating_sub(told.expected));
        told.expected = told.expected.max(len);
    }
    let mut buf = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut buf)?;
        if len == 0 {
            return Ok(());
        }
        if told.written + len as u64 > limit {
            return Err(NetworkProblem::TooLong { limit });
        }
        to.write_all(&buf[..len]).map_err(NetworkProblem::Io)?;
        told.written += len as u64;
        progress.advance(len as u64);
    }
}

/// Writes the file at `url`, of at most `limit` bytes, to `to` from its beginning
/// on; after a failure what was written is worthless.
///
/// A failure that may pass is tried again, as often as `network` says.
///
/// # Errors
/// What is wrong with the answer of the server, and [`NetworkProblem::Io`] also for
/// `to`.
pub fn download(
    network: &Network,
    url: &Url,
    to: &mut File,
    limit: u64,
    progress: &dyn DownloadProgress,
) -> Result<(), NetworkProblem> {
    let client = Client::new(network.clone());
    let mut patience = Patience::new(network, progress);
    let ask = Ask { len: limit, ..Ask::default() };
    let mut told = Told::default();
    loop {
        let emptied = to.set_len(0).and_then(|()| to.rewind()).map_err(NetworkProblem::Io);
        let answer = emptied.and_then(|()| client.get(url, &ask)).and_then(|answer| match answer {
            // Nobody has asked whether it has.
            Answer::Unchanged => Ok(()),
            Answer::Body(mut incoming) => copy(&mut incoming, limit, to, &mut told, progress),
        });
        match answer {
            Ok(()) => return Ok(()),
            Err(problem) => {
                progress.lose(std::mem::take(&mut told.written));
                patience.wait(url, problem)?;
            }
        }
    }
}

/// A stone at a server.
pub(super) struct Remote<'a> {
    pub(super) repository: &'a RepositoryName,
    /// Where it is, the best place first.
    pub(super) urls: Vec<Url>,
    pub(super) expected: Expected<'a>,
}

/// Bytes after which a server that fails again has done something before.
pub(super) const HEADWAY: u64 = 64 << 10;

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

impl Remote<'_> {
    /// Brings the file to `path`, with what is there of it already as
    /// `<path>.part`.
    ///
    /// The name appears when all bytes are there and proved. They are not
    /// synced: after a power cut the file may be damaged, which whoever takes
    /// it from the cache finds out.
    pub(super) fn download(
        &self,
        client: &Client,
        path: &Path,
        progress: &dyn DownloadProgress,
    ) -> Result<()> {
        let part = path.with_extension("part");
        let Some(mut file) = open_alone(&part, path)? else {
            // Another process was faster.
            progress.advance(self.expected.size);
            return Ok(());
        };
        let mut urls = self.urls.clone();
        let mut patience = Patience::new(&client.network, progress);
        let mut next = 0;
        let mut state = Part::of(&mut file, self.expected.size).map_err(Error::io(&part))?;
        progress.advance(state.len);
        loop {
            let at = next % urls.len();
            let url = urls[at].clone();
            let begun_at = state.len;
            let failure = match self.attempt(client, &url, &mut file, &mut state, progress) {
                Ok(()) => match state.hasher.clone().check(&self.expected) {
                    Ok(()) => break,
                    Err(problem) => {
                        let lost = state.restart(&mut file).map_err(Error::io(&part))?;
                        progress.lose(lost);
                        // Bytes of an earlier attempt may be those of another
                        // server, or of another time.
                        if begun_at > 0 {
                            continue;
                        }
                        let (repository, at) = (self.repository.clone(), url.to_string());
                        Error::Mismatch { repository, at, problem }
                    }
                },
                Err(Failure::Disk(source)) => return Err(Error::io(&part)(source)),
                Err(Failure::Network(problem)) if problem.is_passing() => {
                    if state.len >= begun_at + HEADWAY {
                        patience.failures = 0;
                    }
                    // Another place is tried at once.
                    next += 1;
                    if next % urls.len() != 0 {
                        continue;
                    }
                    patience.wait(&url, problem).map_err(network(&url))?;
                    continue;
                }
                Err(Failure::Network(problem)) => network(&url)(problem),
            };
            // This place does not have it.
            urls.remove(at);
            if urls.is_empty() {
                return Err(failure);
            }
        }
        fs::rename(&part, path).map_err(Error::io(path))
    }

    /// Adds to the file what a server sends, to its end.
    fn attempt(
        &self,
        client: &Client,
        url: &Url,
        file: &mut File,
        state: &mut Part,
        progress: &dyn DownloadProgress,
    ) -> Result<(), Failure> {
        let size = self.expected.size;
        if state.len == size {
            return Ok(());
        }
        let ask = Ask { offset: state.len, len: size - state.len, ..Ask::default() };
        let mut incoming = match client.get(url, &ask) {
            Ok(Answer::Body(incoming)) => incoming,
            Ok(Answer::Unchanged) => return Err(NetworkProblem::WrongRange.into()),
            // The file that the first bytes are of had more.
            Err(NetworkProblem::Status { status: 416, .. } | NetworkProblem::WrongRange)
                if state.len > 0 =>
            {
                progress.lose(state.restart(file)?);
                return self.attempt(client, url, file, state, progress);
            }
            Err(problem) => return Err(problem.into()),
        };
        if incoming.offset != state.len {
            // The server sends the whole file, whatever it is asked for.
            progress.lose(state.restart(file)?);
        }
        let rest = size - state.len;
        let wrong = |found| NetworkProblem::WrongLength { found, expected: size };
        match (incoming.total, incoming.len) {
            (Some(total), _) if total != size => return Err(wrong(total).into()),
            (_, Some(len)) if len != rest => return Err(wrong(state.len + len).into()),
            _ => {}
        }
        let mut buf = vec![0; PIECE];
        while state.len < size {
            let wanted = usize::try_from(size - state.len).unwrap_or(PIECE).min(PIECE);
            match incoming.read(&mut buf[..wanted])? {
                0 => {
                    let (received, expected) = (state.len, size);
                    return Err(NetworkProblem::CutShort { received, expected }.into());
                }
                len => {
                    state.append(file, &buf[..len])?;
                    progress.advance(len as u64);
                }
            }
        }
        // Without a length the server could go on for ever.
        match incoming.read(&mut buf[..1])? {
            0 => Ok(()),
            _ => {
                progress.lose(state.restart(file)?);
                Err(NetworkProblem::TooLong { limit: size }.into())
            }
        }
    }
}

pub(super) fn network(url: &Url) -> impl FnOnce(NetworkProblem) -> Error {
    let url = url.to_string();
    move |problem| Error::Network { url, source: Box::new(problem) }
}

enum Failure {
    Network(NetworkProblem),
    Disk(io::Error),
}

impl From<NetworkProblem> for Failure {
    fn from(problem: NetworkProblem) -> Self {
        Self::Network(problem)
    }
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Self::Disk(err)
    }
}

/// What is there of a file.
struct Part {
    len: u64,
    hasher: Hasher,
}

impl Part {
    /// Hashes what is there; more than `size` bytes are nothing.
    fn of(file: &mut File, size: u64) -> io::Result<Self> {
        let mut part = Self { len: 0, hasher: Hasher::default() };
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        file.seek(SeekFrom::Start(0))?;
        let mut buf = vec![0; PIECE];
        loop {
            match file.read(&mut buf)? {
                0 => return Ok(part),
                len => {
                    part.hasher.update(&buf[..len]);
                    part.len += len as u64;
                }
            }
        }
    }

    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Throws everything away; returns how many bytes that were.
    fn restart(&mut self, file: &mut File) -> io::Result<u64> {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        self.hasher = Hasher::default();
        Ok(std::mem::take(&mut self.len))
    }
}

/// Opens the file `part`, which nobody else writes to meanwhile; `None` if
/// somebody has just brought it to `done`.
fn open_alone(part: &Path, done: &Path) -> Result<Option<File>> {
    let directory: PathBuf = part.parent().map(Into::into).unwrap_or_default();
    fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
    loop {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(part);
        let file = file.map_err(Error::io(part))?;
        file.lock().map_err(Error::io(part))?;
        if done.exists() {
            let _ = fs::remove_file(part);
            return Ok(None);
        }
        // While this process waited for the lock, the file that it has opened
        // may have got its other name, or none.
        let opened = file.metadata().map_err(Error::io(part))?;
        match fs::metadata(part) {
            Ok(there) if there.ino() == opened.ino() => return Ok(Some(file)),
            _ => {}
        }
    }
}
