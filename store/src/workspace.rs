//! Workspaces: writable layers over states, as the store keeps them.
//!
//! A workspace is a directory `STORE/workspaces/NAME`. Its file `base` is its
//! record: on which state the layer lies, and which layer it is. The record makes
//! the workspace exist; it is replaced atomically, and what it names is kept by gc.
//! What is in a layer belongs to the floor that mounts it.
//!
//! Format: docs/store.md, "Workspaces".

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hash::{Checksum, TreeId};
use crate::state::{State, StateId, Tag};
use crate::store::Store;
use crate::transaction::{Draft, Standing, Transaction};

/// The name of a workspace.
///
/// Invariant: a [`Tag`] that begins neither with a dot nor with a minus sign, so
/// that it is no number and cannot be taken for an option or a hidden file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct WorkspaceName(String);

/// A text that cannot be a [`WorkspaceName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of a workspace: that is the name of a directory, not a number, and begins with neither a dot nor a minus sign"
)]
pub struct InvalidWorkspaceName(pub String);

impl WorkspaceName {
    /// Checks `text`; the only way to make a `WorkspaceName`.
    pub fn new(text: &str) -> Result<Self, InvalidWorkspaceName> {
        if Tag::new(text).is_err() || text.starts_with(['.', '-']) {
            return Err(InvalidWorkspaceName(text.into()));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkspaceName {
    type Err = InvalidWorkspaceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// Under which names overlayfs notes in a layer what it has done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerMarks {
    /// `trusted.overlay.*`, which only root of the machine may write.
    Trusted,
    /// `user.overlay.*`, as in the namespaces of ordinary users.
    User,
}

/// The record of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The state that lies below the layer. It need no longer be among the
    /// states of the store.
    pub base: State,
    /// Number of the layer, whose directory is `layer-<number>`.
    pub layer: u64,
    /// The last state that was published from this layer, which has gone on
    /// since.
    pub published: Option<State>,
    /// How the layer is written.
    pub marks: LayerMarks,
}

impl Record {
    /// The state that changes are told against: the last one that was published
    /// from the layer, else the one below it.
    #[must_use]
    pub fn reference(&self) -> &State {
        self.published.as_ref().unwrap_or(&self.base)
    }

    /// The record of the same workspace with a new layer on `base`.
    fn continued(self, base: State) -> Self {
        Self { base, layer: self.layer + 1, published: None, marks: self.marks }
    }

    /// The states whose trees must be kept for it.
    pub(crate) fn states(&self) -> impl Iterator<Item = &State> {
        [Some(&self.base), self.published.as_ref()].into_iter().flatten()
    }

    /// The roots of those trees.
    pub fn trees(&self) -> impl Iterator<Item = TreeId> {
        self.states().flat_map(|state| [state.tree, state.packages])
    }
}

/// A workspace that this process alone may use, until this is dropped or the
/// process ends.
#[derive(Debug)]
pub struct Workspace {
    store: Store,
    name: WorkspaceName,
    lock: File,
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Closing would leave the lock with a child that another thread has just
        // forked and that has not come to its exec(2) yet.
        let _ = self.lock.unlock();
    }
}

/// The lock: who has a copy of it keeps the workspace from others when this process dies.
impl AsFd for Workspace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Store {
    /// Where a workspace lies.
    #[must_use]
    pub fn workspace_path(&self, name: &WorkspaceName) -> PathBuf {
        self.path().join("workspaces").join(name.as_str())
    }

