//! refs/log: which states there are, which is current, which tags keep them.
//!
//! One line a record. The append of a line, made durable, is the commit point
//! of everything that changes a store. A line is the checksum of its record,
//! a space, and the record as JSON; each record holds the checksum of the one
//! before, so that no line can go missing in the middle.
//!
//! So that reading it costs what there is, and not what ever was, a log of which most is out
//! of date is replaced by one that begins with a checkpoint.
//!
//! Format: docs/store.md, "Log".

mod checkpoint;
mod salvage;

pub(crate) use checkpoint::Checkpoint;
pub(crate) use salvage::Salvaged;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::hash::Checksum;
use crate::state::{State, StateId, Tag};

/// What refs/log says in sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refs {
    /// The state that live roots follow.
    pub current: Option<StateId>,
    /// All states.
    pub states: BTreeMap<StateId, State>,
    /// All tags.
    pub tags: BTreeMap<Tag, StateId>,
    /// The highest number that a state ever had.
    pub newest: StateId,
}

/// One change of the refs; those of a record happen together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// A state exists from now on.
    Publish(State),
    /// Live roots follow this state from now on.
    Current(StateId),
    /// A tag names this state from now on.
    Tag(Tag, StateId),
    /// A tag no longer exists.
    Untag(Tag),
    /// A state no longer exists.
    Remove(StateId),
    /// Packs are removed or replaced from now on: an index that has not seen
    /// this says of objects that they lie where they do not.
    Repack,
    /// This log goes on where another one ended.
    Checkpoint(Checkpoint),
}

impl Change {
    /// Whether the index has something to learn of it.
    fn moves_objects(&self) -> bool {
        matches!(self, Self::Publish(_) | Self::Repack)
    }
}

/// How the text of each [`Record`] begins.
const BEGIN: &[u8] = b"{\"sequence\":";

#[derive(Serialize, Deserialize)]
struct Record {
    sequence: u64,
    previous: String,
    changes: Vec<Change>,
}

/// The log as read from disk, and where the next record goes.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    path: PathBuf,
    pub(crate) refs: Refs,
    /// Number of the last record; 0 when there is none.
    pub(crate) sequence: u64,
    /// Number of the last record that an index has to have seen: one that
    /// published a state, or moved objects.
    pub(crate) published: u64,
    previous: Checksum,
    /// How many records there are.
    records: u64,
    /// Bytes of whole records.
    len: u64,
}

impl Log {
    /// Reads the log.
    ///
    /// Bytes after the last whole record were never reported as written; they
    /// are what a power cut left, and are overwritten by the next record.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Err(Error::MissingLog { path: path.into() })
            }
            bytes => Self::decode(path, &bytes.map_err(Error::io(path))?),
        }
    }

    /// One without records.
    fn empty(path: &Path) -> Self {
        Self {
            path: path.into(),
            refs: Refs::default(),
            sequence: 0,
            published: 0,
            previous: Checksum::of(b""),
            records: 0,
            len: 0,
        }
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let (mut log, mut checkpoint) = (Self::empty(path), None);
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        for (at, line) in lines.iter().enumerate() {
            let damaged = |problem| Error::DamagedLog { path: path.into(), line: at + 1, problem };
            let Some((record, checksum)) = parse(line) else {
                if lines[at + 1..].iter().any(|later| parse(later).is_some()) {
                    return Err(damaged("its checksum differs"));
                }
                break;
            };
            let follows = record.previous == hex(log.previous)
                && log.sequence.checked_add(1) == Some(record.sequence);
            if let ([Change::Checkpoint(begun)], 0) = (&record.changes[..], at) {
                checkpoint = Some(begun.clone());
            } else if !follows {
                return Err(damaged("it does not follow the line before"));
            } else if !log.apply(record.changes, record.sequence) {
                return Err(damaged("it does not fit the states before"));
            }
            log.sequence = record.sequence;
            log.previous = checksum;
            log.records += 1;
            log.len += line.len() as u64;
            let is_complete =
                |it: &mut Checkpoint| Checkpoint::records(it.states.len()) == log.records;
            if let Some(complete) = checkpoint.take_if(is_complete) {
                let is_as_told = complete.states.iter().eq(log.refs.states.keys());
                if !is_as_told || log.refs.newest > complete.newest {
                    return Err(damaged("the states before are not those of its checkpoint"));
                }
                (log.refs.newest, log.published) = (complete.newest, complete.published);
            }
        }
        if checkpoint.is_some() {
            let (path, line) = (path.into(), lines.len());
            return Err(Error::DamagedLog { path, line, problem: "its checkpoint goes on" });
        }
        Ok(log)
    }

    /// Makes the changes of a record, and returns whether they fit what is there; if not, some
    /// are made.
    fn apply(&mut self, changes: Vec<Change>, sequence: u64) -> bool {
        changes.into_iter().all(|change| {
            if change.moves_objects() {
                self.published = sequence;
            }
            self.refs.apply(change)
        })
    }

    /// Appends one record and makes it durable: the commit point.
    ///
    /// One barrier. When it fails, the record is taken back, so that nobody follows
    /// what was not reported as done. Where even that fails, and after a power cut, it may
    /// be found: the log must then be read again.
    pub(crate) fn append(&mut self, disk: &dyn Disk, changes: Vec<Change>) -> Result<()> {
        self.settle(disk).map_err(Error::io(&self.path))?;
        let (line, checksum) = line(self.sequence + 1, self.previous, &changes);
        let mut file = disk.open(&self.path).map_err(Error::io(&self.path))?;
        let end = self.len + line.len() as u64;
        let written = file
            .set_len(self.len)
            .and_then(|()| file.write_at(line.as_bytes(), self.len))
            .and_then(|()| file.sync());
        if let Err(err) = written {
            let _ = file.set_len(self.len);
            return Err(Error::io(&self.path)(err));
        }

        self.sequence += 1;
        let fits = self.apply(changes, self.sequence);
        debug_assert!(fits, "changes are checked before they are appended");
        self.previous = checksum;
        self.records += 1;
        self.len = end;
        self.shorten(disk);
        Ok(())
    }
}

