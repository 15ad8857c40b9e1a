//! What a test needs that not every machine has.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Something without which a test cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Mounts: /dev/fuse.
    Fuse,
    /// The rights of root.
    Root,
    /// Filesystems in files: /dev/loop-control.
    Loop,
    /// A place to make control groups in: see [`Need::control_groups`].
    ControlGroups,
    /// A filesystem of this name in the kernel.
    Kernel(&'static str),
    /// Debian packages: apt and dpkg-deb.
    Debian,
    /// Large files that the kernel reads by itself: Linux 6.9.
    Passthrough,
    /// Mounts of FUSE that map owners: Linux 6.12.
    IdMaps,
    /// A program, and the Debian package that has it.
    Program(&'static str, &'static str),
}

impl Need {
    /// Whether all of `needs` are here. If not, says so on standard error, past
    /// what the test harness catches: the test has then to end.
    ///
    /// # Panics
    /// If one is missing and CI=true: there, a test that does not run is a
    /// failure.
    #[must_use]
    pub fn all(needs: &[Self]) -> bool {
        let Some(missing) = needs.iter().find_map(|need| need.missing()) else { return true };
        skip(&missing);
        false
    }

    /// The directory of the control groups that systemd makes, or would make.
    #[must_use]
    pub fn control_groups() -> Option<&'static Path> {
        let places = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].map(Path::new);
        places.into_iter().find(|it| it.join("cgroup.procs").exists() && is_writable(it))
    }

    fn missing(self) -> Option<String> {
        match self {
            Self::Fuse if !Path::new("/dev/fuse").exists() => Some("there is no /dev/fuse".into()),
            Self::Root if !crate::sys::is_root() => Some("it needs the rights of root".into()),
            Self::Loop if std::fs::File::open("/dev/loop-control").is_err() => {
                Some("there are no loop devices (/dev/loop-control)".into())
            }
            Self::ControlGroups if Self::control_groups().is_none() => {
                Some("no control groups can be made (/sys/fs/cgroup)".into())
            }
            Self::Kernel(name) => {
                let known = || std::fs::read_to_string("/proc/filesystems").unwrap();
                let is_known = || known().lines().any(|line| line.split('\t').nth(1) == Some(name));
                // It may be a module.
                let load = || Command::new("modprobe").args(["-q", name]).status();
                let is_there = is_known() || load().is_ok_and(|it| it.success()) && is_known();
                (!is_there).then(|| format!("the kernel has no {name}"))
            }
            Self::Debian => [("apt-get", "apt"), ("dpkg-deb", "dpkg")]
                .into_iter()
                .find_map(|(program, package)| Self::Program(program, package).missing()),
            Self::Program(program, package) => {
                let version = Command::new(program).arg("--version").output();
                let missing =
                    || format!("there is no {program} (Debian: apt-get install {package})");
                version.is_err().then(missing)
            }
            Self::Passthrough if kernel() < (6, 9) => Some("it needs Linux 6.9".into()),
            Self::IdMaps if kernel() < (6, 12) => Some("it needs Linux 6.12".into()),
            Self::IdMaps => None,
            Self::Fuse | Self::Root | Self::Loop | Self::Passthrough | Self::ControlGroups => None,
        }
    }
}

/// Whether something can be made in a directory of control groups.
fn is_writable(groups: &Path) -> bool {
    let probe = groups.join(format!("cairn-probe-{}", std::process::id()));
    std::fs::create_dir(&probe).is_ok() && std::fs::remove_dir(&probe).is_ok()
}

/// The version of the kernel, of which two numbers matter.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut number = || numbers.next().unwrap().unwrap();
    (number(), number())
}

/// Says why a test does not run.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!is_ci, "{test} cannot run here: {reason}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}
