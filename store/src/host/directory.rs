//! A directory of this machine, reached by its descriptor.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, ResolveFlags, fstat, fstatfs, lgetxattr, llistxattr,
    openat, openat2, readlinkat_raw, statat, syncfs,
};
use rustix::io::Errno;

use super::status::Status;
use crate::name::Name;
use crate::proc::NoProc;
use crate::tree::{MAX_TARGET_LEN, Xattr};

/// An open directory of this machine.
///
/// What is asked for by name is the entry itself, never what a link leads to.
#[derive(Debug)]
pub struct HostDirectory(OwnedFd);

/// The largest value of an extended attribute, in bytes.
///
/// Source: `XATTR_SIZE_MAX` in linux/limits.h, as for the other two.
const XATTR_SIZE_MAX: usize = 65_536;
/// The longest list of names of extended attributes, in bytes.
const XATTR_LIST_MAX: usize = 65_536;
/// The longest path in bytes, with its NUL.
const PATH_MAX: usize = 4096;

/// The descriptor has to be that of a directory.
impl From<OwnedFd> for HostDirectory {
    fn from(directory: OwnedFd) -> Self {
        Self(directory)
    }
}

impl HostDirectory {
    /// Opens `path`, which may lead through symbolic links.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens the directory `name` in this one.
    pub fn open_below(&self, name: &Name) -> io::Result<Self> {
        self.open_at(std::slice::from_ref(name), OFlags::RDONLY | OFlags::DIRECTORY).map(Self)
    }

