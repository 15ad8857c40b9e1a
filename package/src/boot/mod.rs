//! Entries of boot loaders: one for what is current and one for each of a few older states,
//! so that a system can be rolled back before it runs.
//!
//! Entries have the first form of the Boot Loader Specification
//! (<https://uapi-group.org/specifications/specs/boot_loader_specification/>), which
//! systemd-boot, GRUB and others read. What is written where: docs/boot.md.

mod entry;
mod error;
mod kernel;
mod loader;
mod machine;
mod plan;

pub use entry::{Entry, Target};
pub use error::Error;
pub use kernel::{Kernel, OsRelease, kernels};
pub use machine::{Place, named_state, root_options};
pub use plan::{File, Options, Plan};
