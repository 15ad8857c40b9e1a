//! A directory with a store, and `cairn` run on it as a user runs it.

#![allow(dead_code, reason = "not every test uses everything")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A temporary directory; its store, if one is made, is `store` in it.
pub struct World {
    directory: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// The command in the directory, without a terminal.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        command.env("CAIRN_STORE", self.store()).env("TZ", "UTC").current_dir(self.path());
        command.args(args).stdin(Stdio::null());
        command
    }

    pub fn cairn(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Checks that the command succeeds, and returns what it prints as data.
    pub fn data(&self, args: &[&str]) -> String {
        let output = self.cairn(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Checks that the command fails with `code` and prints no data, and
    /// returns what it complains of.
    pub fn failure(&self, code: i32, args: &[&str]) -> String {
        let output = self.cairn(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{args:?}");
        text(&output.stderr)
    }

    /// Like [`Self::data`], as JSON.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.data(&[&["--json"], args].concat())).unwrap()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The stone of the test data.
pub fn real_stone() -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    data.join("bash-completion-2.11-1-1-x86_64.stone")
}

/// Writes a Debian package, which is an ar archive with two tar archives in it.
/// `fields` are lines of its control file beside the usual ones.
pub fn write_deb(directory: &Path, name: &str, fields: &str, files: &[(&str, &str)]) {
    let mut control =
        format!("Package: {name}\nArchitecture: amd64\nMaintainer: N <a@b>\n{fields}");
    if !fields.contains("Version: ") {
        control.push_str("Version: 1.2-3\n");
    }
    control.push_str(&format!("Description: {name} in one line\n"));
    let control = tar(&[("./control", &control), ("./postinst", "#!/bin/sh\nexit 1\n")]);
    let members: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &tar(files))];
    let mut deb = b"!<arch>\n".to_vec();
    for (member, bytes) in members {
        let (mode, len) = (100_644, bytes.len());
        let header = format!("{member:<16}{:<12}{:<6}{:<6}{mode:<8}{len:<10}`\n", 0, 0, 0);
        deb.extend_from_slice(header.as_bytes());
        deb.extend_from_slice(bytes);
        deb.resize(deb.len().next_multiple_of(2), b'\n');
    }
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join(format!("{name}.deb")), deb).unwrap();
}

/// A tar archive of programs with their bytes.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Whether this machine can mount. Where it cannot, the test that asks says
/// that it does nothing; in CI it fails.
pub fn can_mount() -> bool {
    let fuse = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    let Err(err) = fuse else { return true };
    assert!(std::env::var_os("CI").is_none(), "cannot open /dev/fuse: {err}");
    // Written past the test harness, which would keep it to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: cannot open /dev/fuse: {err}");
    false
}

/// A mount that ends with the test, however that ends.
pub struct Mounted<'a> {
    world: &'a World,
    pub path: PathBuf,
}

impl World {
    /// Makes the directory `name` and mounts on it.
    pub fn mount(&self, name: &str, options: &[&str]) -> Mounted<'_> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        let mounted = Mounted { world: self, path };
        self.data(&[&["mount"], options, &[name]].concat());
        mounted
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = self.world.command(&["umount", "--lazy"]).arg(&self.path).output();
    }
}
