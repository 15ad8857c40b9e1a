//! Translates between the kernel and [`Filesystem`]; decides nothing.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use cairn_store::Timestamp;
use cairn_store::tree::Device;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use crate::event::{Event, Journal};
use crate::serve::counters::Operation;
use crate::serve::errno;
use crate::serve::filesystem::{Filesystem, Found, Refusal};
use crate::serve::listing::{Cookie, Item};
use crate::serve::node::NodeId;
use crate::serve::notice::Notices;
use crate::serve::passthrough::{Opened, Passthrough};
use crate::serve::stat::{Kind, Stat};
use crate::serve::table::Reading;
use crate::serve::xattrs;
use crate::source::Source;
use crate::sys;

/// How long the kernel may believe what it was told: what changes in a switch
/// it is told to forget.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The most bytes of one read or write request; the kernel stops at
/// `fs.fuse.max_pages_limit`, by default the same.
pub(crate) const MAX_REQUEST: u32 = 1 << 20;

/// Background requests, such as read-ahead, that may wait at a time.
const MAX_BACKGROUND: u16 = 64;

/// So much may be stacked: the files that the kernel reads by itself lie on a filesystem
/// of their own, and one overlay may lie on the mount.
const STACK_DEPTH: u32 = 1;

/// Closing a file takes no message but the one that it is closed.
const UNFLUSHED: FopenFlags = FopenFlags::FOPEN_NOFLUSH;

/// What is cached of a file stays when it is opened again.
const CACHED: FopenFlags = UNFLUSHED.union(FopenFlags::FOPEN_KEEP_CACHE);

/// Handle of a file of which opens are not counted.
const SMALL: FileHandle = FileHandle(0);

/// Handle of a large file. It is the same for all, so that it means the same to another
/// process.
const LARGE: FileHandle = FileHandle(1);

/// Without the first two, opens would have to be answered, and a switch could not
/// rely on what the kernel keeps. Without the last, the kernel would go by modes
/// alone, which give the owning group what an ACL gives to others. Linux has all of
/// them since 5.1.
const NEEDED: InitFlags = InitFlags::FUSE_NO_OPEN_SUPPORT
    .union(InitFlags::FUSE_NO_OPENDIR_SUPPORT)
    .union(InitFlags::FUSE_POSIX_ACL);

const WANTED: InitFlags = NEEDED
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_EXPLICIT_INVAL_DATA)
    .union(InitFlags::FUSE_HAS_RESEND);

/// The request with which the kernel begins a connection, as it was when the
/// dead process answered it: `fuse_in_header` and `fuse_init_in`.
pub(crate) fn first_request() -> Vec<u8> {
    const INIT: u32 = 26;
    let flags = WANTED.union(InitFlags::FUSE_INIT_EXT).bits();
    let [a, b, c, d, e, f, g, h] = flags.to_le_bytes();
    let [low, high] = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
    let mut request = Vec::with_capacity(104);
    for word in [104, INIT, 1, 0, 0, 0, 0, 0, 0, 0] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    // Version 7.36, the first with the upper half of the flags.
    for word in [7, 36, 128 << 10, low, high] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    request.resize(104, 0);
    request
}

/// A filesystem as fuser calls it.
pub(crate) struct Fuse<S> {
    pub(crate) filesystem: Arc<Filesystem<S>>,
    pub(crate) journal: Journal,
    /// Whether to ask for the kernel to read large files by itself.
    pub(crate) wants_passthrough: bool,
    /// Whether to ask for the kernel to map owners where somebody wants that. It then does not
    /// say who asks for something.
    pub(crate) wants_mappable: bool,
    /// What answers opens, where the kernel permits that. Set before the first one; gone
    /// with the connection.
    pub(crate) passthrough: Arc<OnceLock<Passthrough<S>>>,
}

impl<S> Clone for Fuse<S> {
    fn clone(&self) -> Self {
        Self {
            filesystem: self.filesystem.clone(),
            journal: self.journal.clone(),
            wants_passthrough: self.wants_passthrough,
            wants_mappable: self.wants_mappable,
            passthrough: self.passthrough.clone(),
        }
    }
}

