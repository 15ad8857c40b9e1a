//! `cairn extract`: the files of stones in directories, without any store.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use cairn_package::{Metadata, stone};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::Page;
use crate::progress::Unit;
use crate::units::{counted, size};

/// Unpack packages into directories, without a store
///
/// Each gets a directory of its own, NAME-VERSION-RELEASE.ARCHITECTURE. Owners are set by
/// root alone.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stones
    #[arg(value_name = "FILE", required = true)]
    stones: Vec<PathBuf>,
    /// Make the directories of the packages in this one
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output_dir: PathBuf,
    /// Unpack one package into this directory itself, which must be empty or not exist
    #[arg(long, value_name = "DIR", conflicts_with = "output_dir")]
    to: Option<PathBuf>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct All(Vec<Extracted>);

#[derive(Serialize)]
struct Extracted {
    file: String,
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
    if args.to.is_some() && args.stones.len() > 1 {
        return Err(Error::OneDirectory);
    }
    let mut all = Vec::new();
    for path in &args.stones {
        let directory = match &args.to {
            Some(to) => to.clone(),
            None => {
                std::fs::create_dir_all(&args.output_dir)
                    .map_err(|source| Error::Write { path: args.output_dir.clone(), source })?;
                args.output_dir.join(directory_name(path)?)
            }
        };
        all.push(extract(path, &directory, context, output)?);
    }
    output.data(&All(all))
}

/// What the directory of a package is called.
fn directory_name(stone: &Path) -> Result<String, Error> {
    let failed = |source| Error::Stone { path: stone.into(), source };
    let Metadata { name, version, release, architecture, .. } =
        stone::Package::open(stone).map_err(failed)?.metadata;
    Ok(format!("{name}-{version}-{release}.{architecture}"))
}

fn extract(
    path: &Path,
    directory: &Path,
    context: &Context,
    output: &Output<'_>,
) -> Result<Extracted, Error> {
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
    let extracted = stone::extract(from, directory, &options, progress)
        .map_err(|source| Error::Stone { path: path.into(), source })?;
    let skipped = extracted
        .skipped
        .iter()
        .map(|(path, reason)| Skipped { path: Escaped(&path.to_bytes()).to_string(), reason });
    Ok(Extracted {
        file: path.display().to_string(),
        directory: directory.display().to_string(),
        entries: extracted.entries,
        bytes: extracted.bytes,
        skipped: skipped.collect(),
    })
}

impl View for All {
    fn show(&self, page: &mut Page) {
        for Extracted { directory, entries, bytes, skipped, .. } in &self.0 {
            for Skipped { path, reason } in skipped {
                page.line(format_args!("{path}: {reason}"));
            }
            let entries = counted(*entries, "entry");
            page.line(format_args!("{directory}: {entries} ({})", size(*bytes)));
        }
    }
}