    /// All workspaces, sorted by name.
    ///
    /// # Errors
    /// A record that cannot be read is an error, not a workspace less: gc would
    /// take away what it needs.
    pub fn workspaces(&self) -> Result<Vec<(WorkspaceName, Record)>> {
        let directory = self.path().join("workspaces");
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(Error::io(&directory))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io(&directory))?.file_name();
            let Some(name) = name.to_str().and_then(|name| WorkspaceName::new(name).ok()) else {
                continue;
            };
            match self.workspace(&name) {
                // One that is just being made, or was being removed.
                Err(Error::UnknownWorkspace(_)) => {}
                result => found.push((name, result?)),
            }
        }
        found.sort_by(|(left, _), (right, _)| left.cmp(right));
        Ok(found)
    }

    /// The record of the workspace `name`.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`], [`Error::DamagedWorkspace`].
    pub fn workspace(&self, name: &WorkspaceName) -> Result<Record> {
        let path = self.workspace_path(name).join("base");
        match fs::read(&path) {
            Err(err) if is_missing(&err) => Err(Error::UnknownWorkspace(name.clone())),
            Err(err) => Err(Error::io(path)(err)),
            Ok(bytes) => decode(&bytes).ok_or(Error::DamagedWorkspace { path }),
        }
    }

    /// Takes the workspace `name`, which need not exist, for this process.
    ///
    /// # Errors
    /// [`Error::WorkspaceInUse`] when another process has it.
    pub fn lock_workspace(&self, name: &WorkspaceName) -> Result<Workspace> {
        let directory = self.workspace_path(name);
        let path = directory.join("lock");
        loop {
            for directory in [self.path().join("workspaces"), directory.clone()] {
                // The layers hold what all users of a system may have written.
                match fs::create_dir(&directory) {
                    Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                    result => {
                        let private = fs::Permissions::from_mode(0o700);
                        result
                            .and_then(|()| fs::set_permissions(&directory, private))
                            .map_err(Error::io(&directory))?;
                    }
                }
            }
            let options = File::options().read(true).write(true).create(true).clone();
            let mut lock = match options.open(&path) {
                // Whoever removes it now was faster.
                Err(err) if is_missing(&err) => continue,
                result => result.map_err(Error::io(&path))?,
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::Error(err)) => return Err(Error::io(&path)(err)),
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // What it says is for people; it may be half written.
                    let _ = lock.read_to_string(&mut holder);
                    let pid = holder.trim_end().parse().unwrap_or(0);
                    return Err(Error::WorkspaceInUse { name: name.clone(), pid });
                }
            }
            // It may have been removed since it was opened.
            if is_at(&lock, &path).map_err(Error::io(&path))? {
                return self.take_workspace(name, lock);
            }
        }
    }

    /// Takes the workspace `name` over from a process that has ended without giving it up;
    /// `lock` is a copy of what [`Workspace`] had as a descriptor.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`] when it is not that of the workspace any more.
    pub fn resume_workspace(&self, name: &WorkspaceName, lock: OwnedFd) -> Result<Workspace> {
        let (lock, path) = (File::from(lock), self.workspace_path(name).join("lock"));
        if !is_at(&lock, &path).map_err(Error::io(&path))? {
            return Err(Error::UnknownWorkspace(name.clone()));
        }
        self.take_workspace(name, lock)
    }

    /// Says in a lock that this process has it.
    fn take_workspace(&self, name: &WorkspaceName, mut lock: File) -> Result<Workspace> {
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(Error::io(self.workspace_path(name).join("lock")))?;
        Ok(Workspace { store: self.clone(), name: name.clone(), lock })
    }

    /// Replaces the record of a workspace that exists; durable when it returns.
    ///
    /// The caller has the workspace, or the writer's lock.
    pub(crate) fn set_workspace(&self, name: &WorkspaceName, record: &Record) -> Result<()> {
        let disk = &*self.inner().disk;
        let directory = self.workspace_path(name);
        let (path, new) = (directory.join("base"), directory.join("base.new"));
        match disk.remove(&new) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(Error::io(new)(err)),
            _ => {}
        }
        disk.create(&new)
            .and_then(|mut file| {
                file.write_at(&encode(record), 0)?;
                file.sync()
            })
            .map_err(Error::io(&new))?;
        disk.rename(&new, &path).map_err(Error::io(&path))?;
        disk.sync_directory(&directory).map_err(Error::io(&directory))
    }
}

/// Whether `path` is that of an open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    let is_it = |now: fs::Metadata| (now.dev(), now.ino()) == (opened.dev(), opened.ino());
    Ok(fs::metadata(path).is_ok_and(is_it))
}

