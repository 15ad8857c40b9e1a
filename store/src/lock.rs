//! One writer at a time, and who it is.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, is_full};

/// The right to change a store, until dropped or until the process ends.
///
/// The kernel releases the lock with the process, whatever ends it; the file
/// itself stays.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever comes next has not said who it is as soon as it has the lock.
        let _ = self.0.set_len(0);
        // Closing would leave the lock with a child that another thread has just
        // forked and that has not come to its exec(2) yet.
        let _ = self.0.unlock();
    }
}

/// What the writer's lock is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A change of states or tags. Others are told who makes it, and do not wait.
    Change,
    /// Something that no user asked for and that changes nothing that one sees: steps of a
    /// collection, an index that is healed. Others wait until it is done.
    Upkeep,
}

/// The file that the one writer locks.
const WRITER: &str = "run/lock";
/// The file that the one collector locks, who takes the writer's lock several
/// times, and each time gives it away soon.
const COLLECTOR: &str = "run/gc.lock";
/// The file that the one who takes states of other stores locks.
const PULLER: &str = "run/pull.lock";

/// The second line of a lock's file that is held for [`Purpose::Upkeep`].
const UPKEEP: &str = "upkeep";

/// How long upkeep is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a holder is waited for that has not said who it is.
const UNSIGNED: Duration = Duration::from_millis(200);

impl Lock {
    /// Takes the writer's lock, or says who has it. Upkeep is waited for.
    pub(crate) fn take(store: &Path, purpose: Purpose) -> Result<Self> {
        let begun = Instant::now();
        let mut seen = None;
        loop {
            let (path, mut file) = open(store, WRITER)?;
            if try_lock(&path, &file)? {
                return Self::sign(path, file, purpose);
            }
            let now = Signature::read(&mut file);
            let patience = match &now {
                Some(holder) if holder.is_upkeep => PATIENCE,
                // One that was killed leaves its name to whoever has the lock next.
                Some(_) if seen == now => Duration::ZERO,
                Some(_) | None => UNSIGNED,
            };
            if begun.elapsed() >= patience {
                return Err(locked(store, now));
            }
            seen = now;
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes the writer's lock as soon as whoever has it lets it go.
    pub(crate) fn wait(store: &Path, purpose: Purpose) -> Result<Self> {
        let (path, file) = open(store, WRITER)?;
        undisturbed(|| file.lock()).map_err(Error::io(&path))?;
        Self::sign(path, file, purpose)
    }

    /// Takes the lock of whoever pulls, or says who has it.
    pub(crate) fn take_puller(store: &Path) -> Result<Self> {
        Self::try_file(store, PULLER)
    }

    /// Takes the collector's lock, or says who has it.
    pub(crate) fn take_collector(store: &Path) -> Result<Self> {
        Self::try_file(store, COLLECTOR)
    }

    fn try_file(store: &Path, name: &str) -> Result<Self> {
        let (path, mut file) = open(store, name)?;
        if try_lock(&path, &file)? {
            return Self::sign(path, file, Purpose::Change);
        }
        Err(locked(store, Signature::read(&mut file)))
    }

    /// Says who has the lock, and what for.
    fn sign(path: PathBuf, mut file: File, purpose: Purpose) -> Result<Self> {
        let program = std::env::args_os()
            .map(|arg| arg.to_string_lossy().escape_debug().to_string())
            .take(8)
            .collect::<Vec<_>>()
            .join(" ");
        let mut text = format!("{} {program}\n", std::process::id());
        if purpose == Purpose::Upkeep {
            text.push_str(UPKEEP);
            text.push('\n');
        }
        let signed = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()));
        match signed {
            // What it says is for people, and room can be made only by who has it.
            Err(err) if !is_full(&err) => Err(Error::io(&path)(err)),
            _ => Ok(Self(file)),
        }
    }
}

fn open(store: &Path, name: &str) -> Result<(PathBuf, File)> {
    let path = store.join(name);
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = match open() {
        // Copies of a store may lack what only running processes need.
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let directory = store.join("run");
            std::fs::create_dir(&directory).map_err(Error::io(&directory))?;
            open()
        }
        result => result,
    };
    let file = file.map_err(Error::io(&path))?;
    Ok((path, file))
}

