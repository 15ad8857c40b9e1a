//! A mount that goes on with another program, while it is used.
//!
//! Whoever asks for it gives the program as an open file. The keeper starts it beside the
//! process that answers, and hears whether it can do the work; only then does it end that
//! process, and gives the new one what a process that has died leaves behind. When that
//! answers the kernel, the keeper goes on as the new program as well, under its own number.
//! If anything goes wrong before, a process of the old program takes over instead.
//!
//! What the two programs tell each other is described in docs/mount.md, "Another program":
//! they may be of different versions.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use crate::process::confined;
use crate::process::keeper::{KEEPER, Keeper, Kept, LEDGER, OUTSIDE};
use crate::serve::ledger::Ledger;
use crate::sys::{self, Forked, HeldSignals};

/// How long a new program may take to say that it can do the work, and then to answer the
/// kernel.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a program is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process that answers the kernel.
    Process,
    /// The keeper.
    Keeper,
}

impl Role {
    /// The word that says so.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Process => "--as-process",
            Self::Keeper => "--as-keeper",
        }
    }
}

const CHECK: &[u8] = b"CHECK=1\n";
const ABLE: &[u8] = b"ABLE=1\n";
const GO: &[u8] = b"GO=1\n";
const CHILD: &[u8] = b"CHILD=";
const FAILED: &[u8] = b"FAILED=";

/// How far another program has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It looks whether it can do the work.
    Checking,
    /// It can, and waits for the process before it to end.
    Able,
    /// It has the mount.
    Going,
    /// It cannot do the work, and is ended.
    Ending,
}

/// A process of another program that is to answer for a mount, as the keeper sees it.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) process: libc::pid_t,
    pub(crate) program: File,
    /// Whoever has asked for it, and waits for an answer.
    pub(crate) asker: OwnedFd,
    pub(crate) stage: Stage,
    channel: File,
    /// Until when it has to have done what it does.
    pub(crate) deadline: Instant,
    /// Why it cannot do the work, in its own words.
    failure: Option<String>,
}

impl Candidate {
    /// Starts `program`, which is to check that it can take over what is `kept`; from a copy
    /// if it is to need no file.
    pub(crate) fn start(
        program: OwnedFd,
        asker: OwnedFd,
        (words, in_memory): (&[OsString], bool),
        (keeper, kept): (&Keeper, &Kept),
        signals: &HeldSignals,
    ) -> io::Result<Self> {
        let program = File::from(program);
        let program = if in_memory { copy_in_memory(&program)? } else { program };
        let (channel, theirs) = sys::message_pair()?;
        if let Some(ledger) = kept.get(LEDGER) {
            pass(&channel, LEDGER, ledger)?;
        }
        pass(&channel, KEEPER, keeper)?;
        if let Some(outside) = confined::outside_root() {
            pass(&channel, OUTSIDE, outside)?;
        }
        (&channel).write_all(CHECK)?;
        let process = match sys::fork()? {
            Forked::Child => {
                signals.release();
                let _ = run(&program, words, Role::Process, theirs);
                sys::exit(NOT_EXECUTED)
            }
            Forked::Parent(process) => process,
        };
        let (stage, deadline) = (Stage::Checking, Instant::now() + PATIENCE);
        Ok(Self { process, program, asker, stage, channel, deadline, failure: None })
    }

    /// What can be read from when it has something to say.
    pub(crate) fn channel(&self) -> &File {
        &self.channel
    }

    /// Hears whether it can do the work.
    pub(crate) fn hear(&mut self) -> Stage {
        let mut message = [0; MESSAGE_LEN];
        let len = (&self.channel).read(&mut message).unwrap_or(0);
        let message = &message[..len];
        if let Some(text) = message.strip_prefix(FAILED) {
            self.failure = Some(String::from_utf8_lossy(text).into_owned());
        }
        self.stage = if message == ABLE { Stage::Able } else { Stage::Ending };
        self.stage
    }

    /// Gives it the mount.
    pub(crate) fn go(&mut self, kept: &Kept) -> io::Result<()> {
        (self.stage, self.deadline) = (Stage::Going, Instant::now() + PATIENCE);
        kept.each(|name, descriptor| pass(&self.channel, name, descriptor))?;
        (&self.channel).write_all(GO)
    }

    /// Why it could not do the work, after it has ended with a code.
    pub(crate) fn why(self, code: i32) -> String {
        self.failure.unwrap_or_else(|| match code {
            NOT_EXECUTED => "it cannot be executed".into(),
            129.. => format!("it was ended by signal {}", code - 128),
            _ => format!("it ended with code {code}"),
        })
    }
}

const MESSAGE_LEN: usize = 1024;

