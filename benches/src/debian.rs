//! Real packages for benchmarks: downloaded, described and unpacked with Debian's tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_package::Metadata;
use cairn_package::convert::Converter;
use cairn_package::stone::write_index;

use crate::{binary, run};

/// Debian packages with all that they need, as files, downloaded into `directory` where
/// they are missing.
#[must_use]
pub fn fetch_debs(directory: &Path, packages: &[&str]) -> Vec<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/fetch-debs");
    let output = Command::new(script).arg(directory).args(packages).output();
    let output = output.expect("bash is here");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fetch-debs: {text}");
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

/// With all that these need it is 100 packages of Debian 12.
const ROOTS: [&str; 16] = [
    "bash",
    "bc",
    "coreutils",
    "curl",
    "file",
    "gawk",
    "git",
    "less",
    "make",
    "nano",
    "python3",
    "rsync",
    "sqlite3",
    "tmux",
    "tree",
    "vim-tiny",
];

/// 100 real packages as files, in the order of their names.
#[must_use]
pub fn hundred_debs() -> Vec<PathBuf> {
    let debs = fetch_debs(&binary().with_file_name("../debs"), &ROOTS);
    assert!(debs.len() >= 100, "{} packages are too few", debs.len());
    debs
}

/// All packages that apt can download on this machine, as what they would be as stones.
#[must_use]
pub fn offered_packages() -> Vec<Metadata> {
    let output = Command::new("apt-cache").arg("dumpavail").output().expect("apt is here");
    let text = String::from_utf8_lossy(&output.stdout);
    // Without what is only installed.
    let is_offered = |paragraph: &&str| paragraph.contains("\nFilename: ");
    let text = text.split("\n\n").filter(is_offered).collect::<Vec<_>>().join("\n\n");
    Converter::new("x86_64").describe_index(&text).expect("it is an index")
}

/// Writes `packages` as the index of a repository; returns its size.
pub fn write_repository(packages: Vec<Metadata>, directory: &Path) -> usize {
    let mut index = Vec::new();
    let mut packages: Vec<Metadata> = packages.into_iter().take(usize::from(u16::MAX)).collect();
    for package in &mut packages {
        // Indices of Cairn have it, so that a plan opens no stone; the number matters to nobody.
        if let Some(location) = &mut package.location {
            location.installed_size.get_or_insert(location.size);
        }
    }
    write_index(&packages, &mut index).expect("an index");
    fs::write(directory.join("stone.index"), &index).expect("written");
    index.len()
}

/// What a Debian package has run.
const SCRIPTS: [&str; 5] = ["config", "postinst", "postrm", "preinst", "prerm"];

/// Unpacks a Debian package, scripts left out, into the new directory `to`: its files, and
/// what dpkg is told of it in `DEBIAN`.
pub fn unpack_without_scripts(deb: &Path, to: &Path) {
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(to));
    for script in SCRIPTS {
        // Few packages have all of them.
        let _ = fs::remove_file(to.join("DEBIAN").join(script));
    }
}

/// Copies `deb` to `copy` with `control` of [`unpack_without_scripts`] in the place of its
/// own.
pub fn copy_without_scripts(deb: &Path, control: &Path, copy: &Path) {
    let archive = control.with_file_name("control.tar.xz");
    run(Command::new("tar").arg("-cJf").arg(&archive).arg("-C").arg(control).arg("."));
    fs::copy(deb, copy).expect("there is room");
    run(Command::new("ar").arg("r").arg(copy).arg(&archive));
    // What lies beside the control files would be packed as a file of the package.
    fs::remove_file(archive).expect("it is ours");
}

/// Unpacks Debian packages into the new root `to`, told `options` beside; nothing is
/// configured, and packages may come before what they need.
pub fn dpkg_unpack(to: &Path, options: &[&str], debs: &[PathBuf]) {
    let state = to.join("var/lib/dpkg");
    fs::create_dir_all(state.join("info")).expect("a new directory");
    fs::create_dir_all(state.join("updates")).expect("a new directory");
    fs::write(state.join("status"), "").expect("a new file");
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", to.display()));
    dpkg.args(["--log=/dev/null", "--force-depends", "--no-triggers"]);
    run(dpkg.args(options).arg("--unpack").args(debs));
}
