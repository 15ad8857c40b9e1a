//! From recipes to stones.
//!
//! | want | use |
//! |---|---|
//! | what a recipe says | [`Recipe::parse`] |
//! | what is wrong with it | [`lint::check`] |
//! | what its macros mean | [`macros::Macros`] |
//! | the scripts that build it | [`job::jobs`] |

pub mod glob;
pub mod guest;
pub mod job;
pub mod lint;
pub mod macros;
pub mod problem;
pub mod recipe;
mod yaml;

pub use recipe::Recipe;
