//! Stones, repositories, the solver, plans and transactions.
//!
//! The main path is `Request -> Solution -> Plan -> Transaction -> State`.

pub mod analyse;
pub mod apart;
pub mod boot;
pub mod catalog;
pub mod changes;
pub mod convert;
pub mod dependency;
mod error;
pub mod metadata;
pub mod model;
pub mod plan;
pub mod query;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod solve;
pub mod stone;
mod sys;
pub mod system;
pub mod trigger;

pub use catalog::Catalog;
pub use dependency::{Dependency, InvalidDependency, Kind};
pub use error::{Error, Result};
pub use metadata::{Location, Metadata};
