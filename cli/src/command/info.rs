//! `cairn info`: what packages say of themselves.

use cairn_package::query;
use cairn_package::{Dependency, Metadata};
use serde::Serialize;

use crate::command::files::paths;
use crate::command::inspect::fields;
use crate::command::search::installed;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::units::size;
use crate::unknown::unknown;

/// Tell what packages say of themselves, installed or on offer
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names, or providers such as 'binary(nano)'
    #[arg(value_name = "PACKAGE", required = true)]
    packages: Vec<Dependency>,
    /// List the files of installed packages, too
    #[arg(short, long)]
    files: bool,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Packages(Vec<PackageInfo>);

#[derive(Serialize)]
struct PackageInfo {
    #[serde(flatten)]
    metadata: Metadata,
    /// Whether it is installed; then the sizes are those of its files.
    installed: bool,
    explicit: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let installed = installed(&store)?;
    let offered = context.repositories(&store).load(&())?;
    let mut packages = Vec::new();
    for wanted in &args.packages {
        let names = query::offering(&installed, &offered, wanted)?;
        if names.is_empty() {
            return Err(unknown(&installed, &offered, wanted));
        }
        for name in names {
            let known = query::known(&installed, &offered, &name)?;
            if let Some(package) = &known.installed {
                packages.push(PackageInfo {
                    metadata: Metadata::clone(&package.metadata),
                    installed: true,
                    explicit: package.explicit,
                    bytes: Some(package.size(&store)?),
                    repository: None,
                    files: if args.files { paths(&store, package)? } else { Vec::new() },
                });
            }
            for (repository, metadata) in known.offered {
                let same = known.installed.as_ref().is_some_and(|it| {
                    it.metadata.age() == metadata.age() && it.metadata.version == metadata.version
                });
                if same {
                    continue;
                }
                packages.push(PackageInfo {
                    metadata: Metadata::clone(&metadata),
                    installed: false,
                    explicit: false,
                    bytes: None,
                    repository: Some(repository),
                    files: Vec::new(),
                });
            }
        }
    }
    output.list(&Packages(packages))
}

impl View for Packages {
    fn show(&self, page: &mut Page) {
        for package in &self.0 {
            let place = match (&package.repository, package.installed, package.explicit) {
                (Some(repository), ..) => format!("on offer in {repository}"),
                (None, _, true) => "installed, asked for by name".into(),
                _ => "installed, because others need it".into(),
            };
            page.title(format_args!("{}: {place}", package.metadata.label()));
            let mut fields = fields(&package.metadata);
            if let Some(bytes) = package.bytes {
                fields.push(("Size", size(bytes)));
            } else if let Some(location) = &package.metadata.location {
                fields.push(("Stone", size(location.size)));
            }
            page.fields(2, &fields);
            for path in &package.files {
                page.styled_line(Style::Faint, format_args!("  {path}"));
            }
        }
    }
}
