//! `cairn export`: a state as a directory, an archive or an image.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cairn_store::export::{
    ArchiveNames, DirectoryOptions, ExportProgress, Exported, Packing, ParallelWriter,
    export_archive, export_directory,
};
use cairn_store::{State, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::interrupt;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::place::StateName;
use crate::progress::{Phase, Unit};
use crate::units::{counted, duration, size};

/// Write the files of a state into a directory or an archive
///
/// The archive of a state has the same bytes each time. Root alone can set owners
/// and make devices in a directory; what was left out is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number or tag of the state
    state: StateName,
    /// Empty or new directory; file with a name like *.tar, *.tar.gz or
    /// *.tar.zst; - for standard output, as an archive
    target: PathBuf,
    /// What to make (default: what the name of the target says)
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How to compress an archive (default: what the name says, else not)
    #[arg(long, value_enum)]
    compress: Option<Compress>,
    /// Make holes where files have blocks of zeros
    #[arg(long)]
    sparse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A directory
    Dir,
    /// A tar archive
    Tar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compress {
    /// Not at all
    None,
    /// gzip
    Gzip,
    /// zstd
    Zstd,
}

#[derive(Serialize)]
struct Done {
    state: u64,
    target: String,
    entries: u64,
    bytes: u64,
    left_out: Vec<LeftOut>,
    seconds: f64,
    #[serde(skip)]
    time: Duration,
}

#[derive(Serialize)]
struct LeftOut {
    path: String,
    reason: &'static str,
}

impl ExportProgress for Phase {
    fn advance(&self, _: u64, bytes: u64) {
        Phase::advance(self, bytes);
    }

    fn is_cancelled(&self) -> bool {
        interrupt::has_come()
    }
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.find(&store)?;
    let begun = Instant::now();
    let is_stdout = args.target.as_os_str() == "-";
    let format = args.format.unwrap_or_else(|| match packing_of(&args.target) {
        None if !is_stdout => Format::Dir,
        _ => Format::Tar,
    });
    if is_stdout && context.json() {
        return Err(Error::NoJson { command: "cairn export to standard output" });
    }
    interrupt::note()?;
    let total = store.tree(state.tree)?.summary().bytes;
    let phase = output.phase("Exporting", Some(total), Unit::Bytes);
    let exported = match format {
        Format::Dir => {
            let options = DirectoryOptions { sparse: args.sparse };
            export_directory(&store, state.tree, &args.target, options, &phase)
                .map_err(interrupt::explain)
        }
        Format::Tar => export_tar(args, &store, &state, &phase),
    };
    drop(phase);
    let Exported { entries, bytes, left_out } = exported?;
    let time = begun.elapsed();
    let left_out = left_out
        .into_iter()
        .map(|(path, reason)| LeftOut { path: Escaped(&path.to_bytes()).to_string(), reason });
    let done = Done {
        state: state.id.0,
        target: args.target.display().to_string(),
        entries,
        bytes,
        left_out: left_out.collect(),
        seconds: time.as_secs_f64(),
        time,
    };
    if is_stdout {
        output.preview(&done);
        return Ok(());
    }
    output.data(&done)
}

/// What the name of an archive says of its compression; `None` when it is not
/// the name of an archive.
fn packing_of(target: &Path) -> Option<Compress> {
    let name = target.file_name()?.to_str()?;
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    match () {
        () if ends(&[".tar"]) => Some(Compress::None),
        () if ends(&[".tar.gz", ".tgz"]) => Some(Compress::Gzip),
        () if ends(&[".tar.zst", ".tzst"]) => Some(Compress::Zstd),
        () => None,
    }
}

/// Writes an archive; one in a file appears under its name when it is whole.
fn export_tar(
    args: &Args,
    store: &Store,
    state: &State,
    progress: &Phase,
) -> Result<Exported, Error> {
    let compress = args.compress.or_else(|| packing_of(&args.target));
    let packing = match compress.unwrap_or(Compress::None) {
        Compress::None => Packing::None,
        Compress::Gzip => Packing::Gzip,
        Compress::Zstd => Packing::Zstd,
    };
    if args.target.as_os_str() == "-" {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(Error::ToTerminal);
        }
        let to = BufWriter::with_capacity(1 << 20, stdout.lock());
        return write_tar(store, state, packing, to, progress).map(|(exported, _)| exported);
    }
    let target = &args.target;
    let failed = |source| Error::Write { path: target.clone(), source };
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    let file = File::create(&temporary).map_err(failed)?;
    let to = BufWriter::with_capacity(1 << 20, file);
    let written = write_tar(store, state, packing, to, progress).and_then(|(exported, to)| {
        let file = to.into_inner().map_err(|err| failed(err.into_error()))?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&temporary, target).map_err(failed)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(exported)
    });
    if written.is_err() {
        // Half an archive is worth nothing.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn write_tar<W: Write>(
    store: &Store,
    state: &State,
    packing: Packing,
    to: W,
    progress: &Phase,
) -> Result<(Exported, W), Error> {
    let mut to = ParallelWriter::new(to, packing);
    let exported = export_archive(store, state.tree, ArchiveNames::Dotted, &mut to, progress);
    let exported = exported.map_err(interrupt::explain)?;
    Ok((exported, to.finish().map_err(Error::Output)?))
}

/// Entries that are told one by one; what comes after them is counted.
const SHOWN: usize = 20;

impl View for Done {
    fn show(&self, page: &mut Page) {
        for LeftOut { path, reason } in self.left_out.iter().take(SHOWN) {
            page.marked_line(Style::Note, "left out: ", format_args!("{path}: {reason}"));
        }
        if let Some(more @ 1..) = self.left_out.len().checked_sub(SHOWN) {
            page.line(format_args!("and {more} more"));
        }
        let entries = usize::try_from(self.entries).unwrap_or(usize::MAX);
        page.line(format_args!(
            "State {} in {}: {} ({}) written ({}).",
            self.state,
            self.target,
            counted(entries, "entry"),
            size(self.bytes),
            duration(self.time),
        ));
    }
}