    /// Opens the directory at `path` below this one.
    pub fn open_deep(&self, path: &[Name]) -> io::Result<Self> {
        match path {
            [] => Ok(Self(self.0.try_clone()?)),
            _ => self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Self),
        }
    }

    /// Opens the regular file at `path` below this one for reading; what is not
    /// a regular file any more is opened without waiting for anybody.
    pub fn open_file(&self, path: &[Name]) -> io::Result<File> {
        /// Whether this user may read without a trace in the time of access.
        static LEAVES_NO_TRACE: AtomicBool = AtomicBool::new(true);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        if LEAVES_NO_TRACE.load(Ordering::Relaxed) {
            match self.open_at(path, flags | OFlags::NOATIME) {
                // Only owners may.
                Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                    LEAVES_NO_TRACE.store(false, Ordering::Relaxed);
                }
                opened => return opened.map(File::from),
            }
        }
        self.open_at(path, flags).map(File::from)
    }

    fn open_at(&self, path: &[Name], flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut from: Option<OwnedFd> = None;
        let mut rest = path;
        loop {
            // As many components as the kernel takes at once.
            let mut len = 0;
            let fitting = rest.iter().take_while(|name| {
                len += name.len() + 1;
                len < PATH_MAX
            });
            let (step, after) = rest.split_at(fitting.count());
            let relative = step.join(&b'/');
            let (at, is_last) = (from.as_ref().unwrap_or(&self.0), after.is_empty());
            let flags =
                if is_last { flags } else { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC };
            let opened = openat2(at, relative, flags, Mode::empty(), resolve)?;
            if is_last {
                return Ok(opened);
            }
            (from, rest) = (Some(opened), after);
        }
    }

    /// The names of all entries, sorted.
    pub fn names(&self) -> io::Result<Vec<Name>> {
        let mut buf = vec![MaybeUninit::uninit(); 32 << 10];
        let mut names = Vec::new();
        let mut entries = RawDir::new(&self.0, &mut buf);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if bytes != b"." && bytes != b".." {
                let name = Name::new(bytes);
                names.push(name.map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What lstat(2) tells of the entry `name`.
    pub fn status(&self, name: &Name) -> io::Result<Status> {
        Ok(Status::of(&statat(&self.0, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// What it tells of the directory itself.
    pub fn own_status(&self) -> io::Result<Status> {
        Ok(Status::of(&fstat(&self.0)?))
    }

    /// The text of the symbolic link `name`.
    pub fn link_text(&self, name: &Name) -> io::Result<Box<[u8]>> {
        let mut buf = [0; PATH_MAX];
        let len = readlinkat_raw(&self.0, name.as_bytes(), &mut buf[..])?;
        if !(1..=MAX_TARGET_LEN).contains(&len) {
            let problem = "the text of the link is empty or too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(buf[..len].into())
    }

    /// All extended attributes of the entry `name` that this user may see, ACLs
    /// and capabilities among them.
    pub fn xattrs(&self, name: &Name) -> io::Result<Vec<Xattr>> {
        xattrs(&self.by_proc(name.as_bytes())).map_err(NoProc::or)
    }

    /// Those of the directory itself.
    pub fn own_xattrs(&self) -> io::Result<Vec<Xattr>> {
        xattrs(&self.by_proc(b".")).map_err(NoProc::or)
    }

    /// A path that begins at the descriptor: no system call of all kernels that
    /// we run on reads the attributes of a link or device by descriptor.
    pub(crate) fn by_proc(&self, name: &[u8]) -> CString {
        let begin = format!("/proc/self/fd/{}/", self.0.as_raw_fd()).into_bytes();
        CString::new([&begin, name].concat()).expect("a name has no NUL")
    }

    /// Whether an unchanged ctime means an unchanged file on its filesystem, once
    /// [`Self::write_back`] has been called.
    ///
    /// That is so on those that are known for it, where each change of a file and each first
    /// store into a clean page of a mapping sets the ctime. It is not on tmpfs, which
    /// never cleans pages, on network filesystems, where others have clocks and caches of their
    /// own, behind FUSE, whose programs tell what they like, on images, which are made anew
    /// with the old times, and on overlays, which may lie on any of those.
    pub(super) fn keeps_change_times(&self) -> io::Result<bool> {
        // Source: linux/magic.h, and for the last three fs/*/ of the kernel.
        const KNOWN: [i64; 5] = [
            0xef53,      // ext2, ext3, ext4
            0x9123_683e, // btrfs
            0x5846_5342, // xfs
            0xf2f5_2010, // f2fs
            0xca45_1a4e, // bcachefs
        ];
        #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
        let magic = fstatfs(&self.0)?.f_type as i64 & 0xffff_ffff;
        Ok(KNOWN.contains(&magic))
    }

    /// Writes back all dirty pages of its filesystem.
    ///
    /// A store through a shared mapping sets the times of a file only if it is the first into
    /// a clean page: the kernel protects pages from stores when it writes them back.
    ///
    /// Source: syncfs(2); `clear_page_dirty_for_io` and `file_update_time` in Linux.
    pub(super) fn write_back(&self) -> io::Result<()> {
        Ok(syncfs(&self.0)?)
    }
}

impl AsFd for HostDirectory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn xattrs(path: &CString) -> io::Result<Vec<Xattr>> {
    let Some(list) = read_growing(XATTR_LIST_MAX, |buf| llistxattr(path.as_c_str(), buf))? else {
        return Ok(Vec::new());
    };
    let mut xattrs = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = read_growing(XATTR_SIZE_MAX, |buf| lgetxattr(path.as_c_str(), name, buf))?;
        // One that went meanwhile is not there.
        xattrs.extend(value.map(|value| Xattr { name: name.into(), value: value.into() }));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Calls `read` with a buffer of `limit` bytes, but at first with a small one;
/// `None` where there is nothing of the kind.
fn read_growing(
    limit: usize,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(len) => return Ok(Some(small[..len].to_vec())),
        Err(Errno::OPNOTSUPP | Errno::NODATA) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(err) => return Err(err.into()),
    }
    let mut large = vec![0; limit];
    match read(&mut large) {
        Ok(len) => {
            large.truncate(len);
            Ok(Some(large))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(err) => Err(err.into()),
    }
}
