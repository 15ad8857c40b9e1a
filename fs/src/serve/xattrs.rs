//! Under which names the kernel is shown the extended attributes of a tree.

use std::borrow::Cow;

/// How names are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Xattrs {
    /// As the tree has them.
    #[default]
    AsStored,
    /// As overlayfs expects them of a layer: what it would take for marks of its
    /// own, which begin with this, is escaped, so that no state can lead it astray,
    /// and programs on the overlay see the names of the tree.
    BelowOverlay(&'static [u8]),
}

/// What overlayfs puts behind the beginning of a name that is not its own.
///
/// Source: `OVL_XATTR_ESCAPE_PREFIX` in fs/overlayfs/overlayfs.h, since Linux 6.7.
pub(crate) const ESCAPE: &[u8] = b"overlay.";

/// Attributes that only root of the machine can see.
const TRUSTED: &[u8] = b"trusted.";

/// Whether a filesystem of the kernel could have an attribute of this name: others
/// it does not know at all, rather than to miss them.
///
/// Source: xattr(7), `ext4_xattr_handlers` in fs/ext4/xattr.c.
pub(crate) fn is_supported(name: &[u8]) -> bool {
    let spaces: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];
    let acls: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
    spaces.iter().any(|space| name.starts_with(space)) || acls.contains(&name)
}

impl Xattrs {
    /// The name in the tree of the attribute that the kernel calls `name`; `None`
    /// when there cannot be one.
    pub(crate) fn stored(self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        let Self::BelowOverlay(prefix) = self else { return Some(name.into()) };
        match name.strip_prefix(prefix) {
            Some(rest) => rest.strip_prefix(ESCAPE).map(|own| [prefix, own].concat().into()),
            None => is_visible(prefix, name).then_some(name.into()),
        }
    }

    /// What the kernel is to call the attribute that has `name` in the tree;
    /// `None` when it is hidden.
    pub(crate) fn shown(self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        let Self::BelowOverlay(prefix) = self else { return Some(name.into()) };
        match name.strip_prefix(prefix) {
            Some(own) => Some([prefix, ESCAPE, own].concat().into()),
            None => is_visible(prefix, name).then_some(name.into()),
        }
    }
}

/// An overlay with marks of ordinary users is mounted by one, who may not copy
/// what only root can see: the attempt would make changes fail.
fn is_visible(prefix: &[u8], name: &[u8]) -> bool {
    prefix.starts_with(TRUSTED) || !name.starts_with(TRUSTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_a_tree_are_never_taken_for_those_of_the_overlay() {
        let check = |prefix, name: &str, shown: Option<&str>| {
            let xattrs = Xattrs::BelowOverlay(prefix);
            let told = xattrs.shown(name.as_bytes());
            assert_eq!(told.as_deref(), shown.map(str::as_bytes), "{name}");
            if let Some(told) = told {
                let stored = xattrs.stored(&told);
                assert_eq!(stored.as_deref(), Some(name.as_bytes()), "{name}");
            }
        };
        let (trusted, user): (&[u8], &[u8]) = (b"trusted.overlay.", b"user.overlay.");
        check(trusted, "trusted.overlay.opaque", Some("trusted.overlay.overlay.opaque"));
        check(trusted, "trusted.overlay.overlay.x", Some("trusted.overlay.overlay.overlay.x"));
        check(trusted, "trusted.other", Some("trusted.other"));
        check(trusted, "user.overlay.opaque", Some("user.overlay.opaque"));
        check(user, "user.overlay.opaque", Some("user.overlay.overlay.opaque"));
        check(user, "trusted.overlay.opaque", None);
        check(user, "security.capability", Some("security.capability"));
        let xattrs = Xattrs::BelowOverlay(trusted);
        for name in ["trusted.overlay.opaque", "trusted.overlay.metacopy", "trusted.overlay."] {
            assert_eq!(xattrs.stored(name.as_bytes()), None, "{name}");
        }
        assert_eq!(
            Xattrs::AsStored.stored(b"trusted.overlay.x").as_deref(),
            Some(&b"trusted.overlay.x"[..])
        );
    }
}
