//! The system calls that std does not offer.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Maps a file, which must not be empty, and reads a byte of each page; returns their sum.
///
/// # Panics
/// If it cannot be mapped.
#[must_use]
pub fn map(path: &Path) -> u64 {
    let file = File::open(path).expect("it opens");
    let len = usize::try_from(file.metadata().expect("it is open").len()).expect("it fits");
    let (none, protection) = (std::ptr::null_mut(), libc::PROT_READ);
    // SAFETY: asks for a new mapping wherever there is room.
    let start =
        unsafe { libc::mmap(none, len, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // SAFETY: the mapping has that length until the end of this function, and nobody
    // changes what is measured.
    let bytes = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) };
    let sum = bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum();
    // SAFETY: it is the mapping that was made, and `bytes` is not used any more.
    let result = unsafe { libc::munmap(start, len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    sum
}
