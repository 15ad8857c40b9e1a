//! Large files that the kernel reads by itself, from plain files of the store.
//!
//! Opens are answered then. A large file that is opened for the first time is expanded
//! before, in a thread of its own, so that the others go on answering; whoever opens it
//! meanwhile waits for the same expansion. What cannot be expanded is read from the mount
//! as on any other: that is slower, and never an error.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cairn_store::{BlobRef, Plain};
use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::event::{Event, Journal};
use crate::serve::counters::Operation;
use crate::serve::filesystem::{Filesystem, Refusal};
use crate::serve::node::NodeId;
use crate::serve::notice::Notices;
use crate::serve::table::Reading;
use crate::source::Source;

/// Smaller files are read from the mount: opened and read at once, a file of this size
/// takes as long either way.
pub(crate) const THRESHOLD: u64 = 256 << 10;

/// So many files are expanded at a time.
const THREADS: usize = 4;

/// A file that could not be expanded is not tried again for so long.
const RETRY: Duration = Duration::from_secs(60);

/// Of a file that is opened: what it is to be read from, if it is a large one.
pub(crate) type Opened = Result<Option<Reading>, Refusal>;

/// Takes what becomes of an open.
pub(crate) type Answer = Box<dyn FnOnce(Opened) + Send>;

/// Answers opens of a mount.
pub(crate) struct Passthrough<S> {
    shared: Arc<Shared<S>>,
    missing: Sender<BlobRef>,
}

struct Shared<S> {
    filesystem: Arc<Filesystem<S>>,
    plain: Plain,
    kernel: Notices,
    journal: Journal,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Who waits for what to be expanded.
    waiting: HashMap<BlobRef, Vec<(NodeId, Answer)>>,
    /// What could not be, and when that was tried last.
    failed: HashMap<BlobRef, Instant>,
}

/// Checks that the kernel lets this process pass files through on a connection.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN` in the machine's own user namespace, and of a kernel
/// that does not offer it; ELOOP when the store lies on a stacked filesystem, such as
/// overlayfs. Source: `fuse_backing_open` in fs/fuse/passthrough.c (Linux 6.9).
pub(crate) fn check_permitted(kernel: &Notices, source: &impl Source) -> io::Result<()> {
    let id = kernel.back(&plain_of(source)?.sample()?)?;
    kernel.let_go(id)
}

