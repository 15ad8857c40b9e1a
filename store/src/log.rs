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

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, directory_of};
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

/// What the log that was replaced said, together with the records that follow: one for each of
/// its states, and one for the current state and the tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// The highest number that a state ever had.
    pub(crate) newest: StateId,
    /// Number of the last record that an index has to have seen.
    published: u64,
    /// The states that there were.
    states: BTreeSet<StateId>,
}

impl Checkpoint {
    /// How many records belong to one of so many states, with its own.
    fn records(states: usize) -> u64 {
        states as u64 + 2
    }

    /// Whether it says of a state that it is gone.
    pub(crate) fn tells_gone(&self, id: StateId) -> bool {
        id <= self.newest && !self.states.contains(&id)
    }
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

/// A log is not replaced for the sake of so many records.
const SPARE: u64 = 256;

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
        if self.records > 2 * Checkpoint::records(self.refs.states.len()) + SPARE {
            // If it fails, the log is as it was, and the next record finds it too long.
            let _ = self.replace(disk);
        }
        Ok(())
    }

    /// Puts a log that begins with a checkpoint in the place of this one.
    ///
    /// A power cut leaves one of the two, which say the same. What is appended from then on is
    /// in the new one only, whose name has to be durable before: as long as that is not known,
    /// the old one has a second name.
    fn replace(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let (new, old) = (self.path.with_extension("new"), self.path.with_extension("old"));
        let replaced = self.write_anew(disk, &new).and_then(|log| {
            disk.link(&self.path, &old)?;
            disk.rename(&new, &self.path)?;
            Ok(log)
        });
        *self = replaced.inspect_err(|_| {
            // It takes room that a full disk does not have.
            let _ = disk.remove(&new);
        })?;
        self.settle(disk)
    }

    /// Makes sure that the log has its name for good.
    fn settle(&self, disk: &dyn Disk) -> io::Result<()> {
        let old = self.path.with_extension("old");
        if !fs::exists(&old)? {
            return Ok(());
        }
        disk.sync_directory(directory_of(&self.path))?;
        disk.remove(&old)
    }

    /// Writes what this says as a log that begins with a checkpoint, and syncs it; what lies in
    /// `path` is replaced. Returns what is to be appended to.
    fn write_anew(&self, disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let refs = &self.refs;
        let checkpoint = Checkpoint {
            newest: refs.newest,
            published: self.published,
            states: refs.states.keys().copied().collect(),
        };
        let first = vec![Change::Checkpoint(checkpoint)];
        let states = refs.states.values().map(|state| vec![Change::Publish(state.clone())]);
        let tags = refs.tags.iter().map(|(tag, id)| Change::Tag(tag.clone(), *id));
        let last = refs.current.map(Change::Current).into_iter().chain(tags).collect();
        let (mut text, mut new) = (String::new(), Self { records: 0, ..self.clone() });
        for changes in std::iter::once(first).chain(states).chain([last]) {
            let (line, checksum) = line(new.sequence + 1, new.previous, &changes);
            text.push_str(&line);
            (new.sequence, new.previous) = (new.sequence + 1, checksum);
            new.records += 1;
        }
        new.len = text.len() as u64;
        match disk.remove(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let mut file = disk.create(path)?;
        file.write_at(text.as_bytes(), 0)?;
        file.sync()?;
        Ok(new)
    }

    /// Writes the log of a store that has lost its own, with the states of `refs`, and syncs
    /// it; what lies in `path` is replaced.
    pub(crate) fn write(disk: &dyn Disk, path: &Path, refs: Refs) -> io::Result<()> {
        // An index that has seen no record is one that is being made.
        Self { refs, published: 1, ..Self::empty(path) }.write_anew(disk, path).map(drop)
    }
}