thread_local! {
    /// What is read goes through one buffer a thread, so that large reads do
    /// not map and unmap memory each time.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<S: Source> Fuse<S> {
    pub(crate) fn new(filesystem: Arc<Filesystem<S>>, journal: Journal) -> Self {
        let passthrough = Arc::new(OnceLock::new());
        let (wants_passthrough, wants_mappable) = (false, false);
        Self { filesystem, journal, wants_passthrough, wants_mappable, passthrough }
    }

    /// Runs a handler, which answers before it returns.
    fn handle(&self, operation: Operation, ino: INodeNo, handler: impl FnOnce()) {
        self.guard(operation, || {
            let measured = self.measure(operation, ino);
            handler();
            measured();
        });
    }

    /// Begins to measure a request; what it returns is to be called when that is answered.
    fn measure(&self, operation: Operation, ino: INodeNo) -> impl FnOnce() + Send + use<S> {
        let (filesystem, begun) = (self.filesystem.clone(), Instant::now());
        filesystem.awake.request_came();
        let before = filesystem.source.reads();
        move || {
            let reads = || filesystem.source.reads().since(&before);
            filesystem.counters.answered(operation, node(ino), begun.elapsed(), reads);
        }
    }

    /// Runs a handler. A panic ends the request, not the mount: the reply that
    /// is dropped on the way out answers EIO.
    fn guard(&self, operation: Operation, handler: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(handler)) {
            self.filesystem.counters.failed();
            (self.journal)(&Event::panicked(operation.name(), &*panic));
        }
    }

    /// To be called before an answer goes out that tells the kernel of nodes.
    fn keep(&self) {
        if let Err(source) = self.filesystem.keep() {
            (self.journal)(&Event::NotKept { source });
        }
    }

    /// Chooses the errno for a refusal, and notes those that hide a cause.
    fn errno(&self, refusal: Refusal) -> Errno {
        self.filesystem.counters.failed();
        let errno = errno::of(&refusal);
        if let Some(event) = Event::of(refusal) {
            (self.journal)(&event);
        }
        errno
    }
}