impl Workspace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &WorkspaceName {
        &self.name
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.store.workspace_path(&self.name)
    }

    /// Its record.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`] when it does not exist.
    pub fn record(&self) -> Result<Record> {
        self.store.workspace(&self.name)
    }

    /// Makes the workspace, on the state `base`; durable when it returns.
    ///
    /// # Errors
    /// [`Error::WorkspaceExists`]; [`Error::UnknownState`].
    pub fn create(&self, base: StateId, marks: LayerMarks) -> Result<Record> {
        match self.record() {
            Err(Error::UnknownWorkspace(_)) => {}
            Ok(_) => return Err(Error::WorkspaceExists(self.name.clone())),
            Err(err) => return Err(err),
        }
        let base = self.store.state(base)?;
        let disk = &*self.store.inner().disk;
        let root = self.store.path();
        let directories = [root.join("workspaces"), self.path()];
        for directory in &directories {
            disk.create_directory(directory).map_err(Error::io(directory))?;
        }
        let record = Record { base, layer: 1, published: None, marks };
        self.set(&record)?;
        for directory in [&directories[0], root] {
            disk.sync_directory(directory).map_err(Error::io(directory))?;
        }
        // From here on gc keeps the trees, if they were still there.
        self.store.refresh()?;
        if let Err(err) = self.store.state(record.base.id) {
            self.remove()?;
            return Err(err);
        }
        Ok(record)
    }

    /// Puts the workspace on the state `base` with a layer that is new; durable
    /// when it returns. The directory of the old layer is left to the caller.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`], [`Error::UnknownState`], [`Error::Locked`].
    pub fn rebase(&self, base: StateId) -> Result<Record> {
        let _lock = self.store.inner().lock()?;
        let record = self.record()?.continued(self.store.state(base)?);
        self.set(&record)?;
        Ok(record)
    }

    /// Makes the workspace exist no more; durable when it returns. Its directory
    /// is left to the caller.
    pub fn remove(&self) -> Result<()> {
        let disk = &*self.store.inner().disk;
        let directory = self.path();
        let path = directory.join("base");
        disk.remove(&path).map_err(Error::io(&path))?;
        disk.sync_directory(&directory).map_err(Error::io(&directory))
    }

    fn set(&self, record: &Record) -> Result<()> {
        self.store.set_workspace(&self.name, record)
    }
}

/// What becomes of a workspace of which a state is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It goes on with a new layer on the new state. The caller has it.
    Continues,
    /// It keeps its layer, which somebody is using.
    Stays,
}