/// Goes on when a signal interrupts `call`.
fn undisturbed<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Takes the lock of `file` if nobody has it.
fn try_lock(path: &Path, file: &File) -> Result<bool> {
    let tried = undisturbed(|| match file.try_lock() {
        Err(TryLockError::Error(err)) => Err(err),
        Err(TryLockError::WouldBlock) => Ok(false),
        Ok(()) => Ok(true),
    });
    tried.map_err(Error::io(path))
}

fn locked(store: &Path, holder: Option<Signature>) -> Error {
    let Writer { pid, command } = holder.map(|it| it.writer).unwrap_or_default();
    Error::Locked { store: store.into(), pid, command }
}

/// What the file of a lock says of its holder.
#[derive(Debug, PartialEq, Eq)]
struct Signature {
    writer: Writer,
    is_upkeep: bool,
}

impl Signature {
    /// `None` if the holder has not written all of it yet.
    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
        let (first, rest) = text.split_once('\n')?;
        let (pid, command) = first.split_once(' ')?;
        let writer = Writer { pid: pid.parse().ok()?, command: command.into() };
        Some(Self { writer, is_upkeep: rest.trim_end() == UPKEEP })
    }
}

/// Who has the writer's lock of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its process; 0 while it has not said so yet.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

impl Default for Writer {
    fn default() -> Self {
        Self { pid: 0, command: "unknown".into() }
    }
}

/// Who changes the store in `store` just now, as far as the kernel tells.
///
/// The lock is not tried, which would keep others from it for an instant.
pub fn writer(store: &Path) -> Option<Writer> {
    let mut file = File::open(store.join(WRITER)).ok()?;
    let number = format!(":{}", file.metadata().ok()?.ino());
    // "1: FLOCK  ADVISORY  WRITE 812 fe:01:1835011 0 EOF"; see proc_locks(5).
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let is_ours = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"FLOCK") && fields.get(5).is_some_and(|it| it.ends_with(&number))
    };
    let is_held = locks.lines().any(is_ours);
    is_held.then(|| Signature::read(&mut file).map(|it| it.writer).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> tempfile::TempDir {
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join("run")).unwrap();
        store
    }

    #[test]
    fn who_writes_is_told_without_the_lock() {
        let store = store();
        assert_eq!(writer(store.path()), None);
        let lock = Lock::take(store.path(), Purpose::Change).unwrap();
        assert_eq!(writer(store.path()).map(|it| it.pid), Some(std::process::id()));
        drop(lock);
        assert_eq!(writer(store.path()), None);
    }

    #[test]
    fn the_second_writer_is_told_of_the_first() {
        let store = store();
        let first = Lock::take(store.path(), Purpose::Change).unwrap();
        match Lock::take(store.path(), Purpose::Change) {
            Err(Error::Locked { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(first);
        Lock::take(store.path(), Purpose::Change).unwrap();
    }

    #[test]
    fn upkeep_is_waited_for() {
        let store = store();
        let upkeep = Lock::wait(store.path(), Purpose::Upkeep).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| Lock::take(store.path(), Purpose::Change).map(drop));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!writer.is_finished());
            drop(upkeep);
            writer.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_holder_is_known_by_what_it_says_itself() {
        let store = store();
        let path = store.path().join(WRITER);
        // Locked by one that says nothing yet, in a file that tells of one that was killed.
        for left in ["", "812", "812 cairn gc\nupkeep\n"] {
            std::fs::write(&path, left).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            file.lock().unwrap();
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| Lock::take(store.path(), Purpose::Change).map(drop));
                std::thread::sleep(Duration::from_micros(300));
                let upkeep = Lock::sign(path.clone(), file, Purpose::Upkeep).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                assert!(!writer.is_finished(), "left: {left:?}");
                drop(upkeep);
                writer.join().unwrap().unwrap();
            });
        }
    }

    #[test]
    fn one_collects_at_a_time() {
        let store = store();
        let collector = Lock::take_collector(store.path()).unwrap();
        assert!(Lock::take_collector(store.path()).is_err());
        drop(collector);
        Lock::take_collector(store.path()).unwrap();
    }
}
