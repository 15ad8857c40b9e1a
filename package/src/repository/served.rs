//! A store that a web server serves as files: the other side of a pull over HTTP.
//!
//! Nothing answers there but the server, so that this asks for files of known names:
//! refs/log for the states, refs/packs for the names of the packs, and ranges of packs.
//! Several requests are on their way at once.
//!
//! Format: docs/transfer.md, "From a web server".

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use cairn_store::transfer::{
    PackAt, PackRange, PullSource, TakeBytes, check_format, decode_pack_list,
};
use cairn_store::{Error, ObjectId, Refs, Result};

use super::download::{HEADWAY, Patience, read};
use super::http::{Answer, Ask, Client, Network, NetworkProblem};
use super::url::Url;

/// More bytes than a log or a list of packs has.
const MOST: u64 = 1 << 30;

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

/// A store at a web server.
#[derive(Debug)]
pub struct ServedStore {
    url: Url,
    client: Client,
    gives_parts: OnceLock<bool>,
}

/// What a request for a range came to.
type Arrived = Result<(usize, Vec<u8>)>;

impl ServedStore {
    /// The store of which the directory is at `url`; nothing is asked yet.
    #[must_use]
    pub fn new(url: Url, network: Network) -> Self {
        Self { url, client: Client::new(network), gives_parts: OnceLock::new() }
    }

    /// Reads a file of the store, as it is now; `None` if there is none.
    fn file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let url = self.url.below(path);
        match read(&self.client, &url, MOST, None, true, &()) {
            Ok(file) => Ok(file.map(|file| file.bytes)),
            Err(problem) if problem.is_missing() => Ok(None),
            Err(problem) => Err(remote(&url, problem)),
        }
    }

    fn lacks(&self, problem: &'static str) -> Error {
        Error::Remote { name: self.name(), source: problem.into() }
    }

    fn url_of(&self, range: &PackRange) -> Url {
        self.url.below(&format!("packs/{}.pack", range.pack))
    }

    /// Gives the bytes of a range piece by piece; where the connection breaks, it goes on behind
    /// what has come.
    fn range(&self, number: usize, range: &PackRange, give: &SyncSender<Arrived>) -> Result<()> {
        let url = self.url_of(range);
        let mut patience = Patience::new(&self.client.network, &());
        let mut done = 0;
        loop {
            let begun = done;
            match self.attempt(&url, range, &mut done, &mut |bytes| {
                give.send(Ok((number, bytes.to_vec()))).is_ok()
            }) {
                Ok(()) => return Ok(()),
                Err(problem) if problem.is_missing() => {
                    return Err(Error::MissingPack { pack: range.pack });
                }
                Err(problem) => {
                    if done >= begun + HEADWAY {
                        patience.failures = 0;
                    }
                    patience.wait(&url, problem).map_err(|problem| remote(&url, problem))?;
                }
            }
        }
    }

    /// One request for what is missing of a range after `done` bytes. Ends early and well when
    /// `give` says that nobody wants more.
    fn attempt(
        &self,
        url: &Url,
        range: &PackRange,
        done: &mut u64,
        give: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), NetworkProblem> {
        let end = range.from.saturating_add(range.len);
        let offset = range.from + *done;
        let rest = range.len - *done;
        let ask = Ask { offset, end: Some(end), len: rest, ..Ask::default() };
        let Answer::Body(mut incoming) = self.client.get(url, &ask)? else {
            return Err(NetworkProblem::WrongRange);
        };
        // A server may send the whole file, whatever it is asked for.
        let is_part = incoming.is_part;
        let mut skip = offset - incoming.offset;
        let found = match incoming.len {
            Some(len) if is_part && len != rest => Some(len),
            Some(len) if !is_part && len < skip + rest => Some(len),
            _ => None,
        };
        if let Some(found) = found {
            let expected = if is_part { rest } else { skip + rest };
            return Err(NetworkProblem::WrongLength { found, expected });
        }
        let mut buf = vec![0; PIECE];
        while *done < range.len {
            let want = skip + (range.len - *done);
            let want = usize::try_from(want).unwrap_or(PIECE).min(PIECE);
            let len = incoming.read(&mut buf[..want])?;
            if len == 0 {
                let (received, expected) = (*done, range.len);
                return Err(NetworkProblem::CutShort { received, expected });
            }
            let skipped = usize::try_from(skip).unwrap_or(len).min(len);
            skip -= skipped as u64;
            if skipped < len {
                *done += (len - skipped) as u64;
                if !give(&buf[skipped..len]) {
                    return Ok(());
                }
            }
        }
        // The connection can be used again only when all of the answer was read.
        if is_part && incoming.read(&mut buf[..1])? > 0 {
            return Err(NetworkProblem::TooLong { limit: rest });
        }
        Ok(())
    }
}