impl<S: Source> fuser::Filesystem for Fuse<S> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        if !offered.contains(NEEDED) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let rejected = |_| io::Error::from(io::ErrorKind::InvalidData);
        let mut wanted = WANTED;
        if self.wants_passthrough && offered.contains(InitFlags::FUSE_PASSTHROUGH) {
            wanted |= InitFlags::FUSE_PASSTHROUGH;
            config.set_max_stack_depth(STACK_DEPTH).map_err(|_| io::ErrorKind::InvalidData)?;
        }
        if self.wants_mappable {
            wanted |= InitFlags::FUSE_ALLOW_IDMAP;
        }
        config.add_capabilities(wanted & offered).map_err(rejected)?;
        config.set_max_write(MAX_REQUEST).map_err(|_| io::ErrorKind::InvalidData)?;
        config.set_max_background(MAX_BACKGROUND).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.handle(Operation::Lookup, parent, || {
            let view = self.filesystem.view();
            match view.lookup(node(parent), name.as_bytes()) {
                Ok(Found::Node(stat)) => {
                    self.keep();
                    reply.entry(&FOREVER, &attr(&stat), Generation(0));
                }
                Ok(Found::Nothing) => reply.entry(&FOREVER, &NOTHING, Generation(0)),
                Err(refusal) => reply.error(self.errno(refusal)),
            }
        });
    }

    // Of many nodes at once fuser tells one by one.
    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.handle(Operation::Forget, ino, || self.filesystem.forget(node(ino), nlookup));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.handle(Operation::Getattr, ino, || {
            let view = self.filesystem.view();
            match view.stat(node(ino)) {
                Ok(stat) => reply.attr(&FOREVER, &attr(&stat)),
                Err(refusal) => reply.error(self.errno(refusal)),
            }
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.handle(Operation::Readlink, ino, || {
            let target = self.filesystem.read_link(node(ino), <[u8]>::to_vec);
            match target {
                Ok(target) => reply.data(&target),
                Err(refusal) => reply.error(self.errno(refusal)),
            }
        });
    }

    // The answer ENOSYS is remembered by the kernel, which from then on opens
    // files and directories without asking, and keeps what it has of them; the one for
    // directories is independent of the one for files.
    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let Some(passthrough) = self.passthrough.get() else {
            return reply.error(Errno::ENOSYS);
        };
        self.guard(Operation::Open, || {
            let (fuse, measured) = (self.clone(), self.measure(Operation::Open, ino));
            let answer = move |opened| {
                fuse.reply_open(opened, reply);
                measured();
            };
            passthrough.open(node(ino), Box::new(answer));
        });
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.handle(Operation::Release, ino, || {
            reply.ok();
            if let (LARGE, Some(passthrough)) = (handle, self.passthrough.get()) {
                passthrough.close(node(ino));
            }
        });
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
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
        self.handle(Operation::Read, ino, || {
            BUFFER.with_borrow_mut(|buf| {
                // No request that was agreed on is larger.
                let len = size.min(MAX_REQUEST) as usize;
                match self.filesystem.read(node(ino), offset, len, buf) {
                    Ok(()) => {
                        self.filesystem.counters.read(buf.len());
                        reply.data(buf);
                    }
                    Err(refusal) => reply.error(self.errno(refusal)),
                }
            });
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.handle(Operation::Readdirplus, ino, || {
            let view = self.filesystem.view();
            let listing = match view.list_all(node(ino), Cookie::from_kernel(offset)) {
                Ok(listing) => listing,
                Err(refusal) => return reply.error(self.errno(refusal)),
            };
            for (item, cookie) in listing.items() {
                let (stat, ttl, name) = match item {
                    // The kernel takes only number and kind of these two.
                    Item::Itself => (attr_of_directory(listing.id), FOREVER, &b"."[..]),
                    Item::Parent => {
                        (attr_of_directory(listing.directory.parent), FOREVER, &b".."[..])
                    }
                    Item::Entry(at) => {
                        let name = listing.tree.entries()[at].0.as_bytes();
                        // Of thousands of states few are ever entered, and each would have
                        // to be read for its attributes.
                        let entered = match listing.is_of_states() {
                            true => None,
                            false => view.enter(&listing, at).map_err(|it| self.errno(it)).ok(),
                        };
                        match entered {
                            Some(stat) => (attr(&stat), FOREVER, name),
                            // The kernel asks before it believes anything of it.
                            None => match view.enter_unread(&listing, at) {
                                Some(stat) => (attr(&stat), Duration::ZERO, name),
                                None => continue,
                            },
                        }
                    }
                };
                let name = OsStr::from_bytes(name);
                if reply.add(stat.ino, cookie.get(), name, &ttl, &stat, Generation(0)) {
                    if let Item::Entry(_) = item {
                        self.filesystem.forget(node(stat.ino), 1);
                    }
                    break;
                }
            }
            self.keep();
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.handle(Operation::Statfs, INodeNo(NodeId::ROOT.get()), || {
            let below = self.filesystem.view().summary();
            let blocks = below.bytes.div_ceil(u64::from(BLOCK));
            // 255 is the longest name: an overlay on top takes over the limit.
            reply.statfs(blocks, 0, 0, below.entries, 0, BLOCK, 255, BLOCK);
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.handle(Operation::Getxattr, ino, || {
            let value = match self.filesystem.xattrs.stored(name.as_bytes()) {
                _ if !xattrs::is_supported(name.as_bytes()) => Err(Refusal::NotSupported),
                None => Err(Refusal::NoAttribute),
                Some(name) => {
                    let (view, id) = (self.filesystem.view(), node(ino));
                    let stored = view.with_attributes(id, |attributes| {
                        Ok(attributes.xattr(&name).map(<[u8]>::to_vec))
                    });
                    match stored {
                        Ok(Some(value)) => Ok(value),
                        Ok(None) => match view.told(id, &name) {
                            Ok(told) => told.map(String::into_bytes).ok_or(Refusal::NoAttribute),
                            Err(refusal) => Err(refusal),
                        },
                        Err(refusal) => Err(refusal),
                    }
                }
            };
            self.reply_xattr(value, size, reply);
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.handle(Operation::Listxattr, ino, || {
            let view = self.filesystem.view();
            let names = view.with_attributes(node(ino), |attributes| {
                let mut names = Vec::new();
                for xattr in &attributes.xattrs {
                    // As other filesystems do; see xattr(7).
                    if !xattr.name.starts_with(b"trusted.") || is_by_root(request) {
                        let Some(name) = self.filesystem.xattrs.shown(&xattr.name) else {
                            continue;
                        };
                        names.extend_from_slice(&name);
                        names.push(0);
                    }
                }
                Ok(names)
            });
            self.reply_xattr(names, size, reply);
        });
    }
}

impl<S: Source> Fuse<S> {
    /// Answers opens from here on, so that the kernel reads large files by itself, which it
    /// must permit. To be called before the first request is answered.
    ///
    /// # Errors
    /// When the source has no plain files, or no thread can be started.
    pub(crate) fn pass_through(&self, kernel: Notices) -> io::Result<()> {
        let begun = Passthrough::begin(self.filesystem.clone(), kernel, self.journal.clone())?;
        // The first one stays, if this is called twice.
        let _ = self.passthrough.set(begun);
        Ok(())
    }

    fn reply_open(&self, opened: Opened, reply: ReplyOpen) {
        match opened {
            Ok(None) => reply.opened(SMALL, CACHED),
            Ok(Some(Reading::Asked)) => reply.opened(LARGE, CACHED),
            Ok(Some(Reading::Passed(id))) => sys::reply_backed(reply, LARGE, UNFLUSHED, id),
            Err(refusal) => reply.error(self.errno(refusal)),
        }
    }

    /// Answers getxattr(2) and listxattr(2): a size of 0 asks for the size.
    fn reply_xattr(&self, value: Result<Vec<u8>, Refusal>, size: u32, reply: ReplyXattr) {
        let answer = value.and_then(|value| match u32::try_from(value.len()) {
            Ok(len) if size == 0 || len <= size => Ok((value, len)),
            _ => Err(Refusal::TooSmall),
        });
        match answer {
            Ok((_, len)) if size == 0 => reply.size(len),
            Ok((value, _)) => reply.data(&value),
            Err(refusal) => reply.error(self.errno(refusal)),
        }
    }
}

/// Unit of `st_blksize` and of statfs(2).
const BLOCK: u32 = 4096;

/// An entry with number 0: there is nothing of this name, and that is cached.
const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: BLOCK,
    flags: 0,
};

/// Whether root asks. Where owners can be mapped the kernel says which thread does, which waits
/// for the answer, but not for whom.
fn is_by_root(request: &Request) -> bool {
    const NOT_TOLD: u32 = u32::MAX;
    match request.uid() {
        NOT_TOLD => sys::filesystem_user(request.pid().cast_signed()) == Some(0),
        user => user == 0,
    }
}

fn node(ino: INodeNo) -> NodeId {
    NodeId::from_kernel(ino.0)
}

fn attr_of_directory(id: NodeId) -> FileAttr {
    FileAttr { ino: INodeNo(id.get()), kind: FileType::Directory, ..NOTHING }
}

fn attr(stat: &Stat) -> FileAttr {
    let time = time(stat.mtime);
    FileAttr {
        ino: INodeNo(stat.id.get()),
        size: stat.size,
        blocks: stat.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(stat.kind),
        perm: stat.mode,
        nlink: stat.links,
        uid: stat.uid,
        gid: stat.gid,
        rdev: match stat.kind {
            Kind::CharDevice(device) | Kind::BlockDevice(device) => encode(device),
            _ => 0,
        },
        blksize: BLOCK,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice(_) => FileType::CharDevice,
        Kind::BlockDevice(_) => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

/// The 32 bits in which the kernel passes a device number: 12 of the major, 20
/// of the minor (`new_encode_dev` in linux/kdev_t.h).
pub(crate) fn encode(Device { major, minor }: Device) -> u32 {
    let (major, minor) = (major & 0xfff, minor & 0xf_ffff);
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// The time as std has it.
pub(crate) fn time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds().unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let seconds =
        if time.seconds() < 0 { epoch.checked_sub(whole) } else { epoch.checked_add(whole) };
    // On Linux a SystemTime holds all that a Timestamp holds.
    seconds
        .and_then(|seconds| seconds.checked_add(Duration::from_nanos(time.nanoseconds().into())))
        .unwrap_or(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_number_is_encoded_as_the_kernel_decodes_it() {
        // new_decode_dev in linux/kdev_t.h.
        let decode = |dev: u32| Device {
            major: (dev & 0x000f_ff00) >> 8,
            minor: dev & 0xff | dev >> 12 & 0x000f_ff00,
        };
        for (major, minor) in
            [(1, 3), (8, 255), (8, 256), (4095, 0xf_ffff), (259, 0x1_2345), (0, 0)]
        {
            let device = Device { major, minor };
            assert_eq!(decode(encode(device)), device);
        }
    }

    #[test]
    fn times_of_any_age_are_exact() {
        for (seconds, nanoseconds) in [
            (0, 0),
            (1, 1),
            (-1, 999_999_999),
            (-1, 0),
            (i64::MAX, 5),
            (i64::MIN, 1),
            (i64::MIN, 0),
        ] {
            let converted = time(Timestamp::new(seconds, nanoseconds).unwrap());
            let back = match converted.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(after) => i128::try_from(after.as_nanos()).unwrap(),
                Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap(),
            };
            let expected = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
            assert_eq!(back, expected, "{seconds} {nanoseconds}");
        }
    }
}
