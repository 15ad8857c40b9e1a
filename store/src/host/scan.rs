//! The walk: all of a directory but the bytes of its regular files.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::directory::HostDirectory;
use super::known::{Known, KnownDirectory, KnownPlace};
use super::status::{Kind, Status};
use crate::error::{Error, Result};
use crate::name::{Name, TreePath};
use crate::tree::{Attributes, Content};

/// What a scan takes in and what not.
#[derive(Clone, Copy, Default)]
pub struct ScanOptions<'a> {
    /// Tells of a path below the root whether it is left out, with all that is
    /// below it.
    pub leave_out: Option<&'a (dyn Fn(&TreePath) -> bool + Sync)>,
    /// Directories, wherever they are found, that are left out.
    pub never: &'a [PathBuf],
    /// Whether directories on which another filesystem is mounted are taken in
    /// without what is in them.
    pub one_filesystem: bool,
    /// What is known already, so that it need not be read.
    pub known: Option<&'a Known>,
}

/// Is told how far a scan has come; called from several threads.
pub trait ScanProgress: Sync {
    /// So many more entries were found.
    fn found(&self, entries: u64);
    /// Whether to stop, which makes the scan fail with [`Error::Cancelled`].
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl ScanProgress for () {
    fn found(&self, _: u64) {}
}

/// A directory of this machine as it was found.
#[derive(Debug)]
pub struct Scan {
    /// Where it is, without symbolic links.
    pub(super) path: PathBuf,
    pub(super) root: HostDirectory,
    /// When the scan began.
    pub(super) begun: SystemTime,
    /// The root is the first; of others, their place is their number. `None` for
    /// directories that went before they could be read.
    pub(super) directories: Vec<Option<ScannedDirectory>>,
    /// Filesystems whose files are to be read, and may have pages that are dirty.
    pub(super) dirty: HashSet<u64>,
}

/// A directory that was found.
#[derive(Clone, Debug)]
pub struct ScannedDirectory {
    /// Its own.
    pub attributes: Attributes,
    /// What lstat(2) said of it.
    pub status: Status,
    /// Sorted by name.
    pub entries: Vec<(Name, ScannedEntry)>,
    /// Whether its filesystem is known to note when files were changed.
    pub(super) keeps_change_times: bool,
}

/// What was found under a name.
#[derive(Clone, Debug)]
pub enum ScannedEntry {
    /// The directory with this number (see [`Scan::directory`]).
    Directory(usize),
    /// Anything else.
    Leaf(ScannedLeaf),
}

/// Anything but a directory.
#[derive(Clone, Debug)]
pub struct ScannedLeaf {
    /// Mode, owner, time, extended attributes.
    pub attributes: Attributes,
    /// What lstat(2) said of it.
    pub status: Status,
    /// Kind and content; `None` for a regular file until
    /// [`Scan::take_in`] has had it read.
    pub content: Option<Content>,
}

impl Scan {
    /// The directory with this number; 0 is the root. `None` when it went before
    /// it could be read: then it is as if it had not been there.
    #[must_use]
    pub fn directory(&self, number: usize) -> Option<&ScannedDirectory> {
        self.directories.get(number)?.as_ref()
    }

    /// Says what a leaf holds that was found: entry number `at` of a directory (the
    /// first is 0). It is then not read.
    pub fn set_content(&mut self, directory: usize, at: usize, content: Content) {
        let directory = self.directories.get_mut(directory).and_then(Option::as_mut);
        let entry = directory.and_then(|directory| directory.entries.get_mut(at));
        if let Some((_, ScannedEntry::Leaf(leaf))) = entry {
            leaf.content = Some(content);
        }
    }

    /// Opens the regular file at `path` below the scanned directory.
    pub fn open_file(&self, path: &TreePath) -> io::Result<std::fs::File> {
        self.root.open_file(path.names())
    }

    /// All directories that were found, in no order.
    pub fn directories(&self) -> impl Iterator<Item = &ScannedDirectory> {
        self.directories.iter().flatten()
    }

