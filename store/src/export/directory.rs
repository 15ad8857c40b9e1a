//! A tree as a directory of this machine.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chmodat, chownat, ioctl_ficlone, linkat, lsetxattr, makedev, mkdirat, mknodat, openat,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::{ExportProgress, Exported};
use crate::edit::TreeReader;
use crate::error::{Error, Result};
use crate::hash::{BlobRef, PackId, TreeId};
use crate::host::{HostDirectory, full_path};
use crate::name::{Name, TreePath};
use crate::proc::NoProc;
use crate::store::Store;
use crate::tree::{Attributes, Content, Device, Entry, Leaf, LinkGroup, Tree};

/// How a directory is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// Whether blocks of zeros become holes.
    pub sparse: bool,
}

/// Zeros of this length, at a multiple of it, become a hole.
const HOLE_LEN: usize = 4096;

/// Writes a tree into the directory `target`, which must be empty or not exist,
/// in parallel. Files with equal contents share their blocks where the filesystem can.
///
/// Everything is made anew below a descriptor of `target` and never reached
/// through a link. Owners are set by root alone; where they cannot be set,
/// setuid and setgid are left out, because they would mean another user. Devices
/// and some extended attributes need root as well; what was left out is told.
/// After an error, what was made stays. When this returns, everything survives a
/// power cut.
///
/// # Errors
/// [`Error::NotEmpty`] and [`Error::Target`] with the path of the entry.
pub fn export_directory(
    store: &Store,
    tree: TreeId,
    target: &Path,
    options: DirectoryOptions,
    progress: &dyn ExportProgress,
) -> Result<Exported> {
    claim(target)?;
    let at_target = |source| Error::Target { name: target.display().to_string(), source };
    let root = HostDirectory::open(target).map_err(at_target)?;
    let is_root = rustix::process::geteuid().is_root();
    let export = Export { store, target, root, options, is_root, progress };
    let mut done = Exported::default();

    // Directories first: each belongs to root alone until all is in it.
    let mut directories = Vec::new();
    export.make_directories(tree, TreePath::root(), &mut directories)?;
    done.entries += directories.len() as u64 - 1;
    let links = first_names(&directories);
    let leaves = export.leaves(&directories, &links)?;

    let batches: Vec<_> = leaves.chunks(BATCH).collect();
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, Into::into);
    let parts = std::thread::scope(|scope| {
        let work = || {
            let mut worker = Worker::new(&export);
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(err) = batch.iter().try_for_each(|leaf| worker.make(leaf)) {
                    next.store(batches.len(), Ordering::Relaxed);
                    return Err(err);
                }
            }
            Ok(worker.done)
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let lost = |_| Err(Error::Cancelled);
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(lost)).collect::<Vec<_>>()
    });
    for part in parts {
        done.add(part?);
    }
    // Other names of files, now that all files are there.
    for directory in &directories {
        export.link(directory, &links, &mut done)?;
    }
    // Children before parents, since making an entry changes the time of the
    // directory.
    for directory in directories.iter().rev() {
        export.finish_directory(directory, &mut done)?;
    }
    done.left_out.sort();
    rustix::fs::syncfs(&export.root).map_err(|err| at_target(err.into()))?;
    Ok(done)
}

/// Makes sure that `target` exists and is empty.
pub(super) fn claim(target: &Path) -> Result<()> {
    let failed = |source| Error::Target { name: target.display().to_string(), source };
    match fs::create_dir(target) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result.map_err(failed),
    }
    match fs::read_dir(target).map_err(failed)?.next() {
        None => Ok(()),
        Some(_) => Err(Error::OccupiedTarget { path: target.into() }),
    }
}

struct MadeDirectory {
    path: TreePath,
    tree: Arc<Tree>,
}

/// The first name of each file with several: that one is written, the others
/// are linked to it.
type Links = HashMap<LinkGroup, TreePath>;

fn first_names(directories: &[MadeDirectory]) -> Links {
    let mut links = Links::new();
    for MadeDirectory { path, tree } in directories {
        for (name, entry) in tree.entries() {
            if let Entry::Leaf(Leaf { link: Some(link), .. }) = entry {
                links.entry(link.group).or_insert_with(|| path.join(name));
            }
        }
    }
    links
}

impl Exported {
    fn add(&mut self, part: Self) {
        self.entries += part.entries;
        self.bytes += part.bytes;
        self.left_out.extend(part.left_out);
    }
}

struct Export<'a> {
    store: &'a Store,
    target: &'a Path,
    root: HostDirectory,
    options: DirectoryOptions,
    is_root: bool,
    progress: &'a dyn ExportProgress,
}

/// An entry that is to be made.
struct NewLeaf<'a> {
    directory: &'a MadeDirectory,
    name: &'a Name,
    leaf: &'a Leaf,
    /// Where the content of a file lies in the store.
    place: Option<(PackId, u32, u32)>,
}

