//! From recipes to stones.
//!
//! | want | use |
//! |---|---|
//! | what a recipe says | [`Recipe::parse`] |
//! | what is wrong with it | [`lint::check`] |
//! | what its macros mean | [`macros::Macros`] |
//! | the scripts that build it | [`job::jobs`] |

pub mod analyse;
pub mod collect;
pub mod emit;
mod error;
pub mod glob;
pub mod guest;
pub mod job;
pub mod lint;
pub mod macros;
pub mod manpage;
pub mod package;
pub mod problem;
pub mod recipe;
pub mod strip;
mod yaml;

pub use error::{Error, Result};
pub use recipe::Recipe;