    /// Where the scanned directory is, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads the directory `root` and all below it, in parallel: names, attributes,
/// extended attributes, texts of links. Bytes of regular files are left to
/// [`Scan::take_in`].
///
/// What goes while the scan is going on is left out, what comes may be. Costs
/// some µs an entry, and about 300 bytes of memory.
///
/// # Errors
/// [`Error::Source`] names what could not be read; [`Error::TooDeep`] and
/// [`Error::Cancelled`].
pub fn scan(root: &Path, options: &ScanOptions<'_>, progress: &dyn ScanProgress) -> Result<Scan> {
    let failed = |err| Error::Source { name: root.display().to_string(), source: err };
    let path = std::fs::canonicalize(root).map_err(failed)?;
    let directory = HostDirectory::open(&path).map_err(failed)?;
    scan_opened(directory, path, options, progress)
}

/// Like [`scan()`], of an open directory that errors call `path`; it may lie in
/// another mount namespace.
pub fn scan_opened(
    directory: HostDirectory,
    path: PathBuf,
    options: &ScanOptions<'_>,
    progress: &dyn ScanProgress,
) -> Result<Scan> {
    let begun = SystemTime::now();
    let failed = |err| Error::Source { name: path.display().to_string(), source: err };
    let status = directory.own_status().map_err(failed)?;
    let root = directory.open_deep(&[]).map_err(failed)?;
    let never = options.never.iter().filter_map(|path| {
        let status = HostDirectory::open(path).ok()?.own_status().ok()?;
        Some((status.filesystem, status.inode))
    });
    let walk = Walk {
        path: &path,
        options,
        never: never.collect(),
        filesystem: status.filesystem,
        progress,
        queue: Mutex::default(),
        changed: Condvar::new(),
        numbers: AtomicUsize::new(1),
    };
    walk.queue().jobs.push(Job {
        number: 0,
        path: TreePath::root(),
        place: JobPlace::Open(directory),
        above: None,
        known: options.known.map(Known::root),
        is_other_filesystem: false,
    });
    let workers = std::thread::available_parallelism().map_or(1, Into::into);
    let found: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| walk.work())).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    if let Some(err) = walk.queue().failed.take() {
        return Err(err);
    }
    let mut directories = Vec::new();
    directories.resize_with(walk.numbers.into_inner(), || None);
    for (number, directory) in found {
        directories[number] = Some(directory);
    }
    let mut scan = Scan { path, root, begun, directories, dirty: HashSet::new() };
    scan.dirty = scan.unread_filesystems();
    Ok(scan)
}

struct Walk<'a> {
    path: &'a Path,
    options: &'a ScanOptions<'a>,
    /// Filesystem and inode of each.
    never: HashSet<(u64, u64)>,
    /// That of the root.
    filesystem: u64,
    progress: &'a dyn ScanProgress,
    queue: Mutex<Queue>,
    changed: Condvar,
    numbers: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    /// The latest is taken first, so that few directories are open at a time.
    jobs: Vec<Job>,
    working: usize,
    failed: Option<Error>,
}

/// A directory to be read.
struct Job {
    number: usize,
    path: TreePath,
    place: JobPlace,
    /// The filesystem of the directory above, and whether it notes changes.
    above: Option<(u64, bool)>,
    known: Option<KnownPlace>,
    is_other_filesystem: bool,
}

enum JobPlace {
    Open(HostDirectory),
    Below(Arc<HostDirectory>, Name),
}

