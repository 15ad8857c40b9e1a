//! Disks as files of a filesystem that is served by this process, from memory.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyWrite, Request, WriteFlags,
};
use tempfile::TempDir;

use super::image::{Event, Image};

/// A directory of disks, until it is dropped.
#[derive(Debug)]
pub struct Disks {
    directory: TempDir,
    session: Option<BackgroundSession>,
    all: All,
}

/// All disks; the first is file 2.
type All = Arc<Mutex<Vec<Arc<Mutex<Contents>>>>>;

#[derive(Debug)]
struct Contents {
    image: Image,
    events: Vec<Event>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disks {
    /// Makes the directory, in mounts that the calling thread has for itself from then on
    /// ([`own_mounts`](super::own_mounts)).
    ///
    /// # Errors
    /// Those of mounting.
    pub fn serve() -> io::Result<Self> {
        crate::sys::own_mounts()?;
        let directory = tempfile::Builder::new().prefix("cairn-disks-").tempdir()?;
        let all = All::default();
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("disks".into()), MountOption::Subtype("cairn-test".into())];
        let session = fuser::spawn_mount(Served(all.clone()), directory.path(), &config)?;
        Ok(Self { directory, session: Some(session), all })
    }

    /// Adds a disk, whose log is empty.
    #[must_use]
    pub fn add(&self, image: Image) -> Disk {
        let contents = Arc::new(Mutex::new(Contents { image, events: Vec::new() }));
        let mut all = locked(&self.all);
        all.push(contents.clone());
        Disk { path: self.directory.path().join((all.len() + 1).to_string()), contents }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

/// One disk, which takes its room until this and the directory are dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    contents: Arc<Mutex<Contents>>,
}

impl Disk {
    /// The file that is the disk.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Notes in the log how far its user is.
    pub fn mark(&self, number: usize) {
        locked(&self.contents).events.push(Event::Mark(number));
    }

    /// What is on it now.
    #[must_use]
    pub fn image(&self) -> Image {
        locked(&self.contents).image.clone()
    }

    /// Takes the log away, with all that was written so far.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut locked(&self.contents).events)
    }

    /// Takes what it holds away, and leaves an empty one, whose file nobody uses.
    pub fn clear(&self) {
        let mut contents = locked(&self.contents);
        contents.image = Image::new(0);
        contents.events = Vec::new();
    }
}

/// Answers the kernel.
struct Served(All);

const FIRST: u64 = 2;
const FOREVER: Duration = Duration::from_secs(3600);

impl Served {
    fn disk(&self, ino: INodeNo) -> Option<Arc<Mutex<Contents>>> {
        let number = usize::try_from(ino.0.checked_sub(FIRST)?).ok()?;
        locked(&self.0).get(number).cloned()
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match self.disk(ino) {
            Some(disk) => (FileType::RegularFile, locked(&disk).image.size()),
            None if ino == INodeNo::ROOT => (FileType::Directory, 0),
            None => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.parse().ok());
        match number.and_then(|number| self.attributes(INodeNo(number))) {
            Some(attributes) => reply.entry(&FOREVER, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&FOREVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk(ino) {
            Some(disk) => reply.data(&locked(&disk).image.read(offset, size as usize)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(disk) = self.disk(ino) else { return reply.error(Errno::ENOENT) };
        let mut contents = locked(&disk);
        contents.image.write(offset, data);
        contents.events.push(Event::Write { offset, bytes: data.into() });
        reply.written(u32::try_from(data.len()).expect("a request is small"));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(disk) = self.disk(ino) {
            locked(&disk).events.push(Event::Flush);
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let is_clear = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
        let Some(disk) = self.disk(ino).filter(|_| is_clear) else {
            return reply.error(Errno::EOPNOTSUPP);
        };
        let mut contents = locked(&disk);
        contents.image.clear(offset, len);
        contents.events.push(Event::Clear { offset, len });
        reply.ok();
    }
}
