//! What has no effect on a mount, as in mount(8).

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::error::{Error, Result};
use crate::mount::mountinfo::MountPoint;
use crate::mount::options::Trust;
use crate::mount::target;
use crate::shape::Shape;
use crate::sys;

/// What has no effect on a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// Setuid programs and file capabilities.
    pub nosuid: bool,
    /// Device nodes.
    pub nodev: bool,
    /// Programs.
    pub noexec: bool,
}

impl Restrictions {
    /// These, and those that go with `trust`.
    pub(crate) fn and(self, trust: Trust) -> Self {
        match trust {
            Trust::Inspect => Self { nosuid: true, nodev: true, ..self },
            Trust::System => self,
        }
    }

    pub(crate) fn flags(self) -> libc::c_ulong {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        flag(self.nosuid, libc::MS_NOSUID)
            | flag(self.nodev, libc::MS_NODEV)
            | flag(self.noexec, libc::MS_NOEXEC)
    }
}

/// Changes what has no effect on the mount on `target`. What has none on an
/// inspection view or a workspace gets none.
///
/// # Errors
/// [`Error::NotMounted`]; [`Error::Mount`].
pub fn remount(target: &Path, restrictions: Restrictions) -> Result<()> {
    let failed = |source| Error::Mount { target: target.into(), source };
    let place = target::whereabouts(target)?;
    let mount = MountPoint::at(&place).map_err(failed)?.filter(MountPoint::is_ours);
    let mount = mount.ok_or_else(|| Error::NotMounted { target: target.into() })?;
    let shape = target::registration_of(&mount).map(|(_, registration)| registration.shape);
    let kept = match shape {
        Some(Shape::Follow) => 0,
        // What nobody knows is not trusted.
        Some(Shape::Folder | Shape::Pinned(_)) | None => {
            let now = statvfs(&place).map_err(|err| failed(err.into()))?.f_flag;
            let kept = StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
            // Both have the same numbers in mount(2).
            (now & kept).bits() as libc::c_ulong
        }
    };
    let access = if mount.workspace().is_none() { libc::MS_RDONLY } else { 0 };
    let flags = libc::MS_REMOUNT | libc::MS_BIND | access | kept | restrictions.flags();
    sys::mount(OsStr::new(""), &place, "", flags, OsStr::new("")).map_err(failed)
}
