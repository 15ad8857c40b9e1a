//! `cairn files`: what is in packages.

use cairn_package::query;
use cairn_package::system::{Installed, InstalledPackage};
use cairn_store::{Content, Entry, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::Page;
use crate::place::StateName;
use crate::unknown::not_installed;

/// List the files of installed packages
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names
    #[arg(value_name = "PACKAGE", required = true)]
    packages: Vec<String>,
    /// Look at the packages of this state
    #[arg(long, default_value = "current")]
    state: StateName,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Files(Vec<String>);

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.find(&store)?;
    let installed = InstalledPackage::load_all(&store, state.packages)?;
    let mut files = Vec::new();
    for name in &args.packages {
        files.extend(paths(&store, find(&installed, name)?)?);
    }
    output.list(&Files(files))
}

/// The installed package of this name.
pub(crate) fn find<'i>(
    installed: &'i Installed,
    name: &str,
) -> Result<&'i InstalledPackage, Error> {
    installed.get(name).ok_or_else(|| not_installed(installed, name))
}

/// The paths of a package; links with where they lead.
pub(crate) fn paths(store: &Store, package: &InstalledPackage) -> Result<Vec<String>, Error> {
    let mut paths = Vec::new();
    query::each_path(store, package.files, &mut |path, entry| {
        let path = Escaped(&path.to_bytes()).to_string();
        paths.push(match entry {
            Entry::Leaf(leaf) => match &leaf.content {
                Content::Symlink(target) => format!("{path} -> {}", Escaped(target)),
                _ => path,
            },
            Entry::Directory(_) => format!("{path}/"),
        });
    })?;
    Ok(paths)
}

impl View for Files {
    fn show(&self, page: &mut Page) {
        for path in &self.0 {
            page.line(path);
        }
    }
}
