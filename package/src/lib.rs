//! Stones, repositories, the solver, plans and transactions.
//!
//! The main path is `Request -> Solution -> Plan -> Transaction -> State`.

pub mod convert;
pub mod dependency;
pub mod metadata;
pub mod stone;
mod sys;

pub use dependency::{Dependency, InvalidDependency, Kind};
pub use metadata::{Location, Metadata};
