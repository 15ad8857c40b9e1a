//! `cairn diff`, also `cairn state diff`: what differs between the trees of two states.

use std::collections::BTreeSet;

use cairn_package::system::{Installed, InstalledPackage};
use cairn_store::{BlobRef, State, TreePath};
use serde::Serialize;

use crate::context::Context;
use crate::differences::{Changes, Side, What};
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::place::StateName;

/// Show which packages and files differ between two states
///
/// Of a directory that only one of them has, only the top is shown, with --patch all of it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// State to begin with (default: the parent of the other)
    old: Option<StateName>,
    /// State to end with
    #[arg(default_value = "current")]
    new: StateName,
    #[command(flatten)]
    what: What,
}

#[derive(Serialize)]
struct Differences {
    old: u64,
    new: u64,
    packages: Vec<PackageChange>,
    changes: Changes,
}

/// A package that only one state has, or that they have in different versions.
#[derive(Serialize)]
struct PackageChange {
    name: String,
    old: Option<String>,
    new: Option<String>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let new = args.new.find(&store)?;
    let old = match &args.old {
        Some(name) => name.find(&store)?,
        None => store.state(new.parent.ok_or(Error::NoParent(new.id))?)?,
    };
    let content = |_: &TreePath, blob: &BlobRef| Ok(store.read(blob)?);
    let name = |state: &State| format!("state {}", state.id);
    let sides = [&old, &new].map(|it| Side { name: name(it), tree: it.tree, content: &content });
    let changes = args.what.compare(&store, &sides)?;
    let packages = match args.what.path {
        None => {
            let (old, new) = InstalledPackage::load_differing(&store, old.packages, new.packages)?;
            package_changes(&old, &new)
        }
        Some(_) => Vec::new(),
    };
    output.list(&Differences { old: old.id.0, new: new.id.0, packages, changes })
}

fn package_changes(old: &Installed, new: &Installed) -> Vec<PackageChange> {
    let version = |package: &InstalledPackage| package.metadata.full_version();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let pairs = names.into_iter().map(|name| (name, old.get(name), new.get(name)));
    let changed = pairs.filter(|(_, old, new)| {
        old.map(|package| &package.metadata) != new.map(|package| &package.metadata)
    });
    let change = |(name, old, new): (&String, Option<_>, Option<_>)| PackageChange {
        name: name.clone(),
        old: old.map(version),
        new: new.map(version),
    };
    changed.map(change).collect()
}

impl View for Differences {
    fn show(&self, page: &mut Page) {
        for package in &self.packages {
            let name = &package.name;
            match (&package.old, &package.new) {
                (Some(old), Some(new)) => {
                    page.marked_line(Style::Note, "~ ", format_args!("{name} {old} -> {new}"));
                }
                (Some(old), None) => {
                    page.marked_line(Style::Bad, "- ", format_args!("{name} {old}"));
                }
                (None, new) => {
                    let new = new.as_deref().unwrap_or_default();
                    page.marked_line(Style::Good, "+ ", format_args!("{name} {new}"));
                }
            }
        }
        if !self.packages.is_empty() {
            page.blank();
        }
        self.changes.show(page, &format!("State {} to state {}", self.old, self.new));
    }
}
