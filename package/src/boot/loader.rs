//! systemd-boot itself, where the current state has it.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_store::{BlobRef, LastLink, Store, TreeId, follow};

use super::Error;

/// Where packages of systemd have its boot loader.
const DIRECTORY: &[u8] = b"usr/lib/systemd/boot/efi";

/// What its programs have in them, so that installers know them (bootctl(1)).
const MARK: &[u8] = b"#### LoaderInfo: systemd-boot";

/// A boot loader of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loader {
    pub(super) blob: BlobRef,
    /// Below the EFI system partition.
    pub(super) paths: Vec<PathBuf>,
}

/// The boot loaders of a tree and where they go. The name that firmware starts without
/// being told is taken only if nothing or another systemd-boot has it.
pub(super) fn loaders(store: &Store, tree: TreeId, esp: &Path) -> Result<Vec<Loader>, Error> {
    let found = follow(store, tree, DIRECTORY, LastLink::Follow)?.found();
    let Some(directory) = found.and_then(|(_, entry)| entry.as_directory().copied()) else {
        return Ok(Vec::new());
    };
    let mut loaders = Vec::new();
    let directory = store.tree(directory.id)?;
    for (name, entry) in directory.entries() {
        let name = String::from_utf8_lossy(name.as_bytes());
        let architecture = name.strip_prefix("systemd-boot").and_then(|it| it.strip_suffix(".efi"));
        let Some(architecture) =
            architecture.filter(|it| ["x64", "ia32", "aa64", "arm", "riscv64"].contains(it))
        else {
            continue;
        };
        let Some(blob) = entry.as_leaf().and_then(|leaf| leaf.blob()) else { continue };
        let mut paths = vec![PathBuf::from(format!("EFI/systemd/{name}"))];
        let fallback = PathBuf::from(format!("EFI/BOOT/BOOT{}.EFI", architecture.to_uppercase()));
        if is_ours_to_replace(&esp.join(&fallback))? {
            paths.push(fallback);
        }
        loaders.push(Loader { blob: *blob, paths });
    }
    Ok(loaders)
}

fn is_ours_to_replace(path: &Path) -> Result<bool, Error> {
    match fs::read(path) {
        Ok(program) => Ok(program.windows(MARK.len()).any(|window| window == MARK)),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(Error::Read { path: path.into(), source }),
    }
}
