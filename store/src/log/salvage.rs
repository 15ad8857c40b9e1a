//! What can still be read of a damaged log.

use std::collections::BTreeSet;
use std::path::Path;

use super::{BEGIN, Change, Checkpoint, Log, Record, Refs, hex};
use crate::hash::Checksum;
use crate::state::StateId;

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
