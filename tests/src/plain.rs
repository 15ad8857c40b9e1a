//! The same packages, unpacked without any code of ours: `dpkg-deb` and tar(1)
//! put one after the other into one directory.
//!
//! The rules of the conversion take the form of symbolic links here. `/bin`,
//! `/sbin` and the like lead below `/usr`, and `/etc` leads to
//! `/usr/share/defaults/etc`; tar(1), which is told to keep them, does the rest.
//! At the end `/etc` becomes what the skeleton has.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::listing::{Entry, Kind, Listing};

/// Directories of the root that are merged into /usr, as Debian names them.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Directories that every root has, with their modes.
const SKELETON: [(&str, u32); 14] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/share", 0o755),
    ("usr/share/defaults/etc", 0o755),
    ("var", 0o755),
];

/// Packages as they lie in a directory.
#[derive(Debug)]
pub struct Plain {
    /// All that lies there.
    pub listing: Listing,
    /// Links that lay in a merged directory of the root, by where they are now:
    /// where each led to.
    moved_links: BTreeMap<Vec<u8>, PathBuf>,
}

impl Plain {
    /// Unpacks `debs` into `root`, an empty directory, in their order.
    ///
    /// # Panics
    /// If something goes wrong.
    #[must_use]
    pub fn unpack<'d>(debs: impl IntoIterator<Item = &'d PathBuf>, root: &Path) -> Self {
        for (directory, mode) in SKELETON {
            make_directory(&root.join(directory), mode);
        }
        for name in MERGED {
            make_directory(&root.join("usr").join(name), 0o755);
            symlink(Path::new("usr").join(name), root.join(name)).unwrap();
        }
        symlink("usr/share/defaults/etc", root.join("etc")).unwrap();
        let mut moved_links = BTreeMap::new();
        for deb in debs {
            let mut archive = Vec::new();
            fsys_tarfile(deb).read_to_end(&mut archive).unwrap();
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--keep-directory-symlink", "--preserve-permissions"]);
            tar.args(["--same-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp"]);
            let mut tar = tar.arg("-C").arg(root).stdin(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &archive).unwrap();
            assert!(tar.wait().unwrap().success(), "{}", deb.display());
            note_moved_links(&archive, &mut moved_links);
        }
        fs::remove_file(root.join("etc")).unwrap();
        make_directory(&root.join("etc"), 0o755);
        for (directory, mode) in SKELETON {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(root.join(directory), permissions).unwrap();
        }
        for name in MERGED {
            // The links are the skeleton's: they have no time.
            set_time_of_link(&root.join(name));
        }
        let listing = Listing::of_directory(root);
        Self { listing, moved_links }
    }

    /// Checks that `root`, however it was made, has just these entries.
    ///
    /// The text of a link that lay in a merged directory may be another one, if
    /// it leads to the same place.
    ///
    /// Returns how many links have another text.
    ///
    /// # Panics
    /// With the first differences if it has not.
    pub fn assert_is(&self, root: &Listing, what: &str) -> usize {
        let mut expected = self.listing.clone();
        let mut rewritten = 0;
        for (path, old_goal) in &self.moved_links {
            let (Some(old), Some(new)) = (expected.0.get_mut(path), root.0.get(path)) else {
                continue;
            };
            let (Kind::Symlink(old), Kind::Symlink(new)) = (&mut old.kind, &new.kind) else {
                continue;
            };
            let at = Path::new("/").join(std::ffi::OsStr::from_bytes(path));
            let leads_there = goal(&at, new) == *old_goal;
            if old != new && leads_there {
                old.clone_from(new);
                rewritten += 1;
            }
        }
        expected.assert_same(root, what);
        rewritten
    }
}

