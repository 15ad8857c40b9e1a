//! A regular file that a scan has found, as a source of bytes.
//!
//! A file that somebody changes meanwhile is no error here: what was read of it
//! is taken, and it is noted that it has to be looked at again.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::fstat;

use super::directory::HostDirectory;
use super::scan::{full_path, has_gone};
use super::status::Status;
use crate::ingest::Source;
use crate::name::TreePath;

/// Where files are, and what they are called for people.
#[derive(Clone, Copy)]
pub(super) struct Below<'a> {
    pub(super) root: &'a HostDirectory,
    pub(super) path: &'a Path,
}

/// A regular file below a scanned directory, opened when it is its turn.
pub(super) struct HostFile<'a> {
    below: Below<'a>,
    path: TreePath,
    status: Status,
    changed: AtomicBool,
}

impl<'a> HostFile<'a> {
    pub(super) fn new(below: Below<'a>, path: TreePath, status: Status) -> Self {
        Self { below, path, status, changed: AtomicBool::new(false) }
    }

    /// Whether it was another file by then, or was changed when it was read.
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }
}

impl Source for HostFile<'_> {
    fn name(&self) -> Cow<'_, str> {
        full_path(self.below.path, &self.path).display().to_string().into()
    }

    fn size(&self) -> u64 {
        self.status.size
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        if self.status.size == 0 {
            return Ok(Box::new(io::empty()));
        }
        let file = match self.below.root.open_file(self.path.names()) {
            Err(err) if has_gone(&err) => None,
            opened => Some(opened?),
        };
        match file {
            Some(file) if is_as(&file, &self.status)? => {
                Ok(Box::new(Reader::new(file, &self.status, &self.changed)))
            }
            _ => {
                self.changed.store(true, Ordering::Relaxed);
                Ok(Box::new(io::empty()))
            }
        }
    }
}

/// A regular file that is open already, so that nobody can replace it.
pub(super) struct OpenFile<'a> {
    pub(super) name: &'a str,
    pub(super) file: &'a File,
    pub(super) status: Status,
    pub(super) changed: AtomicBool,
}

impl Source for OpenFile<'_> {
    fn name(&self) -> Cow<'_, str> {
        self.name.into()
    }

    fn size(&self) -> u64 {
        self.status.size
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Reader::new(self.file.try_clone()?, &self.status, &self.changed)))
    }
}

/// Reads as many bytes as the file had, and looks then whether it still is as
/// it was.
struct Reader<'a> {
    file: File,
    left: u64,
    expected: &'a Status,
    changed: &'a AtomicBool,
    is_done: bool,
}

impl<'a> Reader<'a> {
    fn new(file: File, expected: &'a Status, changed: &'a AtomicBool) -> Self {
        Self { file, left: expected.size, expected, changed, is_done: false }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).map_or(buf.len(), |left| buf.len().min(left));
        let len = if limit == 0 { 0 } else { self.file.read(&mut buf[..limit])? };
        self.left -= len as u64;
        let is_at_end = self.left == 0 || (len == 0 && !buf.is_empty());
        if is_at_end && !self.is_done {
            self.is_done = true;
            if !is_as(&self.file, self.expected)? {
                self.changed.store(true, Ordering::Relaxed);
            }
        }
        Ok(len)
    }
}

fn is_as(file: &File, expected: &Status) -> io::Result<bool> {
    Ok(Status::of(&fstat(file)?) == *expected)
}