impl Transaction {
    /// Publishes the new state as [`Self::commit`] does, and notes it in the
    /// workspace from which it was made.
    ///
    /// The second value is the new record of the workspace, or why it could not
    /// be written: the state is published all the same.
    pub fn commit_workspace(
        mut self,
        draft: Draft,
        standing: Standing,
        name: &WorkspaceName,
        afterwards: Afterwards,
    ) -> Result<(State, Result<Record>)> {
        let store = self.store().clone();
        let before = store.workspace(name)?;
        let state = self.publish(draft, standing)?;
        let record = match afterwards {
            Afterwards::Continues => before.continued(state.clone()),
            Afterwards::Stays => Record { published: Some(state.clone()), ..before },
        };
        let noted = store.set_workspace(name, &record).map(|()| record);
        Ok((state, noted))
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The record as one line: the checksum of its text as 16 digits, a space, the
/// text, a line feed.
fn encode(record: &Record) -> Vec<u8> {
    let json = serde_json::to_string(record).expect("the record has no map with odd keys");
    format!("{:016x} {json}\n", Checksum::of(json.as_bytes()).0).into_bytes()
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let line = std::str::from_utf8(bytes.strip_suffix(b"\n")?).ok()?;
    let (checksum, json) = line.split_once(' ')?;
    let is_whole = checksum == format!("{:016x}", Checksum::of(json.as_bytes()).0);
    is_whole.then(|| serde_json::from_str(json).ok()).flatten()
}

/// The directory of a layer.
#[must_use]
pub fn layer_path(workspace: &Path, layer: u64) -> PathBuf {
    workspace.join(format!("layer-{layer}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Attributes, Tree};

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        for _ in 0..2 {
            let mut transaction = store.begin().unwrap();
            let tree = transaction.put_tree(Tree::empty(Attributes::of_root(0o755))).unwrap();
            let draft = Draft { parent: None, request: String::new(), tree, packages: tree };
            transaction.commit(draft).unwrap();
        }
        (directory, store)
    }

    fn name(text: &str) -> WorkspaceName {
        WorkspaceName::new(text).unwrap()
    }

    #[test]
    fn a_name_can_neither_be_taken_for_a_state_nor_for_an_option() {
        for text in ["", "12", "current", ".", "..", ".x", "-x", "a/b", "a:b", "a\nb"] {
            assert!(WorkspaceName::new(text).is_err(), "{text:?}");
        }
        for text in ["web", "two words", "ä", "v1.2", "a-b"] {
            assert!(WorkspaceName::new(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn what_a_workspace_lies_on_is_known_until_it_is_removed() {
        let (_directory, store) = store();
        let unknown = store.workspace(&name("web"));
        assert!(matches!(unknown, Err(Error::UnknownWorkspace(_))), "{unknown:?}");
        let workspace = store.lock_workspace(&name("web")).unwrap();
        assert!(store.workspaces().unwrap().is_empty(), "the directory alone is none");
        let made = workspace.create(StateId(1), LayerMarks::Trusted).unwrap();
        assert_eq!((made.base.id, made.layer), (StateId(1), 1));
        let again = workspace.create(StateId(1), LayerMarks::Trusted);
        assert!(matches!(again, Err(Error::WorkspaceExists(_))), "{again:?}");
        store.lock_workspace(&name("app")).unwrap().create(StateId(2), LayerMarks::User).unwrap();
        let found = store.workspaces().unwrap();
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["app", "web"]);
        assert_eq!(found[1].1, made);
        assert_eq!(workspace.rebase(StateId(2)).unwrap().layer, 2);
        // Its state may go: the record tells of it all the same.
        store.switch(StateId(1)).unwrap();
        store.remove_states(&[StateId(2)]).unwrap();
        assert_eq!(workspace.record().unwrap().base.id, StateId(2));
        workspace.remove().unwrap();
        assert_eq!(store.workspaces().unwrap().len(), 1);
    }

    #[test]
    fn a_state_that_is_not_there_makes_no_workspace() {
        let (_directory, store) = store();
        let workspace = store.lock_workspace(&name("web")).unwrap();
        for id in [0, 3] {
            let made = workspace.create(StateId(id), LayerMarks::Trusted);
            assert!(matches!(made, Err(Error::UnknownState(_))), "{made:?}");
        }
        // The view of this process may be older than the removal of a state.
        let other = Store::open(store.path()).unwrap();
        other.remove_states(&[StateId(1)]).unwrap();
        let made = workspace.create(StateId(1), LayerMarks::Trusted);
        assert!(matches!(made, Err(Error::UnknownState(_))), "{made:?}");
        assert!(store.workspaces().unwrap().is_empty());
    }

    #[test]
    fn one_process_has_a_workspace_at_a_time() {
        let (_directory, store) = store();
        let first = store.lock_workspace(&name("web")).unwrap();
        match store.lock_workspace(&name("web")) {
            Err(Error::WorkspaceInUse { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        store.lock_workspace(&name("other")).unwrap();
        drop(first);
        store.lock_workspace(&name("web")).unwrap();
    }

    #[test]
    fn damage_of_a_record_is_told_never_passed_over() {
        let (_directory, store) = store();
        let workspace = store.lock_workspace(&name("web")).unwrap();
        workspace.create(StateId(1), LayerMarks::Trusted).unwrap();
        let path = workspace.path().join("base");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(store.workspaces().unwrap_err().is_damage(), "byte {at} flipped");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(store.workspaces().unwrap_err().is_damage(), "cut at {at}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(store.workspaces().unwrap().len(), 1);
    }
}
