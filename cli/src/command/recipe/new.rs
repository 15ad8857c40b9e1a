//! `cairn recipe new`: a recipe from upstream archives.

use std::path::PathBuf;

use cairn_build::draft::{self, Downloaded};
use cairn_build::fetch;
use cairn_build::places::Places;
use serde::Serialize;

use cairn_package::repository::{self, Url};

use crate::build_root::Servers;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::Unit;

/// Write a recipe for upstream archives
///
/// The archives are downloaded, hashed and looked into: the build system, what it
/// asks for, the licences, the name and the version. The first archive is the main
/// one. Read the recipe before you use it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Addresses or files of archives
    #[arg(value_name = "URL-or-FILE", required = true)]
    urls: Vec<String>,
    /// Write it into this directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Replace a recipe that is there
    #[arg(long)]
    force: bool,
    /// Keep downloads here (default: /var/cache/cairn for root, ~/.cache/cairn for
    /// others)
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Drafted {
    file: String,
    system: cairn_build::draft::System,
    notes: Vec<String>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let file = args.output.join("stone.yaml");
    if file.exists() && !args.force {
        return Err(Error::Exists { path: file });
    }
    let places = Places { cache: context.cache_path(args.cache_dir.clone())? };
    let mut archives = Vec::new();
    for url in &args.urls {
        let url = if url.contains("://") {
            url.clone()
        } else {
            let path = PathBuf::from(url);
            let path = path.canonicalize().map_err(Error::read(&path))?;
            Url::of_path(&path).map_err(repository::Error::from)?.to_string()
        };
        let phase = output.phase(&format!("Getting {url}"), None, Unit::Bytes);
        let (path, hash) = fetch::fetch_new(&url, &places, &Servers(context.network()), &phase)?;
        archives.push(Downloaded { url, path, hash });
    }
    let directory = tempfile::tempdir().map_err(Error::read(std::env::temp_dir()))?;
    let draft = draft::draft(&archives, directory.path())?;
    let failed = |source| Error::Write { path: args.output.clone(), source };
    std::fs::create_dir_all(&args.output).map_err(failed)?;
    std::fs::write(&file, &draft.text).map_err(failed)?;
    let file = file.display().to_string();
    output.data(&Drafted { file, system: draft.system, notes: draft.notes })
}

impl fetch::FetchProgress for crate::progress::Phase {
    fn expect(&self, bytes: u64) {
        self.expect_bytes(bytes);
    }

    fn advance(&self, bytes: u64) {
        crate::progress::Phase::advance(self, bytes);
    }

    fn lose(&self, bytes: u64) {
        crate::progress::Phase::lose(self, bytes);
    }

    fn note(&self, text: &str) {
        crate::progress::Phase::note(self, text);
    }
}

impl View for Drafted {
    fn show(&self, page: &mut Page) {
        for note in &self.notes {
            page.marked_line(Style::Note, "note: ", note);
        }
        page.line(format_args!("{} was written; read it before you build it.", self.file));
    }
}
