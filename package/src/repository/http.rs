//! One answer of a server: connections, redirects and time limits, and what
//! can be wrong with it.

use std::fmt;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use super::url::Url;
use crate::sys;

/// How servers are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// How many files are downloaded at once.
    pub connections: usize,
    /// How often in a row a server may fail before it is given up.
    pub attempts: u32,
    /// Time before the second attempt; doubled before each further one.
    pub delay: Duration,
    /// Time for finding a server and connecting to it.
    pub connect: Duration,
    /// Time in which at least one byte must come.
    pub stall: Duration,
    /// Through which all requests go.
    pub proxy: Option<ProxyServer>,
}

/// A proxy for HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyServer {
    /// `[http://][user:password@]host[:port]`.
    pub url: String,
    /// Hosts that are spoken to directly: `example.org`, `.example.org` for
    /// all below it, `*` for all.
    pub except: Vec<String>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            connections: 6,
            attempts: 4,
            delay: Duration::from_secs(1),
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            proxy: None,
        }
    }
}

/// A wait is never longer, whatever a server asks for.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(30);

/// As many redirects as browsers follow in a circle before they stop.
const MAX_REDIRECTS: usize = 10;

/// A server that sends fewer bytes a second in the long run is too slow.
const MIN_RATE: u64 = 1024;

/// What is wrong with the answer of a server, or with the way to it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum NetworkProblem {
    /// The connection cannot be made, or breaks.
    #[error(transparent)]
    Io(io::Error),
    /// No server has this name.
    #[error("there is no host {0}")]
    UnknownHost(String),
    /// The server does not answer, or too slowly.
    #[error("the server is too slow")]
    TimedOut,
    /// The server cannot prove who it is, or does not speak TLS.
    #[error("no secure connection")]
    Tls(#[source] Box<ureq::Error>),
    /// The server does not speak HTTP, or a header is too long.
    #[error("no answer in HTTP")]
    Http(#[source] Box<ureq::Error>),
    /// The server refuses.
    #[error("{}", Status(*.status))]
    Status { status: u16, retry_after: Option<Duration> },
    /// The answer ends early.
    #[error("the connection was cut after {received} of {expected} bytes")]
    CutShort { received: u64, expected: u64 },
    /// The answer is longer than what is wanted may be.
    #[error("it is longer than {limit} bytes")]
    TooLong { limit: u64 },
    /// The answer has another length than what is wanted.
    #[error("it has {found} bytes instead of {expected}")]
    WrongLength { found: u64, expected: u64 },
    /// The answer is another part than the one asked for.
    #[error("the server sends another part of the file than asked for")]
    WrongRange,
    /// A redirect leads nowhere.
    #[error("a redirect to {to:?} leads nowhere: {problem}")]
    Redirect { to: String, problem: &'static str },
    /// A redirect gives up the encryption.
    #[error("a redirect to {to} would give up the encryption")]
    Downgrade { to: Url },
    /// Redirects without end.
    #[error("it is redirected more than {MAX_REDIRECTS} times")]
    TooManyRedirects,
    /// The proxy of the settings cannot be used.
    #[error("the proxy {0:?} is not of the form http://host:port")]
    Proxy(String),
}

impl NetworkProblem {
    /// Whether it may be gone when tried again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Io(_) | Self::TimedOut | Self::CutShort { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502..=504),
            Self::UnknownHost(_)
            | Self::Tls(_)
            | Self::Http(_)
            | Self::TooLong { .. }
            | Self::WrongLength { .. }
            | Self::WrongRange
            | Self::Redirect { .. }
            | Self::Downgrade { .. }
            | Self::TooManyRedirects
            | Self::Proxy(_) => false,
        }
    }

    /// Whether the server says that there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Status { status: 404 | 410, .. })
    }
}

struct Status(u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.0 {
            401 | 407 => "it asks for a password",
            403 => "it does not allow that",
            404 | 410 => "it has no such file",
            429 => "it was asked too often",
            500..=599 => "it is out of order",
            _ => "that was not expected",
        };
        write!(f, "the server answers {}: {meaning}", self.0)
    }
}

/// What tells whether a file has changed since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) modified: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask<'a> {
    /// Bytes before this one are there already.
    pub(super) offset: u64,
    /// Bytes from this one on are not wanted.
    pub(super) end: Option<u64>,
    /// Nothing is to be sent if the file has not changed since then.
    pub(super) known: Option<&'a Validators>,
    /// Whether caches on the way may answer.
    pub(super) anew: bool,
    /// How many bytes are expected, as far as the time for them is concerned.
    pub(super) len: u64,
}

