//! Small Debian packages, made for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Random;

/// A Debian package that is being made.
pub struct Deb {
    name: String,
    version: String,
    fields: String,
    data: Data,
}

enum Data {
    /// File by file.
    Growing(tar::Builder<Vec<u8>>),
    /// An archive by tar(1).
    Whole(Vec<u8>),
}

/// When every file of these packages was changed.
const MTIME: u64 = 1_700_000_000;

/// Three small packages to try changes with: base, tool, and app, which needs base and has a
/// file that fills a pack of its own.
#[must_use]
pub fn base_tool_and_app() -> [Deb; 3] {
    let noise = |seed, len| Random(seed).bytes(len);
    let base = Deb::new("base", "1.0-1").file("usr/bin/base", 0o755, "#!/bin/sh\n");
    let base = base.file("etc/base.conf", 0o644, "one");
    let base = base.file("usr/share/base/a", 0o644, noise(1, 300));
    let tool = Deb::new("tool", "1.0-1").file("usr/bin/tool", 0o755, noise(2, 9000));
    let mut app = Deb::new("app", "1.0-1").field("Depends", "base");
    for number in 0..30 {
        app = app.file(&format!("usr/share/app/{number}"), 0o644, noise(number + 10, 4000));
    }
    let app = app.file("usr/lib/app.so", 0o644, noise(3, 1_200_000));
    [base, tool, app]
}

impl Deb {
    /// A package without files.
    #[must_use]
    pub fn new(name: &str, version: &str) -> Self {
        let data = Data::Growing(tar::Builder::new(Vec::new()));
        Self { name: name.into(), version: version.into(), fields: String::new(), data }
    }

    /// Adds a field such as `Depends`.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push_str(&format!("{name}: {value}\n"));
        self
    }

    /// Adds a regular file of root.
    ///
    /// # Panics
    /// If the path is too long for a plain header.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let mut header = header(tar::EntryType::Regular, mode);
        header.set_size(bytes.len() as u64);
        self.growing().append_data(&mut header, path, bytes).unwrap();
        self
    }

    /// Adds a symbolic link.
    ///
    /// # Panics
    /// If path or text are too long for a plain header.
    #[must_use]
    pub fn symlink(mut self, path: &str, text: &str) -> Self {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        self.growing().append_link(&mut header, path, text).unwrap();
        self
    }

    /// Adds a directory by itself.
    ///
    /// # Panics
    /// If the path is too long for a plain header.
    #[must_use]
    pub fn empty_directory(mut self, path: &str, mode: u32) -> Self {
        let mut header = header(tar::EntryType::Directory, mode);
        self.growing().append_data(&mut header, path, &[][..]).unwrap();
        self
    }

    fn growing(&mut self) -> &mut tar::Builder<Vec<u8>> {
        match &mut self.data {
            Data::Growing(archive) => archive,
            Data::Whole(_) => panic!("the archive is whole"),
        }
    }

    /// Has all files of a directory, and nothing else, as they are, with owners, times, links,
    /// devices and extended attributes.
    ///
    /// # Panics
    /// If tar(1) fails.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        let mut tar = Command::new("tar");
        tar.args(["--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner"]);
        let made = tar.arg("-C").arg(directory).args(["-c", "."]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.data = Data::Whole(made.stdout);
        self
    }

    /// Writes the package into `directory`, and returns its path.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(self, directory: &Path) -> PathBuf {
        let Self { name, version, fields, data } = self;
        let data = match data {
            Data::Growing(archive) => archive.into_inner().unwrap(),
            Data::Whole(archive) => archive,
        };
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nSection: misc\n\
             Maintainer: Nobody <a@b>\nDescription: {name} in one line\n{fields}"
        );
        let mut member = tar::Builder::new(Vec::new());
        let mut header = header(tar::EntryType::Regular, 0o644);
        header.set_size(control.len() as u64);
        member.append_data(&mut header, "./control", control.as_bytes()).unwrap();
        let control = member.into_inner().unwrap();

        let mut deb = b"!<arch>\n".to_vec();
        let members: [(&str, &[u8]); 3] =
            [("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &data)];
        for (member, bytes) in members {
            let (mode, len) = (100_644, bytes.len());
            let header = format!("{member:<16}{MTIME:<12}{:<6}{:<6}{mode:<8}{len:<10}`\n", 0, 0);
            deb.extend_from_slice(header.as_bytes());
            deb.extend_from_slice(bytes);
            deb.resize(deb.len().next_multiple_of(2), b'\n');
        }
        let path = directory.join(format!("{name}_{version}_amd64.deb"));
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(&path, deb).unwrap();
        path
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(0);
    header
}
