//! refs/packs: the names of all packs, for whoever can read files and list no directory.
//!
//! Only a web server's readers need it; whoever changes packs keeps it, and nothing depends on
//! it: it is not synced, and the next one who changes packs makes it anew from the directory.
//!
//! Format: docs/store.md, "List of packs".

use std::collections::HashSet;
use std::fs;
use std::io;

use super::PackAt;
use crate::error::{Error, Result};
use crate::hash::{Checksum, PackId};
use crate::store::{FORMAT, Inner};

/// The first line.
const HEAD: &str = "cairn packs 1";

/// Checks what the file `format` of a store says that people call `name`.
///
/// # Errors
/// [`Error::UnknownFormat`].
pub fn check_format(name: &str, bytes: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(bytes);
    if text.trim_end() == FORMAT {
        return Ok(());
    }
    let found = text.lines().next().unwrap_or_default().chars().take(80).collect();
    Err(Error::UnknownFormat { path: name.into(), found, known: FORMAT })
}

fn encode_pack_list(packs: &[PackAt]) -> String {
    let mut text = format!("{HEAD}\n");
    for PackAt { id, len } in packs {
        text.push_str(&format!("{id} {len}\n"));
    }
    text.push_str(&format!("{:016x}\n", Checksum::of(text.as_bytes()).0));
    text
}

/// Reads refs/packs: all packs, the newest last.
///
/// # Errors
/// Says why it is not one.
pub fn decode_pack_list(bytes: &[u8]) -> Result<Vec<PackAt>, &'static str> {
    let damaged = "its list of packs, refs/packs, is damaged; `cairn gc` there makes it anew";
    let text = std::str::from_utf8(bytes).map_err(|_| damaged)?;
    let body = text.strip_suffix('\n').ok_or(damaged)?;
    let end = body.rfind('\n').ok_or(damaged)? + 1;
    let (body, checksum) = body.split_at(end);
    let mut lines = body.lines();
    if lines.next() != Some(HEAD) {
        return Err("its list of packs, refs/packs, is of another version");
    }
    if checksum != format!("{:016x}", Checksum::of(body.as_bytes()).0) {
        return Err(damaged);
    }
    let pack = |line: &str| {
        let (id, len) = line.split_once(' ')?;
        Some(PackAt { id: id.parse().ok()?, len: len.parse().ok()? })
    };
    lines.map(|line| pack(line).ok_or(damaged)).collect()
}

impl Inner {
    /// Writes the list anew, without the packs that are about to go, unless it is right; the
    /// caller holds the lock.
    ///
    /// Costs the names of all packs. Whatever goes wrong costs only those who pull through a
    /// web server, who find out: a commit does not fail for it.
    pub(crate) fn note_packs(&self, going: &[PackId]) {
        let _ = self.try_note_packs(going);
    }

    fn try_note_packs(&self, going: &[PackId]) -> Result<()> {
        let path = self.path.join("refs/packs");
        let before = fs::read(&path).unwrap_or_default();
        let going: HashSet<&PackId> = going.iter().collect();
        let mut there = self.list_packs()?;
        there.retain(|id| !going.contains(id));
        let known = decode_pack_list(&before).unwrap_or_default();
        let listed: HashSet<PackId> = known.iter().map(|at| at.id).collect();
        let (old, new): (Vec<_>, Vec<_>) = there.into_iter().partition(|id| listed.contains(id));
        let old: HashSet<PackId> = old.into_iter().collect();
        let mut packs = known;
        packs.retain(|at| old.contains(&at.id));
        packs.extend(self.by_age(new)?);
        let text = encode_pack_list(&packs);
        if text.as_bytes() == before {
            return Ok(());
        }
        let temporary = self.path.join("refs/packs.new");
        match self.disk.remove(&temporary) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(temporary)(err));
            }
            _ => {}
        }
        let written = self
            .disk
            .create(&temporary)
            .and_then(|mut file| file.write_at(text.as_bytes(), 0))
            .and_then(|()| self.disk.rename(&temporary, &path));
        if written.is_err() {
            let _ = self.disk.remove(&temporary);
        }
        written.map_err(Error::io(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_was_changed_anywhere_is_refused() {
        let packs: Vec<PackAt> = (0..3_u8)
            .map(|at| PackAt { id: PackId::from_bytes([at; 16]), len: 100 + u64::from(at) })
            .collect();
        let text = encode_pack_list(&packs);
        assert_eq!(decode_pack_list(text.as_bytes()), Ok(packs));
        assert_eq!(decode_pack_list(encode_pack_list(&[]).as_bytes()), Ok(vec![]));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(decode_pack_list(&bytes).is_err(), "byte {at} changed");
            assert!(decode_pack_list(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
