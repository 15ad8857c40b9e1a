//! `cairn umount`: the end of mounts.

use std::path::PathBuf;

use cairn_fs::Unmount;
use serde::Serialize;

use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;

/// Unmount directories that cairn mount has mounted
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directories that are mounted on
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Unmount also what is in use: it is out of sight at once, and ends when
    /// nobody uses it any more
    #[arg(short, long)]
    lazy: bool,
}

#[derive(Serialize)]
struct Unmounted {
    unmounted: Vec<String>,
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Error> {
    let how = if args.lazy { Unmount::WhenUnused } else { Unmount::Now };
    let mut unmounted = Vec::new();
    for dir in &args.dirs {
        cairn_fs::unmount(dir, how)?;
        unmounted.push(dir.display().to_string());
    }
    output.data(&Unmounted { unmounted })
}

impl View for Unmounted {
    fn show(&self, page: &mut Page) {
        for target in &self.unmounted {
            page.line(format_args!("{target} is unmounted."));
        }
    }
}
