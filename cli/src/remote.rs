//! How the command line names another store: its directory, `ssh://[USER@]HOST[:PORT]/DIR`, or the
//! `http(s)://` address at which a web server serves the directory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use cairn_package::repository::Url;
use cairn_store::transfer::pipe::Pipe;

use crate::error::Error;

/// Another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorePlace {
    /// A directory of this machine.
    Directory(PathBuf),
    /// One of another machine.
    Ssh(SshPlace),
}

/// Another store that gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourcePlace {
    /// One that could take as well.
    Store(StorePlace),
    /// One that a web server serves as files.
    Served(Url),
}

fn is_served(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

impl FromStr for SourcePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_served(text) {
            return text.parse::<Url>().map(Self::Served).map_err(|err| err.to_string());
        }
        text.parse().map(Self::Store)
    }
}

/// A store that the program of another machine answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SshPlace {
    text: String,
    host: String,
    port: Option<String>,
    /// That of the other program itself if it is empty.
    directory: String,
}

impl FromStr for StorePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("ssh://") else {
            if is_served(text) {
                return Err("a web server only gives: name a directory, or ssh://HOST/DIR".into());
            }
            if text.contains("://") {
                return Err("name a directory, or ssh://HOST/DIR".into());
            }
            return Ok(Self::Directory(text.into()));
        };
        let (host, directory) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let is_port = |port: &str| !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit());
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if is_port(port) => (host, Some(port.to_owned())),
            _ => (host, None),
        };
        // ssh(1) would take it for an option.
        if host.is_empty() || host.starts_with('-') {
            return Err("there is no host in it".into());
        }
        let directory = if directory == "/" { "" } else { directory }.to_owned();
        Ok(Self::Ssh(SshPlace { text: text.into(), host: host.into(), port, directory }))
    }
}

/// The program at the other side, which ends with this.
pub(crate) struct Other {
    name: String,
    child: Child,
    pub(crate) from: File,
    pub(crate) to: File,
}

impl SshPlace {
    /// Runs `cairn ARGS` there; `ssh` is a command for the shell that does what ssh(1) does.
    pub(crate) fn run(&self, ssh: Option<&str>, args: &[String]) -> Result<Other, Error> {
        let mut there = "cairn".to_owned();
        if !self.directory.is_empty() {
            there.push_str(&format!(" --store {}", quoted(&self.directory)));
        }
        args.iter().for_each(|arg| there.push_str(&format!(" {}", quoted(arg))));
        let mut command = match ssh {
            Some(ssh) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{ssh} \"$@\""), "ssh"]);
                shell
            }
            None => Command::new("ssh"),
        };
        if let Some(port) = &self.port {
            command.args(["-p", port]);
        }
        command.args(["--", &self.host, &there]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let failed = |source| Error::Program { program: "ssh", source };
        let mut child = command.spawn().map_err(failed)?;
        let (Some(from), Some(to)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        let (from, to) = (OwnedFd::from(from).into(), OwnedFd::from(to).into());
        Ok(Other { name: self.text.clone(), child, from, to })
    }
}

impl Other {
    /// Asks it as a source.
    pub(crate) fn source(&self) -> Result<Pipe<&File, &File>, Error> {
        Ok(Pipe::open(self.name.clone(), &self.from, &self.to)?)
    }

    /// Waits for its end, which has to be a good one.
    pub(crate) fn end(self) -> Result<(), Error> {
        let Self { mut child, from, to, .. } = self;
        drop((from, to));
        let failed = |source| Error::Program { program: "ssh", source };
        let status = child.wait().map_err(failed)?;
        let why = match status.code() {
            Some(0) => return Ok(()),
            // ssh(1) has this one for itself, and shells the other.
            Some(255) => "there is no connection",
            Some(127) => "there is no cairn there",
            _ => "cairn has failed there",
        };
        Err(failed(io::Error::other(format!("{why} ({status})"))))
    }

    /// Why it has not begun to answer: how it has ended, or `err` if that was well.
    pub(crate) fn not_begun(self, err: Error) -> Error {
        self.end().err().unwrap_or(err)
    }
}

/// One word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_directory_or_at_a_host() {
        let check = |text: &str, expected: Option<(&str, Option<&str>, &str)>| {
            let place = text.parse::<StorePlace>().ok();
            let expected = expected.map(|(host, port, directory)| {
                StorePlace::Ssh(SshPlace {
                    text: text.into(),
                    host: host.into(),
                    port: port.map(Into::into),
                    directory: directory.into(),
                })
            });
            assert_eq!(place, expected, "{text}");
        };
        check("ssh://host/a/b", Some(("host", None, "/a/b")));
        check("ssh://me@host:22/a", Some(("me@host", Some("22"), "/a")));
        check("ssh://host", Some(("host", None, "")));
        check("ssh://host/", Some(("host", None, "")));
        check("ssh://-oProxyCommand=x/a", None);
        check("ssh:///a", None);
        check("ftp://a/b", None);
        for text in ["http://host/a", "https://host:8443/a/b"] {
            check(text, None);
            let Ok(SourcePlace::Served(url)) = text.parse() else { panic!("{text}") };
            assert_eq!(url.to_string(), text);
        }
        assert!("https://".parse::<SourcePlace>().is_err());
        let at_host = SourcePlace::Store("ssh://host/a".parse().unwrap());
        assert_eq!("ssh://host/a".parse(), Ok(at_host));
        assert_eq!("a:b".parse(), Ok(StorePlace::Directory("a:b".into())));
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
