//! A directory that is shown on another one: what is done on the mount is done in the
//! directory, by this process, as its user.
//!
//! An ordinary user can mount an overlay where nobody else sees it, and a FUSE mount where
//! all programs of the user do. So workspaces of ordinary users are the first, shown
//! through the second.

mod fuse;
mod nodes;

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::{File, Metadata};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, chown};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RawDir, RenameFlags, SeekFrom, StatVfs,
    Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use nodes::{Entered, Nodes};

pub(crate) use fuse::session;

/// A directory and all below it, as nodes and open files. Each error is that of the
/// system call which does below what was asked for above.
#[derive(Debug)]
pub(crate) struct Mirror {
    nodes: Nodes,
    opened: Mutex<Opened>,
}

#[derive(Debug, Default)]
struct Opened {
    handles: HashMap<u64, Arc<Handle>>,
    last: u64,
}

/// A file or directory that programs have open.
#[derive(Debug)]
struct Handle {
    file: File,
    /// Held by whoever reads a directory, of which the file knows only one place.
    place: Mutex<()>,
}

/// An entry of a directory.
pub(crate) struct Listed<'a> {
    number: u64,
    kind: FileType,
    name: &'a CStr,
    /// Where what follows it begins.
    next: u64,
}

/// What is to be given to a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    mode: Option<u32>,
    owner: Option<u32>,
    group: Option<u32>,
    size: Option<u64>,
    accessed: Option<Timespec>,
    modified: Option<Timespec>,
}

impl Mirror {
    /// Shows the directory `root`.
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { nodes: Nodes::new(root.into()), opened: Mutex::default() }
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_open(&self, file: File) -> u64 {
        let mut opened = self.opened();
        opened.last += 1;
        let number = opened.last;
        opened.handles.insert(number, Arc::new(Handle { file, place: Mutex::new(()) }));
        number
    }

    fn handle(&self, number: u64) -> io::Result<Arc<Handle>> {
        Ok(self.opened().handles.get(&number).ok_or(Errno::BADF)?.clone())
    }

    fn close(&self, number: u64) {
        // Closed when whoever uses it just now is done, and not under the lock.
        let handle = self.opened().handles.remove(&number);
        drop(handle);
    }

    fn look_up(&self, parent: u64, name: &OsStr) -> io::Result<Entered> {
        let directory = self.nodes.get(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*directory, name, flags, Mode::empty())?;
        self.nodes.enter(file.into(), parent, name)
    }

    fn forget(&self, node: u64, lookups: u64) {
        self.nodes.forget(node, lookups);
    }

    fn attributes(&self, node: u64) -> io::Result<Metadata> {
        self.nodes.get(node)?.metadata()
    }

