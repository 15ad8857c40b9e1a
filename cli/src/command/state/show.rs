//! `cairn state show`: all that is known of one state.

use serde::Serialize;

use super::StateView;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::place::StateName;
use crate::units;

/// Show a state
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number or tag of the state
    #[arg(default_value = "current")]
    state: StateName,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Whole(StateView);

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.find(&store)?;
    output.data(&Whole(StateView::new(&store, &store.refs(), &state)?))
}

impl View for Whole {
    fn show(&self, page: &mut Page) {
        let view = &self.0;
        let mark = if view.current { " (current)" } else { "" };
        page.title(format_args!("State {}{mark}", view.state));
        let parent = view.parent.map_or_else(|| "none".into(), |id| id.to_string());
        let mut fields = vec![
            ("Request", view.request.clone()),
            ("Created", view.local_time()),
            ("Parent", parent),
            ("Tree", view.tree.clone()),
            ("Files", units::count(view.entries)),
            ("Size", units::size(view.bytes)),
        ];
        if !view.tags.is_empty() {
            fields.push(("Tags", view.tags.join(", ")));
        }
        page.fields(2, &fields);
    }
}
