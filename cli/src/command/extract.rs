//! `cairn extract`: the files of a stone in a directory, without any store.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use cairn_package::stone;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::Page;
use crate::progress::Unit;
use crate::units::{counted, size};

/// Unpack a package into a directory, without a store
///
/// Owners are set by root alone.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stone
    file: PathBuf,
    /// Directory, which must be empty or not exist
    dir: PathBuf,
}

#[derive(Serialize)]
struct Extracted {
    directory: String,
    entries: usize,
    bytes: u64,
    skipped: Vec<Skipped>,
}

#[derive(Serialize)]
struct Skipped {
    path: String,
    reason: &'static str,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let path = &args.file;
    let file = File::open(path).map_err(Error::read(path))?;
    let phase = output.phase("Extracting", None, Unit::Bytes);
    let mut done = 0;
    let progress = |progress: stone::Progress<'_>| {
        if done == 0 {
            phase.set_total(progress.bytes_total, Unit::Bytes);
        }
        phase.advance(progress.bytes - done);
        done = progress.bytes;
    };
    let (from, options) = (BufReader::new(file), context.content_options());
    let extracted = stone::extract(from, &args.dir, &options, progress)
        .map_err(|source| Error::Stone { path: path.clone(), source })?;
    drop(phase);
    let skipped = extracted
        .skipped
        .iter()
        .map(|(path, reason)| Skipped { path: Escaped(&path.to_bytes()).to_string(), reason });
    output.data(&Extracted {
        directory: args.dir.display().to_string(),
        entries: extracted.entries,
        bytes: extracted.bytes,
        skipped: skipped.collect(),
    })
}

impl View for Extracted {
    fn show(&self, page: &mut Page) {
        for Skipped { path, reason } in &self.skipped {
            page.line(format_args!("{path}: {reason}"));
        }
        let entries = counted(self.entries, "entry");
        page.line(format_args!("{}: {entries} ({})", self.directory, size(self.bytes)));
    }
}
