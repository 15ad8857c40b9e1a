//! A Debian package, opened: what its control archive has, and where its data
//! archive is.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use cairn_store::archive::EntryProblem::Twice;
use cairn_store::{BlobHasher, Digest};

use super::archive::{self, Kind};
use super::container::Container;
use super::control::Paragraph;
use super::describe;
use super::error::Problem;

/// A Debian package.
#[derive(Debug)]
pub(super) struct Deb {
    pub(super) control: Paragraph,
    /// Sorted.
    pub(super) scripts: Vec<Script>,
    /// Length in bytes.
    pub(super) size: u64,
    file: File,
    container: Container,
}

/// What a package brings along to be run or obeyed while dpkg installs or
/// removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Script {
    /// Asks questions before everything else.
    Config,
    /// Runs before the files come.
    PreInst,
    /// Runs after the files came.
    PostInst,
    /// Runs before the files go.
    PreRm,
    /// Runs after the files went.
    PostRm,
    /// Names what other packages' scripts are to be run for, or what this one
    /// wants to be told of.
    Triggers,
}

impl Script {
    /// Every kind, in order.
    pub const ALL: [Self; 6] =
        [Self::Config, Self::PreInst, Self::PostInst, Self::PreRm, Self::PostRm, Self::Triggers];

    /// The name of its file in the control archive.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::PreInst => "preinst",
            Self::PostInst => "postinst",
            Self::PreRm => "prerm",
            Self::PostRm => "postrm",
            Self::Triggers => "triggers",
        }
    }
}

/// Shows the name of the file.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The most plain bytes of a control archive. Mostly the list of checksums,
/// which has 2 MiB for the kernel's headers.
const MAX_CONTROL_LEN: u64 = 64 << 20;

/// The most bytes of the `control` file itself.
const MAX_FIELDS_LEN: u64 = 1 << 20;

impl Deb {
    /// Reads the control archive of the package at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Problem> {
        let file = File::open(path).map_err(Problem::Read)?;
        let size = file.metadata().map_err(Problem::Read)?.len();
        let container = Container::read(&file)?;
        let member = &container.control;
        let unpack = |source| Problem::Unpack { member: member.name.clone(), source };
        let tar = member.compression.reader(member.reader(&file), MAX_CONTROL_LEN);

        let mut paths = BTreeSet::new();
        let mut control = None;
        let mut scripts = Vec::new();
        archive::read(tar.map_err(unpack)?, &member.name, |entry, bytes| {
            if !paths.insert(entry.path.clone()) {
                let (member, entry) = (member.name.clone(), entry.path.to_bytes());
                return Err(Problem::Entry { member, entry, source: Twice.into() });
            }
            let ([name], Kind::File(size)) = (entry.path.names(), &entry.kind) else {
                return Ok(());
            };
            if name.as_bytes() == b"control" {
                if *size > MAX_FIELDS_LEN {
                    return Err(unpack(io::ErrorKind::FileTooLarge.into()));
                }
                let mut text = Vec::new();
                bytes.read_to_end(&mut text).map_err(unpack)?;
                control = Some(text);
            }
            let is_name = |script: &&Script| script.name().as_bytes() == name.as_bytes();
            scripts.extend(Script::ALL.iter().find(is_name));
            Ok(())
        })?;
        scripts.sort();
        let control = describe::read_control(&control.ok_or(Problem::NoControl)?)?;
        Ok(Self { control, scripts, size, file, container })
    }

    /// Hashes the whole package.
    pub(super) fn digest(&self) -> Result<Digest, Problem> {
        let mut hasher = BlobHasher::default();
        let mut file = &self.file;
        let mut buf = vec![0; 128 << 10];
        file.rewind().map_err(Problem::Read)?;
        loop {
            match file.read(&mut buf).map_err(Problem::Read)? {
                0 => return Ok(hasher.finish().digest),
                len => hasher.update(&buf[..len]),
            }
        }
    }

    /// The plain bytes of the data archive, of which more than `limit` are an
    /// error. `observer` is told of stored bytes as they are read.
    pub(super) fn data<'a>(
        &'a self,
        limit: u64,
        observer: &'a dyn Observer,
    ) -> Result<impl Read + use<'a>, Problem> {
        let member = &self.container.data;
        let stored = Observed { inner: member.reader(&self.file), observer };
        let plain = member.compression.reader(stored, limit);
        plain.map_err(|source| Problem::Unpack { member: member.name.clone(), source })
    }

    /// What the data archive is called, such as `data.tar.xz`.
    pub(super) fn data_name(&self) -> &str {
        &self.container.data.name
    }
}

/// Is told of bytes as they are read.
pub(super) trait Observer {
    fn read(&self, bytes: u64);
}

/// Nobody wants to know.
impl Observer for () {
    fn read(&self, _: u64) {}
}

struct Observed<'a, R> {
    inner: R,
    observer: &'a dyn Observer,
}

impl<R: Read> Read for Observed<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.observer.read(len as u64);
        Ok(len)
    }
}
