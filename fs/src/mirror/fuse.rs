//! Translates between the kernel and [`Mirror`]; decides nothing.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, FileType, Timespec};

use super::nodes::Entered;
use super::{Answer, Change, Mirror};
use crate::event::{Event, Journal};
use crate::serve::fuse::MAX_REQUEST;

/// How long the kernel may believe what it was told. Nobody else changes what is shown;
/// but hard links change each other's attributes.
const A_WHILE: Duration = Duration::from_secs(1);

/// Threads that wait for what is below.
const THREADS: usize = 4;

/// Begins to speak with the kernel.
pub(crate) fn session(
    mirror: Mirror,
    connection: OwnedFd,
    journal: Journal,
) -> io::Result<Session<Fuse>> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    // The kernel lets in the user of the mount alone.
    Session::from_fd(Fuse { mirror, journal }, connection, SessionACL::All, config)
}

/// A mirror as fuser calls it.
pub(crate) struct Fuse {
    mirror: Mirror,
    journal: Journal,
}

impl Fuse {
    /// Runs a handler. A panic ends the request, not the mount: the reply that is dropped
    /// on the way out answers EIO.
    fn handle(&self, operation: &'static str, handler: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(handler)) {
            (self.journal)(&Event::panicked(operation, &*panic));
        }
    }
}

