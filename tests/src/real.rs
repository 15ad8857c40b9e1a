//! Real Debian packages: downloaded once, converted once for each build of the
//! program, and kept in `target/debs` and `target/stones`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cairn::Cairn;
use crate::need::{Need, skip};

/// What is asked for; with all that these need it is a system to work with.
/// Together they have setuid programs, hard links, directories of other owners,
/// links that climb, files in /bin and /lib, and a lot of configuration.
pub const ROOTS: &[&str] = &[
    "adduser",
    "apt",
    "at",
    "base-files",
    "base-passwd",
    "bash",
    "bc",
    "bison",
    "bzip2",
    "coreutils",
    "cpio",
    "cron",
    "curl",
    "dash",
    "dbus",
    "debianutils",
    "diffutils",
    "dpkg",
    "e2fsprogs",
    "ed",
    "file",
    "findutils",
    "flex",
    "gawk",
    "git",
    "gnupg",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "iputils-ping",
    "jq",
    "kmod",
    "less",
    "login",
    "logrotate",
    "m4",
    "make",
    "man-db",
    "mount",
    "nano",
    "ncurses-bin",
    "openssh-client",
    "passwd",
    "patch",
    "perl",
    "procps",
    "psmisc",
    "python3",
    "rsync",
    "sed",
    "sqlite3",
    "sudo",
    "tar",
    "tmux",
    "tree",
    "tzdata",
    "udev",
    "unzip",
    "util-linux",
    "vim-tiny",
    "wget",
    "xz-utils",
    "zip",
    "zstd",
];

/// The packages, as files.
///
/// Returns nothing where they cannot be had, and says so as [`Need::all`] does.
///
/// # Panics
/// If they could be had, and something goes wrong.
#[must_use]
pub fn debs() -> Option<Vec<PathBuf>> {
    debs_for(ROOTS, "list")
}

/// Other packages with all that they need; `list` is a name for them.
///
/// # Panics
/// As [`debs`].
#[must_use]
pub fn debs_for(roots: &[&str], list: &str) -> Option<Vec<PathBuf>> {
    if !Need::all(&[Need::Debian]) {
        return None;
    }
    let directory = crate::target().join("debs");
    fs::create_dir_all(&directory).unwrap();
    let _lock = lock(&directory.join("lock"));
    let list = directory.join(list);
    let asked = format!("{}\n", roots.join(" "));
    let known = fs::read_to_string(&list).unwrap_or_default();
    if let Some(known) = known.strip_prefix(&asked) {
        let debs: Vec<PathBuf> = known.lines().map(PathBuf::from).collect();
        if debs.iter().all(|deb| deb.exists()) {
            return Some(debs);
        }
    }
    let paths = fetch("fetch-debs", &directory, roots)?;
    fs::write(&list, asked + &paths).unwrap();
    Some(paths.lines().map(PathBuf::from).collect())
}

/// Older versions of some of `debs`, as Debian's archive still has them: its main
/// suite, updates and security fixes have different ones.
///
/// Returns nothing where they cannot be had, and says so as [`Need::all`] does.
///
/// # Panics
/// If they could be had, and something goes wrong.
#[must_use]
pub fn older_debs(debs: &[PathBuf]) -> Option<Vec<PathBuf>> {
    if !Need::all(&[Need::Debian]) {
        return None;
    }
    let directory = crate::target().join("debs/older");
    fs::create_dir_all(&directory).unwrap();
    let _lock = lock(&directory.join("lock"));
    let paths = fetch("fetch-older-debs", &directory, debs)?;
    if paths.is_empty() {
        skip("the package lists of this machine have one version of each package");
        return None;
    }
    Some(paths.lines().map(PathBuf::from).collect())
}

