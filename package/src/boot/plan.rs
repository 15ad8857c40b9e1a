//! What the boot loader's partition is to have, and getting it there.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cairn_fs::machine::room;
use cairn_store::{BlobHasher, BlobRef, State, Store};

use super::Error;
use super::entry::{Entry, PREFIX, Target};
use super::kernel::{OsRelease, kernels};
use super::loader::loaders;
use super::machine::{Place, local_options};

/// Below the partition of boot loaders: entries, one a file.
const ENTRIES: &str = "loader/entries";

/// Below it: the settings of systemd-boot.
const SETTINGS: &str = "loader/loader.conf";

/// Below it: kernels and initial file systems, one directory a version.
const KERNELS: &str = "cairn";

/// How an interrupted write is called.
const UNFINISHED: &str = ".cairn-new";

/// What entries are made for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where they go.
    pub place: Place,
    /// How many states older than the current one have entries.
    pub older: usize,
    /// What each command line has, before what kernels want.
    pub machine: String,
    /// The machine's own parts of command lines, `*.cmdline` (kernel-install(8)).
    pub local: PathBuf,
}

/// A file that the partition is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it lies.
    pub path: PathBuf,
    /// What is in it.
    content: Content,
    /// Whether it has to be written.
    pub is_new: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Text(String),
    Blob(BlobRef),
}

/// What is to be done so that a boot loader offers the current state and older ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The entries, in the order of the menu.
    pub entries: Vec<Entry>,
    /// All files, in the order in which they are written: an entry comes after what it
    /// names.
    pub files: Vec<File>,
    /// What goes, in this order: an entry before what it names.
    pub stale: Vec<PathBuf>,
    boot: PathBuf,
}

impl Plan {
    /// Finds out what has to be done, and does nothing.
    ///
    /// A blob that has its file is hashed where its length is right: a partition of FAT
    /// has no checksums, and a kernel that is damaged does not boot.
    ///
    /// # Errors
    /// [`Error::NoKernel`]; [`Error::Store`], also [`cairn_store::Error::NoState`];
    /// [`Error::Read`]; [`Error::NoRoom`].
    pub fn new(store: &Store, options: &Options) -> Result<Self, Error> {
        let refs = store.refs();
        let current = refs.current.ok_or(cairn_store::Error::NoState)?;
        let older = refs.states.values().rev().filter(|state| state.id < current);
        let states = refs.states.get(&current).into_iter().map(|state| (Target::Current, state));
        let states =
            states.chain(older.take(options.older).map(|state| (Target::State(state.id), state)));
        let machine = [options.machine.clone(), local_options(&options.local)?].join(" ");
        let boot = &options.place.boot;
        let mut plan =
            Self { entries: Vec::new(), files: Vec::new(), stale: Vec::new(), boot: boot.clone() };
        let mut texts = Vec::new();
        for (target, state) in states {
            plan.add(store, target, state, &machine, &mut texts)?;
        }
        let Some(first) = plan.entries.first() else { return Err(Error::NoKernel) };
        let current = refs.states.get(&first.state.id).cloned();
        plan.files.append(&mut texts);
        if let Some(state) = current.filter(|_| first.target == Target::Current) {
            plan.add_loader(store, &state, &options.place)?;
        }
        plan.find_stale()?;
        plan.check_room()?;
        Ok(plan)
    }

