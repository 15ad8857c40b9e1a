//! The three members of a Debian package: an ar archive.
//!
//! Format: deb(5), version 2.0. Each member begins with 60 bytes:
//!
//! | offset | size | field |
//! |---:|---:|---|
//! | 0 | 16 | name, filled with blanks, perhaps with a slash at its end |
//! | 16 | 32 | time, user, group and mode, which nobody reads |
//! | 48 | 10 | size in decimal digits, filled with blanks |
//! | 58 | 2 | `` ` `` and a line feed |

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use cairn_store::archive::Compression;

use super::error::Problem;

/// Where the members lie.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) control: Member,
    pub(super) data: Member,
}

/// One compressed tar archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Such as `data.tar.xz`.
    pub(super) name: String,
    pub(super) compression: Compression,
    start: u64,
    size: u64,
}

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_LEN: usize = 60;

impl Container {
    /// Finds the members of `deb`.
    ///
    /// Members whose name begins with an underscore are skipped, and so are
    /// all after the data, as deb(5) wants it.
    pub(super) fn read(deb: &File) -> Result<Self, Problem> {
        let len = deb.metadata().map_err(Problem::Read)?.len();
        let mut magic = [0; 8];
        read_exact_at(deb, &mut magic, 0)?;
        if &magic != MAGIC {
            return Err(Problem::Container { offset: 0, fault: "no ar archive" });
        }

        let mut headers = Headers { deb, len, next: MAGIC.len() as u64 };
        let (name, start, size) = headers.next()?;
        if name != b"debian-binary" {
            return Err(Problem::Member { found: name, expected: "debian-binary" });
        }
        let mut format = [0; 4];
        let format = &mut format[..usize::try_from(size.min(4)).expect("at most 4")];
        read_exact_at(deb, format, start)?;
        if size > 64 || !format.starts_with(b"2.") {
            return Err(Problem::Format(format.to_vec()));
        }
        let control = headers.tar("control.tar", "control.tar, perhaps with .gz, .xz or .zst")?;
        let data = headers.tar("data.tar", "data.tar, perhaps with .gz, .xz or .zst")?;
        Ok(Self { control, data })
    }
}

impl Member {
    /// The stored bytes.
    pub(super) fn reader<'a>(&self, deb: &'a File) -> impl Read + use<'a> {
        Piece { deb, next: self.start, left: self.size }
    }
}

struct Headers<'a> {
    deb: &'a File,
    len: u64,
    next: u64,
}

impl Headers<'_> {
    /// Name, offset and size of the next member, which lies within the file.
    fn next(&mut self) -> Result<(Vec<u8>, u64, u64), Problem> {
        let offset = self.next;
        let broken = |fault| Problem::Container { offset, fault };
        let start = offset + HEADER_LEN as u64;
        if start > self.len {
            return Err(broken("the archive ends where a member belongs"));
        }
        let mut header = [0; HEADER_LEN];
        read_exact_at(self.deb, &mut header, offset)?;
        if header[58..] != *b"`\n" {
            return Err(broken("no header of a member"));
        }
        let name = header[..16].trim_ascii_end();
        let name = name.strip_suffix(b"/").unwrap_or(name).to_vec();
        let digits = header[48..58].trim_ascii_end();
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let size = std::str::from_utf8(digits).ok().filter(|_| is_number);
        let size: u64 = size.and_then(|s| s.parse().ok()).ok_or_else(|| broken("no size"))?;
        if size > self.len - start {
            return Err(broken("a member longer than the file"));
        }
        self.next = start + size + size % 2;
        Ok((name, start, size))
    }

    /// The next member that is not private to somebody.
    fn tar(&mut self, stem: &str, expected: &'static str) -> Result<Member, Problem> {
        let (name, start, size) = loop {
            let member = self.next()?;
            if !member.0.starts_with(b"_") {
                break member;
            }
        };
        let text = std::str::from_utf8(&name).ok();
        let compression = text.and_then(|name| name.strip_prefix(stem)).and_then(Compression::of);
        match (text, compression) {
            (Some(text), Some(compression)) => {
                Ok(Member { name: text.into(), compression, start, size })
            }
            _ => Err(Problem::Member { found: name, expected }),
        }
    }
}

fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> Result<(), Problem> {
    file.read_exact_at(buf, offset).map_err(|err| match err.kind() {
        io::ErrorKind::UnexpectedEof => Problem::Container { offset, fault: "the end of the file" },
        _ => Problem::Read(err),
    })
}

/// Part of a file, read without moving its position.
struct Piece<'a> {
    deb: &'a File,
    next: u64,
    left: u64,
}

impl Read for Piece<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let len = self.deb.read_at(&mut buf[..wanted], self.next)?;
        if len == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.next += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::convert::fixture::{Ar, file};

    #[test]
    fn the_members_are_found_past_private_ones() {
        let deb = Ar::new()
            .member("debian-binary", b"2.0\n")
            .member("_other", b"odd")
            .member("control.tar.gz/", b"control")
            .member("_x", b"")
            .member("data.tar", b"data!")
            .member("later", b"")
            .bytes();
        let deb = file(&deb);
        let Container { control, data } = Container::read(&deb).expect("a package");
        let text = |member: &Member| {
            let mut text = String::new();
            member.reader(&deb).read_to_string(&mut text).expect("the bytes");
            (member.name.clone(), member.compression, text)
        };
        assert_eq!(text(&control), ("control.tar.gz".into(), Compression::Gzip, "control".into()));
        assert_eq!(text(&data), ("data.tar".into(), Compression::None, "data!".into()));
    }

    #[test]
    fn what_is_no_package_is_refused_with_its_reason() {
        let check = |bytes: &[u8], expected: &str| {
            let problem = Container::read(&file(bytes)).expect_err(expected);
            assert!(problem.to_string().contains(expected), "{problem} instead of {expected}");
        };
        let begin = || Ar::new().member("debian-binary", b"2.0\n");
        check(b"", "the end of the file at byte 0");
        check(b"not an archive", "no ar archive");
        check(&Ar::new().bytes(), "ends where a member belongs at byte 8");
        check(&Ar::new().member("control.tar", b"").bytes(), "where debian-binary belongs");
        check(&Ar::new().member("debian-binary", b"3.0\n").bytes(), "format \"3.0\\n\"");
        check(&begin().member("data.tar", b"").bytes(), "where control.tar");
        check(&begin().member("control.tar.lz", b"").bytes(), "\"control.tar.lz\"");
        check(&begin().member("control.tar", b"").bytes(), "at byte 132");
        let mut long = begin().member("control.tar", b"x").bytes();
        let size = long.len() - 2 - 12;
        long[size..size + 10].copy_from_slice(b"9999999999");
        check(&long, "longer than the file at byte 72");
        long[size..size + 10].copy_from_slice(b"+1        ");
        check(&long, "no size at byte 72");
        let mut mark = begin().bytes();
        mark[8 + 58] = b'x';
        check(&mark, "no header of a member at byte 8");
    }

    #[test]
    fn every_prefix_of_a_package_is_refused_without_a_panic() {
        let whole = Ar::new()
            .member("debian-binary", b"2.0\n")
            .member("control.tar", b"c")
            .member("data.tar", b"d")
            .bytes();
        // The byte that makes the last member's length even may be missing.
        for len in 0..whole.len() - 1 {
            let mut deb = tempfile::tempfile().expect("a file");
            deb.write_all(&whole[..len]).expect("written");
            assert!(Container::read(&deb).is_err(), "{len} bytes");
        }
    }
}
