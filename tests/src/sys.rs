//! The system calls that the standard library does not offer.

#![expect(unsafe_code, reason = "system calls")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path has no NUL")
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the process runs with the rights of root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes no argument and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The extended attributes of a file, not followed if it is a link.
///
/// Source: llistxattr(2), lgetxattr(2).
pub(crate) fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = c_path(path);
    let mut names = vec![0_u8; 65_536];
    // SAFETY: the path ends in NUL, and at most as many bytes are written as
    // the buffer has.
    let len = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(len) = usize::try_from(len) else { return Err(io::Error::last_os_error()) };
    let names = names[..len].split_inclusive(|byte| *byte == 0);
    let names = names.map(|name| CStr::from_bytes_with_nul(name).expect("each name ends in NUL"));
    names
        .map(|name| {
            let mut value = vec![0_u8; 65_536];
            // SAFETY: path and name end in NUL, and at most as many bytes are
            // written as the buffer has.
            let len = unsafe {
                let buf = value.as_mut_ptr().cast();
                libc::lgetxattr(path.as_ptr(), name.as_ptr(), buf, value.len())
            };
            let Ok(len) = usize::try_from(len) else { return Err(io::Error::last_os_error()) };
            value.truncate(len);
            Ok((name.to_bytes().to_vec(), value))
        })
        .collect()
}

/// The value of an attribute that has an ACL: tag, permissions and, for users and groups, whose;
/// others have `u32::MAX`. Source: linux/posix_acl_xattr.h, version 2.
#[must_use]
pub fn posix_acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |(tag, permissions, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    2_u32.to_le_bytes().into_iter().chain(entries.iter().flat_map(entry)).collect()
}

/// Gives a file an extended attribute: lsetxattr(2).
///
/// # Errors
/// Those of the system.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let path = c_path(path);
    let name = CString::new(name).expect("a name has no NUL");
    // SAFETY: path and name end in NUL, and the value has the given length.
    check(unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })
}

/// The first page of a file, mapped so that stores reach the file: mmap(2).
#[derive(Debug)]
pub struct Mapping(*mut u8);

impl Mapping {
    /// Bytes of a page, on all machines at least.
    pub const LEN: usize = 4096;

    /// Maps the file, which has at least [`Self::LEN`] bytes.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the place; the mapping keeps the file open.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::LEN,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(at.cast())) }
    }

    /// Stores the byte all over the page.
    pub fn store(&mut self, byte: u8) {
        // SAFETY: the page is mapped for writing until this is dropped, and nobody else here
        // knows where.
        unsafe { std::ptr::write_bytes(self.0, byte, Self::LEN) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody uses it any more.
        unsafe { libc::munmap(self.0.cast(), Self::LEN) };
    }
}

/// Makes a character device: mknod(2).
///
/// # Errors
/// Those of the system.
pub fn make_device(path: &Path, major: u32, minor: u32) -> io::Result<()> {
    let (path, device) = (c_path(path), libc::makedev(major, minor));
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o640, device) })
}

/// Makes a named pipe: mkfifo(3).
///
/// # Errors
/// Those of the system.
pub fn make_fifo(path: &Path) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o620) })
}

/// Takes a mount out of sight, whoever uses it and whether or not its process
/// lives: umount2(2) with MNT_DETACH.
///
/// # Errors
/// Those of the system.
pub fn umount_lazily(path: &Path) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) })
}

/// Remounts read-only, which a mount of Cairn is, and thereby has the kernel forget all names
/// and pages of it that nobody uses: mount(2).
///
/// # Errors
/// Those of the system.
pub fn drop_names(mounted: &Path) -> io::Result<()> {
    let path = c_path(mounted);
    let (none, flags) = (std::ptr::null(), libc::MS_REMOUNT | libc::MS_RDONLY);
    // SAFETY: the path ends in NUL, and nothing else is read when only flags change.
    check(unsafe { libc::mount(none, path.as_ptr(), none, flags, none.cast()) })
}