/// Runs a script of `support` that fetches packages; returns the paths that it
/// prints, or nothing, having said so, where there is no apt.
fn fetch<S: AsRef<OsStr>>(script: &str, directory: &Path, words: &[S]) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("support").join(script);
    let fetched = Command::new(path).arg(directory).args(words).output().unwrap();
    let stderr = String::from_utf8_lossy(&fetched.stderr);
    if fetched.status.code() == Some(3) {
        skip(&stderr);
        return None;
    }
    assert!(fetched.status.success(), "{script}: {stderr}");
    Some(String::from_utf8(fetched.stdout).expect("names of packages are ASCII"))
}

/// What is asked for to build packages with the GNU toolchain.
pub const BUILD_ROOTS: &[&str] = &[
    "base-files",
    "bash",
    "binutils",
    "ccache",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "g++",
    "gawk",
    "gcc",
    "grep",
    "gzip",
    "libc6-dev",
    "make",
    "pkgconf",
    "sed",
    "tar",
    "util-linux",
];

/// What is asked for beside [`BUILD_ROOTS`] to build with each build system and for the
/// 32-bit emulation.
pub const SOFTWARE: &[&str] = &[
    "cargo-web",
    "cmake",
    "g++-multilib",
    "gcc-multilib",
    "golang-go",
    "libb-cow-perl",
    "libc6-dev-i386",
    "libncurses-dev",
    "libperl-dev",
    "meson",
    "ninja-build",
    "python3-build",
    "python3-installer",
    "python3-markdown-it",
    "python3-markupsafe",
    "python3-packaging",
    "python3-poetry-core",
    "python3-pygments",
    "python3-setuptools",
    "python3-wheel",
];

/// A repository with all of them as stones.
///
/// Returns nothing where they cannot be had, and says so as [`Need::all`] does.
///
/// # Panics
/// If they could be had, and something goes wrong.
#[must_use]
pub fn repository() -> Option<PathBuf> {
    Some(repository_of(&debs()?, "stones"))
}

/// A repository with what building packages needs.
///
/// # Panics
/// As [`repository`].
#[must_use]
pub fn build_repository() -> Option<PathBuf> {
    Some(repository_of(&debs_for(BUILD_ROOTS, "list-build")?, "stones-build"))
}

/// A repository with what building real software of each build system needs.
///
/// # Panics
/// As [`repository`].
#[must_use]
pub fn software_repository() -> Option<PathBuf> {
    let debs = debs_for(&[BUILD_ROOTS, SOFTWARE].concat(), "list-software")?;
    Some(repository_of(&debs, "stones-software"))
}

/// A repository with these packages in the directory of the build, where it has
/// this name.
///
/// # Panics
/// If something goes wrong.
#[must_use]
pub fn repository_of(debs: &[PathBuf], name: &str) -> PathBuf {
    let cairn = Cairn::new();
    let stones = crate::target().join(name);
    fs::create_dir_all(&stones).unwrap();
    let _lock = lock(&crate::target().join(format!("{name}.lock")));
    // A stone depends on the package and on the program.
    let mut hasher = blake3::Hasher::new();
    hasher.update(&fs::read(cairn.program()).unwrap());
    for deb in debs {
        hasher.update(deb.as_os_str().as_encoded_bytes());
    }
    let made_by = stones.join("made-by");
    let hash = hasher.finalize().to_hex();
    if fs::read_to_string(&made_by).is_ok_and(|made| made == hash.as_str()) {
        return stones;
    }
    fs::remove_dir_all(&stones).unwrap();
    fs::create_dir(&stones).unwrap();
    // Without triggers a root is what other tools make of the packages.
    let words = ["--quiet", "convert", "--without-triggers", "-o"].map(AsRef::as_ref);
    let debs = debs.iter().map(|deb| deb.as_os_str());
    cairn.data(words.into_iter().chain([stones.as_os_str()]).chain(debs));
    let index = ["repo", "index"].map(AsRef::as_ref);
    cairn.data(index.into_iter().chain([stones.as_os_str()]));
    fs::write(made_by, hash.as_str()).unwrap();
    stones
}

