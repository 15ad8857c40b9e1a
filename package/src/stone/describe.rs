//! Everything that a stone holds, as data to show.

use std::io::{Read, Seek};

use serde::Serialize;

use super::error::Result;

/// Everything that a stone holds but the bytes of its files.
#[derive(Clone, Debug, Serialize)]
pub struct Description {}

/// Describes a stone of any type, also one that could not be installed.
pub fn describe<R: Read + Seek>(from: R) -> Result<Description> {
    let _ = from;
    unimplemented!()
}