/// Has the kernel forget the pages of a file that nobody uses: posix_fadvise(2). Of a file in an
/// overlay that are those of the file in the layer that has it.
///
/// # Errors
/// Those of the system.
pub fn drop_pages(file: &File) -> io::Result<()> {
    let descriptor = file.as_raw_fd();
    // SAFETY: takes numbers only.
    match unsafe { libc::posix_fadvise(descriptor, 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Gives the calling thread mounts of its own, of which nobody else sees changes: unshare(2).
/// They go away with the last thread or process that has them.
pub(crate) fn own_mounts() -> io::Result<()> {
    // SAFETY: takes a number only, and changes what this thread sees.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: the path ends in NUL, and nothing else is read when only flags change.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, flags, std::ptr::null()) })
}

/// Cuts a filesystem off its disk, without writing its journal: ioctl_xfs_goingdown(2), which
/// ext4 knows as well.
pub(crate) fn shut_down(root: &File) -> io::Result<()> {
    // _IOR('X', 125, __u32), though it reads.
    const GOING_DOWN: libc::c_ulong = 0x8004_587d;
    let no_log_flush = 2_u32;
    // SAFETY: the descriptor is open, and the number outlives the call.
    check(unsafe { libc::ioctl(root.as_raw_fd(), GOING_DOWN, &raw const no_log_flush) })
}

/// The major and minor number of a device, as `st_rdev` has them.
pub(crate) fn device_numbers(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}

/// Sends a signal to a process that this one has started: kill(2).
///
/// # Errors
/// Those of the system.
pub fn signal(process: u32, signal: libc::c_int) -> io::Result<()> {
    let process = libc::pid_t::try_from(process).expect("it is the number of a process");
    // SAFETY: kill takes numbers only.
    check(unsafe { libc::kill(process, signal) })
}

/// An argument of a system call.
pub(crate) enum Arg<'a> {
    Number(i64),
    Text(&'a CStr),
    /// What the kernel reads or fills.
    Buffer(&'a mut [u8]),
}

/// Makes a system call with at most six arguments.
///
/// Whoever calls gives each buffer the size that the call demands.
pub(crate) fn call<'a>(
    number: libc::c_long,
    arguments: impl IntoIterator<Item = Arg<'a>>,
) -> io::Result<i64> {
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Arg::Number(number) => number,
            Arg::Text(text) => text.as_ptr() as i64,
            Arg::Buffer([]) => 0,
            Arg::Buffer(buf) => buf.as_mut_ptr() as i64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: texts end in NUL and, like the buffers, outlive the call, and the
    // buffers have the size that the call demands.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that a system call has just given.
pub(crate) fn owned(descriptor: i64) -> OwnedFd {
    let descriptor = descriptor.try_into().expect("it is a descriptor");
    // SAFETY: it is new, and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Maps the first `len` bytes of a file, writes the first one again if the
/// protection allows it, and returns them.
///
/// # Errors
/// Those of mmap(2).
pub(crate) fn map(
    file: BorrowedFd<'_>,
    len: usize,
    protection: libc::c_int,
    flags: libc::c_int,
) -> io::Result<Vec<u8>> {
    let (anywhere, descriptor) = (std::ptr::null_mut(), file.as_raw_fd());
    // SAFETY: asks for a new mapping wherever there is room.
    let start = unsafe { libc::mmap(anywhere, len, protection, flags, descriptor, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let first: *mut u8 = start.cast();
    if protection & libc::PROT_WRITE != 0 {
        // SAFETY: the mapping is there, and may be written.
        unsafe { first.write_volatile(b'M') };
    }
    let mut bytes = vec![0; len];
    // SAFETY: both have `len` bytes, and the second is new.
    unsafe { std::ptr::copy_nonoverlapping(first, bytes.as_mut_ptr(), len) };
    // SAFETY: it is the mapping that was made, and nobody refers to it.
    check(unsafe { libc::munmap(start, len) })?;
    Ok(bytes)
}

/// A page of memory at the beginning of a page, as O_DIRECT demands it.
#[repr(align(4096))]
pub(crate) struct Aligned([u8; 4096]);

impl Aligned {
    pub(crate) fn new() -> Self {
        Self([0; 4096])
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Makes the calling thread, and no other, an ordinary user of the group with the
/// same number.
pub(crate) fn become_user(user: u32) -> io::Result<()> {
    let user = || Arg::Number(user.into());
    // The system calls themselves, since those of libc change all threads.
    call(libc::SYS_setgroups, [Arg::Number(0), Arg::Number(0)])?;
    call(libc::SYS_setresgid, [user(), user(), user()])?;
    call(libc::SYS_setresuid, [user(), user(), user()])?;
    Ok(())
}

/// Sets which permissions new files of this process do not get: umask(2).
pub fn set_umask(mask: libc::mode_t) {
    // SAFETY: takes a number only, and cannot fail.
    unsafe { libc::umask(mask) };
}

/// The system's allocator, with a count of the bytes that Rust code has of it.
///
/// Libraries in C take their memory elsewhere.
#[derive(Debug)]
pub struct CountedHeap;

/// Bytes that are allocated, and the most that were since [`CountedHeap::begin`].
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

impl CountedHeap {
    /// Begins to look for the most; returns how many bytes there are.
    pub fn begin() -> usize {
        let now = NOW.load(Ordering::Relaxed);
        MOST.store(now, Ordering::Relaxed);
        now
    }

    /// The most bytes at once since then.
    pub fn most() -> usize {
        MOST.load(Ordering::Relaxed)
    }

    fn add(len: usize) {
        let now = NOW.fetch_add(len, Ordering::Relaxed).wrapping_add(len);
        MOST.fetch_max(now, Ordering::Relaxed);
    }

    fn subtract(len: usize) {
        NOW.fetch_sub(len, Ordering::Relaxed);
    }
}

// SAFETY: all of it is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for CountedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps what `alloc` demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps what `alloc_zeroed` demands.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        Self::subtract(layout.size());
        // SAFETY: the caller keeps what `dealloc` demands, and `at` is of this allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        Self::add(len);
        Self::subtract(layout.size());
        // SAFETY: the caller keeps what `realloc` demands, and `at` is of this allocator.
        unsafe { System.realloc(at, layout, len) }
    }
}