impl Refs {
    /// Reads the log of another store, which people call `name`.
    ///
    /// # Errors
    /// [`Error::DamagedLog`].
    pub fn of_log(name: &str, bytes: &[u8]) -> Result<Self> {
        Ok(Log::decode(&Path::new(name).join("refs/log"), bytes)?.refs)
    }

    /// Whether the change fits what is there; if not, nothing changed.
    fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Publish(state) => {
                let is_new = state.id > self.newest;
                if is_new {
                    self.newest = state.id;
                    self.states.insert(state.id, state);
                }
                is_new
            }
            Change::Current(id) => {
                let exists = self.states.contains_key(&id);
                if exists {
                    self.current = Some(id);
                }
                exists
            }
            Change::Tag(tag, id) => {
                let exists = self.states.contains_key(&id);
                if exists {
                    self.tags.insert(tag, id);
                }
                exists
            }
            Change::Untag(tag) => self.tags.remove(&tag).is_some(),
            Change::Remove(id) => {
                let is_used = self.current == Some(id) || self.tags.values().any(|it| *it == id);
                !is_used && self.states.remove(&id).is_some()
            }
            Change::Repack => true,
            // Only the first record is one.
            Change::Checkpoint(_) => false,
        }
    }
}

/// The line of a record, and its checksum.
fn line(sequence: u64, previous: Checksum, changes: &[Change]) -> (String, Checksum) {
    let record = Record { sequence, previous: hex(previous), changes: changes.to_vec() };
    let json = serde_json::to_string(&record).expect("the record has no map with odd keys");
    let checksum = Checksum::of(json.as_bytes());
    (format!("{} {json}\n", hex(checksum)), checksum)
}

fn hex(checksum: Checksum) -> String {
    format!("{:016x}", checksum.0)
}

/// A whole, undamaged line; else `None`.
fn parse(line: &[u8]) -> Option<(Record, Checksum)> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (checksum, json) = line.split_once(' ')?;
    let actual = Checksum::of(json.as_bytes());
    if checksum != hex(actual) {
        return None;
    }
    Some((serde_json::from_str(json).ok()?, actual))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::hash::TreeId;

    pub(super) fn state(id: u64) -> State {
        let tree = TreeId::of(&id.to_le_bytes());
        let request = "install näno".into();
        State { id: StateId(id), parent: None, time: id, request, tree, packages: tree }
    }

    pub(super) fn log_of_three() -> (tempfile::TempDir, PathBuf, Log) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "").unwrap();
        let mut log = Log::read(&path).unwrap();
        for id in 1..=3 {
            let changes = vec![Change::Publish(state(id)), Change::Current(StateId(id))];
            log.append(&RealDisk, changes).unwrap();
        }
        (directory, path, log)
    }

    #[test]
    fn what_was_appended_is_read() {
        let (_directory, path, mut log) = log_of_three();
        let tag = Tag::new("kept").unwrap();
        log.append(&RealDisk, vec![Change::Tag(tag, StateId(1))]).unwrap();
        log.append(&RealDisk, vec![Change::Remove(StateId(2))]).unwrap();
        let read = Log::read(&path).unwrap();
        assert_eq!(read.refs, log.refs);
        assert_eq!(read.refs.current, Some(StateId(3)));
        assert_eq!(read.refs.states.len(), 2);
        assert_eq!((read.sequence, read.published), (5, 3));
    }

    #[test]
    fn a_torn_record_is_as_if_it_had_not_been() {
        let (_directory, path, log) = log_of_three();
        let whole = std::fs::read(&path).unwrap();
        let second = whole.iter().rposition(|byte| *byte == b'{').unwrap();
        let third_line = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        for len in third_line..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let read = Log::read(&path).unwrap();
            assert_eq!(read.refs.current, Some(StateId(2)), "cut at {len} of {}", whole.len());
        }
        assert!(second > 0 && log.sequence == 3);
        let mut read = Log::read(&path).unwrap();
        read.append(&RealDisk, vec![Change::Current(StateId(1))]).unwrap();
        assert_eq!(Log::read(&path).unwrap().refs.current, Some(StateId(1)));
    }

    #[test]
    fn damage_before_the_last_record_is_an_error() {
        let (_directory, path, _) = log_of_three();
        let whole = std::fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
        for at in 0..last {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(Log::read(&path).is_err(), "byte {at} flipped");
        }
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap();
        std::fs::write(&path, &whole[first + 1..]).unwrap();
        assert!(Log::read(&path).is_err(), "first line removed");
    }
}
