//! Stones, repositories, the solver, plans and transactions.
//!
//! The main path is `Request -> Solution -> Plan -> Transaction -> State`.

pub mod catalog;
pub mod dependency;
pub mod metadata;
pub mod solve;
pub mod stone;

pub use catalog::Catalog;
pub use dependency::{Dependency, InvalidDependency, Kind};
pub use metadata::{Location, Metadata};
