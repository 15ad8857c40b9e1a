//! What a log begins with that takes the place of a longer one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Change, Log, Refs, line};
use crate::disk::{Disk, directory_of};
use crate::state::StateId;

/// What the log that was replaced said, together with the records that follow: one for each of
/// its states, and one for the current state and the tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// The highest number that a state ever had.
    pub(crate) newest: StateId,
    /// Number of the last record that an index has to have seen.
    pub(super) published: u64,
    /// The states that there were.
    pub(super) states: BTreeSet<StateId>,
}

impl Checkpoint {
    /// How many records belong to one of so many states, with its own.
    pub(super) fn records(states: usize) -> u64 {
        states as u64 + 2
    }

    /// Whether it says of a state that it is gone.
    pub(crate) fn tells_gone(&self, id: StateId) -> bool {
        id <= self.newest && !self.states.contains(&id)
    }
}

/// A log is not replaced for the sake of so many records.
const SPARE: u64 = 256;

impl Log {
    /// Replaces the log if most of it is out of date.
    ///
    /// If it fails, the log is as it was, and the next record finds it too long.
    pub(super) fn shorten(&mut self, disk: &dyn Disk) {
        if self.records > 2 * Checkpoint::records(self.refs.states.len()) + SPARE {
            let _ = self.replace(disk);
        }
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
    pub(super) fn settle(&self, disk: &dyn Disk) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::disk::{DiskFile, RealDisk};
    use crate::error::Error;
    use crate::hash::Checksum;
    use crate::log::Record;
    use crate::log::tests::{log_of_three, state};
    use crate::state::Tag;

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
        let golden = include_str!("../../tests/golden/checkpoint-1/log");
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
        let (first, checksum) = super::line(u64::MAX, log.previous, &[Change::Checkpoint(begun)]);
        let (second, _) = super::line(0, checksum, &[Change::Publish(state(1))]);
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
        fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            RealDisk.create(path)
        }

        fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
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
