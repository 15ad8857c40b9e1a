//! System calls that std does not offer, for tests.

#![allow(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "numbers of system calls, all of them small"
)]

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// lgetxattr(2) into a buffer of 64 KiB.
pub fn xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (c(path), c(Path::new(name)));
    let mut value = vec![0; 65536];
    // SAFETY: texts are NUL-terminated, and the buffer has the length given.
    let len = unsafe {
        libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
    Ok(value)
}

/// llistxattr(2).
pub fn xattrs(path: &Path) -> Vec<String> {
    let path = c(path);
    let mut names = vec![0_u8; 65536];
    // SAFETY: the path is NUL-terminated, and the buffer has the length given.
    let len = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(len).expect("it lists"));
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.into()).expect("text")).collect()
}

/// The length of what llistxattr(2) gives.
pub fn listxattr(path: &Path) -> io::Result<usize> {
    let (path, mut names) = (c(path), vec![0_u8; 65536]);
    // SAFETY: the path is NUL-terminated, and the buffer has the length given.
    let len = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

/// The mode that the filesystem itself tells now, whatever the kernel remembers: statx(2).
pub fn mode_now(path: &Path) -> io::Result<u16> {
    let path = c(path);
    let (flags, mut found) = (libc::AT_STATX_FORCE_SYNC, MaybeUninit::<libc::statx>::zeroed());
    // SAFETY: the path is NUL-terminated, and the buffer is a statx.
    check(unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS,
            found.as_mut_ptr(),
        )
    })?;
    // SAFETY: the call has filled it.
    Ok(unsafe { found.assume_init() }.stx_mode)
}

/// The buffer for `lgetxattr` may be too small; gives its error.
pub fn xattr_into_small_buffer(path: &Path, name: &str) -> io::Error {
    let (path, name) = (c(path), c(Path::new(name)));
    let mut value = [0_u8; 1];
    // SAFETY: texts are NUL-terminated, and the buffer has the length given.
    let len =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), 1) };
    assert_eq!(len, -1);
    io::Error::last_os_error()
}

pub fn statvfs(path: &Path) -> io::Result<libc::statvfs> {
    let path = c(path);
    let mut stat = MaybeUninit::zeroed();
    // SAFETY: the path is NUL-terminated and the buffer is a statvfs.
    check(unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) })?;
    // SAFETY: the call has filled it.
    Ok(unsafe { stat.assume_init() })
}

/// Remounts read-only, which it is already, and thereby makes the kernel drop
/// all names of that filesystem that nobody uses.
pub fn drop_names(target: &Path) {
    let target = c(target);
    let (none, flags) = (std::ptr::null(), libc::MS_REMOUNT | libc::MS_RDONLY);
    // SAFETY: the path is NUL-terminated; the others may be null here.
    let result = unsafe { libc::mount(none, target.as_ptr(), none, flags, none.cast()) };
    check(result).expect("remount");
}

/// Watches a file with inotify(7), so that the kernel keeps its inode, though
/// not its name, until the descriptor is closed.
pub fn watch(target: &Path) -> OwnedFd {
    // SAFETY: asks for a new descriptor.
    let watcher = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    check(watcher).expect("inotify");
    // SAFETY: it is new, and nobody else owns it.
    let watcher = unsafe { OwnedFd::from_raw_fd(watcher) };
    let target = c(target);
    // SAFETY: the path is NUL-terminated, and the descriptor is open.
    let watch = unsafe {
        libc::inotify_add_watch(watcher.as_raw_fd(), target.as_ptr(), libc::IN_ALL_EVENTS)
    };
    check(watch).expect("a watch");
    watcher
}

pub fn bind(source: &Path, target: &Path) {
    let (source, target) = (c(source), c(target));
    let (none, flags) = (std::ptr::null(), libc::MS_BIND);
    // SAFETY: the paths are NUL-terminated; the others may be null here.
    let result = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), none, flags, none.cast()) };
    check(result).expect("bind");
}

/// Mounts overlayfs with these options.
pub fn mount_overlay(target: &Path, options: &str) {
    mount("overlay", target, options);
}

/// mknod(2) with a major and a minor number.
pub fn mknod(path: &Path, mode: libc::mode_t, (major, minor): (u32, u32)) {
    let path = c(path);
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) }).expect("mknod");
}

