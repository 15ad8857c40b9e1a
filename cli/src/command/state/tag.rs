//! `cairn state tag`: a name that keeps a state.

use cairn_store::Tag;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::Page;
use crate::place::StateName;

/// Give a state a name that keeps it; a tag that exists moves
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name, which is not a number
    tag: Tag,
    /// State that it names
    #[arg(default_value = "current")]
    state: StateName,
}

#[derive(Serialize)]
struct Tagged {
    tag: String,
    state: u64,
    mounts: Mounts,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.find(&store)?;
    store.tag(args.tag.clone(), state.id)?;
    let done =
        Tagged { tag: args.tag.to_string(), state: state.id.0, mounts: Mounts::refresh(&store) };
    output.data(&done)?;
    done.mounts.check()
}

impl View for Tagged {
    fn show(&self, page: &mut Page) {
        self.mounts.show_failures(page);
        page.line(format_args!("State {} has the tag {}.", self.state, self.tag));
    }
}