impl Walk<'_> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads directories until there are no more.
    fn work(&self) -> Vec<(usize, ScannedDirectory)> {
        let mut found = Vec::new();
        let mut queue = self.queue();
        loop {
            if queue.failed.is_some() {
                return found;
            }
            let Some(job) = queue.jobs.pop() else {
                if queue.working == 0 {
                    return found;
                }
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.working += 1;
            drop(queue);
            let number = job.number;
            let result = self.read(job);
            queue = self.queue();
            queue.working -= 1;
            match result {
                Ok(Some((directory, jobs))) => {
                    found.push((number, directory));
                    queue.jobs.extend(jobs);
                }
                Ok(None) => {}
                Err(err) => drop(queue.failed.get_or_insert(err)),
            }
            self.changed.notify_all();
        }
    }

    /// Reads one directory; `None` when it has gone.
    fn read(&self, job: Job) -> Result<Option<(ScannedDirectory, Vec<Job>)>> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let Job { path, place, above, known, is_other_filesystem, .. } = job;
        let failed = |err| self.failed(&path, err);
        let directory = match place {
            JobPlace::Open(directory) => directory,
            JobPlace::Below(above, name) => match above.open_below(&name) {
                Ok(directory) => directory,
                Err(err) if has_gone(&err) => return Ok(None),
                Err(err) => return Err(failed(err)),
            },
        };
        let status = directory.own_status().map_err(failed)?;
        if self.never.contains(&(status.filesystem, status.inode)) && !path.names().is_empty() {
            return Ok(None);
        }
        let keeps_change_times = match above {
            Some((filesystem, keeps)) if filesystem == status.filesystem => keeps,
            _ => directory.keeps_change_times().map_err(failed)?,
        };
        let known = known.filter(|_| keeps_change_times);
        let known = known.and_then(|place| self.options.known?.read(place, &status));
        let attributes = match known.as_ref().and_then(|known| known.attributes(&status)) {
            Some(attributes) => attributes,
            None => status.attributes(directory.own_xattrs().map_err(failed)?),
        };
        let mut found =
            ScannedDirectory { attributes, status, entries: Vec::new(), keeps_change_times };
        let names =
            if is_other_filesystem { Vec::new() } else { directory.names().map_err(failed)? };
        self.progress.found(names.len() as u64);
        if path.names().len() == TreePath::MAX_DEPTH && !names.is_empty() {
            return Err(Error::TooDeep { path });
        }
        let directory = Arc::new(directory);
        let mut jobs = Vec::new();
        for name in names {
            let path = path.join(&name);
            if self.options.leave_out.is_some_and(|leave_out| leave_out(&path)) {
                continue;
            }
            let known = known.as_ref();
            match read_entry(&directory, &name, known).map_err(|err| self.failed(&path, err))? {
                None => {}
                Some(Found::Leaf(leaf)) => found.entries.push((name, ScannedEntry::Leaf(leaf))),
                Some(Found::Directory(below)) => {
                    let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                    let is_other = below.filesystem != self.filesystem;
                    jobs.push(Job {
                        number,
                        path,
                        place: JobPlace::Below(directory.clone(), name.clone()),
                        above: Some((status.filesystem, keeps_change_times)),
                        known: known.and_then(|known| known.below(&name)),
                        is_other_filesystem: self.options.one_filesystem && is_other,
                    });
                    found.entries.push((name, ScannedEntry::Directory(number)));
                }
            }
        }
        // The first is to be taken first, so that it comes last.
        jobs.reverse();
        Ok(Some((found, jobs)))
    }

    fn failed(&self, path: &TreePath, source: io::Error) -> Error {
        Error::Source { name: full_path(self.path, path).display().to_string(), source }
    }
}

/// What [`read_entry`] found.
pub(super) enum Found {
    Leaf(ScannedLeaf),
    Directory(Status),
}

/// Reads one entry; `None` when it has gone.
pub(super) fn read_entry(
    directory: &HostDirectory,
    name: &Name,
    known: Option<&KnownDirectory<'_>>,
) -> io::Result<Option<Found>> {
    let read = || {
        let status = directory.status(name)?;
        if status.kind == Kind::Directory {
            return Ok(Found::Directory(status));
        }
        if let Some(leaf) = known.and_then(|known| known.leaf(name, &status)) {
            let attributes = leaf.attributes.clone();
            let content = Some(leaf.content.clone());
            return Ok(Found::Leaf(ScannedLeaf { attributes, status, content }));
        }
        let content = match status.kind {
            Kind::File | Kind::Directory => None,
            Kind::Symlink => Some(Content::Symlink(directory.link_text(name)?)),
            Kind::CharDevice(device) => Some(Content::CharDevice(device)),
            Kind::BlockDevice(device) => Some(Content::BlockDevice(device)),
            Kind::Fifo => Some(Content::Fifo),
            Kind::Socket => Some(Content::Socket),
        };
        let attributes = status.attributes(directory.xattrs(name)?);
        Ok(Found::Leaf(ScannedLeaf { attributes, status, content }))
    };
    match read() {
        Err(err) if has_gone(&err) => Ok(None),
        found => found.map(Some),
    }
}

/// Whether what a name stood for has gone, or has become something else.
pub(super) fn has_gone(err: &io::Error) -> bool {
    let gone = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::ESTALE];
    err.raw_os_error().is_some_and(|code| gone.contains(&code))
}

pub(crate) fn full_path(root: &Path, path: &TreePath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let names = path.names().iter().map(|name| std::ffi::OsStr::from_bytes(name));
    root.iter().chain(names).collect()
}
