//! `cairn depends`, `cairn rdepends`: who needs whom, as a tree.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_package::query::{Link, Needs};
use cairn_package::{Dependency, Metadata};
use serde::Serialize;

use crate::command::search::installed;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::unknown::unknown;

/// Show what a package needs, as a tree
///
/// Of a package that is not installed, what repositories have is shown.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name
    #[arg(value_name = "PACKAGE")]
    package: String,
    /// Show no more than so many levels
    #[arg(short, long, value_name = "LEVELS")]
    depth: Option<usize>,
    /// Look at what repositories have, also of an installed package
    #[arg(short, long)]
    available: bool,
}

/// Which way to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// What the package needs.
    Needs,
    /// Who needs the package.
    NeededBy,
}

/// A package, and what is below it.
#[derive(Serialize)]
struct Node {
    name: String,
    version: String,
    /// What makes the link, if it is not the name of the package.
    #[serde(skip_serializing_if = "Option::is_none")]
    because_of: Option<String>,
    /// What is below it was shown before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
    below: Vec<Node>,
}

pub(crate) fn run(
    args: &Args,
    direction: Direction,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let store = context.store()?;
    let installed = installed(&store)?;
    let mut needs = Needs::of_installed(&installed);
    let package = match needs.package(&args.package)? {
        Some(package) if !args.available => package,
        _ => {
            let offered = context.repositories(&store).load(&())?;
            needs = Needs::of_offered(&offered);
            let wanted = Dependency::on_package(args.package.as_str());
            let missing = || unknown(&installed, &offered, &wanted);
            needs.package(&args.package)?.ok_or_else(missing)?
        }
    };
    let depth = args.depth.unwrap_or(usize::MAX);
    let mut tree = Tree { needs, direction, met: BTreeSet::new() };
    output.list(&tree.node(package, None, depth)?)
}

struct Tree {
    needs: Needs,
    direction: Direction,
    met: BTreeSet<String>,
}

impl Tree {
    fn node(
        &mut self,
        package: Arc<Metadata>,
        because_of: Option<String>,
        depth: usize,
    ) -> Result<Node, Error> {
        let is_new = self.met.insert(package.name.clone());
        let mut node = Node {
            name: package.name.clone(),
            version: package.full_version(),
            because_of,
            repeated: false,
            below: Vec::new(),
        };
        if depth == 0 {
            return Ok(node);
        }
        let mut links = match self.direction {
            Direction::Needs => self.needs.of(&package)?,
            Direction::NeededBy => self.needs.on(&package)?,
        };
        links.sort_by(|left, right| left.package.name.cmp(&right.package.name));
        links.dedup_by(|left, right| left.package.name == right.package.name);
        node.repeated = !is_new && !links.is_empty();
        if is_new {
            for Link { dependency, package: other } in links {
                let end = match self.direction {
                    Direction::Needs => &other.name,
                    Direction::NeededBy => &package.name,
                };
                let text = dependency.to_string();
                let because_of = (text != *end).then_some(text);
                node.below.push(self.node(other, because_of, depth - 1)?);
            }
        }
        Ok(node)
    }
}

impl Node {
    fn line(&self) -> String {
        let because_of = self.because_of.as_ref().map(|text| format!(" for {text}"));
        let repeated = if self.repeated { " (see above)" } else { "" };
        format!("{} {}{}{repeated}", self.name, self.version, because_of.unwrap_or_default())
    }

    fn show_below(&self, page: &mut Page, margin: &str) {
        for (at, node) in self.below.iter().enumerate() {
            let is_last = at + 1 == self.below.len();
            let (branch, more) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            page.line(format_args!("{margin}{branch}{}", node.line()));
            node.show_below(page, &format!("{margin}{more}"));
        }
    }
}

impl View for Node {
    fn show(&self, page: &mut Page) {
        page.line(self.line());
        self.show_below(page, "");
    }
}
