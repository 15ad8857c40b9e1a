//! Why entries of a boot loader could not be made.

use std::path::PathBuf;

/// Why an operation of this module failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] cairn_store::Error),
    /// A file or a directory could not be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A file or a directory could not be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// No partition for boot loaders is mounted.
    #[error("no partition of a boot loader is mounted on /efi, /boot or /boot/efi")]
    NoPlace,
    /// This directory is not there.
    #[error("there is no directory {}", path.display())]
    NoDirectory { path: PathBuf },
    /// No state that is to have an entry has a kernel.
    #[error("no state has a kernel")]
    NoKernel,
    /// The kernels do not fit.
    #[error("{} has {free} bytes free, and kernels need {needed}", path.display())]
    NoRoom { path: PathBuf, free: u64, needed: u64 },
    /// It cannot be told how the kernel finds the filesystem with the store.
    #[error("cannot tell what the kernel calls the filesystem of {}", path.display())]
    UnknownRoot { path: PathBuf },
    /// The command line of the kernel names no state that can be.
    #[error("{text:?} does not name a state")]
    InvalidState { text: String },
}
