//! overlayfs: its mount options, and the attributes with which it marks what it
//! has done in a layer.
//!
//! Source: Documentation/filesystems/overlayfs.rst and fs/overlayfs of Linux.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::thread;

use cairn_store::workspace::LayerMarks;

use crate::mount::options::Trust;
use crate::sys;

/// The beginning of the names of overlayfs's own extended attributes.
pub(crate) const fn prefix(marks: LayerMarks) -> &'static [u8] {
    match marks {
        LayerMarks::Trusted => b"trusted.overlay.",
        LayerMarks::User => b"user.overlay.",
    }
}

/// Which marks overlayfs can write for this user: an ordinary one mounts it in a
/// namespace of its own.
///
/// # Errors
/// When /proc does not tell whether this is the machine's own user namespace.
pub(crate) fn usable_marks() -> io::Result<LayerMarks> {
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    let numbers: Vec<&str> = map.split_whitespace().collect();
    let is_root = sys::effective_user().0 == 0;
    let is_initial = is_root && numbers == ["0", "0", "4294967295"];
    Ok(if is_initial { LayerMarks::Trusted } else { LayerMarks::User })
}

/// The layers of an overlay, as paths from the working directory that hold none
/// of the characters `,`, `:` and `\`.
#[derive(Clone, Debug)]
pub(crate) struct Layers<'a> {
    /// Those that are only read, the uppermost first.
    pub(crate) lower: &'a [&'a str],
    /// The directory that holds `upper` and `work`.
    pub(crate) layer: &'a str,
    pub(crate) marks: LayerMarks,
}

impl Layers<'_> {
    fn options(&self) -> String {
        let (lower, layer) = (self.lower.join(":"), self.layer);
        // Without an index the names of a hard link part when one is written, and
        // the layer holds all there is: an index beside it would have to be read
        // as well, and means nothing to the next mount of the same layer.
        let common = format!(
            "lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work,index=off,xino=on"
        );
        match self.marks {
            LayerMarks::Trusted => format!("{common},redirect_dir=on,metacopy=on"),
            // The kernel refuses the other two here.
            LayerMarks::User => format!("{common},userxattr"),
        }
    }

    /// Mounts the overlay on `target`; the layers are found from the working
    /// directory of this thread.
    pub(crate) fn mount_here(&self, name: &str, target: &Path, trust: Trust) -> io::Result<()> {
        let flags = match trust {
            Trust::Inspect => libc::MS_NOSUID | libc::MS_NODEV,
            Trust::System => 0,
        };
        sys::mount(OsStr::new(name), target, "overlay", flags, OsStr::new(&self.options()))
    }

    /// The same, with layers that are found from `directory`.
    pub(crate) fn mount_from(
        &self,
        directory: &Path,
        name: &str,
        target: &Path,
        trust: Trust,
    ) -> io::Result<()> {
        // Absolute paths could hold any character, and be longer than a page. The
        // working directory is changed where only this thread has it.
        let work = || {
            sys::own_directory()?;
            std::env::set_current_dir(directory)?;
            self.mount_here(name, target, trust)
        };
        thread::scope(|scope| match scope.spawn(work).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}
