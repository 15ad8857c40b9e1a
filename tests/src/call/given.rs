//! All calls, by name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use super::steps::*;
use super::words::*;
use super::{Call, Errno};
use crate::sys::{self, Arg};

/// Makes a call; nothing if there is none of this name with so many arguments.
///
/// The outer error says which argument cannot be understood.
pub(super) fn given(
    name: &str,
    arguments: &[&str],
) -> Option<Result<Result<String, Errno>, String>> {
    let result = match (name, arguments) {
        // Reading.
        ("open", [path, flags]) => flags_of(flags, OPEN).map(|flags| {
            open(path, flags, 0o600)?;
            done()
        }),
        ("open", [path, flags, mode]) => flags_of(flags, OPEN).and_then(|flags| {
            let mode = octal(mode)?;
            Ok(open(path, flags, mode).and_then(|_| done()))
        }),
        ("read", [path, offset, len]) => both(number(offset), number(len)).map(|(offset, len)| {
            let mut bytes = vec![0; size(len)];
            let read =
                File::from(open(path, libc::O_RDONLY, 0)?).read_at(&mut bytes, unsigned(offset))?;
            text(&bytes[..read])
        }),
        ("read_direct", [path, len]) => number(len).map(|len| {
            let opened = open(path, libc::O_RDONLY | libc::O_DIRECT, 0)?;
            let mut buf = sys::Aligned::new();
            let read = File::from(opened).read_at(&mut buf.bytes()[..size(len)], 0)?;
            text(&buf.bytes()[..read.min(16)])
        }),
        ("sendfile", [path, len]) => number(len).map(|len| {
            let opened = open(path, libc::O_RDONLY, 0)?;
            let (mut reader, writer) = io::pipe()?;
            let out = i64::from(writer.as_raw_fd());
            let arguments = [Arg::Number(out), fd(&opened), Arg::Number(0), Arg::Number(len)];
            let sent = sys::call(libc::SYS_sendfile, arguments)?;
            let mut bytes = vec![0; size(sent)];
            reader.read_exact(&mut bytes)?;
            text(&bytes)
        }),
        ("mmap", [path, protection, sharing]) => {
            both(flags_of(protection, PROTECTION), flags_of(sharing, SHARING)).map(
                |(protection, sharing)| {
                    let writes = protection & libc::PROT_WRITE != 0;
                    let is_shared = sharing == libc::MAP_SHARED;
                    let flags = if writes && is_shared { libc::O_RDWR } else { libc::O_RDONLY };
                    let opened = open(path, flags, 0)?;
                    text(&sys::map(opened.as_fd(), 4, protection, sharing)?)
                },
            )
        }
        ("lseek", [path, offset, whence]) => {
            both(number(offset), flags_of(whence, WHENCE)).map(|(offset, whence)| {
                let opened = open(path, libc::O_RDONLY, 0)?;
                let arguments = [fd(&opened), Arg::Number(offset), Arg::Number(whence.into())];
                Ok(sys::call(libc::SYS_lseek, arguments)?.to_string())
            })
        }
        ("readdir", [path]) => Ok(names(path)),
        ("seekdir", [path]) => Ok(seek_everywhere(path)),
        ("stat", [path, field]) => field_of(field).map(|field| Ok(field(&fs::metadata(path)?))),
        ("lstat", [path, field]) => {
            field_of(field).map(|field| Ok(field(&fs::symlink_metadata(path)?)))
        }
        ("lstat", [path]) => Ok(fs::symlink_metadata(path).and_then(|_| done())),
        ("fstat", [path]) => Ok(open(path, libc::O_PATH | libc::O_NOFOLLOW, 0)
            .and_then(|opened| File::from(opened).metadata())
            .and_then(|_| done())),
        ("same_inode", [one, other]) => Ok(same_inode(one, other)),
        ("statfs", [path, field]) => statfs_field(field).map(|field| {
            let mut buf = [0_u8; 256];
            let path = c(path);
            sys::call(libc::SYS_statfs, [Arg::Text(&path), Arg::Buffer(&mut buf)])?;
            Ok(field(&buf))
        }),
        ("readlink", [path]) => {
            Ok(fs::read_link(path).and_then(|goal| text(goal.as_os_str().as_bytes())))
        }
        ("realpath", [path]) => Ok(fs::canonicalize(path).and_then(|found| {
            let here = std::env::current_dir()?;
            text(found.strip_prefix(&here).unwrap_or(&found).as_os_str().as_bytes())
        })),
        ("access", [path, mode]) => flags_of(mode, ACCESS).map(|mode| {
            let path = c(path);
            // With the effective user, who is the real one as well.
            let arguments = [AT, Arg::Text(&path), Arg::Number(mode.into())];
            sys::call(libc::SYS_faccessat, arguments)?;
            done()
        }),
        ("exec", [path, arguments @ ..]) => Ok(Command::new(Path::new(".").join(path))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .and_then(|output| text(output.stdout.trim_ascii_end()))),
        ("connect", [path]) => Ok(UnixStream::connect(path).and_then(|_| done())),
        // Attributes.
        ("getxattr", [path, name]) => Ok(getxattr(path, name, 65_536)),
        ("getxattr", [path, name, len]) => number(len).map(|len| getxattr(path, name, size(len))),
        ("listxattr", [path]) => Ok(listxattr(path)),
        ("setxattr", [path, name, value]) => Ok(setxattr(path, name, value, 0)),
        ("setxattr", [path, name, value, flag]) => {
            flags_of(flag, XATTR).map(|flag| setxattr(path, name, value, flag))
        }
        ("removexattr", [path, name]) => {
            let (path, name) = (c(path), c(name));
            Ok(sys::call(libc::SYS_lremovexattr, [Arg::Text(&path), Arg::Text(&name)])
                .and_then(|_| done()))
        }
        // Changing.
        ("write", [path, text]) => Ok(write(path, text, 0o644)),
        ("write", [path, text, mode]) => octal(mode).map(|mode| write(path, text, mode)),
        ("pwrite", [path, bytes, offset]) => number(offset).map(|offset| {
            let opened = open(path, libc::O_WRONLY, 0)?;
            File::from(opened).write_all_at(bytes.as_bytes(), unsigned(offset))?;
            done()
        }),
        ("append", [path, bytes]) => Ok(open(path, libc::O_WRONLY | libc::O_APPEND, 0)
            .and_then(|opened| File::from(opened).write_all(bytes.as_bytes()))
            .and_then(|()| done())),
        ("copy", [from, to]) => Ok(fs::copy(from, to).and_then(|_| done())),
        ("truncate", [path, len]) => number(len).map(|len| {
            let path = c(path);
            sys::call(libc::SYS_truncate, [Arg::Text(&path), Arg::Number(len)])?;
            done()
        }),
        ("fallocate", [path, mode, offset, len]) => {
            let mode = flags_of(mode, FALLOCATE);
            both(mode, both(number(offset), number(len))).map(|(mode, (offset, len))| {
                let opened = open(path, libc::O_RDWR, 0)?;
                let mode = Arg::Number(mode.into());
                let arguments = [fd(&opened), mode, Arg::Number(offset), Arg::Number(len)];
                sys::call(libc::SYS_fallocate, arguments)?;
                done()
            })
        }
        ("copy_file_range", [from, to]) => Ok(copy_file_range(from, to)),
        ("mkdir", [path, mode]) => octal(mode).map(|mode| {
            let path = c(path);
            sys::call(libc::SYS_mkdirat, [AT, Arg::Text(&path), Arg::Number(mode.into())])?;
            done()
        }),
        ("rmdir", [path]) => Ok(fs::remove_dir(path).and_then(|()| done())),
        ("unlink", [path]) => {
            let path = c(path);
            let arguments = [AT, Arg::Text(&path), Arg::Number(0)];
            Ok(sys::call(libc::SYS_unlinkat, arguments).and_then(|_| done()))
        }
        ("symlink", [goal, path]) => {
            Ok(std::os::unix::fs::symlink(goal, path).and_then(|()| done()))
        }
        ("link", [from, to]) => Ok(fs::hard_link(from, to).and_then(|()| done())),
        ("rename", [from, to]) => Ok(rename(from, to, 0)),
        ("rename", [from, to, flag]) => flags_of(flag, RENAME).map(|flag| rename(from, to, flag)),
        ("mknod", [path, kind, mode, numbers @ ..]) => mknod(path, kind, mode, numbers),
        ("bind", [path]) => Ok(UnixListener::bind(path).and_then(|_| done())),
        ("chmod", [path, mode]) => octal(mode).map(|mode| {
            let path = c(path);
            sys::call(libc::SYS_fchmodat, [AT, Arg::Text(&path), Arg::Number(mode.into())])?;
            done()
        }),
        ("chown", [path, user, group]) => both(number(user), number(group)).map(|(user, group)| {
            let path = c(path);
            let owner = [Arg::Number(user), Arg::Number(group)];
            let [user, group] = owner;
            let flags = Arg::Number(libc::AT_SYMLINK_NOFOLLOW.into());
            sys::call(libc::SYS_fchownat, [AT, Arg::Text(&path), user, group, flags])?;
            done()
        }),
        ("utimens", [path, seconds, nanoseconds]) => both(number(seconds), number(nanoseconds))
            .map(|(seconds, nanoseconds)| {
                let path = c(path);
                let time = [seconds.to_ne_bytes(), nanoseconds.to_ne_bytes()].concat();
                let mut times = time.repeat(2);
                let flags = Arg::Number(libc::AT_SYMLINK_NOFOLLOW.into());
                let arguments = [AT, Arg::Text(&path), Arg::Buffer(&mut times), flags];
                sys::call(libc::SYS_utimensat, arguments)?;
                done()
            }),
        // Descriptors.
        ("fsync", [path]) => Ok(with_fd(libc::SYS_fsync, path, [])),
        ("fdatasync", [path]) => Ok(with_fd(libc::SYS_fdatasync, path, [])),
        ("syncfs", [path]) => Ok(with_fd(libc::SYS_syncfs, path, [])),
        ("fadvise", [path, advice]) => flags_of(advice, ADVICE).map(|advice| {
            let rest = [Arg::Number(0), Arg::Number(0), Arg::Number(advice.into())];
            with_fd(libc::SYS_fadvise64, path, rest)
        }),
        ("readahead", [path]) => {
            Ok(with_fd(libc::SYS_readahead, path, [Arg::Number(0), Arg::Number(4096)]))
        }
        ("flock", [path, kinds @ ..]) if !kinds.is_empty() => {
            let kinds: Result<Vec<i32>, String> =
                kinds.iter().map(|kind| flags_of(kind, LOCK)).collect();
            kinds.map(|kinds| flock(path, &kinds))
        }
        ("fcntl", [path, command, kind]) => both(flags_of(command, FCNTL), flags_of(kind, RECORD))
            .map(|(command, kind)| lock_record(path, command, kind)),
        ("setlease", [path]) => {
            let (command, kind) = (Arg::Number(libc::F_SETLEASE.into()), Arg::Number(0));
            Ok(with_fd(libc::SYS_fcntl, path, [command, kind]))
        }
        ("ioctl", [path, request]) => flags_of(request, IOCTL).map(|request| {
            let opened = open(path, libc::O_RDONLY, 0)?;
            // Larger than what any of these gives back; for FIEMAP, the whole file.
            let mut buf = [0_u8; 256];
            buf[8..16].fill(0xff);
            let request = Arg::Number(request.into());
            sys::call(libc::SYS_ioctl, [fd(&opened), request, Arg::Buffer(&mut buf)])?;
            Ok(i32::from_ne_bytes([buf[0], buf[1], buf[2], buf[3]]).to_string())
        }),
        ("name_to_handle_at", [path]) => Ok(handle(path).and_then(|_| done())),
        ("open_by_handle_at", [path]) => Ok(handle(path).and_then(|mut handle| {
            let here = open(".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
            let arguments =
                [fd(&here), Arg::Buffer(&mut handle), Arg::Number(libc::O_RDONLY.into())];
            sys::owned(sys::call(libc::SYS_open_by_handle_at, arguments)?);
            done()
        })),
        ("mount_idmapped", [path]) => Ok(mount_idmapped(path)),
        ("inotify", [path, call]) => Call::parse(call).and_then(|call| events(path, &call)),
        _ => return None,
    };
    Some(result)
}
