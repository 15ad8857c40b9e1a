//! An HTTP server on loopback that does what it is told, right or wrong.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Serves the files of a directory until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    ended: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    once: BTreeMap<String, VecDeque<Behaviour>>,
    always: BTreeMap<String, Behaviour>,
    requests: Vec<Request>,
}

/// What a server does instead of answering as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Closes the connection after so many bytes of the body.
    Cut(usize),
    /// Announces so many bytes more than it sends.
    Longer(usize),
    /// Announces so many bytes, and sends them, whatever the file has.
    Length(usize),
    /// Sends the body with the byte at this place changed.
    Flip(usize),
    /// Sends bytes without end and without a length.
    Endless,
    /// Answers with the head, and then with nothing more.
    Stall,
    /// Answers with this status and these headers.
    Status(u16, &'static str),
    /// Leads elsewhere.
    Redirect(String),
    /// Sends the whole file, whatever part is asked for.
    NoRanges,
    /// Sends the part from another place than asked for.
    WrongRange,
    /// Says that the file has not changed, whoever asks.
    Unchanged,
    /// Sends these bytes instead of the file.
    Other(Vec<u8>),
    /// Sends something that is not HTTP.
    Noise,
    /// Sends headers without end.
    Headers,
}

/// A request that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// With its leading slash.
    pub path: String,
    /// The offset that is asked for.
    pub from: Option<u64>,
    /// The last byte that is asked for.
    pub last: Option<u64>,
    /// Whether it is only about a change.
    pub conditional: bool,
    /// All headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Server {
    /// Serves what lies below `root`.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, told) = Default::default();
        let shared = Arc::new(Shared { root: root.into(), ended, told });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.ended.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&of_thread);
                if let Ok(stream) = stream {
                    // A client that goes away is no failure of the server.
                    std::thread::spawn(move || shared.answer(stream));
                }
            }
        });
        Self { address, shared }
    }

    /// `http://127.0.0.1:<port>` and `path`, which begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Does this for the next request of `path`; called several times, for the
    /// following ones.
    pub fn once(&self, path: &str, behaviour: Behaviour) {
        self.told().once.entry(path.into()).or_default().push_back(behaviour);
    }

    /// Does this for all requests of `path`.
    pub fn always(&self, path: &str, behaviour: Behaviour) {
        self.told().always.insert(path.into(), behaviour);
    }

    /// Answers as it should again.
    pub fn behave(&self) {
        let mut told = self.told();
        told.once.clear();
        told.always.clear();
    }

    /// The requests since the last call.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.told().requests)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) -> Option<()> {
        let request = read_request(&stream)?;
        let behaviour = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.requests.push(request.clone());
            let once = told.once.get_mut(&request.path).and_then(VecDeque::pop_front);
            once.or_else(|| told.always.get(&request.path).cloned())
        };
        let mut to = &stream;
        match &behaviour {
            Some(Behaviour::Status(status, headers)) => {
                let head = format!("HTTP/1.1 {status} Told\r\n{headers}content-length: 0\r\n\r\n");
                to.write_all(head.as_bytes()).ok()?;
            }
            Some(Behaviour::Redirect(location)) => {
                let head = format!(
                    "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\
                     connection: close\r\n\r\n"
                );
                to.write_all(head.as_bytes()).ok()?;
            }
            Some(Behaviour::Unchanged) => {
                to.write_all(b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n").ok()?;
            }
            Some(Behaviour::Noise) => to.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").ok()?,
            Some(Behaviour::Headers) => {
                to.write_all(b"HTTP/1.1 200 OK\r\n").ok()?;
                while to.write_all(b"x-more: yes, there is more to come\r\n").is_ok() {}
            }
            behaviour => self.send_file(&stream, &request, behaviour.as_ref())?,
        }
        // Whoever still sends must not be answered with a reset, which could
        // overtake the answer.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
        Some(())
    }

    fn send_file(
        &self,
        mut to: &TcpStream,
        request: &Request,
        behaviour: Option<&Behaviour>,
    ) -> Option<()> {
        let file = request.path.split('?').next()?;
        let path = self.root.join(file.trim_start_matches('/'));
        let bytes = match behaviour {
            Some(Behaviour::Other(bytes)) => Ok(bytes.clone()),
            _ => fs::read(path),
        };
        let Ok(mut bytes) = bytes else {
            return to.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").ok();
        };
        let etag = format!("\"{}\"", blake3::hash(&bytes).to_hex());
        let total = bytes.len();
        if request.headers.get("if-none-match") == Some(&etag) {
            return to.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n").ok();
        }
        if let Some(Behaviour::Flip(at)) = behaviour {
            bytes[*at] ^= 1;
        }
        let mut head = String::from("HTTP/1.1 200 OK\r\n");
        match request.from.and_then(|from| usize::try_from(from).ok()) {
            Some(from) if from >= total => {
                let head = "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n\r\n";
                return to.write_all(head.as_bytes()).ok();
            }
            Some(from) if behaviour != Some(&Behaviour::NoRanges) => {
                let from = if behaviour == Some(&Behaviour::WrongRange) { 1 } else { from };
                let last = request.last.and_then(|last| usize::try_from(last).ok());
                let last = last.unwrap_or(usize::MAX).min(total - 1);
                bytes.truncate(last + 1);
                bytes.drain(..from);
                head = format!(
                    "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{last}/{total}\r\n"
                );
            }
            _ => {}
        }
        let mut len = Some(bytes.len());
        match behaviour {
            Some(Behaviour::Longer(more)) => len = Some(bytes.len() + more),
            Some(Behaviour::Length(told)) => {
                bytes.resize(*told, 0);
                len = Some(*told);
            }
            Some(Behaviour::Endless) => len = None,
            _ => {}
        }
        if let Some(len) = len {
            head.push_str(&format!("content-length: {len}\r\n"));
        }
        head.push_str(&format!("etag: {etag}\r\nconnection: close\r\n\r\n"));
        to.write_all(head.as_bytes()).ok()?;
        match behaviour {
            Some(Behaviour::Cut(after)) => to.write_all(&bytes[..bytes.len().min(*after)]).ok(),
            Some(Behaviour::Stall) => {
                // Until the client goes away.
                let _ = std::io::copy(&mut &*to, &mut std::io::sink());
                Some(())
            }
            Some(Behaviour::Endless) => {
                to.write_all(&bytes).ok()?;
                while to.write_all(&[0; 4096]).is_ok() {}
                Some(())
            }
            _ => to.write_all(&bytes).ok(),
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let range = headers.get("range").and_then(|it| it.strip_prefix("bytes="));
    let (from, last) = range.and_then(|it| it.split_once('-')).unwrap_or_default();
    let (from, last) = (from.parse().ok(), last.parse().ok());
    let conditional =
        headers.contains_key("if-none-match") || headers.contains_key("if-modified-since");
    Some(Request { path, from, last, conditional, headers })
}
