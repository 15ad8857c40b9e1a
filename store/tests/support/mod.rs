//! A disk that loses what was not synced.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod document;
pub mod model;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use cairn_store::disk::{Disk, DiskFile, RealDisk};

/// What a faulty disk forgets to do, to prove that a test would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omitted {
    Nothing,
    FileSyncs,
    DirectorySyncs,
    FilesystemSyncs,
    /// The sync of this number; the first is 0.
    Sync(usize),
}

/// What becomes of changes that were not synced when the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// All are lost.
    All,
    /// None is lost.
    None,
    /// Each is lost, kept or torn, as the seed decides.
    Some(u64),
}

/// A directory whose changes go through to the real one, while it is recorded
/// what of them would survive a power cut. After a number of steps every
/// operation fails, as if the power were gone.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    root: PathBuf,
    omitted: Omitted,
    time: Option<SystemTime>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    steps_left: usize,
    steps_done: usize,
    /// After how many steps each sync was asked for, itself included.
    syncs: Vec<usize>,
    files: Vec<Content>,
    directories: BTreeMap<PathBuf, Names>,
}

/// Bytes of a file as they are and as they are durable.
#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// Names of a directory; a directory below is `None`.
#[derive(Clone, Debug, Default)]
struct Names {
    now: BTreeMap<String, Option<usize>>,
    durable: BTreeMap<String, Option<usize>>,
}

impl FaultyDisk {
    /// Takes what lies in `root` as durable, and fails after `steps`.
    pub fn over(root: &Path, steps: usize, omitted: Omitted) -> Self {
        let mut shared = Shared {
            steps_left: steps,
            steps_done: 0,
            syncs: Vec::new(),
            files: Vec::new(),
            directories: BTreeMap::new(),
        };
        shared.load(root, Path::new(""));
        Self { root: root.into(), omitted, time: None, shared: Arc::new(Mutex::new(shared)) }
    }

    /// The same disk in a machine whose clock stands still.
    pub fn at(self, time: SystemTime) -> Self {
        Self { time: Some(time), ..self }
    }

    /// How many steps were taken.
    pub fn steps_done(&self) -> usize {
        self.shared.lock().unwrap().steps_done
    }

    /// After how many steps each sync was asked for, itself included.
    pub fn syncs(&self) -> Vec<usize> {
        self.shared.lock().unwrap().syncs.clone()
    }

    /// Counts a sync; whether it is one of those to leave out.
    fn omits(&self, shared: &mut Shared, kind: Omitted) -> bool {
        let (number, steps) = (shared.syncs.len(), shared.steps_done);
        shared.syncs.push(steps);
        self.omitted == kind || self.omitted == Omitted::Sync(number)
    }

    /// Writes to `target` what is found after the power came back.
    pub fn restart(&self, target: &Path, loss: Loss) {
        let shared = self.shared.lock().unwrap();
        let mut random = Random(match loss {
            Loss::Some(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        });
        shared.restore(Path::new(""), target, loss, &mut random);
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).expect("inside the store").into()
    }

    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, Shared>> {
        let mut shared = self.shared.lock().unwrap();
        if shared.steps_left == 0 {
            return Err(io::Error::other("the power is gone"));
        }
        shared.steps_left -= 1;
        shared.steps_done += 1;
        Ok(shared)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

impl Shared {
    fn load(&mut self, root: &Path, relative: &Path) {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(root.join(relative)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if relative == Path::new("") && name == "index" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                self.load(root, &relative.join(&name));
                names.insert(name, None);
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                self.files.push(Content { now: bytes.clone(), durable: bytes });
                names.insert(name, Some(self.files.len() - 1));
            }
        }
        self.directories.insert(relative.into(), Names { now: names.clone(), durable: names });
    }

    fn names(&mut self, path: &Path) -> (&mut Names, String) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (self.directories.get_mut(path.parent().unwrap()).expect("a known directory"), name)
    }

