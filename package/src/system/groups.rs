//! The packages of a state in groups, which stay what they are when others come and go.

use std::collections::BTreeMap;

use cairn_store::{BlobKey, Result, Store, TreeId};

use super::InstalledPackage;

/// Shares out the packages of a state over at most `count` groups of their trees, each in the
/// order of their names.
///
/// The name of a package alone says which of the `count` groups it is in, so that states with
/// most packages in common have most groups in common. Groups without a package are left out.
///
/// # Errors
/// As for [`InstalledPackage::load_all`].
pub fn groups(store: &Store, packages: TreeId, count: u8) -> Result<Vec<Vec<TreeId>>> {
    let mut groups: BTreeMap<u128, Vec<TreeId>> = BTreeMap::new();
    for (name, package) in InstalledPackage::load_all(store, packages)? {
        let hash = u128::from_be_bytes(*BlobKey::of(name.as_bytes()).as_bytes());
        let Some(group) = hash.checked_rem(count.into()) else { continue };
        groups.entry(group).or_default().push(package.files);
    }
    Ok(groups.into_values().collect())
}