    fn change(&self, node: u64, handle: Option<u64>, change: &Change) -> io::Result<Metadata> {
        let file = self.nodes.get(node)?;
        let path = path_of(&file);
        if let Some(mode) = change.mode {
            rustix::fs::chmodat(CWD, &path, bits(mode), AtFlags::empty())?;
        }
        if change.owner.is_some() || change.group.is_some() {
            chown(&path, change.owner, change.group)?;
        }
        if let Some(size) = change.size {
            match handle {
                // It was opened when that was allowed.
                Some(handle) => self.handle(handle)?.file.set_len(size)?,
                None => File::options().write(true).open(&path)?.set_len(size)?,
            }
        }
        if change.accessed.is_some() || change.modified.is_some() {
            let kept = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
            let times = Timestamps {
                last_access: change.accessed.unwrap_or(kept),
                last_modification: change.modified.unwrap_or(kept),
            };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())?;
        }
        file.metadata()
    }

    fn read_link(&self, node: u64) -> io::Result<Vec<u8>> {
        let file = self.nodes.get(node)?;
        Ok(rustix::fs::readlinkat(&*file, c"", Vec::new())?.into_bytes())
    }

    fn make_node(&self, parent: u64, name: &OsStr, mode: u32, device: u64) -> io::Result<Entered> {
        let directory = self.nodes.get(parent)?;
        let kind = FileType::from_raw_mode(mode);
        rustix::fs::mknodat(&*directory, name, kind, bits(mode), device)?;
        self.look_up(parent, name)
    }

    fn make_directory(&self, parent: u64, name: &OsStr, mode: u32) -> io::Result<Entered> {
        rustix::fs::mkdirat(&*self.nodes.get(parent)?, name, bits(mode))?;
        self.look_up(parent, name)
    }

    fn make_link(&self, parent: u64, name: &OsStr, target: &Path) -> io::Result<Entered> {
        rustix::fs::symlinkat(target, &*self.nodes.get(parent)?, name)?;
        self.look_up(parent, name)
    }

    fn link(&self, node: u64, parent: u64, name: &OsStr) -> io::Result<Entered> {
        let (file, directory) = (self.nodes.get(node)?, self.nodes.get(parent)?);
        let follow = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(CWD, path_of(&file), &*directory, name, follow)?;
        // The overlay has one file now for both names, of which the kernel has this node.
        self.nodes.enter_again(node)
    }

    fn remove(&self, parent: u64, name: &OsStr, flags: AtFlags) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&*self.nodes.get(parent)?, name, flags)?)
    }

    fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), flags: u32) -> io::Result<()> {
        let (source, target) = (self.nodes.get(from.0)?, self.nodes.get(to.0)?);
        let flags = RenameFlags::from_bits_retain(flags);
        Ok(rustix::fs::renameat_with(&*source, from.1, &*target, to.1, flags)?)
    }

    fn open(&self, node: u64, flags: i32) -> io::Result<u64> {
        let node = self.nodes.get(node)?;
        let file = rustix::fs::open(path_of(&node), flags_below(flags), Mode::empty())?;
        Ok(self.keep_open(file.into()))
    }

    fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> io::Result<(Entered, u64)> {
        let directory = self.nodes.get(parent)?;
        let exclusive = OFlags::from_bits_retain(flags.cast_unsigned()) & OFlags::EXCL;
        let how = flags_below(flags) | OFlags::CREATE | OFlags::NOFOLLOW | exclusive;
        let file = rustix::fs::openat(&*directory, name, how, bits(mode))?;
        let entered = self.look_up(parent, name)?;
        Ok((entered, self.keep_open(file.into())))
    }

    /// Reads into the front of `buf`; returns how much.
    fn read(&self, handle: u64, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let handle = self.handle(handle)?;
        let mut read = 0;
        // The kernel takes a short answer for the end of the file.
        while read < buf.len() {
            match handle.file.read_at(&mut buf[read..], offset + read as u64)? {
                0 => break,
                len => read += len,
            }
        }
        Ok(read)
    }

    fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.handle(handle)?.file.write_at(bytes, offset)
    }

    fn sync(&self, handle: u64, only_data: bool) -> io::Result<()> {
        let handle = self.handle(handle)?;
        if only_data { handle.file.sync_data() } else { handle.file.sync_all() }
    }

    /// What closing a descriptor tells: an error that a write had too late.
    fn flush(&self, handle: u64) -> io::Result<()> {
        drop(self.handle(handle)?.file.try_clone()?);
        Ok(())
    }

    fn allocate(&self, handle: u64, offset: u64, len: u64, mode: i32) -> io::Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        Ok(rustix::fs::fallocate(&self.handle(handle)?.file, mode, offset, len)?)
    }

    /// Where the next data or the next hole is.
    fn seek(&self, handle: u64, offset: i64, whence: i32) -> io::Result<u64> {
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL.into()),
        };
        Ok(rustix::fs::seek(&self.handle(handle)?.file, to)?)
    }

    fn copy(&self, from: (u64, u64), to: (u64, u64), len: u64) -> io::Result<usize> {
        let (source, target) = (self.handle(from.0)?, self.handle(to.0)?);
        let (mut at, mut onto) = (from.1, to.1);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let copied = rustix::fs::copy_file_range(
            &source.file,
            Some(&mut at),
            &target.file,
            Some(&mut onto),
            len,
        );
        Ok(copied?)
    }

    /// Gives the entries of a directory from `offset` on to `add`, until that says that
    /// it is enough.
    fn list(
        &self,
        handle: u64,
        offset: u64,
        mut add: impl FnMut(&Listed<'_>) -> bool,
    ) -> io::Result<()> {
        let handle = self.handle(handle)?;
        let _alone = handle.place.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&handle.file, SeekFrom::Start(offset))?;
        let mut buf = [MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(&handle.file, &mut buf);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let listed = Listed {
                number: entry.ino(),
                kind: entry.file_type(),
                name: entry.file_name(),
                next: entry.next_entry_cookie(),
            };
            if add(&listed) {
                break;
            }
        }
        Ok(())
    }

    fn filesystem(&self) -> io::Result<StatVfs> {
        Ok(rustix::fs::fstatvfs(&*self.nodes.get(nodes::ROOT)?)?)
    }

    /// The value of an extended attribute, or with `len` 0 its length.
    fn xattr(&self, node: u64, name: &OsStr, len: usize) -> io::Result<Answer> {
        let file = self.nodes.get(node)?;
        answer(len, |buf| Ok(rustix::fs::getxattr(path_of(&file), name, buf)?))
    }

    /// The names of all extended attributes, or with `len` 0 their length.
    fn xattrs(&self, node: u64, len: usize) -> io::Result<Answer> {
        let file = self.nodes.get(node)?;
        answer(len, |buf| Ok(rustix::fs::listxattr(path_of(&file), buf)?))
    }

    fn set_xattr(&self, node: u64, name: &OsStr, value: &[u8], flags: i32) -> io::Result<()> {
        let file = self.nodes.get(node)?;
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        Ok(rustix::fs::setxattr(path_of(&file), name, value, flags)?)
    }

    fn remove_xattr(&self, node: u64, name: &OsStr) -> io::Result<()> {
        let file = self.nodes.get(node)?;
        Ok(rustix::fs::removexattr(path_of(&file), name)?)
    }
}

/// What a program hears that asks for something of unknown length.
enum Answer {
    Length(usize),
    Bytes(Vec<u8>),
}

/// The most that the kernel passes on at once: XATTR_SIZE_MAX and XATTR_LIST_MAX.
const MAX_XATTRS: usize = 64 << 10;

fn answer(len: usize, ask: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Answer> {
    let mut buf = vec![0; len.min(MAX_XATTRS)];
    let found = ask(&mut buf)?;
    if len == 0 {
        return Ok(Answer::Length(found));
    }
    buf.truncate(found);
    Ok(Answer::Bytes(buf))
}

/// A path to what a descriptor stands for, whatever its names are, for as long as that is
/// open; it is not followed further if it is a link.
fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

/// How a file is opened below that is opened with `flags` above: where to write and
/// whether to empty it first is said by the kernel.
fn flags_below(flags: i32) -> OFlags {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    let kept = OFlags::ACCMODE | OFlags::DIRECTORY | OFlags::SYNC | OFlags::DSYNC;
    flags & kept | OFlags::CLOEXEC
}