/// The answer.
pub(super) enum Answer {
    /// The file has not changed.
    Unchanged,
    /// The file, from [`Incoming::offset`] on.
    Body(Incoming),
}

/// Bytes that are coming in.
pub(super) struct Incoming {
    pub(super) offset: u64,
    /// Whether it is the part that was asked for, and nothing else.
    pub(super) is_part: bool,
    /// How many come, if the server tells.
    pub(super) len: Option<u64>,
    /// The length of the whole file, if the server tells.
    pub(super) total: Option<u64>,
    pub(super) validators: Validators,
    reader: Box<dyn Read + Send>,
    received: u64,
}

impl Incoming {
    /// Reads some bytes; none at the end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, NetworkProblem> {
        loop {
            match self.reader.read(buf) {
                Ok(len) => {
                    self.received += len as u64;
                    return Ok(len);
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if is_timeout(&err) => return Err(NetworkProblem::TimedOut),
                Err(err) => {
                    return Err(match self.len {
                        Some(expected) if err.kind() == io::ErrorKind::UnexpectedEof => {
                            NetworkProblem::CutShort { received: self.received, expected }
                        }
                        _ => NetworkProblem::Io(err),
                    });
                }
            }
        }
    }
}

/// Keeps connections open; threads may share it.
pub(super) struct Client {
    pub(super) network: Network,
    agent: OnceLock<Agent>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(network: Network) -> Self {
        Self { network, agent: OnceLock::new() }
    }

    /// Made when it is needed: most commands speak to no server.
    fn agent(&self) -> Result<&Agent, NetworkProblem> {
        if let Some(agent) = self.agent.get() {
            return Ok(agent);
        }
        sys::settle_lookup();
        let Network { connections, connect, stall, proxy, .. } = &self.network;
        let proxy = proxy.as_ref().map(proxy_of).transpose()?;
        // The certificates of the machine, so that an administrator decides
        // whom it trusts.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, where their rules are.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")))
            .accept("*/*")
            // A hash is that of a file as it is.
            .accept_encoding("identity")
            .timeout_resolve(Some(*connect))
            .timeout_connect(Some(*connect))
            .timeout_send_request(Some(*stall))
            .timeout_recv_response(Some(*stall))
            .timeout_per_read(Some(*stall))
            .max_idle_connections_per_host(*connections)
            .proxy(proxy)
            .tls_config(tls)
            .build();
        Ok(self.agent.get_or_init(|| config.into()))
    }

    /// Asks for a file, and follows redirects.
    pub(super) fn get(&self, url: &Url, ask: &Ask<'_>) -> Result<Answer, NetworkProblem> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, ask)?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return answer(response, ask, status);
            }
            let location = response.headers().get("location");
            let location = location.map(|it| String::from_utf8_lossy(it.as_bytes()));
            url = follow(&url, location.as_deref().unwrap_or_default())?;
        }
        Err(NetworkProblem::TooManyRedirects)
    }

    fn send(
        &self,
        url: &Url,
        ask: &Ask<'_>,
    ) -> Result<ureq::http::Response<ureq::Body>, NetworkProblem> {
        let mut request = self.agent()?.get(url.as_str());
        match ask.end {
            Some(end) => {
                let last = end.saturating_sub(1);
                request = request.header("Range", format!("bytes={}-{last}", ask.offset));
            }
            None if ask.offset > 0 => {
                request = request.header("Range", format!("bytes={}-", ask.offset));
            }
            None => {}
        }
        if let Some(Validators { etag, modified }) = ask.known {
            let conditions = [("If-None-Match", etag), ("If-Modified-Since", modified)];
            for (name, value) in conditions {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
        }
        if ask.anew {
            request = request.header("Cache-Control", "no-cache").header("Pragma", "no-cache");
        }
        let time = self.network.stall + Duration::from_secs(ask.len / MIN_RATE);
        let request = request.config().timeout_recv_body(Some(time)).build();
        request.call().map_err(|err| problem(url, err))
    }
}

