//! `cairn cat`: the content of a file of a state, without any mount.

use std::ffi::OsString;

use cairn_store::{BlobHasher, Content, Entry};

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::place::{LastLink, Place};

/// Print files of a state, without mounting it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files: 5:/etc/os-release, TAG:/etc/fstab, or /etc/fstab of the current
    /// state
    #[arg(value_name = "STATE:PATH", required = true)]
    places: Vec<OsString>,
}

/// Read at a time, so that a large file needs little memory.
const PIECE_LEN: usize = 1 << 20;

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    if context.json() {
        return Err(Error::NoJson { command: "cat" });
    }
    let store = context.store()?;
    for place in &args.places {
        let found = Place::new(place)?.find(&store, LastLink::Follow)?;
        let blob = match found.entry {
            Entry::Leaf(leaf) => match leaf.content {
                Content::File(blob) => Some(blob),
                _ => None,
            },
            Entry::Directory(_) => None,
        };
        let path = || found.path.to_string();
        let blob = blob.ok_or_else(|| Error::NotAFile { state: found.state.id, path: path() })?;
        let mut hasher = BlobHasher::default();
        let mut buf = vec![0; PIECE_LEN];
        let mut offset = 0;
        loop {
            let len = store.read_at(&blob, offset, &mut buf)?;
            if len == 0 {
                break;
            }
            hasher.update(&buf[..len]);
            offset += len as u64;
            if !output.bytes(&buf[..len])? {
                return Ok(());
            }
        }
        // Each frame was checked on the way; this proves the whole.
        if hasher.finish() != blob {
            return Err(cairn_store::Error::DamagedBlob { key: blob.key }.into());
        }
    }
    Ok(())
}
