//! The files of an install root.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use cairn_package::stone::{Layout, LayoutContent};
use cairn_store::{BlobKey, Name, Timestamp, TreePath};

use crate::error::{Error, Result};

/// Something in an install root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// From the root of the system, such as `/usr/bin/nano`.
    pub path: TreePath,
    /// The same as text.
    pub text: String,
    /// Where it lies now.
    pub source: PathBuf,
    /// What it is.
    pub kind: FoundKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Numeric user and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds of its last change.
    pub time: Timestamp,
    /// The same number for all hard links of a file that has several here.
    pub link: Option<u32>,
}

/// What something in an install root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file of this size.
    File(u64),
    /// A symbolic link with its text.
    Symlink(Box<[u8]>),
    /// A directory that its entries do not imply.
    Directory,
    /// A device, named pipe or socket.
    Special(LayoutContent),
}

impl Found {
    /// The names below `/usr`; none if it lies elsewhere.
    #[must_use]
    pub fn below_usr(&self) -> Option<Vec<&str>> {
        self.text.strip_prefix("/usr/").map(|path| path.split('/').collect())
    }

    /// How a package lists it; `key` is that of the bytes of a regular file.
    #[must_use]
    pub(crate) fn layout(&self, key: BlobKey, latest: Timestamp) -> Layout {
        let content = match &self.kind {
            FoundKind::File(_) => LayoutContent::Regular(key),
            FoundKind::Symlink(text) => LayoutContent::Symlink(text.clone()),
            FoundKind::Directory => LayoutContent::Directory,
            FoundKind::Special(content) => content.clone(),
        };
        let mode = if matches!(self.kind, FoundKind::Symlink(_)) { 0o777 } else { self.mode };
        let mut layout = Layout::new(self.path.clone(), mode, content);
        (layout.uid, layout.gid) = self.owner;
        // What the build itself has written would have another time each time.
        layout.extra.mtime = Some(self.time.min(latest));
        layout.extra.link = self.link;
        layout
    }
}

/// Lists everything below `root`: depth first, names sorted, a directory after
/// what lies in it, and only if that does not imply it.
///
/// What belongs to `own`, the user and group of the build, belongs to root.
///
/// # Errors
/// [`Error::Io`]; [`Error::Name`] for names that packages cannot have.
pub fn collect(root: &Path, own: (u32, u32)) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut links = HashMap::new();
    walk(root, &mut TreePath::root(), own, &mut links, &mut found)?;
    // A file that has other links elsewhere has none here.
    let mut members: HashMap<u32, u32> = HashMap::new();
    for link in found.iter().filter_map(|it| it.link) {
        *members.entry(link).or_default() += 1;
    }
    for it in &mut found {
        it.link = it.link.filter(|link| members[link] > 1);
    }
    Ok(found)
}

fn walk(
    directory: &Path,
    path: &mut TreePath,
    own: (u32, u32),
    links: &mut HashMap<(u64, u64), u32>,
    found: &mut Vec<Found>,
) -> Result<()> {
    let mut entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(Error::io(directory))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let source = entry.path();
        let name = entry.file_name();
        let unfit = || Error::Name { path: source.clone() };
        let name = Name::new(name.as_bytes()).map_err(|_| unfit())?;
        if path.names().len() == TreePath::MAX_DEPTH || str::from_utf8(&name).is_err() {
            return Err(unfit());
        }
        path.push(name);
        let metadata = fs::symlink_metadata(&source).map_err(Error::io(&source))?;
        if metadata.is_dir() {
            let before = found.len();
            walk(&source, path, own, links, found)?;
            let is_plain = metadata.mode() & 0o7777 == 0o755;
            if found.len() == before || !is_plain {
                found.push(one(&source, path, &metadata, own, links)?);
            }
        } else {
            found.push(one(&source, path, &metadata, own, links)?);
        }
        path.pop();
    }
    Ok(())
}

fn one(
    source: &Path,
    path: &TreePath,
    metadata: &Metadata,
    own: (u32, u32),
    links: &mut HashMap<(u64, u64), u32>,
) -> Result<Found> {
    let kind = metadata.file_type();
    let mut link = None;
    let kind = if kind.is_dir() {
        FoundKind::Directory
    } else if kind.is_symlink() {
        let text = fs::read_link(source).map_err(Error::io(source))?;
        FoundKind::Symlink(text.as_os_str().as_bytes().into())
    } else if kind.is_char_device() {
        FoundKind::Special(LayoutContent::CharDevice)
    } else if kind.is_block_device() {
        FoundKind::Special(LayoutContent::BlockDevice)
    } else if kind.is_fifo() {
        FoundKind::Special(LayoutContent::Fifo)
    } else if kind.is_socket() {
        FoundKind::Special(LayoutContent::Socket)
    } else {
        if metadata.nlink() > 1 {
            let next = u32::try_from(links.len()).expect("there are not that many files") + 1;
            link = Some(*links.entry((metadata.dev(), metadata.ino())).or_insert(next));
        }
        FoundKind::File(metadata.len())
    };
    let owned = |id: u32, own: u32| if id == own { 0 } else { id };
    let bytes = path.to_bytes();
    let nanoseconds = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    Ok(Found {
        path: path.clone(),
        text: String::from_utf8(bytes).map_err(|_| Error::Name { path: source.into() })?,
        source: source.into(),
        kind,
        mode: u16::try_from(metadata.mode() & 0o7777).expect("twelve bits"),
        owner: (owned(metadata.uid(), own.0), owned(metadata.gid(), own.1)),
        time: Timestamp::new(metadata.mtime(), nanoseconds).unwrap_or_default(),
        link,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn an_install_root_is_listed_as_packages_want_it() {
        let root = tempfile::tempdir().expect("a directory");
        let make = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, path.as_os_str().as_bytes()).expect("a file");
            path
        };
        make("usr/bin/b");
        let a = make("usr/bin/a");
        fs::set_permissions(&a, fs::Permissions::from_mode(0o4755)).expect("a mode");
        fs::hard_link(&a, root.path().join("usr/bin/c")).expect("a link");
        symlink("a", root.path().join("usr/bin/link")).expect("a link");
        fs::create_dir_all(root.path().join("usr/share/empty")).expect("a directory");
        let private = root.path().join("usr/private");
        fs::create_dir(&private).expect("a directory");
        make("usr/private/x");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("a mode");
        let own = fs::metadata(&a).map(|it| (it.uid(), it.gid())).expect("metadata");

        let found = collect(root.path(), own).expect("a list");
        let shown: Vec<String> = found
            .iter()
            .map(|it| {
                let kind = match &it.kind {
                    FoundKind::File(_) => "file",
                    FoundKind::Symlink(_) => "link",
                    FoundKind::Directory => "directory",
                    FoundKind::Special(_) => "special",
                };
                format!("{} {kind} {:o} {:?}", it.text, it.mode, it.link)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "/usr/bin/a file 4755 Some(1)",
                "/usr/bin/b file 644 None",
                "/usr/bin/c file 4755 Some(1)",
                "/usr/bin/link link 777 None",
                "/usr/private/x file 644 None",
                "/usr/private directory 700 None",
                "/usr/share/empty directory 755 None",
            ]
        );
        assert!(found.iter().all(|it| it.owner == (0, 0)));
    }

    #[test]
    fn a_name_that_is_not_utf8_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        fs::write(root.path().join(name), "").expect("a file");
        let err = collect(root.path(), (0, 0)).expect_err("a name of a package is UTF-8");
        assert!(matches!(err, Error::Name { .. }), "{err:?}");
    }
}
