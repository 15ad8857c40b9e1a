//! A server that speaks TLS with a certificate of its own, and who has signed that.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::run;

/// Who signs certificates that nobody knows.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
}

/// A way over TLS to a server that speaks HTTP.
#[derive(Debug)]
pub struct Tls {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Authority {
    /// A new one, with its files in `directory`, by openssl(1).
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let authority = Self { directory: directory.into() };
        authority.openssl(
            &["req", "-x509", "-out", "ca.pem", "-keyout", "ca.key"],
            &[
                "-subj",
                "/CN=nobody knows it",
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=critical,keyCertSign",
            ],
        );
        authority
    }

    /// The file with its certificate, for whoever trusts it.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Serves what `http` names, `127.0.0.1:<port>`, as the host `host`.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn serve(&self, http: &str, host: &str) -> Tls {
        self.openssl(
            &["req", "-new", "-out", "host.csr", "-keyout", "host.key"],
            &["-subj", "/CN=host"],
        );
        fs::write(self.directory.join("names"), format!("subjectAltName=DNS:{host}\n")).unwrap();
        let mut sign = Command::new("openssl");
        sign.current_dir(&self.directory).args(["x509", "-req", "-in", "host.csr", "-days", "30"]);
        sign.args(["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]);
        run(sign.args(["-extfile", "names", "-out", "host.pem"]));
        let chain = CertificateDer::pem_file_iter(self.directory.join("host.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.directory.join("host.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
            .unwrap();
        Tls::new(config, http.into())
    }

    /// Makes a key and something with it.
    fn openssl(&self, what: &[&str], more: &[&str]) {
        let mut command = Command::new("openssl");
        command.current_dir(&self.directory).args(what).args(["-days", "30", "-nodes"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]).args(more);
        run(&mut command);
    }
}

impl Tls {
    fn new(config: ServerConfig, http: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (config, of_thread) = (Arc::new(config), Arc::clone(&ended));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.load(Ordering::SeqCst) {
                    break;
                }
                let (config, http) = (Arc::clone(&config), http.clone());
                if let Ok(stream) = stream {
                    // A client that does not believe the certificate goes away.
                    std::thread::spawn(move || pass_on(stream, config, &http));
                }
            }
        });
        Self { address, ended }
    }

    /// `https://localhost:<port>` and `path`, which begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes on one request, and the answer to it, which ends with the connection.
fn pass_on(mut stream: TcpStream, config: Arc<ServerConfig>, http: &str) -> Option<()> {
    let mut connection = ServerConnection::new(config).ok()?;
    let mut tls = Stream::new(&mut connection, &mut stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let mut server = TcpStream::connect(http).ok()?;
    server.write_all(&head).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    tls.write_all(&answer).ok()?;
    tls.conn.send_close_notify();
    tls.flush().ok()
}
