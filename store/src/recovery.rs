//! refs/log, made anew from what is left of it and from the records of states in packs.
//!
//! What packs say is looked at in a second store that has the same packs, an empty log and an
//! index of its own, below `run`: there it is as in any store, while this one cannot be opened.
//! The new log takes the place of the damaged one, which is kept beside it, in one step.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::hash::TreeId;
use crate::lock::{Lock, Purpose};
use crate::log::{Log, Refs, Salvaged};
use crate::pack::{ObjectId, Pack};
use crate::state::{State, StateId};
use crate::store::{FORMAT, Store, remove_all};
use crate::tree::{Content, Entry};

/// What was found of the states of a store.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The states, the current one and the tags, as the log says from now on.
    pub refs: Refs,
    /// States that only packs tell of.
    pub found: Vec<StateId>,
    /// States that packs tell of and that are not whole any more: they are left out.
    pub incomplete: Vec<State>,
    /// Whether the log was made anew: it was not whole, or lacked states.
    pub is_new: bool,
    /// Where the log that was replaced is kept; none if there was none.
    pub kept: Option<PathBuf>,
    /// Packs that cannot be read: what they tell of is missing.
    pub unreadable: Vec<Error>,
}

impl Store {
    /// Makes refs/log of the store in `path` anew, if it is damaged or lacks a state that the
    /// packs tell of and that is whole; and the index in any case.
    ///
    /// From the log comes what its undamaged lines say; from packs come the states whose lines
    /// are not among them. Where the line is lost that made a state current, the newest one is;
    /// tags whose lines are lost are lost; a state that was removed, and the line of that is
    /// lost, is there again as long as it is whole. With `dry_run` nothing is changed.
    ///
    /// Costs the tables of all packs, an index, and the directories of the states that only
    /// packs tell of.
    ///
    /// # Errors
    /// [`Error::NotAStore`], [`Error::Locked`]; [`Error::NoState`] when nothing tells of any
    /// state: then the log stays.
    pub fn recover_states(disk: &Arc<dyn Disk>, path: &Path, dry_run: bool) -> Result<Recovered> {
        Self::check_format(path)?;
        let log_path = path.join("refs/log");
        let _collector = Lock::take_collector(path)?;
        let lock = Lock::take(path, Purpose::Change)?;
        let bytes = match fs::read(&log_path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            result => Some(result.map_err(Error::io(&log_path))?),
        };
        let salvaged = Salvaged::of(&log_path, bytes.as_deref().unwrap_or_default());
        let scratch = path.join("run/recovery");
        let second = open_second(path, &scratch)?;
        let recovered = recover(&second, salvaged);
        drop(second);
        remove_all(&scratch)?;
        let (mut recovered, is_whole) = recovered?;
        if dry_run {
            return Ok(recovered);
        }
        if is_whole && bytes.is_some() && recovered.found.is_empty() {
            drop(lock);
            Self::open_on(disk.clone(), path)?.rebuild_index()?;
            return Ok(recovered);
        }
        if recovered.refs.states.is_empty() {
            return Err(Error::NoState);
        }
        let (new, kept) = (path.join("refs/log.new"), keep(&**disk, &log_path, bytes.as_deref())?);
        Log::write(&**disk, &new, recovered.refs.clone()).map_err(Error::io(&new))?;
        // It may know of more records than the new log has. Without one, the next command
        // makes it.
        remove_all(&path.join("index"))?;
        disk.rename(&new, &log_path).map_err(Error::io(&log_path))?;
        let directory = path.join("refs");
        disk.sync_directory(&directory).map_err(Error::io(&directory))?;
        drop(lock);
        Self::open_on(disk.clone(), path)?.rebuild_index()?;
        (recovered.is_new, recovered.kept) = (true, kept);
        Ok(recovered)
    }
}

/// Opens a store with the packs of another and without states, in a directory that is made.
fn open_second(path: &Path, scratch: &Path) -> Result<Store> {
    remove_all(scratch)?;
    let refs = scratch.join("refs");
    for directory in [&scratch.join("run"), &refs] {
        fs::create_dir_all(directory).map_err(Error::io(directory))?;
    }
    for (name, text) in [("format", FORMAT), ("refs/log", "")] {
        let file = scratch.join(name);
        fs::write(&file, text).map_err(Error::io(&file))?;
    }
    let packs = fs::canonicalize(path.join("packs")).map_err(Error::io(path.join("packs")))?;
    let link = scratch.join("packs");
    symlink(packs, &link).map_err(Error::io(&link))?;
    Store::open(scratch)
}

