//! A state made from a directory of this machine.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::host::{Known, ScanOptions, ScanProgress, Unread, scan};
use crate::ingest::IngestProgress;
use crate::name::TreePath;
use crate::state::{State, StateId};
use crate::store::Store;
use crate::transaction::Draft;
use crate::tree::{Attributes, Summary, Tree};

/// What an import takes in, and what it makes of it.
#[derive(Clone, Copy)]
pub struct ImportOptions<'a> {
    /// What was asked for, as people said it.
    pub request: &'a str,
    /// The state that the new one is made from; `None` for that of the last
    /// import of the same directory.
    pub parent: Option<StateId>,
    /// Whether the new state becomes the current one even if there is one.
    pub switch: bool,
    /// Tells of a path below the root whether it is left out, with all that is
    /// below it.
    pub leave_out: Option<&'a (dyn Fn(&TreePath) -> bool + Sync)>,
    /// Whether other filesystems that are mounted below are left out.
    pub one_filesystem: bool,
    /// Whether to read everything, even what is known to be unchanged.
    pub afresh: bool,
}

/// Is told how far an import has come; called from several threads.
pub trait ImportProgress: ScanProgress + IngestProgress {
    /// The scan has ended: so much has to be read.
    fn read(&self, unread: Unread);
    /// Everything was read, and is made durable.
    fn commit(&self);
}

impl ImportProgress for () {
    fn read(&self, _: Unread) {}
    fn commit(&self) {}
}

/// What an import has done.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The new state.
    pub state: State,
    /// What its tree holds.
    pub summary: Summary,
    /// What was read; the rest was known from the last import.
    pub read: Unread,
    /// Bytes by which the store has grown.
    pub stored: u64,
    /// Files that somebody went on changing while they were read.
    pub unsettled: Vec<TreePath>,
    /// Keys of extended headers of an archive that mean something to others and were not
    /// taken over, and how many entries have each.
    pub ignored: BTreeMap<Vec<u8>, u64>,
}

/// Makes a state of a directory of this machine, in one transaction: all of it,
/// or none.
///
/// Everything is read in parallel and once: what the last import of the same
/// directory has read and nobody has changed is not read at all (see
/// [`Known`]). The directory of the store is left out wherever it lies.
///
/// # Errors
/// [`crate::Error::Source`] names what could not be read;
/// [`crate::Error::Cancelled`], and then nothing has happened.
pub fn import_directory(
    store: &Store,
    root: &Path,
    options: &ImportOptions<'_>,
    progress: &dyn ImportProgress,
) -> Result<Imported> {
    let mut transaction = store.begin()?;
    let failed = |source| Error::Source { name: root.display().to_string(), source };
    let root = root.canonicalize().map_err(failed)?;
    let known = if options.afresh { None } else { Known::load(store, &root) };
    let never = [store.path().to_path_buf()];
    let scan_options = ScanOptions {
        leave_out: options.leave_out,
        never: &never,
        one_filesystem: options.one_filesystem,
        known: known.as_ref(),
    };
    let mut scan = scan(&root, &scan_options, progress)?;
    let parent = options.parent.or(known.as_ref().map(Known::state));
    drop(known);
    let read = scan.unread();
    progress.read(read);
    scan.write_back();
    let unsettled = scan.take_in(&mut transaction, progress)?;
    progress.commit();
    let tree = scan.put(&mut transaction)?;
    let draft = Draft {
        parent,
        request: options.request.to_owned(),
        tree,
        packages: transaction.put_tree(Tree::empty(Attributes::implied_directory()))?,
    };
    let stored = transaction.packed_len();
    let state = if options.switch {
        transaction.commit(draft)?
    } else {
        transaction.commit_aside(draft)?
    };
    // Without it the next import reads everything, and nothing else happens.
    let _ = scan.remember(store, tree);
    let summary = store.tree(tree)?.summary();
    Ok(Imported { state, summary, read, stored, unsettled, ignored: BTreeMap::new() })
}
