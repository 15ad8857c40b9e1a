//! `cairn state show`: all that is known of one state.

use cairn_package::system::{Installed, InstalledPackage};
use serde::Serialize;

use super::StateView;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::place::StateName;
use crate::units;

/// Show a state and its packages
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number or tag of the state
    #[arg(default_value = "current")]
    state: StateName,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    state: StateView,
    packages: Vec<PackageView>,
}

#[derive(Serialize)]
struct PackageView {
    name: String,
    version: String,
    explicit: bool,
    bytes: u64,
    summary: String,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.find(&store)?;
    let installed: Installed = InstalledPackage::load_all(&store, state.packages)?;
    let packages = installed.into_values().map(|package| {
        Ok(PackageView {
            name: package.metadata.name.clone(),
            version: package.metadata.full_version(),
            explicit: package.explicit,
            bytes: package.size(&store)?,
            summary: package.metadata.summary.clone(),
        })
    });
    output.list(&Whole {
        packages: packages.collect::<Result<_, Error>>()?,
        state: StateView::new(&store, &store.refs(), &state)?,
    })
}

impl View for Whole {
    fn show(&self, page: &mut Page) {
        let view = &self.state;
        let mark = if view.current { " (current)" } else { "" };
        page.title(format_args!("State {}{mark}", view.state));
        let parent = view.parent.map_or_else(|| "none".into(), |id| id.to_string());
        let mut fields = vec![
            ("Request", view.request.clone()),
            ("Created", view.local_time()),
            ("Parent", parent),
            ("Tree", view.tree.clone()),
            ("Entries", units::count(view.entries)),
            ("Size", units::size(view.bytes)),
        ];
        if !view.tags.is_empty() {
            fields.push(("Tags", view.tags.join(", ")));
        }
        page.fields(2, &fields);
        if self.packages.is_empty() {
            return;
        }
        let number = units::counted(self.packages.len(), "package");
        page.title(format_args!("{number} (* asked for by name)"));
        let rows: Vec<_> = self.packages.iter().map(PackageView::row).collect();
        page.table(0, &rows);
    }
}

impl PackageView {
    fn row(&self) -> Vec<Cell> {
        vec![
            Cell::new(if self.explicit { "*" } else { "" }).style(Style::Good),
            Cell::new(&self.name).style(if self.explicit { Style::Strong } else { Style::Plain }),
            Cell::new(&self.version),
            Cell::right(units::size(self.bytes)),
            Cell::new(&self.summary).style(Style::Faint),
        ]
    }
}