/// What the undamaged lines of a log say.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// States, tags and the current state; those may name states that no line tells of.
    pub(crate) refs: Refs,
    /// States that were removed.
    pub(crate) removed: BTreeSet<StateId>,
    /// With what the log begins.
    pub(crate) checkpoint: Checkpoint,
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
            Change::Remove(id) => {
                refs.states.remove(&id);
                self.removed.insert(id);
            }
            Change::Repack => {}
            Change::Checkpoint(checkpoint) => self.checkpoint = checkpoint,
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

    /// A log that was replaced once it was too long, with two of three states and a tag.
    fn replaced() -> (tempfile::TempDir, PathBuf, Log) {
        let (directory, path, mut log) = log_of_three();
        log.append(&RealDisk, vec![Change::Tag(Tag::new("kept").unwrap(), StateId(1))]).unwrap();
        log.append(&RealDisk, vec![Change::Remove(StateId(2)), Change::Repack]).unwrap();
        let refs = log.refs.clone();
        for records in 6.. {
            let sequence = log.sequence;
            log.append(&RealDisk, vec![Change::Current(StateId(3))]).unwrap();
            if log.sequence > sequence + 1 {
                assert_eq!(records, 2 * 4 + SPARE + 1);
                break;
            }
        }
        assert_eq!(log.refs, refs);
        (directory, path, log)
    }

    #[test]
    fn a_log_that_was_replaced_is_as_documented() {
        let (directory, path, _) = replaced();
        let golden = include_str!("../tests/golden/checkpoint-1/log");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), golden);
        let read = Log::read(&path).unwrap();
        assert_eq!(read.refs.states.keys().map(|id| id.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((read.refs.newest, read.refs.current), (StateId(3), Some(StateId(3))));
        assert_eq!((read.records, read.published), (4, 5));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_in_a_checkpoint_is_an_error() {
        let (_directory, path, mut log) = replaced();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(Log::read(&path).is_err(), "byte {at} flipped");
            // Without a whole line it is as a new one, which only the index knows better.
            std::fs::write(&path, &whole[..at]).unwrap();
            let first = whole.iter().position(|byte| *byte == b'\n').unwrap();
            assert_eq!(Log::read(&path).is_err(), at > first, "cut at {at}");
        }
        // A second one, and one that says something else than what follows.
        for (from, to) in [("states\":[1,3]", "states\":[1,2]"), ("newest\":3", "newest\":2")] {
            let text = std::str::from_utf8(&whole).unwrap();
            assert!(text.contains(from));
            let (mut lines, mut previous) = (String::new(), Checksum::of(b""));
            for json in text.replace(from, to).lines().map(|line| line.split_once(' ').unwrap().1) {
                let record: Record = serde_json::from_str(json).unwrap();
                let (line, checksum) = line(record.sequence, previous, &record.changes);
                previous = checksum;
                lines.push_str(&line);
            }
            std::fs::write(&path, lines).unwrap();
            assert!(matches!(Log::read(&path), Err(Error::DamagedLog { line: 3 | 4, .. })), "{to}");
        }
        std::fs::write(&path, &whole).unwrap();
        let second = vec![Change::Checkpoint(Checkpoint::default())];
        let (line, _) = line(log.sequence + 1, log.previous, &second);
        std::fs::write(&path, [&whole, line.as_bytes()].concat()).unwrap();
        assert!(matches!(Log::read(&path), Err(Error::DamagedLog { line: 5, .. })));
        // One that nothing can follow.
        let begun = Checkpoint { states: [StateId(1)].into(), ..Checkpoint::default() };
        let (first, checksum) = self::line(u64::MAX, log.previous, &[Change::Checkpoint(begun)]);
        let (second, _) = self::line(0, checksum, &[Change::Publish(state(1))]);
        std::fs::write(&path, first + &second).unwrap();
        assert!(matches!(Log::read(&path), Err(Error::DamagedLog { line: 2, .. })));
        // A record after it that is torn was never reported.
        std::fs::write(&path, &whole).unwrap();
        log.append(&RealDisk, vec![Change::Current(StateId(1))]).unwrap();
        let longer = std::fs::read(&path).unwrap();
        for len in whole.len()..longer.len() {
            std::fs::write(&path, &longer[..len]).unwrap();
            assert_eq!(Log::read(&path).unwrap().refs.current, Some(StateId(3)), "cut at {len}");
        }
    }

    #[test]
    fn a_log_stays_short_and_says_what_it_would_have_said() {
        let (directory, path, mut log) = log_of_three();
        let mut expected = log.refs.clone();
        let mut replaced = 0;
        for step in 0_u64..2500 {
            // A few numbers in no order.
            let roll = (step * 2_654_435_761) >> 7;
            let some = *expected.states.keys().nth(roll as usize % expected.states.len()).unwrap();
            let tag = Tag::new(&format!("tag{}", roll % 7)).unwrap();
            let change = match roll % 11 {
                0..=3 => Change::Publish(state(expected.newest.0 + 1)),
                4 | 5 => Change::Current(some),
                6 => Change::Tag(tag, some),
                7 => Change::Untag(tag),
                8 => Change::Repack,
                _ => Change::Remove(some),
            };
            if !expected.apply(change.clone()) {
                continue;
            }
            let (sequence, published, moves) =
                (log.sequence, log.published, change.moves_objects());
            log.append(&RealDisk, vec![change]).unwrap();
            assert_eq!(log.published, if moves { sequence + 1 } else { published });
            replaced += u32::from(log.sequence > sequence + 1);
            if step % 10 == 0 || log.sequence > sequence + 1 {
                let read = Log::read(&path).unwrap();
                assert_eq!(read.refs, expected, "step {step}");
                assert_eq!((read.sequence, read.published), (log.sequence, log.published));
                assert_eq!((read.records, read.len), (log.records, log.len));
                assert!(read.records <= 2 * (expected.states.len() as u64 + 2) + SPARE);
            }
        }
        assert!(replaced > 2 && expected.states.len() > 20, "{replaced} times");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// A disk that cannot sync directories.
    #[derive(Debug)]
    struct Forgetful;

    impl Disk for Forgetful {
        fn create(&self, path: &Path) -> io::Result<Box<dyn crate::disk::DiskFile>> {
            RealDisk.create(path)
        }

        fn open(&self, path: &Path) -> io::Result<Box<dyn crate::disk::DiskFile>> {
            RealDisk.open(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)
        }

        fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.link(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove(path)
        }

        fn create_directory(&self, path: &Path) -> io::Result<()> {
            RealDisk.create_directory(path)
        }

        fn sync_directory(&self, _: &Path) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }

        fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
            RealDisk.sync_filesystem(path)
        }
    }

    #[test]
    fn nothing_is_appended_to_a_log_of_which_the_name_may_be_lost() {
        let (directory, path, mut log) = log_of_three();
        let switch = || vec![Change::Current(StateId(1))];
        let mut last = log.sequence;
        while log.sequence <= last + 1 {
            last = log.sequence;
            log.append(&Forgetful, switch()).unwrap();
        }
        for mut log in [log, Log::read(&path).unwrap()] {
            let before = std::fs::read(&path).unwrap();
            assert!(matches!(log.append(&Forgetful, switch()), Err(Error::Io { .. })));
            assert_eq!(std::fs::read(&path).unwrap(), before);
        }
        Log::read(&path).unwrap().append(&RealDisk, switch()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        Log::read(&path).unwrap().append(&Forgetful, switch()).unwrap();
    }
}
