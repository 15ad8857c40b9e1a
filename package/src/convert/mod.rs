//! Debian packages as stones.
//!
//! | want | use |
//! |---|---|
//! | one package | [`Converter::convert`] |
//! | a set of packages that need each other | [`Converter::convert_all`] |
//! | dependencies on packages that are elsewhere | [`Known`] |
//! | what an index of Debian's says of its packages | [`Converter::describe_index`] |
//!
//! A conversion keeps what the package says and has: names, relations, modes,
//! owners, times, links, devices and extended attributes. It moves /bin, /lib
//! and their like below /usr and configuration below /usr/share/defaults/etc.
//! It never runs the package's scripts, and says which there are.
//!
//! Rules: docs/convert.md.

mod analyse;
mod archive;
mod batch;
mod container;
mod control;
mod deb;
mod describe;
mod error;
mod files;
#[cfg(test)]
mod fixture;
mod known;
mod license;
mod owner;
mod packages;
mod place;
mod relation;
mod stamp;
#[cfg(test)]
mod tests;
mod triggers;
mod version;

pub use batch::Progress;
pub use control::InvalidParagraph;
pub use deb::Script;
pub use error::{EntryProblem, Error, Problem};
pub use known::Known;
pub use version::InvalidVersion;

use std::collections::BTreeSet;
use std::io::{BufWriter, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::metadata::Metadata;
use crate::stone::{Builder, Encoding};

use deb::{Deb, Observer};
use describe::Described;
use files::{Content, Files};

/// Turns Debian packages into stones.
///
/// The bytes of a stone depend only on the package, on these settings but
/// `threads`, and on the versions of this crate and the zstd library.
#[derive(Clone, Debug)]
pub struct Converter {
    /// What packages for all architectures become, such as `x86_64`.
    pub architecture: String,
    /// Of zstd: 1 to 22.
    pub level: i32,
    /// How many threads are used.
    pub threads: NonZeroUsize,
    /// Packages that exist beside those that are converted.
    pub known: Known,
    /// What becomes of a dependency that nothing known satisfies.
    pub missing: Missing,
    /// Whether packages get triggers for the well-known tools in them.
    pub adds_triggers: bool,
}

/// What becomes of a dependency none of whose alternatives is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// It stays, on its first alternative: the package can be installed once
    /// something offers that.
    #[default]
    Keep,
    /// It goes: the package can be installed, and may not work.
    Drop,
}

/// A Debian package as a stone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the stone says of itself.
    pub metadata: Metadata,
    /// The stone.
    pub path: PathBuf,
    /// Length of the Debian package in bytes.
    pub deb_size: u64,
    /// Length of the stone in bytes.
    pub stone_size: u64,
    /// Bytes of all its unique files together.
    pub plain_size: u64,
    /// Whether the stone was there already.
    pub was_there: bool,
    /// What would have run while dpkg installs or removes the package, and
    /// never does here.
    pub scripts: Vec<Script>,
    /// Dependencies, as Debian writes them, of which no alternative is known;
    /// [`Missing`] says what became of them.
    pub unmet: Vec<String>,
    /// Conflicts, as Debian writes them, that a stone cannot express: with
    /// some versions of a package, or with all others that provide the same.
    pub ignored_conflicts: Vec<String>,
    /// Whether Debian's packages take this one for granted, so that they use
    /// it without a dependency.
    pub is_essential: bool,
}

/// The most plain bytes of all files of a package.
const MAX_DATA_LEN: u64 = 16 << 30;

impl Converter {
    /// A converter with fast compression (zstd's level 3) that knows no
    /// package beside those that it converts, and uses one thread.
    #[must_use]
    pub fn new(architecture: impl Into<String>) -> Self {
        Self {
            architecture: architecture.into(),
            level: 3,
            threads: NonZeroUsize::MIN,
            known: Known::default(),
            missing: Missing::default(),
            adds_triggers: true,
        }
    }

