//! `cairn owner`: which package has brought a file.

use std::ffi::OsString;

use cairn_package::query::{self, Owner};
use cairn_package::system::InstalledPackage;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::place::{LastLink, Place};

/// Tell which package has brought a file, or which trigger has written it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files or directories: /usr/bin/nano, or 5:/usr/bin/nano of another state
    #[arg(value_name = "STATE:PATH", required = true)]
    places: Vec<OsString>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Owners(Vec<Owned>);

#[derive(Serialize)]
struct Owned {
    path: String,
    packages: Vec<String>,
    triggers: Vec<String>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let mut owners = Vec::new();
    for place in &args.places {
        let found = Place::new(place)?.find(&store, LastLink::Keep)?;
        let packages = found.state.packages;
        let installed = InstalledPackage::load_all(&store, packages)?;
        let mut owned =
            Owned { path: found.path.to_string(), packages: Vec::new(), triggers: Vec::new() };
        for owner in query::owners(&store, &installed, packages, &found.path)? {
            match owner {
                Owner::Package(name) => owned.packages.push(name),
                Owner::Trigger(name) => owned.triggers.push(name),
            }
        }
        owners.push(owned);
    }
    output.data(&Owners(owners))
}

impl View for Owners {
    fn show(&self, page: &mut Page) {
        let row = |owned: &Owned| {
            let triggers = owned.triggers.iter().map(|name| format!("the trigger {name}"));
            let all: Vec<String> = owned.packages.iter().cloned().chain(triggers).collect();
            let by = if all.is_empty() { "no package".into() } else { all.join(", ") };
            vec![Cell::new(&owned.path), Cell::new(by).style(Style::Strong)]
        };
        page.table(0, &self.0.iter().map(row).collect::<Vec<_>>());
    }
}
