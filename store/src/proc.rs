//! /proc, and what is said where it is not mounted.

use std::fs;
use std::io;

/// /proc is not mounted, in which the kernel tells what no system call does.
#[derive(Debug, thiserror::Error)]
#[error("/proc is not mounted")]
pub struct NoProc;

impl NoProc {
    /// What is wrong when a file below /proc could not be used: this, if that is
    /// why, and `error` otherwise.
    ///
    /// "No such file or directory" would be taken for one of what a path below
    /// /proc stands for.
    #[must_use]
    pub fn or(error: io::Error) -> io::Error {
        // Always there, also where the processes are those of another namespace.
        let is_missing = fs::symlink_metadata("/proc/self")
            .is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
        if is_missing { io::Error::other(Self) } else { error }
    }

    /// Whether this is what `error` says.
    #[must_use]
    pub fn is_why(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|why| why.is::<Self>())
    }
}
