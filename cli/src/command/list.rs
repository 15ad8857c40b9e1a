//! `cairn list`: packages that are installed, on offer, outdated or left over.

use cairn_package::plan::{Action, System};
use cairn_package::query;
use cairn_package::solve::{Request, Upgrade};
use cairn_package::system::InstalledPackage;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::place::StateName;
use crate::units::counted;

/// List packages
///
/// Without an option, those that are installed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The same as the option of this name
    #[arg(value_name = "WHICH", group = "selection")]
    which: Option<Which>,
    /// All that are installed
    #[arg(long, group = "selection")]
    installed: bool,
    /// All that repositories have, the best of each name
    #[arg(long, group = "selection")]
    available: bool,
    /// Those of which repositories have something newer
    #[arg(long, group = "selection")]
    upgradable: bool,
    /// Those that nobody asked for and nothing needs
    #[arg(long, group = "selection")]
    orphans: bool,
    /// Those that somebody asked for by name
    #[arg(short, long, group = "selection")]
    explicit: bool,
    /// Look at the packages of this state
    #[arg(long, default_value = "current")]
    state: StateName,
}

/// Which packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Installed,
    Available,
    #[value(alias = "sync")]
    Upgradable,
    Orphans,
    Explicit,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Packages {
    packages: Vec<Package>,
    #[serde(skip)]
    which: Option<Which>,
}

#[derive(Serialize)]
struct Package {
    name: String,
    version: String,
    /// What an upgrade would bring.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    installed: bool,
    explicit: bool,
    summary: String,
}

impl Args {
    fn which(&self) -> Which {
        match self.which {
            Some(which) => which,
            None if self.available => Which::Available,
            None if self.upgradable => Which::Upgradable,
            None if self.orphans => Which::Orphans,
            None if self.explicit => Which::Explicit,
            None => Which::Installed,
        }
    }
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let which = args.which();
    let mut packages = Vec::new();
    match which {
        Which::Available => {
            let installed = super::search::installed(&store)?;
            let mut met = std::collections::BTreeSet::new();
            for repository in context.repositories(&store).load(&())? {
                for metadata in repository.catalog.iter() {
                    let metadata = metadata.map_err(cairn_package::Error::from)?;
                    if met.insert(metadata.name.clone()) {
                        let there = installed.get(&metadata.name);
                        packages.push(Package {
                            name: metadata.name.clone(),
                            version: metadata.full_version(),
                            available: None,
                            repository: Some(repository.config.name.to_string()),
                            installed: there.is_some(),
                            explicit: there.is_some_and(|package| package.explicit),
                            summary: metadata.summary.clone(),
                        });
                    }
                }
            }
            packages.sort_by(|left, right| left.name.cmp(&right.name));
        }
        Which::Upgradable => {
            let system = System::with_repositories(&store, context.repositories(&store), &[])?;
            let request = Request { upgrade: Upgrade::All, ..Request::default() };
            let plan = system.plan(&request, "list")?;
            for step in plan.steps.iter().filter(|step| step.action == Action::Upgrade) {
                let package = system.installed().get(&step.name);
                packages.push(Package {
                    name: step.name.clone(),
                    version: step.old.clone().unwrap_or_default(),
                    available: step.new.clone(),
                    repository: step.repository.clone(),
                    installed: true,
                    explicit: package.is_some_and(|package| package.explicit),
                    summary: package.map(|it| it.metadata.summary.clone()).unwrap_or_default(),
                });
            }
        }
        Which::Installed | Which::Explicit | Which::Orphans => {
            let state = args.state.find(&store)?;
            let installed = InstalledPackage::load_all(&store, state.packages)?;
            let orphans = match which {
                Which::Orphans => query::orphans(&installed)?,
                _ => Vec::new(),
            };
            let fits = |package: &InstalledPackage| match which {
                Which::Explicit => package.explicit,
                Which::Orphans => orphans.contains(&package.metadata.name),
                _ => true,
            };
            packages.extend(installed.values().filter(|it| fits(it)).map(|package| Package {
                name: package.metadata.name.clone(),
                version: package.metadata.full_version(),
                available: None,
                repository: None,
                installed: true,
                explicit: package.explicit,
                summary: package.metadata.summary.clone(),
            }));
        }
    }
    output.list(&Packages { packages, which: Some(which) })
}

impl View for Packages {
    fn show(&self, page: &mut Page) {
        if self.packages.is_empty() {
            page.line(match self.which {
                Some(Which::Upgradable) => "Everything is as new as in the repositories.",
                Some(Which::Orphans) => "There are none.",
                _ => "There are no packages.",
            });
            return;
        }
        let row = |package: &Package| {
            let version = match &package.available {
                Some(new) => format!("{} -> {new}", package.version),
                None => package.version.clone(),
            };
            let mark = match (package.explicit, package.installed) {
                (true, _) => "*",
                (false, true) if self.which == Some(Which::Available) => "+",
                _ => "",
            };
            vec![
                Cell::new(mark).style(Style::Good),
                Cell::new(&package.name).style(if package.explicit {
                    Style::Strong
                } else {
                    Style::Plain
                }),
                Cell::new(version),
                Cell::new(&package.summary).style(Style::Faint),
            ]
        };
        page.table(0, &self.packages.iter().map(row).collect::<Vec<_>>());
        let legend = match self.which {
            Some(Which::Available) => "* asked for by name, + installed for others",
            _ => "* asked for by name",
        };
        page.styled_line(
            Style::Faint,
            format_args!("{} ({legend})", counted(self.packages.len(), "package")),
        );
    }
}