impl PullSource for ServedStore {
    fn name(&self) -> String {
        self.url.to_string()
    }

    fn refs(&self) -> Result<Refs> {
        let no_store = || self.lacks("there is no store: it has no file `format`");
        check_format(&self.name(), &self.file("format")?.ok_or_else(no_store)?)?;
        let no_log = || self.lacks("it has no refs/log");
        Refs::of_log(&self.name(), &self.file("refs/log")?.ok_or_else(no_log)?)
    }

    fn locate(&self, _: &[ObjectId]) -> Result<Option<Vec<Option<PackAt>>>> {
        Ok(None)
    }

    fn packs(&self) -> Result<Vec<PackAt>> {
        let no_list = || {
            self.lacks("it has no list of its packs, refs/packs, which `cairn gc` there makes anew")
        };
        let bytes = self.file("refs/packs")?.ok_or_else(no_list)?;
        decode_pack_list(&bytes).map_err(|problem| self.lacks(problem))
    }

    fn read(&self, ranges: &[PackRange], take: TakeBytes<'_>) -> Result<()> {
        let requests = self.client.network.connections.clamp(1, ranges.len().max(1));
        let next = AtomicUsize::new(0);
        let (give, arrived) = sync_channel::<Arrived>(2 * requests);
        std::thread::scope(|scope| {
            for _ in 0..requests {
                let (give, next) = (give.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(range) = ranges.get(number) else { break };
                        if let Err(err) = self.range(number, range, &give) {
                            // Nobody hears it if another request has failed before.
                            let _ = give.send(Err(err));
                            break;
                        }
                    }
                });
            }
            drop(give);
            let taken = arrived.iter().try_for_each(|piece| {
                let (number, bytes) = piece?;
                take(number, &bytes)
            });
            if taken.is_err() {
                next.store(ranges.len(), Ordering::Relaxed);
            }
            // With nobody who takes bytes the other requests end.
            drop(arrived);
            taken
        })
    }

    fn gives_parts(&self) -> Result<bool> {
        if let Some(known) = self.gives_parts.get() {
            return Ok(*known);
        }
        let Some(PackAt { id, .. }) = self.packs()?.pop() else { return Ok(true) };
        let range = PackRange { pack: id, from: 0, len: 8 };
        let url = self.url_of(&range);
        let ask = Ask { end: Some(range.len), len: range.len, ..Ask::default() };
        let mut patience = Patience::new(&self.client.network, &());
        loop {
            match self.client.get(&url, &ask) {
                Ok(Answer::Body(mut incoming)) => {
                    let gives = incoming.is_part;
                    while gives && incoming.read(&mut [0; 16]).is_ok_and(|len| len > 0) {}
                    return Ok(*self.gives_parts.get_or_init(|| gives));
                }
                Ok(Answer::Unchanged) => return Ok(false),
                Err(problem) if problem.is_missing() => {
                    return Err(Error::MissingPack { pack: id });
                }
                Err(problem) => {
                    patience.wait(&url, problem).map_err(|problem| remote(&url, problem))?;
                }
            }
        }
    }
}

fn remote(url: &Url, problem: NetworkProblem) -> Error {
    Error::Remote { name: url.to_string(), source: Box::new(problem) }
}
