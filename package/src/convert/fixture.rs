//! Debian packages made byte by byte, for tests.

use std::fs::File;
use std::io::Write;

/// An ar archive in the making.
pub(crate) struct Ar(Vec<u8>);

impl Ar {
    pub(crate) fn new() -> Self {
        Self(b"!<arch>\n".to_vec())
    }

    pub(crate) fn member(mut self, name: &str, bytes: &[u8]) -> Self {
        let header =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, bytes.len());
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            self.0.push(b'\n');
        }
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// An unnamed file with these bytes.
pub(crate) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

/// A tar archive in the making; its header fields can be anything.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds an entry of `kind` whose name and link are written as they are.
    pub(crate) fn entry(self, kind: u8, name: &str, link: &str, bytes: &[u8]) -> Self {
        self.entry_with(kind, name, link, bytes, |_| {})
    }

    /// Like [`Self::entry`], with a header that `change` has changed.
    pub(crate) fn entry_with(
        mut self,
        kind: u8,
        name: &str,
        link: &str,
        bytes: &[u8],
        change: impl Fn(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(bytes.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, bytes).expect("written to memory");
        self
    }

    pub(crate) fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.entry(b'0', name, "", bytes)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, text: &str) -> Self {
        self.entry(b'2', name, text, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, b"")
    }

    /// Adds pax records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len = (rest + 1..).find(|len| rest + len.to_string().len() == *len);
            let len = len.expect("some length counts itself");
            bytes.extend_from_slice(format!("{len} {key}=").as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.entry(b'x', "pax", "", &bytes)
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("written to memory")
    }
}

/// A package with this control file and these files, without compression.
pub(crate) fn deb(control: &str, data: Tar) -> Vec<u8> {
    let control = Tar::new().file("./control", control.as_bytes()).bytes();
    deb_of(&control, &data.bytes())
}

/// A package of two tar archives.
pub(crate) fn deb_of(control: &[u8], data: &[u8]) -> Vec<u8> {
    let begin = Ar::new().member("debian-binary", b"2.0\n");
    begin.member("control.tar", control).member("data.tar", data).bytes()
}

/// The control file of a small package.
pub(crate) fn control(name: &str, version: &str) -> String {
    format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\nDescription: a test\n")
}
