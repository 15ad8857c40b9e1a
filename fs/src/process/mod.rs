//! The processes of a mount: how one is left in the background, told what to do, ended in good
//! order, and followed by another one when it dies or is to go on as another program.

pub(crate) mod confined;
pub mod control;
pub(crate) mod daemon;
pub(crate) mod keeper;
pub(crate) mod resumed;
pub(crate) mod signal;
pub(crate) mod successor;
pub(crate) mod takeover;
