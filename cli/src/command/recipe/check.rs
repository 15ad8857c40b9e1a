//! `cairn recipe check`: what is wrong with recipes.

use std::path::{Path, PathBuf};

use cairn_build::lint;
use cairn_build::problem::{Located, Severity};
use serde::Serialize;

use crate::error::Error;
use crate::escape::visible;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::recipes::{self, MacroArgs};
use crate::units::counted;

/// Say what is wrong with recipes
///
/// Everything is checked that can be known without building: keys and values,
/// macros, tuning, patterns, dependencies, licences. The exit code is 1 if a
/// recipe has errors; warnings alone are no failure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Recipes, or directories with a stone.yaml
    #[arg(value_name = "FILE", default_value = ".")]
    files: Vec<PathBuf>,
    /// Check them for this architecture
    #[arg(long, value_name = "ARCH", default_value = std::env::consts::ARCH)]
    arch: String,
    #[command(flatten)]
    macros: MacroArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Report(Vec<Checked>);

#[derive(Serialize)]
struct Checked {
    file: String,
    problems: Vec<Located>,
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Error> {
    let macros = args.macros.load()?;
    let check = |path: &Path| {
        let path = recipes::recipe_file(path);
        let text = cairn_build::recipe::read(&path)?;
        let problems = lint::check(&text, &macros, &args.arch);
        let problems = problems.iter().map(|problem| problem.located(&text)).collect();
        Ok(Checked { file: path.display().to_string(), problems })
    };
    let report = Report(args.files.iter().map(|path| check(path)).collect::<Result<_, Error>>()?);
    let failed = report.0.iter().filter(|it| it.count(Severity::Error) > 0).count();
    output.data(&report)?;
    if failed > 0 { Err(Error::BadRecipes { failed, all: args.files.len() }) } else { Ok(()) }
}

impl Checked {
    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }
}

/// Writes a problem as compilers do.
pub(crate) fn show(file: &str, problem: &Located, page: &mut Page) {
    let text = problem.to_string();
    for (number, line) in text.lines().enumerate() {
        let line = visible(line);
        match (number, problem.severity) {
            (0, Severity::Error) => page.styled_line(Style::Bad, format_args!("{file}:{line}")),
            (0, Severity::Warning) => page.styled_line(Style::Note, format_args!("{file}:{line}")),
            _ => page.line(line),
        }
    }
}

impl View for Report {
    fn show(&self, page: &mut Page) {
        for checked in &self.0 {
            for problem in &checked.problems {
                show(&checked.file, problem, page);
                page.blank();
            }
            let (errors, warnings) =
                (checked.count(Severity::Error), checked.count(Severity::Warning));
            let found = match (errors, warnings) {
                (0, 0) => "nothing is wrong with it".into(),
                (0, _) => counted(warnings, "warning"),
                (_, 0) => counted(errors, "error"),
                _ => format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")),
            };
            page.line(format_args!("{}: {found}", checked.file));
        }
    }
}
