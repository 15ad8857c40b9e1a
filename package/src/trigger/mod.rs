//! Triggers: what is to be done when files of some kind come, change or go.
//!
//! Format and rules: docs/triggers.md.

mod document;
mod due;
mod file;
mod live;
mod load;
mod order;
mod pattern;
mod record;
mod run;
#[cfg(test)]
mod tests;

pub use due::{Due, Job, Roots, due};
pub use file::{Action, Handler, Inhibitors, PathKind, Problem, Trigger, Watched};
pub use live::{can_have_triggers, live_jobs, run_live};
pub use load::{LoadError, Scope, load};
pub use pattern::{Captures, InvalidPattern, Pattern};
pub use record::Record;
pub(crate) use record::{Thing, Things, put_things, things, undo_things};
pub use run::{Ran, RunOptions, Triggers, environment, run_in};
pub(crate) use run::{failure, make_way, run};
