//! `cairn store rebuild`: the index, made anew from the packs.

use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::Unit;

/// Make the index anew from the packs
///
/// The index only says where things are: losing it loses nothing. Exit code 3
/// says that some packs cannot be read.
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Rebuilt {
    unreadable: Vec<String>,
}

pub(crate) fn run(_: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let phase = output.phase("Reading the tables of all packs", None, Unit::Pieces);
    let damaged = store.rebuild_index()?;
    drop(phase);
    let unreadable = damaged.iter().map(|err| in_one_line(err)).collect();
    output.data(&Rebuilt { unreadable })?;
    if damaged.is_empty() { Ok(()) } else { Err(Error::DamageFound { found: damaged.len() }) }
}

impl View for Rebuilt {
    fn show(&self, page: &mut Page) {
        for problem in &self.unreadable {
            page.marked_line(Style::Bad, "damaged: ", problem);
        }
        page.line("The index is rebuilt.");
    }
}
