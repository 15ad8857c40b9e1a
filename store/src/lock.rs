//! One writer at a time, and who it is.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, Result};

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

impl Lock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(store: &Path) -> Result<Self> {
        let path = store.join("run/lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(err)) => return Err(Error::io(&path)(err)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // What it says is for people; it may be half written.
                let _ = file.read_to_string(&mut holder);
                let (pid, command) = holder.split_once(' ').unwrap_or(("0", "unknown"));
                return Err(Error::Locked {
                    store: store.into(),
                    pid: pid.parse().unwrap_or(0),
                    command: command.trim_end().into(),
                });
            }
        }
        let program = std::env::args_os()
            .map(|arg| arg.to_string_lossy().escape_debug().to_string())
            .take(8)
            .collect::<Vec<_>>()
            .join(" ");
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{} {program}", std::process::id()))
            .map_err(Error::io(&path))?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
