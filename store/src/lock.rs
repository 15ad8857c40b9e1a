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
        // Closing would leave the lock with a child that another thread has just
        // forked and that has not come to its exec(2) yet.
        let _ = self.0.unlock();
    }
}

/// The file that the one writer locks.
const WRITER: &str = "run/lock";
/// The file that the one collector locks, who takes the writer's lock several
/// times, and each time gives it away soon.
const COLLECTOR: &str = "run/gc.lock";
/// The file that the one who takes states of other stores locks.
const PULLER: &str = "run/pull.lock";

/// How long a writer waits for a collector.
const PATIENCE: Duration = Duration::from_secs(60);

impl Lock {
    /// Takes the writer's lock, or says who has it. A collector is waited for.
    pub(crate) fn take(store: &Path) -> Result<Self> {
        let begun = Instant::now();
        let mut strangers = 0;
        loop {
            let locked = match Self::try_file(store, WRITER) {
                Err(err @ Error::Locked { .. }) => err,
                result => return result,
            };
            let is_of = |pid| matches!(locked, Error::Locked { pid: holder, .. } if holder == pid);
            match collector(store) {
                Some(pid) if is_of(pid) => strangers = 0,
                // Between taking the lock and saying so, the file tells of the
                // holder before.
                Some(_) if strangers < 3 => strangers += 1,
                _ => return Err(locked),
            }
            if begun.elapsed() > PATIENCE {
                return Err(locked);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes the writer's lock as soon as whoever has it lets it go.
    pub(crate) fn wait(store: &Path) -> Result<Self> {
        let (path, file) = open(store, WRITER)?;
        undisturbed(|| file.lock()).map_err(Error::io(&path))?;
        Self::sign(path, file)
    }

    /// Takes the lock of whoever pulls, or says who has it.
    pub(crate) fn take_puller(store: &Path) -> Result<Self> {
        Self::try_file(store, PULLER)
    }

    /// Takes the collector's lock, or says who has it.
    pub(crate) fn take_collector(store: &Path) -> Result<Self> {
        for _ in 0..5 {
            // Whoever looks for a collector holds the file for an instant.
            match Self::try_file(store, COLLECTOR) {
                Err(Error::Locked { .. }) => std::thread::sleep(Duration::from_millis(1)),
                result => return result,
            }
        }
        Self::try_file(store, COLLECTOR)
    }

    fn try_file(store: &Path, name: &str) -> Result<Self> {
        let (path, mut file) = open(store, name)?;
        let tried = undisturbed(|| match file.try_lock() {
            Err(TryLockError::Error(err)) => Err(err),
            Err(TryLockError::WouldBlock) => Ok(false),
            Ok(()) => Ok(true),
        });
        if tried.map_err(Error::io(&path))? {
            return Self::sign(path, file);
        }
        let (pid, command) = read(&mut file);
        Err(Error::Locked { store: store.into(), pid, command })
    }

    /// Says who has the lock.
    fn sign(path: PathBuf, mut file: File) -> Result<Self> {
        let program = std::env::args_os()
            .map(|arg| arg.to_string_lossy().escape_debug().to_string())
            .take(8)
            .collect::<Vec<_>>()
            .join(" ");
        let signed = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{} {program}", std::process::id()));
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

/// Process and command of the holder; what the file says may be half written.
fn read(file: &mut File) -> (u32, String) {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    let (pid, command) = holder.split_once(' ').unwrap_or(("0", "unknown"));
    (pid.parse().unwrap_or(0), command.trim_end().into())
}

/// Who has the writer's lock of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its process; 0 while it has not said so yet.
    pub pid: u32,
    /// Its command line.
    pub command: String,
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
    locks.lines().any(is_ours).then(|| {
        let (pid, command) = read(&mut file);
        Writer { pid, command }
    })
}

/// The process that collects just now.
fn collector(store: &Path) -> Option<u32> {
    let mut file = File::open(store.join(COLLECTOR)).ok()?;
    let is_held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    is_held.then(|| read(&mut file).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_is_told_without_the_lock() {
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join("run")).unwrap();
        assert_eq!(writer(store.path()), None);
        let lock = Lock::take(store.path()).unwrap();
        assert_eq!(writer(store.path()).map(|it| it.pid), Some(std::process::id()));
        drop(lock);
        assert_eq!(writer(store.path()), None);
    }

    #[test]
    fn the_second_writer_is_told_of_the_first() {
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join("run")).unwrap();
        let first = Lock::take(store.path()).unwrap();
        match Lock::take(store.path()) {
            Err(Error::Locked { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(first);
        Lock::take(store.path()).unwrap();
    }

    #[test]
    fn a_writer_waits_for_a_collector() {
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join("run")).unwrap();
        let collector = Lock::take_collector(store.path()).unwrap();
        assert!(Lock::take_collector(store.path()).is_err(), "one collects at a time");
        let held = Lock::wait(store.path()).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| Lock::take(store.path()).map(drop));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!writer.is_finished());
            drop(held);
            writer.join().unwrap().unwrap();
        });
        drop(collector);
        Lock::take_collector(store.path()).unwrap();
    }
}
