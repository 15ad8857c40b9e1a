//! Unpacks a package below a directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use cairn_store::TreePath;
use cairn_store::tree::Device;

use super::content::{Content, ContentOptions};
use super::error::{Error, Result};
use super::layout::{Layout, LayoutContent};
use super::package::Package;
use crate::sys;

/// How far [`extract()`] is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The entry that was just made.
    pub path: &'a TreePath,
    /// How many entries are made.
    pub entries: usize,
    /// How many there are.
    pub entries_total: usize,
    /// How many bytes of files are written.
    pub bytes: u64,
    /// How many there are.
    pub bytes_total: u64,
}

/// What [`extract()`] did and left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries of the package that were made.
    pub entries: usize,
    /// Bytes of files that were written; hard links count once.
    pub bytes: u64,
    /// What this user or this filesystem could not make, with the reason.
    pub skipped: Vec<(TreePath, &'static str)>,
}

/// Unpacks the package in `from` into `directory`, which must be empty or not
/// exist, and reports after each entry.
///
/// Every entry is made anew, and none is reached through a link, so that
/// nothing outside of `directory` is touched; nobody else may write to it
/// meanwhile. Modes, times, extended attributes and hard links are those of
/// the package. Owners are set by root alone; where they could not be set,
/// setuid and setgid are left out, because they would mean another user.
/// Nothing is synced. After an error, what was made stays.
///
/// # Errors
/// Those of [`Package::read`] and [`Package::content`], [`Error::NotEmpty`],
/// and [`Error::File`] with the path of the entry.
pub fn extract<R: Read + Seek>(
    from: R,
    directory: &Path,
    options: &ContentOptions<'_>,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Extracted> {
    let mut package = Package::read(from)?;
    claim(directory)?;
    let content = package.content(options)?;
    let mut entries: Vec<&Layout> = package.layout.iter().collect();
    entries.sort_unstable_by(|left, right| left.path.cmp(&right.path));

    let bytes_total = total_bytes(&entries, &content);
    let entries_total = entries.len();
    let mut extractor = Extractor {
        directory,
        content: &content,
        is_root: sys::is_root(),
        parent: TreePath::root(),
        directories: Vec::new(),
        links: HashMap::new(),
        done: Extracted::default(),
    };
    for entry in entries {
        extractor.make(entry)?;
        let Extracted { entries, bytes, .. } = extractor.done;
        let path = &entry.path;
        progress(Progress { path, entries, entries_total, bytes, bytes_total });
    }
    extractor.finish()
}

/// Makes sure that `directory` exists and is empty.
fn claim(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
        result => return result.map_err(|source| failed(directory, source)),
    }
    let mut entries = fs::read_dir(directory).map_err(|source| failed(directory, source))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::NotEmpty(directory.into())),
    }
}

