//! What is installed in a state, and how that becomes another state.
//!
//! A state has two trees: the root directory, and a tree of its packages. The
//! second is laid out like this, so that everything that the store does with
//! trees (sharing, collecting, verifying, comparing) holds for packages too:
//!
//! ```text
//! packages/<bucket>/<name>/meta      the package's metadata as JSON
//! packages/<bucket>/<name>/explicit  there if it was asked for by name
//! packages/<bucket>/<name>/files/    the package's own tree
//! claims/<aa>/<hash>/<name>          what a package wants at a path that it
//!                                    may share with others
//! ```
//!
//! Format: docs/packages.md.

mod claims;
mod compose;
mod groups;
mod installed;
mod skeleton;
mod unpack;

pub(crate) use claims::claimed_directory;
pub use compose::{Addition, Composition, FileConflict, Owner, change};
pub use groups::groups;
pub use installed::{Installed, InstalledPackage};
pub use skeleton::put_skeleton;
pub use unpack::{Unpacked, unpack};
