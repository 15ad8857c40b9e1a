//! `cairn convert`: Debian packages as stones.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use cairn_package::convert::{self, Converter, Missing, Outcome, Progress};
use serde::Serialize;

use crate::error::{Error, in_one_line};
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::progress::{Phase, Unit};
use crate::units::{counted, size};

/// Convert Debian packages into stones
///
/// Files keep modes, owners, times, links and attributes; /bin, /lib and their
/// like move below /usr, and configuration below /usr/share/defaults/etc.
/// Scripts of the packages are never run, and listed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Debian packages, or directories of them
    #[arg(value_name = "FILE", required = true)]
    debs: Vec<PathBuf>,
    /// Directory for the stones; made if it does not exist
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Compress this much: 1 is fast, 22 is small
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
    /// Leave out dependencies that none of the given packages satisfies
    #[arg(long)]
    drop_missing: bool,
    /// Do not add triggers for well-known tools, such as ldconfig
    #[arg(long)]
    without_triggers: bool,
}

#[derive(Serialize)]
struct Converted {
    packages: Vec<Package>,
    failures: Vec<String>,
    deb_bytes: u64,
    stone_bytes: u64,
}

#[derive(Serialize)]
struct Package {
    name: String,
    version: String,
    stone: String,
    deb_bytes: u64,
    stone_bytes: u64,
    plain_bytes: u64,
    was_there: bool,
    scripts_not_run: Vec<&'static str>,
    unmet_dependencies: Vec<String>,
    ignored_conflicts: Vec<String>,
}

impl Progress for Phase {
    fn begin(&self, _: usize, bytes: u64) {
        self.set_total(bytes, Unit::Bytes);
    }

    fn advance(&self, bytes: u64) {
        Phase::advance(self, bytes);
    }

    fn finish(&self, _: &Path, _: &Result<Outcome, convert::Error>) {}
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Error> {
    let debs = find(&args.debs)?;
    let failed = |source| Error::Write { path: args.output.clone(), source };
    std::fs::create_dir_all(&args.output).map_err(failed)?;
    let mut converter = Converter::new(std::env::consts::ARCH);
    converter.level = args.level;
    converter.threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    converter.adds_triggers = !args.without_triggers;
    converter.missing = if args.drop_missing { Missing::Drop } else { Missing::Keep };

    let name = format!("Converting {}", counted(debs.len(), "package"));
    let phase = output.phase(&name, None, Unit::Bytes);
    let results = converter.convert_all(&debs, &args.output, &phase);
    drop(phase);

    let (mut packages, mut failures) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(outcome) => packages.push(Package::new(&outcome)),
            Err(err) => failures.push(in_one_line(&err)),
        }
    }
    let failed = failures.len();
    output.data(&Converted {
        deb_bytes: packages.iter().map(|package| package.deb_bytes).sum(),
        stone_bytes: packages.iter().map(|package| package.stone_bytes).sum(),
        packages,
        failures,
    })?;
    if failed > 0 { Err(Error::NotConverted { failed, all: debs.len() }) } else { Ok(()) }
}

/// The packages themselves: of a directory, those that lie in it.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut debs = Vec::new();
    for path in paths {
        if !path.is_dir() {
            debs.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in path.read_dir().map_err(Error::read(path))? {
            let path = entry.map_err(Error::read(path))?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                found.push(path);
            }
        }
        if found.is_empty() {
            return Err(Error::NoPackages { directory: path.clone(), extension: "deb" });
        }
        found.sort();
        debs.append(&mut found);
    }
    Ok(debs)
}

impl Package {
    fn new(outcome: &Outcome) -> Self {
        Self {
            name: outcome.metadata.name.clone(),
            version: outcome.metadata.version.clone(),
            stone: outcome.path.display().to_string(),
            deb_bytes: outcome.deb_size,
            stone_bytes: outcome.stone_size,
            plain_bytes: outcome.plain_size,
            was_there: outcome.was_there,
            scripts_not_run: outcome.scripts.iter().map(|script| script.name()).collect(),
            unmet_dependencies: outcome.unmet.clone(),
            ignored_conflicts: outcome.ignored_conflicts.clone(),
        }
    }

    fn row(&self) -> Vec<Cell> {
        vec![
            Cell::new(&self.name).style(Style::Strong),
            Cell::new(&self.version),
            Cell::right(size(self.deb_bytes)),
            Cell::right(size(self.stone_bytes)),
            Cell::new(self.scripts_not_run.join(" ")).style(Style::Note),
        ]
    }
}

impl View for Converted {
    fn show(&self, page: &mut Page) {
        let faint = |cell: Cell| cell.style(Style::Faint);
        let (left, right) = (|text| faint(Cell::new(text)), |text| faint(Cell::right(text)));
        let head =
            vec![left("Package"), left("Version"), right("Deb"), right("Stone"), left("Not run")];
        let rows: Vec<_> =
            std::iter::once(head).chain(self.packages.iter().map(Package::row)).collect();
        if !self.packages.is_empty() {
            page.table(0, &rows);
        }
        for Package { name, unmet_dependencies, .. } in &self.packages {
            for unmet in unmet_dependencies {
                page.marked_line(Style::Note, "unmet: ", format_args!("{name} needs {unmet}"));
            }
        }
        for failure in &self.failures {
            page.marked_line(Style::Bad, "failed: ", failure);
        }
        let scripts = self.packages.iter().filter(|package| !package.scripts_not_run.is_empty());
        page.line(format_args!(
            "{} converted ({} -> {}); {} of them have scripts, which are not run.",
            counted(self.packages.len(), "package"),
            size(self.deb_bytes),
            size(self.stone_bytes),
            scripts.count(),
        ));
    }
}