    /// Converts one package into a stone in the directory `to`, under its
    /// usual name.
    ///
    /// An older stone of that name is replaced at once and as a whole. If it
    /// was made from the same bytes with the same result, and is undamaged, it
    /// stays ([`Outcome::was_there`]); that costs reading both files.
    ///
    /// Costs the plain bytes of the package in an unnamed file in `to`.
    ///
    /// # Errors
    /// Whatever is wrong with the package, or with `to`; then no stone has been
    /// written or replaced.
    pub fn convert(&self, deb: &Path, to: &Path) -> Result<Outcome, Error> {
        let convert = || self.convert_opened(&Deb::open(deb)?, to, &());
        convert().map_err(|problem| Error { deb: deb.into(), problem })
    }

    fn convert_opened(
        &self,
        deb: &Deb,
        to: &Path,
        observer: &dyn Observer,
    ) -> Result<Outcome, Problem> {
        let Described { mut metadata, unmet, ignored_conflicts, is_essential } =
            describe::describe(&deb.control, self)?;
        let path = to.join(file_name(&metadata));
        let stamp = stamp::stamp(deb, &metadata, (self.level, self.adds_triggers))?;
        let mut outcome = Outcome {
            metadata: Metadata::default(),
            path,
            deb_size: deb.size,
            stone_size: 0,
            plain_size: 0,
            was_there: false,
            scripts: deb.scripts.clone(),
            unmet,
            ignored_conflicts,
            is_essential,
        };
        if let Some(there) = stamp::find(&outcome.path, &stamp, to, self.threads) {
            (outcome.metadata, outcome.was_there) = (there.metadata, true);
            (outcome.stone_size, outcome.plain_size) = (there.stone_size, there.plain_size);
            return Ok(outcome);
        }

        let files = Files::unpack(deb.data(MAX_DATA_LEN, observer)?, deb.data_name(), to)?;
        metadata.provides.extend(analyse::providers(&files));
        metadata.licenses = licenses(&files, &metadata)?;
        let mut builder = Builder::new(metadata);
        builder.layout = files.layout();
        builder.attributes.push(stamp);
        if self.adds_triggers {
            triggers::add(&files, &mut builder)?;
        }
        for entry in &files.entries {
            if let Content::File(bytes) = &entry.content {
                builder.add_hashed(bytes.blob, files.source(bytes))?;
            }
        }
        outcome.plain_size = files.unique_size();
        outcome.stone_size = self.write(&builder, &outcome.path, to)?;
        outcome.metadata = builder.metadata;
        Ok(outcome)
    }

    /// Writes the stone under a temporary name, and gives it its own at the
    /// end; returns its length.
    fn write(&self, builder: &Builder, path: &Path, directory: &Path) -> Result<u64, Problem> {
        let failed = |source| Problem::Write { path: path.into(), source };
        let mode = std::fs::Permissions::from_mode(0o666);
        let mut file = tempfile::Builder::new()
            .prefix(".convert-")
            .suffix(".part")
            .permissions(mode)
            .tempfile_in(directory)
            .map_err(failed)?;
        let mut buffered = BufWriter::with_capacity(128 << 10, file.as_file_mut());
        let encoding = Encoding::Fast { level: self.level, threads: self.threads };
        builder.write(encoding, &mut buffered)?;
        buffered.flush().map_err(failed)?;
        drop(buffered);
        let size = file.as_file().metadata().map_err(failed)?.len();
        file.persist(path).map_err(|err| failed(err.error))?;
        Ok(size)
    }
}

/// The usual name of a stone with the colon of a Debian epoch replaced, which
/// would make a scheme out of the beginning of a relative URI.
fn file_name(metadata: &Metadata) -> String {
    metadata.file_name().replace(':', "_")
}

/// The licences of the package's own `copyright` file, or a reference to it.
fn licenses(files: &Files, metadata: &Metadata) -> Result<BTreeSet<String>, Problem> {
    let path = format!("/usr/share/doc/{}/copyright", metadata.name);
    let mut text = Vec::new();
    if let Some(bytes) = files.find(path.as_bytes()) {
        let read = files.reader(bytes).take(4 << 20).read_to_end(&mut text);
        read.map_err(Problem::Read)?;
    }
    let mut licenses = license::of_copyright(&String::from_utf8_lossy(&text));
    if licenses.is_empty() {
        licenses.insert(license::unread(&metadata.source_id));
    }
    Ok(licenses)
}
