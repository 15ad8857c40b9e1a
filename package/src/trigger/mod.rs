//! Triggers: what is to be done when files of some kind come, change or go.
//!
//! Format and rules: docs/triggers.md.

mod document;
mod due;
mod file;
mod load;
mod order;
mod pattern;
#[cfg(test)]
mod tests;

pub use due::{Due, Job, Roots, due};
pub use file::{Action, Handler, Inhibitors, PathKind, Problem, Trigger, Watched};
pub use load::{LoadError, Scope, load};
pub use pattern::{Captures, InvalidPattern, Pattern};
