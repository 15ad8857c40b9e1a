//! What has changed in a workspace, published.

use cairn_store::host::{Scan, ScannedEntry, Unread};
use cairn_store::workspace::{Afterwards, Record, Workspace, layer_path};
use cairn_store::{
    Draft, ImportProgress, Scratch, Standing, State, Store, TreePath, TreeWriter, WorkspaceName,
};
use xxhash_rust::xxh3::Xxh3Default;

use super::completion::Completion;
use super::{check_is_free, directory, hold};
use crate::error::{Error, Result};
use crate::layer::Layer;

/// How often a layer is read anew that is changed while it is read.
const ATTEMPTS: usize = 3;

/// Whether a snapshot becomes the current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// If the state that it was made from is current, so that nothing which was
    /// done since goes missing.
    CurrentIfBaseIs,
    /// In any case.
    Current,
    /// In no case.
    Nothing,
}

/// What a snapshot has done.
#[derive(Debug)]
pub struct Snapshot {
    /// The new state; `None` when nothing had changed.
    pub state: Option<State>,
    /// The state that it was made from.
    pub parent: State,
    /// Whether the new state is current.
    pub is_current: bool,
    /// Whether the workspace goes on with an empty layer; else somebody is using
    /// it, and its layer stays.
    pub continues: bool,
    /// Files that somebody went on changing while they were read.
    pub unsettled: Vec<TreePath>,
    /// What was read.
    pub read: Unread,
    /// Why the workspace could not be told of the state.
    pub problem: Option<Error>,
}

/// Publishes the changes of a workspace as a new state with the packages of the
/// one it was made from.
///
/// Costs the changes. Somebody may use the workspace meanwhile: when it is changed
/// while it is read, it is read again, so that the state is what the workspace was
/// at one moment, unless that never ends.
///
/// # Errors
/// [`cairn_store::Error::UnknownWorkspace`], [`cairn_store::Error::Locked`],
/// [`Error::DamagedLayer`]; nothing has happened then.
pub fn snapshot(
    store: &Store,
    name: &WorkspaceName,
    request: &str,
    becomes: Becomes,
    progress: &dyn ImportProgress,
) -> Result<Snapshot> {
    store.workspace(name)?;
    let held = match hold(store, name) {
        Ok(workspace) if check_is_free(&workspace).is_ok() => Some(workspace),
        Ok(_) | Err(Error::Store(cairn_store::Error::WorkspaceInUse { .. })) => None,
        Err(err) => return Err(err),
    };
    let mut transaction = store.begin()?;
    let record = store.workspace(name)?;
    let parent = record.reference().clone();
    let mut unsettled = Vec::new();
    let mut unread = Unread::default();
    let mut tree = record.base.tree;
    for attempt in 1..=ATTEMPTS {
        let Some(LayerRead { mut layer, completion }) = read_layer(store, name, &record, progress)?
        else {
            break;
        };
        if layer.takes_from_below {
            completion.put(&mut transaction)?;
        }
        unread = layer.scan.unread();
        progress.read(unread);
        let before = fingerprint(&layer.scan);
        unsettled = layer.scan.take_in(&mut transaction, progress)?;
        tree = layer.put(&mut transaction, record.base.tree)?;
        // Nobody changes a layer that this process has.
        let is_still = held.is_some() || {
            let again = read_layer(store, name, &record, &())?;
            again.is_some_and(|again| fingerprint(&again.layer.scan) == before)
        };
        if is_still && unsettled.is_empty() {
            break;
        }
        if attempt == ATTEMPTS && unsettled.is_empty() {
            unsettled.push(TreePath::root());
        }
    }
    let mut done = Snapshot {
        state: None,
        parent: parent.clone(),
        is_current: false,
        continues: false,
        unsettled,
        read: unread,
        problem: None,
    };
    if tree == parent.tree {
        drop(transaction);
        done.settle(store, held.as_ref(), &record);
        return Ok(done);
    }
    progress.commit();
    let current = transaction.store().refs().current;
    let standing = match becomes {
        Becomes::CurrentIfBaseIs if current == Some(parent.id) => Standing::Current,
        Becomes::Current => Standing::Current,
        Becomes::CurrentIfBaseIs | Becomes::Nothing => Standing::Aside,
    };
    let afterwards = if held.is_some() { Afterwards::Continues } else { Afterwards::Stays };
    let draft =
        Draft { parent: Some(parent.id), request: request.into(), tree, packages: parent.packages };
    let (state, noted) = transaction.commit_workspace(draft, standing, name, afterwards)?;
    done.is_current = store.refs().current == Some(state.id);
    done.state = Some(state);
    match noted {
        Ok(record) => done.clean_up(held.as_ref(), &record),
        Err(err) => done.problem = Some(err.into()),
    }
    Ok(done)
}

impl Snapshot {
    /// Puts a workspace in which nothing has changed since it was published on the
    /// state that was published.
    fn settle(&mut self, store: &Store, held: Option<&Workspace>, record: &Record) {
        let (Some(workspace), Some(published)) = (held, &record.published) else { return };
        // If it was removed since, what it holds is only in the layer.
        if store.state(published.id).is_err() {
            return;
        }
        match workspace.rebase(published.id) {
            Ok(record) => self.clean_up(held, &record),
            Err(err) => self.problem = Some(err.into()),
        }
    }

    /// Takes away the layer that is published now.
    fn clean_up(&mut self, held: Option<&Workspace>, record: &Record) {
        let Some(workspace) = held else { return };
        self.continues = true;
        // What is left is taken away by the next mount.
        let _ = directory::remove_other_layers(&workspace.path(), record);
    }
}

/// A layer, and what completes the state below it while a program runs.
pub(super) struct LayerRead {
    pub(super) layer: Layer,
    pub(super) completion: Completion,
}

/// Reads the layer of a workspace; `None` when it was never mounted, so that
/// there is none.
pub(super) fn read_layer(
    store: &Store,
    name: &WorkspaceName,
    record: &Record,
    progress: &dyn cairn_store::host::ScanProgress,
) -> Result<Option<LayerRead>> {
    let upper = layer_path(&store.workspace_path(name), record.layer).join("upper");
    if !upper.is_dir() {
        return Ok(None);
    }
    let base = record.base.tree;
    let completion = Completion::new(store, base)?;
    let mut trees = Scratch::new(store);
    for tree in completion.trees() {
        trees.write_tree(tree)?;
    }
    let below = [base, completion.root];
    let layer = Layer::read(&upper, record.marks, &trees, &below, progress)?;
    Ok(Some(LayerRead { layer, completion }))
}

/// What would differ if anything had been changed: which inodes there are, and
/// when each was changed last.
fn fingerprint(scan: &Scan) -> u64 {
    let mut hasher = Xxh3Default::new();
    let mut stack = vec![0];
    while let Some(number) = stack.pop() {
        let Some(directory) = scan.directory(number) else { continue };
        let mut add = |name: &[u8], status: &cairn_store::host::Status| {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(&status.inode.to_le_bytes());
            hasher.update(&status.size.to_le_bytes());
            hasher.update(&status.ctime.seconds().to_le_bytes());
            hasher.update(&status.ctime.nanoseconds().to_le_bytes());
        };
        add(b"", &directory.status);
        for (name, entry) in &directory.entries {
            match entry {
                ScannedEntry::Directory(number) => stack.push(*number),
                ScannedEntry::Leaf(leaf) => add(name, &leaf.status),
            }
        }
    }
    hasher.digest()
}
