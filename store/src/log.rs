//! refs/log: which states there are, which is current, which tags keep them.
//!
//! One line a record. The append of a line, made durable, is the commit point
//! of everything that changes a store. A line is the checksum of its record,
//! a space, and the record as JSON; each record holds the checksum of the one
//! before, so that no line can go missing in the middle.
//!
//! Format: docs/store.md, "Log".

use std::collections::BTreeMap;
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
    /// Bytes of whole records.
    len: u64,
}

impl Log {
    /// Reads the log.
    ///
    /// Bytes after the last whole record were never reported as written; they
    /// are what a power cut left, and are overwritten by the next record.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match std::fs::read(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Err(Error::MissingLog { path: path.into() })
            }
            bytes => Self::decode(path, &bytes.map_err(Error::io(path))?),
        }
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut log = Self {
            path: path.into(),
            refs: Refs::default(),
            sequence: 0,
            published: 0,
            previous: Checksum::of(b""),
            len: 0,
        };
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        for (at, line) in lines.iter().enumerate() {
            let damaged = |problem| Error::DamagedLog { path: path.into(), line: at + 1, problem };
            let Some((record, checksum)) = parse(line) else {
                if lines[at + 1..].iter().any(|later| parse(later).is_some()) {
                    return Err(damaged("its checksum differs"));
                }
                break;
            };
            if record.previous != hex(log.previous) || record.sequence != log.sequence + 1 {
                return Err(damaged("it does not follow the line before"));
            }
            for change in record.changes {
                if change.moves_objects() {
                    log.published = record.sequence;
                }
                if !log.refs.apply(change) {
                    return Err(damaged("it does not fit the states before"));
                }
            }
            log.sequence = record.sequence;
            log.previous = checksum;
            log.len += line.len() as u64;
        }
        Ok(log)
    }

    /// Appends one record and makes it durable: the commit point.
    ///
    /// One barrier. When it fails, the record is taken back, so that nobody follows
    /// what was not reported as done. Where even that fails, and after a power cut, it may
    /// be found: the log must then be read again.
    pub(crate) fn append(&mut self, disk: &dyn Disk, changes: Vec<Change>) -> Result<()> {
        let record = Record {
            sequence: self.sequence + 1,
            previous: hex(self.previous),
            changes: changes.clone(),
        };
        let json = serde_json::to_string(&record).expect("the record has no map with odd keys");
        let checksum = Checksum::of(json.as_bytes());
        let line = format!("{} {json}\n", hex(checksum));

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

        for change in changes {
            if change.moves_objects() {
                self.published = record.sequence;
            }
            let fits = self.refs.apply(change);
            debug_assert!(fits, "changes are checked before they are appended");
        }
        self.sequence = record.sequence;
        self.previous = checksum;
        self.len = end;
        Ok(())
    }
}

/// What the undamaged lines of a log say.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// States, tags and the current state; those may name states that no line tells of.
    pub(crate) refs: Refs,
    /// States that were removed, with what they were if a line tells of that.
    pub(crate) removed: BTreeMap<StateId, Option<State>>,
    /// Whether reading the log gives the same.
    pub(crate) is_whole: bool,
}

impl Salvaged {
    /// Reads what is left of the log in `path`: each record that its checksum proves, wherever
    /// it begins.
    pub(crate) fn of(path: &Path, bytes: &[u8]) -> Self {
        let (mut salvaged, mut last) = (Self::default(), 0);
        let mut rest = bytes;
        while let Some(at) = rest.windows(BEGIN.len()).position(|window| window == BEGIN) {
            let record = &rest[at..];
            let mut records = serde_json::Deserializer::from_slice(record).into_iter();
            let next: Option<serde_json::Result<Record>> = records.next();
            let len = records.byte_offset();
            let checksum = format!("{} ", hex(Checksum::of(&record[..len])));
            rest = match next {
                Some(Ok(found)) if rest[..at].ends_with(checksum.as_bytes()) => {
                    last = last.max(found.sequence);
                    found.changes.into_iter().for_each(|change| salvaged.take(change));
                    &record[len..]
                }
                _ => &record[BEGIN.len()..],
            };
        }
        salvaged.is_whole = Log::decode(path, bytes).is_ok_and(|log| log.sequence == last);
        salvaged
    }

    fn take(&mut self, change: Change) {
        let refs = &mut self.refs;
        match change {
            Change::Publish(state) => drop(refs.states.insert(state.id, state)),
            Change::Current(id) => refs.current = Some(id),
            Change::Tag(tag, id) => drop(refs.tags.insert(tag, id)),
            Change::Untag(tag) => drop(refs.tags.remove(&tag)),
            Change::Remove(id) => drop(self.removed.insert(id, refs.states.remove(&id))),
            Change::Repack => {}
        }
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
        }
    }
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

    fn state(id: u64) -> State {
        let tree = TreeId::of(&id.to_le_bytes());
        let request = "install näno".into();
        State { id: StateId(id), parent: None, time: id, request, tree, packages: tree }
    }

    fn log_of_three() -> (tempfile::TempDir, PathBuf, Log) {
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