/// The archive that the upstream of a Debian source package has released.
///
/// Returns nothing where it cannot be had, and says so as [`Need::all`] does.
///
/// # Panics
/// If it could be had, and something goes wrong.
#[must_use]
pub fn source(package: &str) -> Option<PathBuf> {
    let directory = crate::target().join("sources");
    Some(upstream("fetch-sources", &[directory.as_os_str(), package.as_ref()])?.swap_remove(0))
}

/// The same of another release of Debian.
///
/// # Panics
/// As [`source`].
#[must_use]
pub fn source_of(suite: &str, package: &str) -> Option<PathBuf> {
    let directory = crate::target().join("sources").join(suite);
    let words = ["--suite".as_ref(), suite.as_ref(), directory.as_os_str(), package.as_ref()];
    Some(upstream("fetch-sources", &words)?.swap_remove(0))
}

/// What was released of a crate, and an archive of the crates that it needs.
///
/// # Panics
/// As [`source`].
#[must_use]
pub fn released_crate(name: &str, version: &str) -> Option<Vec<PathBuf>> {
    let directory = crate::target().join("sources/crates");
    upstream("fetch-crate", &[directory.as_os_str(), name.as_ref(), version.as_ref()])
}

fn upstream(script: &str, words: &[&OsStr]) -> Option<Vec<PathBuf>> {
    if !Need::all(&[Need::Debian]) {
        return None;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("support").join(script);
    let fetched = Command::new(path).args(words).output().unwrap();
    let stderr = String::from_utf8_lossy(&fetched.stderr);
    if fetched.status.code() == Some(3) {
        skip(&stderr);
        return None;
    }
    assert!(fetched.status.success(), "{script}: {stderr}");
    let paths = String::from_utf8(fetched.stdout).expect("names of archives are ASCII");
    let paths: Vec<PathBuf> = paths.lines().map(Into::into).collect();
    assert!(!paths.is_empty(), "{script}: nothing came");
    Some(paths)
}

/// The index of all packages that apt knows of: a `Packages` file. Where the
/// machine has no lists, lists are fetched into the directory of the build.
///
/// # Panics
/// If there is no apt, or something goes wrong.
#[must_use]
pub fn index() -> String {
    let dump = |options: &[String]| {
        let output = Command::new("apt-cache").args(options).arg("dumpavail").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = dump(&[]);
    if text.len() > ENOUGH {
        return offered(&text);
    }
    let lists = crate::target().join("lists");
    fs::create_dir_all(lists.join("partial")).unwrap();
    let _lock = lock(&lists.join("for-tests"));
    let options = |name: &str, value: &Path| ["-o".into(), format!("{name}={}", value.display())];
    let mut all = options("Dir::State::lists", &lists).to_vec();
    all.extend(options("Dir::Cache::pkgcache", &lists.join("pkgcache.bin")));
    all.extend(options("Dir::Cache::srcpkgcache", &lists.join("srcpkgcache.bin")));
    all.extend(["-o".into(), "APT::Sandbox::User=".into()]);
    let updated = Command::new("apt-get").args(&all).args(["-qq", "update"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&updated.stderr);
    assert!(updated.status.success(), "apt-get update: {stderr}");
    offered(&dump(&all))
}

/// The paragraphs of packages that can be had; apt also tells of those that
/// are only installed.
fn offered(text: &str) -> String {
    let is_offered = |paragraph: &&str| paragraph.contains("\nFilename: ");
    text.split("\n\n").filter(is_offered).collect::<Vec<_>>().join("\n\n")
}

/// A shorter index is that of what is installed alone.
const ENOUGH: usize = 10 << 20;

/// The names of all packages of [`debs`].
#[must_use]
pub fn names(debs: &[PathBuf]) -> BTreeSet<String> {
    let name = |deb: &PathBuf| {
        let file = deb.file_name()?.to_str()?;
        Some(file.split_once('_')?.0.to_owned())
    };
    debs.iter().filter_map(name).collect()
}

/// Waits for tests in other processes that do the same.
fn lock(path: &Path) -> File {
    let file = File::options().create(true).append(true).open(path).unwrap();
    file.lock().unwrap();
    file
}
