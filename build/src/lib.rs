//! From recipes to stones.
//!
//! | want | use |
//! |---|---|
//! | what a recipe says | [`Recipe::parse`] |
//! | what is wrong with it | [`lint::check`] |
//! | what its macros mean | [`macros::Macros`] |
//! | the scripts that build it | [`job::jobs`] |

pub mod analyse;
pub mod archive;
pub mod build;
pub mod collect;
pub mod draft;
pub mod emit;
pub mod enter;
mod error;
pub mod fetch;
pub mod glob;
pub mod guest;
pub mod job;
pub mod lint;
pub mod macros;
pub mod manpage;
pub mod needs;
pub mod order;
pub mod package;
pub mod places;
pub mod problem;
pub mod recipe;
pub mod root;
pub mod schedule;
pub mod strip;
pub mod update;
mod yaml;

pub use error::{Error, Result};
pub use recipe::Recipe;
