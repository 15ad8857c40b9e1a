//! A git repository, and a server that gives it away as git(1) wants it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs git in a directory, as somebody.
///
/// # Panics
/// If it fails.
pub fn git(directory: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=A", "-c", "user.email=a@example.org"]);
    command.args(["-c", "init.defaultBranch=main"]).args(words).current_dir(directory);
    let output = command.env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
    assert!(output.status.success(), "git {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes a repository, with a commit of each of `texts` as its file `text`; the first
/// one is tagged as v1.
///
/// # Panics
/// If it fails.
pub fn repository(directory: &Path, texts: &[&str]) {
    fs::create_dir_all(directory).unwrap();
    git(directory, &["init", "--quiet"]);
    for (number, text) in texts.iter().enumerate() {
        fs::write(directory.join("text"), text).unwrap();
        git(directory, &["add", "text"]);
        git(directory, &["commit", "--quiet", "-m", text]);
        if number == 0 {
            git(directory, &["tag", "-a", "v1", "-m", "v1"]);
        }
    }
}

/// Serves the repositories below a directory with `git http-backend`, until the test ends;
/// returns its address.
///
/// # Panics
/// If it cannot listen.
#[must_use]
pub fn serve(root: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let root = root.to_path_buf();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            std::thread::spawn(move || answer(&stream, root));
        }
    });
    address
}

fn answer(stream: &TcpStream, root: PathBuf) -> Option<()> {
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let of = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    let mut body = vec![0; of("content-length").parse().unwrap_or(0)];
    from.read_exact(&mut body).ok()?;
    let mut backend = Command::new("git")
        .args(["-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", of("content-type"))
        .env("HTTP_CONTENT_ENCODING", of("content-encoding"))
        .env("GIT_PROTOCOL", of("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    backend.stdin.take()?.write_all(&body).ok()?;
    let said = backend.wait_with_output().ok()?.stdout;
    let status = said.strip_prefix(b"Status: ").and_then(|it| it.split(|it| *it == b'\r').next());
    let mut to = stream;
    to.write_all(b"HTTP/1.1 ").ok()?;
    to.write_all(status.unwrap_or(b"200 OK")).ok()?;
    to.write_all(b"\r\nConnection: close\r\n").ok()?;
    to.write_all(&said).ok()
}