/// lsetxattr(2).
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (c(path), c(Path::new(name)));
    // SAFETY: texts are NUL-terminated, and the value has the length given.
    check(unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })
}

/// A filesystem that is mounted until this is dropped, whoever uses it.
pub struct Mounted(CString);

impl Mounted {
    /// Mounts a filesystem of a kind that needs no device.
    pub fn new(kind: &str, target: &Path, options: &str) -> Self {
        mount(kind, target, options);
        Self(c(target))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: the path is NUL-terminated and outlives the call.
        check(unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) }).expect("umount");
    }
}

fn mount(kind: &str, target: &Path, options: &str) {
    let (target, options, kind) = (c(target), c(Path::new(options)), c(Path::new(kind)));
    let data = options.as_ptr().cast();
    // SAFETY: all texts are NUL-terminated and outlive the call.
    let result = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, data) };
    check(result).expect("mount");
}

pub fn unmount(target: &Path) {
    let target = c(target);
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::umount2(target.as_ptr(), 0) }).expect("umount");
}

/// Makes the kernel forget the pages of a file that nobody has mapped.
pub fn drop_pages(file: BorrowedFd<'_>) {
    // SAFETY: takes numbers only, and the descriptor is open.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(result, 0);
}

/// A file that is mapped read-only.
pub struct Mapped {
    start: *mut libc::c_void,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and nobody writes
// to it.
unsafe impl Send for Mapped {}

impl Mapped {
    pub fn new(file: &std::fs::File, len: usize) -> Self {
        let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        let descriptor = file.as_raw_fd();
        // SAFETY: asks for a new mapping wherever there is room.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, descriptor, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self { start, len }
    }

    /// Takes the pages out of the mapping; they are asked for again when they are
    /// needed.
    pub fn drop_pages(&self) {
        // SAFETY: it is the mapping that was made, which is only read, and what is
        // behind it never changes.
        check(unsafe { libc::madvise(self.start, self.len, libc::MADV_DONTNEED) })
            .expect("madvise");
    }

    /// How many of its pages are in memory.
    pub fn resident(&self) -> usize {
        let mut pages = vec![0_u8; self.len.div_ceil(4096)];
        // SAFETY: it is the mapping that was made, and there is a byte for each page.
        check(unsafe { libc::mincore(self.start, self.len, pages.as_mut_ptr()) }).expect("mincore");
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has `len` bytes for as long as `self` lives, and
        // what is behind it never changes.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it is the mapping that was made, and nobody refers to it.
        check(unsafe { libc::munmap(self.start, self.len) }).expect("munmap");
    }
}

pub fn lseek(file: BorrowedFd<'_>, offset: i64, whence: libc::c_int) -> io::Result<i64> {
    // SAFETY: the descriptor is open.
    let result = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// getdents64(2) with a buffer of `len` bytes: number, cookie and name of each.
pub fn getdents(directory: BorrowedFd<'_>, len: usize) -> io::Result<Vec<(u64, i64, Vec<u8>)>> {
    let mut buf = vec![0_u8; len];
    // SAFETY: the buffer has the length given.
    let filled = unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buf.as_mut_ptr(), buf.len())
    };
    let mut rest = &buf[..usize::try_from(filled).map_err(|_| io::Error::last_os_error())?];
    let mut entries = Vec::new();
    while rest.len() > 19 {
        let head = rest;
        let number = u64::from_ne_bytes(head[..8].try_into().expect("8 bytes"));
        let cookie = i64::from_ne_bytes(head[8..16].try_into().expect("8 bytes"));
        let record = usize::from(u16::from_ne_bytes([head[16], head[17]]));
        let name = head[19..record].split(|byte| *byte == 0).next().expect("a first part");
        entries.push((number, cookie, name.to_vec()));
        rest = &rest[record..];
    }
    Ok(entries)
}