/// How many entries a worker takes at a time.
const BATCH: usize = 64;
/// How many directories a worker keeps open.
const KEPT_OPEN: usize = 8;
/// A file of fewer bytes has no block to share.
const SHARED_LEN: u64 = 4096;

/// Makes entries in the order in which contents lie in the store.
struct Worker<'a> {
    export: &'a Export<'a>,
    open: HashMap<TreePath, HostDirectory>,
    /// The last file that was written.
    last: Option<(BlobRef, File)>,
    done: Exported,
}

impl<'a> Worker<'a> {
    fn new(export: &'a Export<'a>) -> Self {
        Self { export, open: HashMap::new(), last: None, done: Exported::default() }
    }

    fn make(&mut self, new: &NewLeaf<'_>) -> Result<()> {
        let Self { export, open, last, done } = self;
        if export.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let NewLeaf { directory, name, leaf, .. } = new;
        let path = directory.path.join(name);
        let failed = export.failed(&path);
        if !open.contains_key(&directory.path) {
            if open.len() == KEPT_OPEN {
                open.clear();
            }
            let opened = export.root.open_deep(directory.path.names()).map_err(&failed)?;
            open.insert(directory.path.clone(), opened);
        }
        let here = &open[&directory.path];
        let mut left_out = |reason| done.left_out.push((path.clone(), reason));
        let node =
            |kind, device| make_node(here, name, kind, device).map_err(|err| failed(err.into()));
        let is_made = match &leaf.content {
            Content::File(blob) => {
                let file = export.make_file(here, name, blob, last.as_ref(), &failed)?;
                *last = Some((*blob, file));
                true
            }
            Content::Symlink(text) => {
                symlinkat(&text[..], here, name.as_bytes()).map_err(|err| failed(err.into()))?;
                true
            }
            Content::CharDevice(device) => node(FileType::CharacterDevice, Some(*device))?,
            Content::BlockDevice(device) => node(FileType::BlockDevice, Some(*device))?,
            Content::Fifo => node(FileType::Fifo, None)?,
            Content::Socket => node(FileType::Socket, None)?,
        };
        if !is_made {
            left_out("only root can make devices");
            return Ok(());
        }
        let is_link = matches!(leaf.content, Content::Symlink(_));
        export
            .set(here, name.as_bytes(), &leaf.attributes, is_link, &mut left_out)
            .map_err(failed)?;
        done.entries += 1;
        done.bytes += leaf.size();
        export.progress.advance(1, leaf.size());
        Ok(())
    }
}

/// Makes a node; `false` for a device that this user may not make.
fn make_node(
    here: &HostDirectory,
    name: &Name,
    kind: FileType,
    device: Option<Device>,
) -> std::result::Result<bool, Errno> {
    let number = device.map_or(0, |device| makedev(device.major, device.minor));
    match mknodat(here, name.as_bytes(), kind, Mode::from_raw_mode(0o600), number) {
        Err(Errno::PERM) if device.is_some() => Ok(false),
        made => made.map(|()| true),
    }
}