fn plain_of(source: &impl Source) -> io::Result<Plain> {
    source.plain().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Lets go of the files that the kernel has open, that nothing is read from, and that have
/// been removed: only then the disk has their room.
pub(crate) fn let_go_of_gone<S: Source>(
    filesystem: &Filesystem<S>,
    kernel: &Notices,
    journal: &Journal,
) {
    let Some(plain) = filesystem.source.plain() else { return };
    let unused = filesystem.table().unused_backings();
    for (id, _) in unused.into_iter().filter(|(_, blob)| !plain.has(blob)) {
        let dropped = filesystem.table().drop_unused(id);
        let_go(filesystem, kernel, journal, dropped);
    }
}

/// Has the kernel let go of a backing id that was dropped, if one was.
fn let_go<S: Source>(
    filesystem: &Filesystem<S>,
    kernel: &Notices,
    journal: &Journal,
    dropped: Option<u32>,
) {
    let Some(id) = dropped else { return };
    // Before: a successor would answer with an id that there is no more.
    if let Err(source) = filesystem.keep() {
        journal(&Event::NotKept { source });
    }
    if let Err(source) = kernel.let_go(id) {
        journal(&Event::NotTold { source });
    }
}

impl<S: Source> Passthrough<S> {
    /// Begins to; requires that the kernel permits it.
    ///
    /// # Errors
    /// When the source has no plain files, or no thread can be started.
    pub(crate) fn begin(
        filesystem: Arc<Filesystem<S>>,
        kernel: Notices,
        journal: Journal,
    ) -> io::Result<Self> {
        let plain = plain_of(&filesystem.source)?;
        let shared = Shared { filesystem, plain, kernel, journal, queue: Mutex::default() };
        let (shared, (missing, expanded)) = (Arc::new(shared), unbounded());
        for _ in 0..THREADS {
            let (shared, expanded) = (shared.clone(), expanded.clone());
            // They end when this is dropped.
            let thread = thread::Builder::new().name("expand".into());
            thread.spawn(move || shared.work(&expanded))?;
        }
        Ok(Self { shared, missing })
    }

    /// Finds out what the kernel is to read a file from that it opens, and gives that to
    /// `answer`: at once, or when the file is expanded.
    ///
    /// What `answer` gets of a large file is noted as an open; [`Passthrough::close`] ends
    /// it.
    pub(crate) fn open(&self, id: NodeId, answer: Answer) {
        let blob = match self.shared.filesystem.blob(id) {
            Ok(blob) if blob.size >= THRESHOLD => blob,
            small => return answer(small.map(|_| None)),
        };
        let opened = self.shared.filesystem.table().open(id, &blob);
        match opened {
            Some(reading) => self.shared.answer(reading, answer),
            None => self.wait(id, blob, answer),
        }
    }

    /// Notes that a large file was closed, after that has been answered.
    pub(crate) fn close(&self, id: NodeId) {
        self.shared.filesystem.table().close(id);
        self.shared.keep();
        self.shared.drop_surplus();
    }

    fn wait(&self, id: NodeId, blob: BlobRef, answer: Answer) {
        let mut queue = self.shared.queue();
        let waiting = queue.waiting.entry(blob).or_default();
        waiting.push((id, answer));
        if waiting.len() == 1 {
            // Its threads live as long as this.
            let _ = self.missing.send(blob);
        }
    }
}

impl<S: Source> Shared<S> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, missing: &Receiver<BlobRef>) {
        for blob in missing {
            self.guard(|| self.back(&blob));
            let waiting = self.queue().waiting.remove(&blob).unwrap_or_default();
            self.guard(|| {
                for (id, answer) in waiting {
                    let reading = self.filesystem.table().open_asked(id, &blob);
                    self.answer(reading, answer);
                }
                self.drop_surplus();
            });
        }
    }

    /// Goes on after a panic, with the next file.
    fn guard(&self, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            (self.journal)(&Event::panicked(Operation::Open.name(), &*panic));
        }
    }

    /// Gets a backing id for a content, unless that has one or cannot be expanded.
    fn back(&self, blob: &BlobRef) {
        let retry = self.queue().failed.get(blob).is_none_or(|last| last.elapsed() > RETRY);
        if !retry || self.filesystem.table().is_backed(blob) {
            return;
        }
        let attempt = || {
            let file = self.plain.open(blob)?;
            let failed = |source| cairn_store::Error::Io { path: "/dev/fuse".into(), source };
            self.kernel.back(&file).map_err(failed)
        };
        match attempt() {
            Ok(id) => {
                self.queue().failed.remove(blob);
                self.filesystem.table().back(id, *blob);
            }
            Err(source) => {
                self.queue().failed.insert(*blob, Instant::now());
                let what = format!("blob {}", blob.key);
                (self.journal)(&Event::NotExpanded { what, source });
            }
        }
    }

    /// Gives an answer when a successor knows of it.
    fn answer(&self, reading: Reading, answer: Answer) {
        self.filesystem.counters.opened(reading);
        self.keep();
        answer(Ok(Some(reading)));
    }

    fn keep(&self) {
        if let Err(source) = self.filesystem.keep() {
            (self.journal)(&Event::NotKept { source });
        }
    }

    /// Lets go of backing ids of which there are too many.
    fn drop_surplus(&self) {
        loop {
            let surplus = self.filesystem.table().drop_surplus();
            if surplus.is_none() {
                return;
            }
            let_go(&self.filesystem, &self.kernel, &self.journal, surplus);
        }
    }
}