/// Does each of the calls that change a filesystem, by name.
pub fn changing_calls(root: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let (file, directory, new) = (root.join("file"), root.join("directory"), root.join("new"));
    let (file, directory, new) = (c(&file), c(&directory), c(&new));
    let (f, d, n) = (file.as_ptr(), directory.as_ptr(), new.as_ptr());
    let name = c(Path::new("user.a"));
    let acl = c(Path::new("system.posix_acl_access"));
    let value = [
        2_u8, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 7, 0, 255, 255, 255, 255, 32, 0, 7, 0,
        255, 255, 255, 255,
    ];
    let times = [libc::timespec { tv_sec: 1, tv_nsec: 0 }; 2];
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(new.as_bytes()) {
        *to = *from as libc::c_char;
    }
    // SAFETY: asks for a new socket.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
    let at = libc::AT_FDCWD;
    let mut results = Vec::new();
    macro_rules! call {
        ($name:literal, $call:expr) => {
            // SAFETY: all texts are NUL-terminated and outlive the calls.
            results.push(($name, check(unsafe { $call } as libc::c_int)));
        };
    }
    call!("open(O_CREAT)", libc::open(n, libc::O_CREAT | libc::O_WRONLY, 0o600));
    call!("open(O_WRONLY)", libc::open(f, libc::O_WRONLY));
    call!("open(O_RDWR)", libc::open(f, libc::O_RDWR));
    call!("open(O_RDONLY|O_TRUNC)", libc::open(f, libc::O_RDONLY | libc::O_TRUNC));
    call!("open(O_TMPFILE)", libc::open(d, libc::O_TMPFILE | libc::O_RDWR, 0o600));
    call!("mkdir", libc::mkdir(n, 0o700));
    call!("mkfifo", libc::mkfifo(n, 0o600));
    call!("mknod", libc::mknod(n, libc::S_IFREG | 0o600, 0));
    call!("symlink", libc::symlink(f, n));
    call!("link", libc::link(f, n));
    call!("rename", libc::rename(f, n));
    call!("unlink", libc::unlink(f));
    call!("rmdir", libc::rmdir(d));
    call!("chmod", libc::chmod(f, 0o600));
    call!("chown", libc::chown(f, 1, 1));
    call!("lchown", libc::lchown(f, 1, 1));
    call!("truncate", libc::truncate(f, 0));
    call!("utimensat", libc::utimensat(at, f, times.as_ptr(), 0));
    call!("bind", libc::bind(socket, (&raw const address).cast(), size_of_val(&address) as u32));
    call!("setxattr", libc::setxattr(f, name.as_ptr(), value.as_ptr().cast(), 1, 0));
    call!("removexattr", libc::removexattr(f, name.as_ptr()));
    call!(
        "setxattr of an ACL",
        libc::setxattr(f, acl.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    );
    call!("close", libc::close(socket));
    results.pop();
    results
}

pub fn access(path: &Path, mode: libc::c_int) -> io::Result<()> {
    let path = c(path);
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::access(path.as_ptr(), mode) })
}

/// Has SIGINT end this process and those that it starts: whoever runs tests in the background
/// of a shell has it ignored.
pub fn heed_interrupts() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// Ends a process without a chance to clean up.
pub fn kill(pid: u32, signal: libc::c_int) {
    // SAFETY: only sends a signal.
    check(unsafe { libc::kill(pid as libc::pid_t, signal) }).expect("kill");
}

/// Makes a private copy of what is mounted for the calling thread alone.
pub fn leave_mount_namespace() {
    // SAFETY: concerns the calling thread alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).expect("unshare");
    let (root, none) = (c(Path::new("/")), std::ptr::null());
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the path is NUL-terminated; the others may be null here.
    check(unsafe { libc::mount(none, root.as_ptr(), none, flags, none.cast()) }).expect("private");
}

pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Calls `f` as another user, in a thread of its own.
pub fn as_user<T: Send>(user: u32, f: impl FnOnce() -> T + Send) -> T {
    let work = || {
        // The system calls themselves, since those of libc change all threads.
        // SAFETY: changes the groups of this thread alone.
        check(unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) } as libc::c_int).expect("groups");
        // SAFETY: changes the group of this thread alone.
        let result = unsafe { libc::syscall(libc::SYS_setresgid, user, user, user) };
        check(result as libc::c_int).expect("group");
        // SAFETY: changes the user of this thread alone.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
        check(result as libc::c_int).expect("user");
        f()
    };
    std::thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
}
