//! `cairn check`: whether the files of packages are as the packages have them.

use cairn_package::query::{Deviation, deviations, generated};
use cairn_package::system::InstalledPackage;
use serde::Serialize;

use crate::command::files::find;
use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::place::StateName;
use crate::units::counted;

/// Compare a state with what its packages have brought
///
/// Tells of files that are missing or changed, and ends with code 1 if there are
/// some. cairn verify looks for damage of the store itself.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names (default: all packages)
    #[arg(value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Look at this state
    #[arg(long, default_value = "current")]
    state: StateName,
}

#[derive(Serialize)]
struct Checked {
    packages: usize,
    differences: Vec<Difference>,
    /// Files that triggers have written in the place of those of packages.
    triggered: usize,
}

#[derive(Serialize)]
struct Difference {
    package: String,
    path: String,
    what: &'static str,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.find(&store)?;
    let installed = InstalledPackage::load_all(&store, state.packages)?;
    let generated = generated(&store, state.packages)?;
    let packages: Vec<&InstalledPackage> = match args.packages.as_slice() {
        [] => installed.values().collect(),
        names => names.iter().map(|name| find(&installed, name)).collect::<Result<_, _>>()?,
    };
    let mut checked = Checked { packages: packages.len(), differences: vec![], triggered: 0 };
    for package in packages {
        for (path, deviation) in deviations(&store, package.files, state.tree, &generated)? {
            let what = match deviation {
                Deviation::Missing => "missing",
                Deviation::Changed => "changed",
                Deviation::Attributes => "mode or owner",
                Deviation::Triggered => {
                    checked.triggered += 1;
                    continue;
                }
            };
            let path = Escaped(&path.to_bytes()).to_string();
            let package = package.metadata.name.clone();
            checked.differences.push(Difference { package, path, what });
        }
    }
    output.list(&checked)?;
    match checked.differences.len() {
        0 => Ok(()),
        found => Err(Error::Deviations { found }),
    }
}

impl View for Checked {
    fn show(&self, page: &mut Page) {
        for Difference { package, path, what } in &self.differences {
            page.marked_line(Style::Bad, what, format_args!(": {path} of {package}"));
        }
        let packages = counted(self.packages, "package");
        if self.differences.is_empty() {
            page.line(format_args!("{packages}: every file is as it was brought."));
        }
        if self.triggered > 0 {
            let files = counted(self.triggered, "file");
            page.styled_line(Style::Faint, format_args!("Triggers have rewritten {files}."));
        }
    }
}
