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

use crate::listing::{Kind, Listing};

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