/// Checks that `root` has each entry that `dpkg-deb -x` makes of each of the
/// packages, unpacked on its own and moved to where the merged /usr has it: type,
/// mode, owner, time, size, content, and text of a link.
///
/// Returns how many entries were compared.
///
/// # Panics
/// With the first differences.
pub fn assert_has_unpacked(debs: &[PathBuf], root: &Listing, temporary: &Path) -> usize {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let worker = || {
            let mut compared = 0;
            while let Some(deb) = debs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let to = temporary.join(deb.file_name().expect("a package is a file"));
                let unpacked = Command::new("dpkg-deb").arg("-x").arg(deb).arg(&to).status();
                assert!(unpacked.unwrap().success(), "{}", deb.display());
                compared += assert_has(&Listing::of_directory(&to), root, deb);
                fs::remove_dir_all(&to).unwrap();
            }
            compared
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Checks one package; returns how many entries it has.
fn assert_has(package: &Listing, root: &Listing, deb: &Path) -> usize {
    let mut differences = Vec::new();
    for (path, entry) in package.0.iter().filter(|(path, _)| !path.is_empty()) {
        let shown = path.escape_ascii();
        let (merged, is_moved) = merged_path(path);
        let Some(found) = root.0.get(&merged) else {
            differences.push(format!("{shown} is missing"));
            continue;
        };
        // Links of a group are elsewhere compared, as a group.
        let mut expected = Entry { links: found.links.clone(), ..entry.clone() };
        if let (true, Kind::Symlink(_), Kind::Symlink(text)) = (is_moved, &entry.kind, &found.kind)
        {
            // It leads to the same place from where it is now: see above.
            expected.kind = Kind::Symlink(text.clone());
        }
        let is_of_skeleton = SKELETON.iter().any(|(name, _)| name.as_bytes() == merged)
            || MERGED.iter().any(|name| merged == [b"usr/", name.as_bytes()].concat());
        if is_of_skeleton {
            expected.mode = found.mode;
        }
        if *found != expected {
            differences.push(format!("{shown}: {expected:?} != {found:?}"));
        }
    }
    assert!(differences.is_empty(), "{}: {}", deb.display(), differences.join("\n"));
    package.0.len()
}

/// Where an entry of a package is in a merged root, and whether it is elsewhere than
/// in the package.
fn merged_path(path: &[u8]) -> (Vec<u8>, bool) {
    let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
    let (top, below) = path.split_at(end);
    match std::str::from_utf8(top) {
        Ok("etc") => ([b"usr/share/defaults/etc", below].concat(), true),
        Ok(top) if MERGED.contains(&top) => ([b"usr/", path].concat(), true),
        _ => (path.to_vec(), false),
    }
}

fn make_directory(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_time_of_link(path: &Path) {
    let touched = Command::new("touch").args(["-h", "-d", "@0"]).arg(path).status();
    assert!(touched.unwrap().success(), "{}", path.display());
}

fn fsys_tarfile(deb: &Path) -> std::process::ChildStdout {
    let mut command = Command::new("dpkg-deb");
    let child = command.arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn();
    child.unwrap().stdout.take().unwrap()
}

/// Notes each symbolic link in a merged directory of the root with the place that
/// it leads to.
fn note_moved_links(archive: &[u8], links: &mut BTreeMap<Vec<u8>, PathBuf>) {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = Path::new("/").join(entry.path().unwrap());
        let path: PathBuf = path.components().filter(|it| *it != Component::CurDir).collect();
        let top = path.iter().nth(1).and_then(|top| top.to_str()).unwrap_or_default();
        if entry.header().entry_type().is_symlink() && MERGED.contains(&top) {
            let text = entry.link_name_bytes().unwrap();
            let now = Path::new("usr").join(path.strip_prefix("/").unwrap());
            links.insert(now.into_os_string().into_vec(), goal(&path, &text));
        }
    }
}

/// Where the text of a link at `path` leads, as a path in a merged root.
fn goal(path: &Path, text: &[u8]) -> PathBuf {
    let mut goal = path.parent().expect("a link lies in a directory").to_path_buf();
    for component in Path::new(std::ffi::OsStr::from_bytes(text)).components() {
        match component {
            Component::RootDir => goal = "/".into(),
            Component::ParentDir => drop(goal.pop()),
            Component::Normal(name) => goal.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let top = goal.iter().nth(1).and_then(|top| top.to_str()).unwrap_or_default();
    if MERGED.contains(&top) {
        return Path::new("/usr").join(goal.strip_prefix("/").unwrap());
    }
    goal
}
