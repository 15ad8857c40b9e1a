//! `cairn repo index`: a directory of stones becomes a repository.

use std::path::PathBuf;

use cairn_package::repository::{IndexProgress, Indexed, index_directory};

use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::{Phase, Unit};
use crate::units::counted;

/// Write the index of a directory of stones, which makes it a repository
///
/// Of several releases of a package the newest is offered.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory with stones, at any depth
    dir: PathBuf,
}

impl IndexProgress for Phase {
    fn begin(&self, stones: u64) {
        self.set_total(stones, Unit::Pieces);
    }

    fn advance(&self) {
        Phase::advance(self, 1);
    }
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Error> {
    let phase = output.phase("Indexing stones", None, Unit::Pieces);
    let indexed = index_directory(&args.dir, &phase)?;
    drop(phase);
    output.data(&indexed)
}

impl View for Indexed {
    fn show(&self, page: &mut Page) {
        for path in &self.older {
            page.marked_line(Style::Note, "older: ", format_args!("{}", path.display()));
        }
        let packages = counted(self.packages, "package");
        page.line(format_args!("{}: {packages}", self.path.display()));
    }
}