impl Export<'_> {
    fn failed<'a>(&'a self, path: &'a TreePath) -> impl Fn(io::Error) -> Error + 'a {
        let name = || full_path(self.target, path).display().to_string();
        move |source| Error::Target { name: name(), source }
    }

    /// Makes the directories below one that is there, parents first.
    fn make_directories(
        &self,
        id: TreeId,
        path: TreePath,
        made: &mut Vec<MadeDirectory>,
    ) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let tree = self.store.read_tree(id)?;
        made.push(MadeDirectory { path: path.clone(), tree: tree.clone() });
        let mut here = None;
        for (name, entry) in tree.entries() {
            let Entry::Directory(subtree) = entry else { continue };
            let below = path.join(name);
            let failed = self.failed(&below);
            let here = match &here {
                Some(here) => here,
                None => here.insert(self.root.open_deep(path.names()).map_err(&failed)?),
            };
            let private = Mode::from_raw_mode(0o700);
            mkdirat(here, name.as_bytes(), private).map_err(|err| failed(err.into()))?;
            self.progress.advance(1, 0);
            self.make_directories(subtree.id, below.clone(), made)?;
        }
        Ok(())
    }

    /// What is to be made beside directories and other names of files, in the order in which
    /// contents lie in the store: so each frame is decompressed once, and equal contents
    /// follow each other.
    fn leaves<'a>(
        &self,
        directories: &'a [MadeDirectory],
        links: &Links,
    ) -> Result<Vec<NewLeaf<'a>>> {
        let mut leaves = Vec::new();
        for directory in directories {
            for (name, entry) in directory.tree.entries() {
                let Entry::Leaf(leaf) = entry else { continue };
                let is_other_name =
                    leaf.link.is_some_and(|link| links[&link.group] != directory.path.join(name));
                if is_other_name {
                    continue;
                }
                let place = match &leaf.content {
                    Content::File(blob) => self.store.inner().place(blob)?,
                    _ => None,
                };
                leaves.push(NewLeaf { directory, name, leaf, place });
            }
        }
        leaves.sort_by_key(|leaf| leaf.place);
        Ok(leaves)
    }

    /// Makes a file. Where the filesystem can (ioctl_ficlone(2)), it shares the blocks of
    /// `last`, if that has the same content, or of what a mount has expanded.
    fn make_file(
        &self,
        here: &HostDirectory,
        name: &Name,
        blob: &BlobRef,
        last: Option<&(BlobRef, File)>,
        failed: &impl Fn(io::Error) -> Error,
    ) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let private = Mode::from_raw_mode(0o600);
        let file = openat(here, name.as_bytes(), flags | OFlags::CLOEXEC, private);
        let file = File::from(file.map_err(|err| failed(err.into()))?);
        let shares = |other: &File| ioctl_ficlone(&file, other).is_ok();
        let expanded = || self.store.plain().open_expanded(blob).ok().flatten();
        let is_shared = blob.size >= SHARED_LEN
            && (last.is_some_and(|(content, other)| content == blob && shares(other))
                || expanded().is_some_and(|other| shares(&other)));
        if !is_shared {
            self.write(&file, blob, failed)?;
        }
        Ok(file)
    }

    fn write(
        &self,
        file: &File,
        blob: &BlobRef,
        failed: &impl Fn(io::Error) -> Error,
    ) -> Result<()> {
        let mut at = 0;
        self.store.write_to(blob, |piece| {
            let step = if self.options.sparse { HOLE_LEN } else { piece.len() };
            for part in piece.chunks(step) {
                let is_hole = self.options.sparse && part.iter().all(|byte| *byte == 0);
                if !is_hole {
                    file.write_all_at(part, at).map_err(failed)?;
                }
                at += part.len() as u64;
            }
            Ok(())
        })?;
        if self.options.sparse { file.set_len(at).map_err(failed) } else { Ok(()) }
    }

    /// Gives files their other names.
    fn link(&self, made: &MadeDirectory, links: &Links, done: &mut Exported) -> Result<()> {
        let mut here = None;
        for (name, entry) in made.tree.entries() {
            let Entry::Leaf(leaf @ Leaf { link: Some(link), .. }) = entry else { continue };
            let (path, first) = (made.path.join(name), &links[&link.group]);
            let Some((above, first_name)) = first.split_last().filter(|_| *first != path) else {
                continue;
            };
            let failed = self.failed(&path);
            let here = match &here {
                Some(here) => here,
                None => here.insert(self.root.open_deep(made.path.names()).map_err(&failed)?),
            };
            let above = self.root.open_deep(above.names()).map_err(&failed)?;
            let flags = AtFlags::empty();
            match linkat(&above, first_name.as_bytes(), here, name.as_bytes(), flags) {
                // A device that could not be made has no other names either.
                Err(Errno::NOENT) if !matches!(leaf.content, Content::File(_)) => {
                    done.left_out.push((path.clone(), "only root can make devices"));
                    continue;
                }
                linked => linked.map_err(|err| failed(err.into()))?,
            }
            done.entries += 1;
            self.progress.advance(1, 0);
        }
        Ok(())
    }

    fn finish_directory(&self, made: &MadeDirectory, done: &mut Exported) -> Result<()> {
        let failed = self.failed(&made.path);
        let here = self.root.open_deep(made.path.names()).map_err(&failed)?;
        let mut left_out = |reason| done.left_out.push((made.path.clone(), reason));
        self.set(&here, b".", &made.tree.attributes, false, &mut left_out).map_err(failed)
    }

    fn set(
        &self,
        here: &HostDirectory,
        name: &[u8],
        attributes: &Attributes,
        is_link: bool,
        left_out: &mut impl FnMut(&'static str),
    ) -> io::Result<()> {
        let Attributes { mode, uid, gid, mtime, xattrs } = attributes;
        let owner = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
        let is_owner_set = self.is_root
            && match chownat(here, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
                // User namespaces have a root that knows few users.
                Err(Errno::PERM | Errno::INVAL) => {
                    left_out("the owner could not be set");
                    false
                }
                result => result.map(|()| true)?,
            };
        if !is_link {
            let kept = if is_owner_set { *mode } else { mode & !0o6000 };
            if kept != *mode {
                left_out("setuid and setgid were left out, as the owner is another");
            }
            chmodat(here, name, Mode::from_raw_mode(kept.into()), AtFlags::empty())?;
        }
        // After the owner, since a new owner takes away capabilities.
        for xattr in xattrs {
            let path = here.by_proc(name);
            match lsetxattr(path.as_c_str(), &xattr.name[..], &xattr.value, XattrFlags::empty()) {
                Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP) => {
                    left_out("an extended attribute was refused");
                }
                result => result.map_err(|err| NoProc::or(err.into()))?,
            }
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: mtime.seconds(),
                tv_nsec: mtime.nanoseconds().into(),
            },
        };
        Ok(utimensat(here, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}
