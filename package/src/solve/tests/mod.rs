//! The solver on small worlds.

mod properties;
mod reference;
mod tables;
mod world;