    fn restore(&self, relative: &Path, target: &Path, loss: Loss, random: &mut Random) {
        fs::create_dir_all(target).unwrap();
        let names = &self.directories[relative];
        let mut survives = match loss {
            Loss::All => names.durable.clone(),
            Loss::None => names.now.clone(),
            Loss::Some(_) => {
                let mut some = names.durable.clone();
                let changed: Vec<&String> = names.now.keys().chain(names.durable.keys()).collect();
                for name in changed {
                    if random.below(2) == 0 {
                        match names.now.get(name) {
                            Some(file) => some.insert(name.clone(), *file),
                            None => some.remove(name),
                        };
                    }
                }
                some
            }
        };
        survives.retain(|name, file| {
            let path = target.join(name);
            match file {
                None => self.restore(&relative.join(name), &path, loss, random),
                Some(file) => {
                    let Content { now, durable } = &self.files[*file];
                    let bytes = match loss {
                        Loss::All => durable.clone(),
                        Loss::None => now.clone(),
                        Loss::Some(_) => match random.below(4) {
                            0 => durable.clone(),
                            1 => now.clone(),
                            2 => torn(durable, now, random),
                            // The length was written, the bytes were not.
                            _ => {
                                let mut bytes = durable.clone();
                                bytes.resize(now.len(), 0);
                                bytes
                            }
                        },
                    };
                    fs::write(path, bytes).unwrap();
                }
            }
            true
        });
    }
}

/// Some sectors of the new bytes, the others as they were.
fn torn(durable: &[u8], now: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = durable.to_vec();
    bytes.resize(now.len(), 0);
    for (at, sector) in bytes.chunks_mut(512).enumerate() {
        if random.below(2) == 0 {
            let from = at * 512;
            sector.copy_from_slice(&now[from..from + sector.len()]);
        }
    }
    bytes
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut shared = self.step()?;
        let file = RealDisk.create(path)?;
        shared.files.push(Content::default());
        let id = shared.files.len() - 1;
        let (names, name) = shared.names(&self.relative(path));
        names.now.insert(name, Some(id));
        Ok(Box::new(FaultyFile { disk: self.clone(), id, file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut shared = self.step()?;
        let file = RealDisk.open(path)?;
        let (names, name) = shared.names(&self.relative(path));
        let id = names.now[&name].expect("a file");
        Ok(Box::new(FaultyFile { disk: self.clone(), id, file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut shared = self.step()?;
        RealDisk.rename(from, to)?;
        let (names, name) = shared.names(&self.relative(from));
        let file = names.now.remove(&name).expect("a file");
        let (names, name) = shared.names(&self.relative(to));
        names.now.insert(name, file);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut shared = self.step()?;
        RealDisk.link(from, to)?;
        let (names, name) = shared.names(&self.relative(from));
        let file = names.now[&name];
        let (names, name) = shared.names(&self.relative(to));
        names.now.insert(name, file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut shared = self.step()?;
        RealDisk.remove(path)?;
        let (names, name) = shared.names(&self.relative(path));
        names.now.remove(&name);
        Ok(())
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut shared = self.step()?;
        RealDisk.create_directory(path)?;
        let relative = self.relative(path);
        shared.directories.entry(relative.clone()).or_default();
        let (names, name) = shared.names(&relative);
        names.now.insert(name, None);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut shared = self.step()?;
        if !self.omits(&mut shared, Omitted::DirectorySyncs) {
            let relative = self.relative(path);
            let names = shared.directories.get_mut(&relative).expect("a known directory");
            names.durable = names.now.clone();
        }
        Ok(())
    }

    fn sync_filesystem(&self, _: &Path) -> io::Result<()> {
        let mut shared = self.step()?;
        if !self.omits(&mut shared, Omitted::FilesystemSyncs) {
            shared.files.iter_mut().for_each(|file| file.durable.clone_from(&file.now));
            shared.directories.values_mut().for_each(|dir| dir.durable = dir.now.clone());
        }
        Ok(())
    }

    fn now(&self) -> SystemTime {
        self.time.unwrap_or_else(SystemTime::now)
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    id: usize,
    file: Box<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut shared = self.disk.step()?;
        self.file.write_at(bytes, offset)?;
        let now = &mut shared.files[self.id].now;
        let from = usize::try_from(offset).unwrap();
        now.resize(now.len().max(from + bytes.len()), 0);
        now[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut shared = self.disk.step()?;
        self.file.set_len(len)?;
        shared.files[self.id].now.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut shared = self.disk.step()?;
        if !self.disk.omits(&mut shared, Omitted::FileSyncs) {
            let file = &mut shared.files[self.id];
            file.durable.clone_from(&file.now);
        }
        Ok(())
    }
}

/// Copies a directory with all below it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A temporary directory in memory where there is one: what is durable is told
/// by [`FaultyDisk`], and the real disk would only be slow.
pub fn fast_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