/// Puts together what the log and the packs say; with whether the log is whole.
fn recover(second: &Store, salvaged: Salvaged) -> Result<(Recovered, bool)> {
    let Salvaged { mut refs, removed, checkpoint, is_whole } = salvaged;
    let mut recovered = Recovered::default();
    let mut candidates: BTreeMap<StateId, Vec<State>> = BTreeMap::new();
    for state in records(second, &mut recovered.unreadable)? {
        let is_gone = removed.contains(&state.id) || checkpoint.tells_gone(state.id);
        if !is_gone && !refs.states.contains_key(&state.id) {
            candidates.entry(state.id).or_default().push(state);
        }
    }
    let mut whole = HashSet::new();
    for (id, mut states) in candidates {
        // Of a transaction that was cut short a record may be left whose number the next one
        // got, and packs of another store bring the records of its states along.
        states.sort_by_key(|state| std::cmp::Reverse(state.time));
        let found = states.iter().find_map(|state| {
            let mut is_whole = |root| is_whole_below(second, root, &mut whole);
            match is_whole(state.tree).and_then(|it| Ok(it && is_whole(state.packages)?)) {
                Ok(false) => None,
                result => Some(result.map(|_| state.clone())),
            }
        });
        match found.transpose()? {
            Some(state) => {
                refs.states.insert(id, state);
                recovered.found.push(id);
            }
            None => recovered.incomplete.extend(states),
        }
    }
    let is_there = |id: &StateId| refs.states.contains_key(id);
    refs.current = refs.current.filter(is_there).or(refs.states.keys().last().copied());
    let tags = std::mem::take(&mut refs.tags);
    refs.tags = tags.into_iter().filter(|(_, id)| refs.states.contains_key(id)).collect();
    let newest = refs.states.keys().chain(&removed).max().copied().unwrap_or_default();
    refs.newest = newest.max(checkpoint.newest);
    recovered.refs = refs;
    Ok((recovered, is_whole))
}

/// The records of states that lie in packs.
fn records(store: &Store, unreadable: &mut Vec<Error>) -> Result<Vec<State>> {
    let inner = store.inner();
    let (mut found, mut met) = (Vec::new(), BTreeSet::new());
    for id in inner.list_packs()? {
        let objects = Pack::open(&inner.pack_path(id), id).and_then(|pack| pack.objects());
        let objects = match objects {
            Err(err) => {
                unreadable.push(err);
                continue;
            }
            Ok(objects) => objects,
        };
        for (object, location) in objects {
            if !matches!(object, ObjectId::State(_)) || !met.insert(object) {
                continue;
            }
            match inner.object(&location) {
                Ok(bytes) if object.names(&bytes) => {
                    found.extend(serde_json::from_slice::<State>(&bytes).ok());
                }
                Ok(_) => {
                    let problem = "the record of its state differs from its hash";
                    let frame = location.frame;
                    unreadable.push(Error::DamagedFrame { pack: id, frame, problem });
                }
                Err(err) => unreadable.push(err),
            }
        }
    }
    Ok(found)
}

/// Whether all directories and files below `root` are there; those that are known to be
/// `whole` are not looked at again. What files have is not read.
fn is_whole_below(store: &Store, root: TreeId, whole: &mut HashSet<TreeId>) -> Result<bool> {
    let (mut open, mut met) = (vec![root], Vec::new());
    while let Some(id) = open.pop() {
        if !whole.insert(id) {
            continue;
        }
        met.push(id);
        let is_there = match store.tree(id) {
            Ok(tree) => {
                let mut blobs = true;
                for (_, entry) in tree.entries() {
                    match entry {
                        Entry::Directory(subtree) => open.push(subtree.id),
                        Entry::Leaf(leaf) => {
                            if let Content::File(blob) = &leaf.content {
                                blobs &= store.find_blob(blob.key)?.is_some_and(|it| it == *blob);
                            }
                        }
                    }
                }
                blobs
            }
            Err(err) if err.is_damage() => false,
            Err(err) => return Err(err),
        };
        if !is_there {
            // What is above it is not whole either.
            met.iter().for_each(|id| {
                whole.remove(id);
            });
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keeps the bytes of a log beside it, durably; returns where.
fn keep(disk: &dyn Disk, log: &Path, bytes: Option<&[u8]>) -> Result<Option<PathBuf>> {
    let Some(bytes) = bytes else { return Ok(None) };
    for number in 1.. {
        let path = log.with_extension(format!("damaged-{number}"));
        match disk.create(&path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            result => {
                result
                    .and_then(|mut file| {
                        file.write_at(bytes, 0)?;
                        file.sync()
                    })
                    .map_err(Error::io(&path))?;
                return Ok(Some(path));
            }
        }
    }
    unreachable!("there are fewer damaged logs than numbers")
}
