//! Where everything is, seen from inside a build.
//!
//! ```text
//! /mason/recipe        the directory of the recipe, read-only
//! /mason/sourcedir     the upstreams as they were downloaded, read-only
//! /mason/build/TARGET  what is unpacked and built
//! /mason/install       what becomes packages
//! /mason/ccache ...    what compilers keep from build to build
//! ```

use crate::recipe::{Recipe, Target};

/// The directory of everything.
pub const ROOT: &str = "/mason";
/// The upstreams, below [`ROOT`].
pub const SOURCES: &str = "sourcedir";
/// The install root, below [`ROOT`].
pub const INSTALL: &str = "install";
/// What is built, below [`ROOT`].
pub const BUILD: &str = "build";
/// The directory of the recipe, below [`ROOT`].
pub const RECIPE: &str = "recipe";
/// The caches of compilers, below [`ROOT`].
pub const CACHES: [&str; 6] =
    ["ccache", "sccache", "gocache", "gomodcache", "cargocache", "zigcache"];

/// Where the files of a build itself lie; /tmp is the directory `tmp` outside.
pub const CONTROL: &str = "/tmp/.cairn";

/// Where compilers are found that keep what they have compiled.
#[must_use]
pub fn cached_compilers() -> String {
    format!("{CONTROL}/ccache")
}

/// A path below [`ROOT`].
#[must_use]
pub fn below(path: &str) -> String {
    format!("{ROOT}/{path}")
}

/// Where a target is built.
#[must_use]
pub fn build_directory(target: &Target) -> String {
    format!("{ROOT}/{BUILD}/{target}")
}

/// Where the profiles of a target are.
#[must_use]
pub fn pgo_directory(target: &Target) -> String {
    format!("{ROOT}/{BUILD}/{target}-pgo")
}

/// Where scripts begin: in the first upstream that is unpacked.
#[must_use]
pub fn work_directory(recipe: &Recipe, target: &Target) -> String {
    let build = build_directory(target);
    let first = recipe.upstreams.iter().find_map(|upstream| upstream.directory());
    first.map_or(build.clone(), |directory| format!("{build}/{directory}"))
}
