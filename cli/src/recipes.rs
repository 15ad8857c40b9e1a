//! What all commands about recipes share: their files and their macros.

use std::path::{Path, PathBuf};

use cairn_build::macros::Macros;

use crate::context;
use crate::error::Error;

/// Where macros come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct MacroArgs {
    /// Lay the macros of this directory over the standard ones; may be repeated
    /// (always: /usr/share/cairn/macros, /etc/cairn/macros and
    /// ~/.config/cairn/macros)
    #[arg(long, value_name = "DIR")]
    macros: Vec<PathBuf>,
}

impl MacroArgs {
    /// The standard macros with everything that lies over them.
    pub(crate) fn load(&self) -> Result<Macros, Error> {
        let mut macros = Macros::standard();
        let usual = context::configuration_directories().into_iter();
        for directory in usual.map(|directory| directory.join("macros")) {
            if directory.is_dir() {
                macros.overlay(&directory)?;
            }
        }
        for directory in &self.macros {
            if !directory.is_dir() {
                let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
                return Err(Error::Read { path: directory.clone(), source });
            }
            macros.overlay(directory)?;
        }
        Ok(macros)
    }
}

/// The file of a recipe: that of a directory is its `stone.yaml`.
pub(crate) fn recipe_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("stone.yaml") } else { path.into() }
}