impl fuser::Filesystem for Fuse {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS & config.capabilities();
        config.add_capabilities(wanted).map_err(|_| io::ErrorKind::InvalidData)?;
        config.set_max_write(MAX_REQUEST).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.handle("lookup", || {
            entry(reply, self.mirror.look_up(parent.0, name));
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.handle("forget", || {
            self.mirror.forget(ino.0, nlookup);
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.handle("getattr", || {
            attributes(reply, self.mirror.attributes(ino.0));
        });
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.handle("setattr", || {
            let change = Change {
                mode,
                owner: uid,
                group: gid,
                size,
                accessed: atime.map(timespec),
                modified: mtime.map(timespec),
            };
            attributes(reply, self.mirror.change(ino.0, fh.map(|fh| fh.0), &change));
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.handle("readlink", || match self.mirror.read_link(ino.0) {
            Ok(target) => reply.data(&target),
            Err(err) => reply.error(err.into()),
        });
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.handle("mknod", || {
            entry(reply, self.mirror.make_node(parent.0, name, mode, decode(rdev)));
        });
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.handle("mkdir", || {
            entry(reply, self.mirror.make_directory(parent.0, name, mode));
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.handle("unlink", || {
            done(reply, self.mirror.remove(parent.0, name, AtFlags::empty()));
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.handle("rmdir", || {
            done(reply, self.mirror.remove(parent.0, name, AtFlags::REMOVEDIR));
        });
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.handle("symlink", || {
            entry(reply, self.mirror.make_link(parent.0, link_name, target));
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.handle("rename", || {
            done(reply, self.mirror.rename((parent.0, name), (newparent.0, newname), flags.bits()));
        });
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.handle("link", || {
            entry(reply, self.mirror.link(ino.0, newparent.0, newname));
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.handle("open", || {
            opened(reply, self.mirror.open(ino.0, flags.0));
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.handle("read", || {
            // No request that was agreed on is larger.
            let mut buf = vec![0; size.min(MAX_REQUEST) as usize];
            match self.mirror.read(fh.0, offset, &mut buf) {
                Ok(len) => reply.data(&buf[..len]),
                Err(err) => reply.error(err.into()),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.handle("write", || {
            written(reply, self.mirror.write(fh.0, offset, data));
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.handle("flush", || {
            done(reply, self.mirror.flush(fh.0));
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.handle("release", || {
            self.mirror.close(fh.0);
            reply.ok();
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.handle("fsync", || {
            done(reply, self.mirror.sync(fh.0, datasync));
        });
    }

    fn opendir(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.handle("opendir", || {
            opened(reply, self.mirror.open(ino.0, flags.0 | libc::O_DIRECTORY));
        });
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.handle("readdir", || {
            let listed = self.mirror.list(fh.0, offset, |entry| {
                let name = OsStr::from_bytes(entry.name.to_bytes());
                reply.add(INodeNo(entry.number), entry.next, file_type(entry.kind), name)
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(err) => reply.error(err.into()),
            }
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.handle("releasedir", || {
            self.mirror.close(fh.0);
            reply.ok();
        });
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.handle("fsyncdir", || {
            done(reply, self.mirror.sync(fh.0, datasync));
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.handle("statfs", || {
            let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            match self.mirror.filesystem() {
                Ok(it) => reply.statfs(
                    it.f_blocks,
                    it.f_bfree,
                    it.f_bavail,
                    it.f_files,
                    it.f_ffree,
                    small(it.f_bsize),
                    small(it.f_namemax),
                    small(it.f_frsize),
                ),
                Err(err) => reply.error(err.into()),
            }
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        self.handle("setxattr", || {
            done(reply, self.mirror.set_xattr(ino.0, name, value, flags));
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.handle("getxattr", || {
            xattr(reply, self.mirror.xattr(ino.0, name, size as usize));
        });
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.handle("listxattr", || {
            xattr(reply, self.mirror.xattrs(ino.0, size as usize));
        });
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.handle("removexattr", || {
            done(reply, self.mirror.remove_xattr(ino.0, name));
        });
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.handle("create", || match self.mirror.create(parent.0, name, mode, flags) {
            Ok((it, handle)) => {
                let (ttl, attr) = (A_WHILE, attr(it.node, &it.attributes));
                let handle = FileHandle(handle);
                reply.created(&ttl, &attr, Generation(0), handle, FopenFlags::empty());
            }
            Err(err) => reply.error(err.into()),
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.handle("fallocate", || {
            done(reply, self.mirror.allocate(fh.0, offset, length, mode));
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.handle("lseek", || match self.mirror.seek(fh.0, offset, whence) {
            Ok(offset) => reply.offset(offset.cast_signed()),
            Err(err) => reply.error(err.into()),
        });
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.handle("copy_file_range", || {
            // The answer has 32 bits.
            let len = len.min(1 << 30);
            written(reply, self.mirror.copy((fh_in.0, offset_in), (fh_out.0, offset_out), len));
        });
    }
}

fn done(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(err) => reply.error(err.into()),
    }
}

fn entry(reply: ReplyEntry, result: io::Result<Entered>) {
    match result {
        Ok(Entered { node, attributes }) => {
            // With a node of another number the kernel asks for the attributes, and with
            // them for the number, each time.
            let ttl = if node == attributes.ino() { A_WHILE } else { Duration::ZERO };
            let attr = attr(node, &attributes);
            reply.entry_with_ttls(&A_WHILE, &ttl, &attr, Generation(0));
        }
        Err(err) => reply.error(err.into()),
    }
}

fn attributes(reply: ReplyAttr, result: io::Result<Metadata>) {
    match result {
        Ok(attributes) => reply.attr(&A_WHILE, &attr(attributes.ino(), &attributes)),
        Err(err) => reply.error(err.into()),
    }
}

fn opened(reply: ReplyOpen, result: io::Result<u64>) {
    match result {
        Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
        Err(err) => reply.error(err.into()),
    }
}

fn written(reply: ReplyWrite, result: io::Result<usize>) {
    match result.and_then(|len| u32::try_from(len).map_err(io::Error::other)) {
        Ok(len) => reply.written(len),
        Err(err) => reply.error(err.into()),
    }
}

fn xattr(reply: ReplyXattr, result: io::Result<Answer>) {
    match result {
        Ok(Answer::Length(len)) => match u32::try_from(len) {
            Ok(len) => reply.size(len),
            Err(_) => reply.error(Errno::E2BIG),
        },
        Ok(Answer::Bytes(bytes)) => reply.data(&bytes),
        Err(err) => reply.error(err.into()),
    }
}

fn attr(node: u64, attributes: &Metadata) -> FileAttr {
    let kind = FileType::from_raw_mode(attributes.mode());
    let modified = attributes.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(node),
        size: attributes.size(),
        blocks: attributes.blocks(),
        atime: attributes.accessed().unwrap_or(modified),
        mtime: modified,
        ctime: changed(attributes).unwrap_or(modified),
        crtime: modified,
        kind: file_type(kind),
        // The twelve bits below the kind.
        perm: (attributes.mode() & 0o7777) as u16,
        nlink: u32::try_from(attributes.nlink()).unwrap_or(u32::MAX),
        uid: attributes.uid(),
        gid: attributes.gid(),
        rdev: encode(attributes.rdev()),
        blksize: u32::try_from(attributes.blksize()).unwrap_or(4096),
        flags: 0,
    }
}

fn changed(attributes: &Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(attributes.ctime()).ok()?);
    let rest = Duration::from_nanos(u64::try_from(attributes.ctime_nsec()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds)?.checked_add(rest)
}

fn file_type(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharacterDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        FileType::RegularFile | FileType::Unknown => fuser::FileType::RegularFile,
    }
}

/// The number of a device as the kernel passes it.
fn encode(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    crate::serve::fuse::encode(cairn_store::tree::Device { major, minor })
}

/// The opposite: `new_decode_dev` in linux/kdev_t.h.
fn decode(device: u32) -> u64 {
    rustix::fs::makedev((device & 0x000f_ff00) >> 8, device & 0xff | device >> 12 & 0x000f_ff00)
}

fn timespec(time: TimeOrNow) -> Timespec {
    let time = match time {
        TimeOrNow::Now => return Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        TimeOrNow::SpecificTime(time) => time,
    };
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Timespec { tv_sec: whole(since), tv_nsec: since.subsec_nanos().into() },
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => Timespec { tv_sec: -whole(before), tv_nsec: 0 },
                rest => {
                    Timespec { tv_sec: -whole(before) - 1, tv_nsec: (1_000_000_000 - rest).into() }
                }
            }
        }
    }
}