fn proxy_of(server: &ProxyServer) -> Result<Proxy, NetworkProblem> {
    let invalid = |_| NetworkProblem::Proxy(server.url.clone());
    let proxy = Proxy::new(&server.url).map_err(invalid)?;
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(name) = proxy.username() {
        builder = builder.username(name);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    for host in &server.except {
        builder = builder.no_proxy(host);
    }
    builder.build().map_err(invalid)
}

/// Where a redirect of what is at `from` leads.
fn follow(from: &Url, location: &str) -> Result<Url, NetworkProblem> {
    let nowhere = |problem| NetworkProblem::Redirect { to: location.into(), problem };
    if location.is_empty() {
        return Err(nowhere("it names no place"));
    }
    let to = from.join(location).map_err(nowhere)?;
    if to.local().is_some() {
        return Err(nowhere("a server cannot name a file of this machine"));
    }
    if from.is_private() && !to.is_private() {
        return Err(NetworkProblem::Downgrade { to });
    }
    Ok(to)
}

fn answer(
    response: ureq::http::Response<ureq::Body>,
    ask: &Ask<'_>,
    status: u16,
) -> Result<Answer, NetworkProblem> {
    let header = |name: &str| response.headers().get(name).and_then(|it| it.to_str().ok());
    if status == 304 && ask.known.is_some() {
        return Ok(Answer::Unchanged);
    }
    let (offset, total) = match status {
        200 => (0, None),
        206 => {
            let (offset, total) = header("content-range")
                .and_then(content_range)
                .ok_or(NetworkProblem::WrongRange)?;
            if offset != ask.offset {
                return Err(NetworkProblem::WrongRange);
            }
            (offset, total)
        }
        status => {
            let seconds = header("retry-after").and_then(|it| it.trim().parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            return Err(NetworkProblem::Status { status, retry_after });
        }
    };
    let text = |name: &str| header(name).map(str::to_owned);
    let validators = Validators { etag: text("etag"), modified: text("last-modified") };
    let body = response.into_body();
    let len = body.content_length();
    let reader = Box::new(body.into_reader());
    let is_part = status == 206;
    Ok(Answer::Body(Incoming { offset, is_part, len, total, validators, reader, received: 0 }))
}

/// Reads `bytes 5-9/10`: where it begins, and the length of the whole.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
    Some((first.trim().parse().ok()?, total))
}

fn problem(url: &Url, err: ureq::Error) -> NetworkProblem {
    match err {
        ureq::Error::Timeout(_) => NetworkProblem::TimedOut,
        ureq::Error::HostNotFound => NetworkProblem::UnknownHost(url.host().into()),
        // How rustls says that a certificate is not believed.
        ureq::Error::Io(err) if err.kind() == io::ErrorKind::InvalidData => {
            NetworkProblem::Tls(Box::new(ureq::Error::Io(err)))
        }
        ureq::Error::Io(err) if is_timeout(&err) => NetworkProblem::TimedOut,
        ureq::Error::Io(err) => NetworkProblem::Io(err),
        err @ (ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_)) => {
            NetworkProblem::Tls(Box::new(err))
        }
        err => NetworkProblem::Http(Box::new(err)),
    }
}

/// Whether one of the time limits is over, as a reader says it.
fn is_timeout(err: &io::Error) -> bool {
    let inner = err.get_ref().and_then(|err| err.downcast_ref::<ureq::Error>());
    let is_of_ureq = matches!(inner, Some(ureq::Error::Timeout(_)));
    is_of_ureq || err.kind() == io::ErrorKind::TimedOut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_a_server_and_never_away_from_encryption() {
        let check = |from: &str, location: &str, expected: Option<&str>| {
            let found = follow(&from.parse().expect(from), location).ok();
            assert_eq!(found.as_ref().map(Url::as_str), expected, "{from} {location}");
        };
        check("http://a/b/c", "d", Some("http://a/b/d"));
        check("http://a/b", "//c/d", Some("http://c/d"));
        check("http://a/b", "https://a/b", Some("https://a/b"));
        check("https://a/b", "https://c/d", Some("https://c/d"));
        check("https://a/b", "http://a/b", None);
        check("https://a/b", "http:/b", None);
        check("http://a/b", "file:///etc/shadow", None);
        check("http://a/b", "ftp://a/b", None);
        check("http://a/b", "http://", None);
        check("http://a/b", "", None);
        // A password is for the host that it was given for.
        check("https://user:secret@a/b", "https://c/d", Some("https://c/d"));
    }

    #[test]
    fn a_range_says_where_it_begins_and_how_long_the_whole_is() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes */10", None),
            ("bytes -5/10", None),
            ("items 5-9/10", None),
            ("bytes 5-9", None),
            ("bytes 99999999999999999999-9/10", None),
        ] {
            assert_eq!(content_range(text), expected, "{text}");
        }
    }
}
