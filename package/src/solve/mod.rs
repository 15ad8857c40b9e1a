//! From a request to the packages that are there afterwards.
//!
//! [`solve`] changes nothing and asks nobody: it reads what it needs of the
//! catalogs of a [`Universe`], and returns a [`Solution`] or a [`Problem`].
//! The search itself is done by a SAT solver (the crate `resolvo`).
//!
//! What a solution keeps to, and how it is chosen among several:
//! docs/repositories.md, "Solving".

mod explain;
mod hitting;
mod lookup;
mod needed;
mod optimum;
mod outcome;
mod problem;
mod provider;
mod request;
mod sat;
mod solution;
mod suggest;
mod universe;

#[cfg(test)]
mod tests;

pub use problem::{Cause, Explanation, Obstacle, Problem, Standing, Subject, Trouble, Unknown};
pub use request::{Downgrade, Request, Upgrade, offers, solve};
pub use solution::{
    Direction, Held, Install, Need, Package, Reason, Removal, Replacement, Solution,
};
pub use universe::{Candidate, Installed, Origin, Source, Universe};
