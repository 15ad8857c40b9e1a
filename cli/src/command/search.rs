//! `cairn search`: packages by words, by what they offer, by files.

use cairn_package::query::{self, Known};
use cairn_package::system::{Installed, InstalledPackage};
use cairn_package::{Dependency, Kind};
use cairn_store::Store;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};

/// Find packages by name and summary, by what they offer, or by files
///
/// Several words have all to be there. Text with parentheses, such as
/// 'binary(nano)', finds packages that offer just that.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Words, of which case makes no difference
    #[arg(value_name = "WORD", required = true)]
    words: Vec<String>,
    /// Find installed packages only
    #[arg(short, long)]
    installed: bool,
    /// Find packages that offer WORD: a binary, or what KIND says
    #[arg(short, long, value_name = "KIND", num_args = 0..=1, default_missing_value = "binary", require_equals = true)]
    provides: Option<String>,
    /// Find paths of installed packages that have WORD in them
    #[arg(short, long, conflicts_with_all = ["installed", "provides"])]
    files: bool,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Hits(Vec<Hit>);

#[derive(Serialize)]
struct Hit {
    name: String,
    /// The version that is installed.
    installed: Option<String>,
    /// The best version on offer.
    available: Option<String>,
    repository: Option<String>,
    summary: String,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Files(Vec<File>);

#[derive(Serialize)]
struct File {
    path: String,
    package: String,
}

/// The packages of the current state; none if there is no state yet.
pub(crate) fn installed(store: &Store) -> Result<Installed, Error> {
    match store.current() {
        Ok(state) => Ok(InstalledPackage::load_all(store, state.packages)?),
        Err(cairn_store::Error::NoState) => Ok(Installed::new()),
        Err(err) => Err(err.into()),
    }
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let installed = installed(&store)?;
    if args.files {
        return output.list(&files(&store, &installed, &args.words)?);
    }
    let mut offered = Vec::new();
    if !args.installed {
        offered = context.repositories(&store).load(&())?;
    }
    let wanted = match (&args.provides, &args.words[..]) {
        (Some(kind), words) => {
            let mut wanted = Vec::new();
            for word in words {
                wanted.push(provider(kind, word)?);
            }
            wanted
        }
        (None, [word]) if word.contains('(') => vec![word.parse::<Dependency>()?],
        _ => Vec::new(),
    };
    let known = if wanted.is_empty() {
        query::search(&installed, &offered, &args.words)?
    } else {
        let mut known = Vec::new();
        for wanted in &wanted {
            for name in query::offering(&installed, &offered, wanted)? {
                known.push(query::known(&installed, &offered, &name)?);
            }
        }
        known
    };
    let hits: Vec<Hit> = known.iter().filter_map(Hit::new).collect();
    output.list(&Hits(hits))
}

/// `WORD` as something of the kind `kind`.
fn provider(kind: &str, word: &str) -> Result<Dependency, Error> {
    // moss has this word for it as well.
    let kind = if kind == "library" { Kind::Soname.prefix() } else { kind };
    Ok(format!("{kind}({word})").parse()?)
}

fn files(store: &Store, installed: &Installed, words: &[String]) -> Result<Files, Error> {
    let mut found = Vec::new();
    for (name, package) in installed {
        query::each_path(store, package.files, &mut |path, _| {
            let path = path.to_string();
            if words.iter().all(|word| path.contains(word.as_str())) {
                found.push(File { path, package: name.clone() });
            }
        })?;
    }
    Ok(Files(found))
}

impl Hit {
    fn new(known: &Known) -> Option<Self> {
        let metadata = known.metadata()?;
        let offered = known.offered.first();
        Some(Self {
            name: metadata.name.clone(),
            installed: known.installed.as_ref().map(|it| it.metadata.full_version()),
            available: offered.map(|(_, metadata)| metadata.full_version()),
            repository: offered.map(|(repository, _)| repository.clone()),
            summary: metadata.summary.clone(),
        })
    }
}

impl View for Hits {
    fn show(&self, page: &mut Page) {
        if self.0.is_empty() {
            page.line("Nothing was found.");
        }
        let rows: Vec<Vec<Cell>> = self
            .0
            .iter()
            .map(|hit| {
                let version = hit.installed.as_ref().or(hit.available.as_ref());
                vec![
                    Cell::new(if hit.installed.is_some() { "*" } else { "" }).style(Style::Good),
                    Cell::new(&hit.name).style(Style::Strong),
                    Cell::new(version.map_or("", String::as_str)),
                    Cell::new(&hit.summary),
                ]
            })
            .collect();
        page.table(0, &rows);
    }
}

impl View for Files {
    fn show(&self, page: &mut Page) {
        if self.0.is_empty() {
            page.line("Nothing was found.");
        }
        let row =
            |file: &File| vec![Cell::new(&file.path), Cell::new(&file.package).style(Style::Faint)];
        page.table(0, &self.0.iter().map(row).collect::<Vec<_>>());
    }
}
