//! `cairn state untag`: a name goes, its state stays.

use cairn_store::Tag;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::Page;

/// Remove a tag; the state that it names stays
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tag to remove
    tag: Tag,
}

#[derive(Serialize)]
struct Untagged {
    tag: String,
    state: Option<u64>,
    mounts: Mounts,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = store.refs().tags.get(&args.tag).map(|id| id.0);
    store.untag(&args.tag)?;
    let done = Untagged { tag: args.tag.to_string(), state, mounts: Mounts::refresh(&store) };
    output.data(&done)?;
    done.mounts.check()
}

impl View for Untagged {
    fn show(&self, page: &mut Page) {
        self.mounts.show_failures(page);
        page.line(format_args!("The tag {} is removed.", self.tag));
    }
}