/// What a process ends with that could not go on as the program.
const NOT_EXECUTED: i32 = 127;

/// Sends a descriptor under a name.
fn pass(channel: &File, name: &str, descriptor: impl AsFd) -> io::Result<()> {
    sys::send_message(channel, format!("FDNAME={name}\n").as_bytes(), descriptor.as_fd())
}

/// A copy that needs no filesystem: the process of a system's root may need no file of it.
fn copy_in_memory(program: &File) -> io::Result<File> {
    let mut copy = sys::file_in_memory()?;
    let mut program = program.try_clone()?;
    program.rewind()?;
    io::copy(&mut program, &mut copy)?;
    Ok(copy)
}

/// Goes on as `program`, which finds `channel` as its standard input; returns only if that
/// cannot be.
fn run(
    program: &File,
    words: &[OsString],
    role: Role,
    channel: impl AsFd,
) -> io::Result<Infallible> {
    let invalid = |_| io::ErrorKind::InvalidInput;
    let words = words.iter().map(OsString::as_os_str).chain([OsStr::new(role.word())]);
    let words: Result<Vec<CString>, _> = words.map(|it| CString::new(it.as_bytes())).collect();
    let variables: Result<Vec<CString>, _> = std::env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    let (words, variables) = (words.map_err(invalid)?, variables.map_err(invalid)?);
    sys::replace(0, channel.as_fd())?;
    Err(sys::execute(program, &words, &variables))
}

/// Has this process, the keeper of `child`, go on as `program`; returns why it cannot.
pub(crate) fn become_keeper(
    program: &File,
    words: &[OsString],
    kept: &Kept,
    child: libc::pid_t,
) -> io::Error {
    let attempt = || {
        let (channel, theirs) = sys::message_pair()?;
        kept.each(|name, descriptor| pass(&channel, name, descriptor))?;
        if let Some(outside) = confined::outside_root() {
            pass(&channel, OUTSIDE, outside)?;
        }
        (&channel).write_all(&[GO, CHILD, child.to_string().as_bytes(), b"\n"].concat())?;
        run(program, words, Role::Keeper, theirs)
    };
    match attempt() {
        Ok(never) => match never {},
        Err(err) => err,
    }
}

/// The other end: what a program is given by the keeper that has started it.
#[derive(Debug)]
pub(crate) struct Inheritance {
    channel: File,
    pub(crate) kept: Kept,
}

impl Inheritance {
    /// What comes over standard input.
    pub(crate) fn open() -> io::Result<Self> {
        let channel = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { channel, kept: Kept::default() })
    }

    /// Says whether this program can take over what it was told of until now.
    pub(crate) fn check(&mut self, check: impl FnOnce() -> Result<(), String>) -> io::Result<bool> {
        self.receive(CHECK)?;
        let ledger = self.kept.get(LEDGER).map(|ledger| ledger.try_clone());
        let ledger = ledger.transpose()?.ok_or(io::ErrorKind::NotFound)?;
        let known = Ledger::check(&File::from(ledger)).map_err(|err| err.to_string());
        match known.and_then(|()| check()) {
            Ok(()) => (&self.channel).write_all(ABLE).map(|()| true),
            Err(text) => {
                let mut message = [FAILED, text.as_bytes()].concat();
                message.truncate(MESSAGE_LEN);
                (&self.channel).write_all(&message).map(|()| false)
            }
        }
    }

    /// Waits until it is to begin; returns the process that it is to keep, if it is a keeper.
    pub(crate) fn wait_to_go(&mut self) -> io::Result<Option<libc::pid_t>> {
        let message = self.receive(GO)?;
        let child = message.split(|byte| *byte == b'\n').find_map(|it| it.strip_prefix(CHILD));
        let child = child.map(|text| std::str::from_utf8(text).ok()?.parse().ok());
        match child {
            None => Ok(None),
            Some(child) => child.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }
    }

    /// Takes what comes, up to a message that begins so.
    fn receive(&mut self, last: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            let mut message = [0; MESSAGE_LEN];
            let (len, descriptor) = sys::receive_message(&self.channel, &mut message)?;
            let message = &message[..len];
            if message.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let name = message.strip_prefix(b"FDNAME=").and_then(|it| it.strip_suffix(b"\n"));
            let name = name.and_then(|name| std::str::from_utf8(name).ok());
            match (name, descriptor) {
                (Some(OUTSIDE), Some(root)) => confined::continue_outside_of(root),
                (Some(name), Some(descriptor)) => self.kept.put(name, descriptor),
                _ if message.starts_with(last) => return Ok(message.to_vec()),
                // Of a later version, which can do without.
                _ => {}
            }
        }
    }
}