    /// Adds the entries of one state; what is written of them comes into `texts`, since all
    /// kernels come before all entries.
    fn add(
        &mut self,
        store: &Store,
        target: Target,
        state: &State,
        machine: &str,
        texts: &mut Vec<File>,
    ) -> Result<(), Error> {
        let system = OsRelease::of(store, state.tree)?;
        for kernel in kernels(store, state.tree)? {
            let image = self.add_blob("vmlinuz", &kernel.version, &kernel.image)?;
            let initrds = kernel.initrds.iter();
            let initrds = initrds
                .map(|(name, blob)| self.add_blob(name, &kernel.version, blob))
                .collect::<Result<Vec<_>, _>>()?;
            let entry = Entry::new(target, state, &system, kernel, machine);
            let text = entry.text(&system, &image, &initrds);
            let path = self.boot.join(ENTRIES).join(&entry.name);
            texts.push(File::with_text(path, text)?);
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Adds a file that belongs to a kernel; returns its path as the boot loader sees it.
    ///
    /// Its name has a part of its hash: kernels of one version that differ do not meet, and
    /// states that share one share its copy.
    fn add_blob(&mut self, name: &str, version: &str, blob: &BlobRef) -> Result<String, Error> {
        let key = blob.key.to_string();
        let below = format!("{KERNELS}/{version}/{}-{name}", &key[..key.len().min(16)]);
        self.add_copy(self.boot.join(&below), blob)?;
        Ok(format!("/{below}"))
    }

    fn add_copy(&mut self, path: PathBuf, blob: &BlobRef) -> Result<(), Error> {
        if self.files.iter().all(|file| file.path != path) {
            let is_new = !has(&path, blob)?;
            self.files.push(File { path, content: Content::Blob(*blob), is_new });
        }
        Ok(())
    }

    /// Adds the boot loader of the current state, if it has one, and the setting that what
    /// is current is booted; other settings stay as they are.
    fn add_loader(&mut self, store: &Store, state: &State, place: &Place) -> Result<(), Error> {
        for loader in loaders(store, state.tree, &place.esp)? {
            for path in loader.paths {
                self.add_copy(place.esp.join(path), &loader.blob)?;
            }
        }
        let path = place.boot.join(SETTINGS);
        let old = read(&path)?.unwrap_or_default();
        let is_other = |line: &&str| line.split_whitespace().next() != Some("default");
        let mut text = format!("default {}\n", self.entries[0].name);
        old.lines().filter(is_other).for_each(|line| text = format!("{text}{line}\n"));
        self.files.push(File::with_text(path, text)?);
        Ok(())
    }

    /// Finds what earlier calls have written and nothing names any more.
    fn find_stale(&mut self) -> Result<(), Error> {
        let wanted: BTreeSet<&Path> = self.files.iter().map(|file| file.path.as_path()).collect();
        let mut stale = Vec::new();
        for path in list(&self.boot.join(ENTRIES))? {
            let is_ours = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
            if is_ours && !wanted.contains(path.as_path()) {
                stale.push(path);
            }
        }
        for version in list(&self.boot.join(KERNELS))? {
            let files = if version.is_dir() { list(&version)? } else { Vec::new() };
            let is_used = files.iter().any(|path| wanted.contains(path.as_path()));
            stale.extend(files.into_iter().filter(|path| !wanted.contains(path.as_path())));
            if !is_used {
                stale.push(version);
            }
        }
        self.stale = stale;
        Ok(())
    }

    /// Everything new has to fit beside what is there: what is stale goes afterwards.
    fn check_room(&self) -> Result<(), Error> {
        let path = &self.boot;
        let needed = self.files.iter().filter(|file| file.is_new).map(File::size).sum();
        let room = room(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        if room.free < needed {
            return Err(Error::NoRoom { path: path.clone(), free: room.free, needed });
        }
        Ok(())
    }

    /// Whether nothing has to be done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stale.is_empty() && !self.files.iter().any(|file| file.is_new)
    }

    /// Does it. Whatever interrupts it, each entry that is there names files that are there
    /// as a whole.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Store`].
    pub fn carry_out(&self, store: &Store) -> Result<(), Error> {
        for file in self.files.iter().filter(|file| file.is_new) {
            file.write(store)?;
        }
        for path in &self.stale {
            let failed = |source| Error::Write { path: path.clone(), source };
            let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
            removed.map_err(failed)?;
            sync_parent(path).map_err(failed)?;
        }
        Ok(())
    }
}

impl File {
    fn with_text(path: PathBuf, text: String) -> Result<Self, Error> {
        let is_new = read(&path)?.as_deref() != Some(&text);
        Ok(Self { path, content: Content::Text(text), is_new })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Text(text) => text.len() as u64,
            Content::Blob(blob) => blob.size,
        }
    }

    /// Writes it beside, and puts it in its place when it is durable.
    fn write(&self, store: &Store) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.path.clone(), source };
        let parent = self.path.parent().unwrap_or(&self.path);
        make_directories(parent).map_err(failed)?;
        let mut unfinished = self.path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let mut out = fs::File::create(&unfinished).map_err(failed)?;
        let written = match &self.content {
            Content::Text(text) => out.write_all(text.as_bytes()).map_err(failed),
            Content::Blob(blob) => write_blob(store, blob, &mut out, failed),
        };
        let done = written.and_then(|()| {
            out.sync_all().map_err(failed)?;
            fs::rename(&unfinished, &self.path).map_err(failed)?;
            sync_parent(&self.path).map_err(failed)
        });
        if done.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        done
    }
}

fn write_blob(
    store: &Store,
    blob: &BlobRef,
    out: &mut fs::File,
    failed: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    let mut hasher = BlobHasher::default();
    let mut wrong = None;
    store.write_to(blob, |piece| {
        hasher.update(piece);
        if wrong.is_none() {
            wrong = out.write_all(piece).err();
        }
        Ok(())
    })?;
    if let Some(err) = wrong {
        return Err(failed(err));
    }
    if hasher.finish() != *blob {
        return Err(cairn_store::Error::DamagedBlob { key: blob.key }.into());
    }
    Ok(())
}

/// Whether a file has these bytes already.
fn has(path: &Path, blob: &BlobRef) -> Result<bool, Error> {
    let failed = |source| Error::Read { path: path.into(), source };
    match fs::metadata(path) {
        Ok(found) if found.len() == blob.size => {}
        Err(err) if !is_missing(&err) => return Err(failed(err)),
        _ => return Ok(false),
    }
    let mut hasher = BlobHasher::default();
    let mut file = fs::File::open(path).map_err(failed)?;
    let mut buf = vec![0; 1 << 20];
    loop {
        let len = io::Read::read(&mut file, &mut buf).map_err(failed)?;
        if len == 0 {
            return Ok(hasher.finish() == *blob);
        }
        hasher.update(&buf[..len]);
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into())),
        Err(err) if is_missing(&err) => Ok(None),
        Err(source) => Err(Error::Read { path: path.into(), source }),
    }
}

/// What a directory has, in order; nothing if it is missing.
fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read { path: directory.into(), source };
    let entries = match fs::read_dir(directory) {
        Err(err) if is_missing(&err) => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

fn is_missing(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn make_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        make_directories(parent)?;
    }
    fs::create_dir(directory)?;
    sync_parent(directory)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}
