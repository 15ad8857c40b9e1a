//! A tree as a mounted filesystem.