fn total_bytes(entries: &[&Layout], content: &Content) -> u64 {
    let mut linked = HashMap::new();
    let is_first = |entry: &&&Layout| match entry.extra.link {
        Some(group) => linked.insert(group, ()).is_none(),
        None => true,
    };
    let sizes = entries.iter().filter(is_first).map(|entry| match &entry.content {
        LayoutContent::Regular(key) => content.get(key).map_or(0, |blob| blob.id().size),
        _ => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File { path: path.into(), source }
}

struct Extractor<'a> {
    directory: &'a Path,
    content: &'a Content,
    is_root: bool,
    /// The directory in which the last entry was made.
    parent: TreePath,
    /// Parents before children, with their entry if the package has one. They
    /// get their mode and time when nothing is made in them any more.
    directories: Vec<(PathBuf, Option<&'a Layout>)>,
    /// The first path of each group of hard links.
    links: HashMap<u32, PathBuf>,
    done: Extracted,
}

impl<'a> Extractor<'a> {
    fn make(&mut self, entry: &'a Layout) -> Result<()> {
        self.make_parents(&entry.path)?;
        let path = self.full_path(&entry.path);
        let at_path = |source| failed(&path, source);
        let first = entry.extra.link.and_then(|group| self.links.get(&group));
        if let Some(first) = first {
            fs::hard_link(first, &path).map_err(at_path)?;
            self.done.entries += 1;
            return Ok(());
        }
        match &entry.content {
            LayoutContent::Directory => {
                make_directory(&path).map_err(at_path)?;
                self.directories.push((path, Some(entry)));
                self.parent = entry.path.clone();
                self.done.entries += 1;
                return Ok(());
            }
            LayoutContent::Regular(key) => {
                let missing = || Error::MissingContent { path: entry.path.clone(), key: *key };
                let blob = self.content.get(key).ok_or_else(missing)?;
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(at_path)?;
                io::copy(&mut blob.reader(), &mut file).map_err(at_path)?;
                self.done.bytes += blob.id().size;
            }
            LayoutContent::Symlink(text) => {
                symlink(OsStr::from_bytes(text), &path).map_err(at_path)?;
            }
            LayoutContent::Fifo => self.make_node(entry, &path, libc::S_IFIFO)?,
            LayoutContent::Socket => self.make_node(entry, &path, libc::S_IFSOCK)?,
            LayoutContent::CharDevice | LayoutContent::BlockDevice => {
                if entry.extra.device.is_none() {
                    self.skip(entry, "the package does not tell the number of the device");
                    return Ok(());
                }
                if !self.is_root {
                    self.skip(entry, "only root can make devices");
                    return Ok(());
                }
                let is_char = entry.content == LayoutContent::CharDevice;
                let kind = if is_char { libc::S_IFCHR } else { libc::S_IFBLK };
                self.make_node(entry, &path, kind)?;
            }
        }
        self.set_attributes(entry, &path)?;
        if let Some(group) = entry.extra.link {
            self.links.insert(group, path);
        }
        self.done.entries += 1;
        Ok(())
    }

    fn make_node(&mut self, entry: &Layout, path: &Path, kind: u32) -> Result<()> {
        let device = entry.extra.device.unwrap_or(Device { major: 0, minor: 0 });
        sys::make_node(path, kind | 0o600, device).map_err(|source| failed(path, source))
    }

    /// Makes the parents of `path` that the package does not list.
    fn make_parents(&mut self, path: &TreePath) -> Result<()> {
        let (_, parents) = path.names().split_last().expect("the root is no entry of a package");
        // Entries are sorted, so that a directory that is not among the
        // parents of the last entry is new.
        let shared = parents.iter().zip(self.parent.names()).take_while(|(a, b)| a == b).count();
        for len in shared + 1..=parents.len() {
            let parent: TreePath = parents[..len].iter().cloned().collect();
            let path = self.full_path(&parent);
            make_directory(&path).map_err(|source| failed(&path, source))?;
            self.directories.push((path, None));
        }
        self.parent = parents.iter().cloned().collect();
        Ok(())
    }

    fn set_attributes(&mut self, entry: &Layout, path: &Path) -> Result<()> {
        let at_path = |source| failed(path, source);
        let owner_set = self.is_root
            && match lchown(path, Some(entry.uid), Some(entry.gid)) {
                // User namespaces have a root that knows few users.
                Err(err) if is_refusal(&err) => {
                    self.skip(entry, "the owner could not be set");
                    false
                }
                result => result.map(|()| true).map_err(at_path)?,
            };
        if !matches!(entry.content, LayoutContent::Symlink(_)) {
            let special = entry.mode & 0o6000;
            let mode = if owner_set { entry.mode } else { entry.mode & !special };
            if mode != entry.mode {
                self.skip(entry, "setuid and setgid were left out, as the owner is another");
            }
            let permissions = Permissions::from_mode(mode.into());
            fs::set_permissions(path, permissions).map_err(at_path)?;
        }
        // After the owner, since a new owner takes away capabilities.
        for xattr in &entry.extra.xattrs {
            match sys::set_xattr(path, &xattr.name, &xattr.value) {
                Err(err) if is_refusal(&err) => {
                    self.skip(entry, "an extended attribute was refused");
                }
                result => result.map_err(at_path)?,
            }
        }
        match entry.extra.mtime {
            Some(mtime) => sys::set_mtime(path, mtime).map_err(at_path),
            None => Ok(()),
        }
    }

    fn skip(&mut self, entry: &Layout, reason: &'static str) {
        self.done.skipped.push((entry.path.clone(), reason));
    }

    fn full_path(&self, path: &TreePath) -> PathBuf {
        let mut full = self.directory.to_path_buf();
        full.extend(path.names().iter().map(|name| OsStr::from_bytes(name)));
        full
    }

    /// Gives the directories their attributes, children first.
    fn finish(mut self) -> Result<Extracted> {
        while let Some((path, entry)) = self.directories.pop() {
            match entry {
                Some(entry) => self.set_attributes(entry, &path)?,
                None => fs::set_permissions(&path, Permissions::from_mode(0o755))
                    .map_err(|source| failed(&path, source))?,
            }
        }
        Ok(self.done)
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Whether this user or this filesystem cannot do it at all.
fn is_refusal(err: &io::Error) -> bool {
    let refusals = [libc::EPERM, libc::EACCES, libc::EINVAL, libc::EOPNOTSUPP];
    err.raw_os_error().is_some_and(|code| refusals.contains(&code))
}
