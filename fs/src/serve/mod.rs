//! What the kernel asks of a mount, answered from trees.
//!
//! [`fuse`] translates between the kernel and [`filesystem`], which finds what is asked for in
//! the trees of a source; [`table`] remembers which nodes the kernel knows, so that [`switch`]
//! can go over to other trees below them, and [`ledger`] keeps what it remembers for another
//! process. [`ahead`] reads what will be asked for next.

pub(crate) mod ahead;
pub(crate) mod awake;
pub(crate) mod counters;
pub(crate) mod errno;
pub(crate) mod filesystem;
pub(crate) mod fuse;
pub(crate) mod ledger;
pub(crate) mod listing;
#[cfg(test)]
mod model;
pub(crate) mod node;
pub(crate) mod notice;
pub(crate) mod passthrough;
pub(crate) mod places;
pub(crate) mod settle;
pub(crate) mod stat;
pub(crate) mod switch;
pub(crate) mod table;
pub(crate) mod told;
pub(crate) mod xattrs;
