//! `cairn why`: what a package is there for.

use cairn_package::query::{self, Link};
use serde::Serialize;

use crate::command::files::find;
use crate::command::search::installed;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};

/// Tell why a package is installed
///
/// Shows the shortest ways to it from packages that were asked for by name.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name
    #[arg(value_name = "PACKAGE")]
    package: String,
}

#[derive(Serialize)]
struct Why {
    package: String,
    explicit: bool,
    /// Each from a package that was asked for to this one.
    chains: Vec<Vec<Step>>,
}

#[derive(Serialize)]
struct Step {
    package: String,
    /// What the one before needs of it.
    needed_as: String,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let installed = installed(&store)?;
    let explicit = find(&installed, &args.package)?.explicit;
    let step = |Link { dependency, package }: Link| Step {
        package: package.name.clone(),
        needed_as: dependency.to_string(),
    };
    let chains = query::why(&installed, &args.package)?;
    let chains = chains.into_iter().map(|chain| chain.into_iter().map(step).collect());
    output.list(&Why { package: args.package.clone(), explicit, chains: chains.collect() })
}

impl View for Why {
    fn show(&self, page: &mut Page) {
        let name = &self.package;
        if self.explicit {
            page.line(format_args!("{name} was asked for by name."));
        }
        if self.chains.is_empty() {
            if !self.explicit {
                page.line(format_args!(
                    "Nothing that was asked for needs {name}: cairn list --orphans shows all of those."
                ));
            }
            return;
        }
        page.title(format_args!("{name} is needed by"));
        for chain in &self.chains {
            let names = chain.iter().enumerate().map(|(at, step)| {
                let is_by_name = at == 0 || step.package == step.needed_as;
                if is_by_name {
                    step.package.clone()
                } else {
                    format!("{} (as {})", step.package, step.needed_as)
                }
            });
            let line = names.collect::<Vec<_>>().join(" -> ");
            page.marked_line(Style::Plain, "  ", line);
        }
    }
}
