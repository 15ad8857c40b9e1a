//! What helps against an error, where something does.

use std::io;

use cairn_package::boot;
use cairn_package::repository::{self, KeyProblem, NetworkProblem, SignatureProblem};
use cairn_package::{Error as PackageError, solve, stone};
use cairn_store::{Error as StoreError, NoProc};

use super::{Error, is_damage};

impl Error {
    pub(super) fn advice(&self) -> Option<&'static str> {
        if lacks_proc(self) {
            return Some("mount it first: mount -t proc proc /proc");
        }
        match self {
            Self::Store(err) | Self::Boot(boot::Error::Store(err)) => advice_on_store(err),
            Self::Boot(err) => advice_on_boot(err),
            Self::Package(err) => advice_on_packages(err),
            Self::Mount(err) => advice_on_mounts(err),
            Self::NotShown { .. } => Some("unmount them with cairn umount, and mount them again"),
            Self::Dependency(_) => Some("name a package, or a provider such as 'binary(nano)'"),
            Self::Repository(err) => advice_on_repository(err),
            Self::Build(err) => advice_on_builds(err),
            Self::Exists { .. } => Some("--force replaces it"),
            Self::NothingToUpdate => Some("name a version with --ver or an address with -u"),
            Self::OneRecipe => Some("name one recipe"),
            Self::OneDirectory => Some("name one stone, or use --output-dir"),
            Self::NoSuchMacro(_) => Some("cairn recipe macros lists all of them"),
            Self::NoParent(_) | Self::NotAState(_) => Some(LIST_STATES),
            Self::NotAPath(_) => Some("write it from the root of the state on, such as /usr/bin"),
            Self::NotAPlace(_) => {
                Some("write STATE:PATH, such as 5:/usr/bin, or /usr/bin for the current state")
            }
            Self::UnknownPackage(_) => Some("cairn search finds packages by words"),
            Self::OtherRepositories => Some("without --dry-run, they are changed after a question"),
            Self::Model { .. } => None,
            Self::Config { .. } => Some("docs/configuration.md has its keys"),
            Self::NotInstalled(_) => Some("cairn list shows what is installed"),
            Self::ForeignStore { .. } => Some(
                "work on it as that user, or make it yours with chown -R if you trust what is in it",
            ),
            Self::NoStorePath => Some("pass --store DIR or set CAIRN_STORE"),
            Self::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("install it: Debian has it in squashfs-tools or erofs-utils")
            }
            Self::ToTerminal => Some("name a file, or pass the archive on: cairn export 5 - | ..."),
            Self::CannotAsk => Some("pass --yes to answer every question with yes"),
            Self::Read { source, .. } | Self::Write { source, .. } => advice_on_access(source),
            Self::Stone { source: stone::Error::NotEmpty(_), .. } => {
                Some("name an empty or a new directory")
            }
            Self::Stone { source, .. } if is_damage(source) => Some("get the file once more"),
            Self::Stone { .. }
            | Self::NotTriggered { .. }
            | Self::NotUpdated { .. }
            | Self::Key { .. }
            | Self::PasswordsDiffer
            | Self::Macros(_)
            | Self::BadRecipes { .. }
            | Self::NotConverted { .. }
            | Self::NoPackages { .. }
            | Self::DamageFound { .. }
            | Self::Deviations { .. }
            | Self::ProblemsFound { .. }
            | Self::NothingBetween { .. }
            | Self::NoSuchFile { .. }
            | Self::InNeither { .. }
            | Self::TooManyLinks { .. }
            | Self::NotAFile { .. }
            | Self::StateTwice(_)
            | Self::NoJson { .. }
            | Self::Declined
            | Self::MountOption(_)
            | Self::Again(_)
            | Self::InBackground(_)
            | Self::Interrupted { .. }
            | Self::Program { .. }
            | Self::NotForArchives
            | Self::NotForFormat { .. }
            | Self::SameStore
            | Self::NoAnswer
            | Self::Pattern(_)
            | Self::Signals(_)
            | Self::Supervisor(_)
            | Self::Output(_)
            | Self::Input(_)
            | Self::Json(_)
            | Self::InNoState(_)
            | Self::NothingFound { .. } => None,
        }
    }
}

/// Whether an error comes from a missing /proc.
fn lacks_proc(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    chain.any(|error| error.downcast_ref().is_some_and(NoProc::is_why))
}

const LIST_STATES: &str = "cairn state list shows the states and their tags";

fn advice_on_store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Io { source, .. } => advice_on_access(source),
        StoreError::NotAStore { .. } => {
            Some("cairn install makes a store when there is none; --store DIR names another")
        }
        StoreError::OccupiedTarget { .. } => Some("name an empty or a new directory"),
        StoreError::NotEmpty { .. } => Some("name an empty or a new directory with --store"),
        StoreError::UnknownFormat { .. } => Some("use the version of Cairn that wrote it"),
        StoreError::Locked { .. } => Some("wait until it is done, or end that process"),
        StoreError::UnknownState(_) | StoreError::UnknownTag(_) => Some(LIST_STATES),
        StoreError::StateIsCurrent(_) => Some("switch to another state first: cairn switch STATE"),
        StoreError::StateIsTagged { .. } => Some("remove the tag first: cairn state untag TAG"),
        StoreError::UnknownWorkspace(_) => Some("cairn workspace list shows the workspaces"),
        StoreError::WorkspaceExists(_) => Some("name it otherwise, or discard the other first"),
        StoreError::WorkspaceInUse { .. } => {
            Some("cairn mount lists the mounts, cairn umount ends them")
        }
        StoreError::DamagedWorkspace { .. } => Some(
            "its layer is intact beside it; keep what you need of that, and discard the workspace",
        ),
        StoreError::NoState => Some("cairn install makes the first one"),
        StoreError::Index { .. }
        | StoreError::MalformedIndex { .. }
        | StoreError::WrongIndex { .. } => {
            Some("cairn store rebuild makes the index anew and loses nothing")
        }
        StoreError::DamagedLog { .. }
        | StoreError::MissingLog { .. }
        | StoreError::LostRecords { .. } => {
            Some("cairn store rebuild --states makes it anew from what is left and from the packs")
        }
        StoreError::MissingPack { .. }
        | StoreError::DamagedPack { .. }
        | StoreError::DamagedFrame { .. }
        | StoreError::DamagedBlob { .. }
        | StoreError::DamagedTree { .. }
        | StoreError::InvalidTree(_)
        | StoreError::DamagedPage { .. }
        | StoreError::MissingPage { .. }
        | StoreError::MissingBlob { .. }
        | StoreError::MissingTree { .. } => Some("cairn verify tells what is affected"),
        StoreError::MissingRecord { .. } => Some("cairn verify --repair makes it anew"),
        StoreError::Source { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some("run it as root, or leave it out with --exclude")
        }
        StoreError::TooDeep { .. } => Some("leave it out with --exclude"),
        StoreError::Remote { .. } => Some("run it again; it goes on where it stopped"),
        StoreError::DamagedSource { .. } => {
            Some("mend the other store first: cairn verify --repair there")
        }
        StoreError::Collision { .. }
        | StoreError::Source { .. }
        | StoreError::SourceChanged { .. }
        | StoreError::NotADirectory(_)
        | StoreError::NoSuchPath(_)
        | StoreError::Archive(_)
        | StoreError::Image { .. }
        | StoreError::Target { .. }
        | StoreError::Cancelled => None,
    }
}

/// The step of entering a state at which its overlay is mounted.
const OVERLAY: &str = "mount the overlay";

fn advice_on_overlays(source: &io::Error) -> Option<&'static str> {
    match source.raw_os_error() {
        Some(libc::ENODEV) => Some("load the module: modprobe overlay"),
        Some(libc::EPERM) => Some(
            "it takes CAP_SYS_ADMIN as root, and Linux 5.11 as another user, whom a security \
             module may forbid it",
        ),
        _ => Some(
            "the store must lie where overlayfs can have its layers: on ext4, xfs, btrfs or tmpfs",
        ),
    }
}

fn advice_on_mounts(error: &cairn_fs::Error) -> Option<&'static str> {
    use cairn_fs::Error;
    match error {
        Error::Store(err) => advice_on_store(err),
        Error::Target { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Some("make the directory first: mkdir DIR")
        }
        Error::Occupied { .. } => Some("cairn mount lists the mounts, cairn umount ends them"),
        Error::Dead { .. } => Some("cairn umount takes it away"),
        Error::NoFuse { source } => advice_on_fuse(source),
        Error::Enter { step, source } if step == "open /dev/fuse" => advice_on_fuse(source),
        Error::Enter { step, source } if step == OVERLAY => advice_on_overlays(source),
        Error::Enter { source, .. }
            if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) =>
        {
            Some(
                "a security module may take the rights from user namespaces: \
                 sysctl kernel.apparmor_restrict_unprivileged_userns=0 where AppArmor does",
            )
        }
        Error::Mount { source, .. } => match source.raw_os_error() {
            Some(libc::EPERM) => Some(
                "mounting takes CAP_SYS_ADMIN, which a container gets with --cap-add SYS_ADMIN \
                 --device /dev/fuse; or install fuse3, whose fusermount3 does it for others",
            ),
            Some(libc::EACCES) => Some(
                "a security module such as AppArmor or SELinux forbids it; a container may mount \
                 with --security-opt apparmor=unconfined",
            ),
            Some(libc::ENODEV) => Some(LOAD_FUSE),
            _ => None,
        },
        Error::OwnersMap { source } => match source.raw_os_error() {
            Some(libc::EPERM) => Some("only root of the machine can map owners"),
            Some(libc::ENOSPC) => {
                Some("there may be no more user namespaces: sysctl user.max_user_namespaces")
            }
            _ => None,
        },
        Error::OwnersNotMapped { source, .. } => match source.raw_os_error() {
            Some(libc::EINVAL) => Some("the kernel does so on FUSE since Linux 6.12"),
            Some(libc::EPERM) => Some("only root of the machine can map owners"),
            _ => None,
        },
        Error::Fusermount { message, .. } => advice_on_fusermount(message),
        Error::Namespaces { source } => match source.raw_os_error() {
            Some(libc::EPERM) => Some(
                "it takes CAP_SYS_ADMIN as root, and user namespaces as another user: \
                 sysctl kernel.unprivileged_userns_clone=1 where that is off",
            ),
            Some(libc::ENOSPC) => {
                Some("there may be no more of them: sysctl user.max_user_namespaces")
            }
            _ => None,
        },
        Error::StoreBelow { .. } => Some("mount it elsewhere, or move the store"),
        Error::NoBindPoint { .. } => Some("bind it where the state has a directory"),
        Error::StillMounted { .. } => Some("cairn umount takes it away"),
        Error::OtherBase { .. } => Some(
            "cairn workspace reset NAME --state STATE puts it there, and drops what was changed",
        ),
        Error::Overlay { source, .. } => advice_on_overlays(source),
        Error::NoFusermount { .. } => Some("install fuse3, or run it as root"),
        Error::Busy { .. } => Some("--lazy unmounts it for good when nobody uses it any more"),
        _ => None,
    }
}

const LOAD_FUSE: &str =
    "load the module: modprobe fuse; a container gets the device with --device /dev/fuse";

/// What to do when /dev/fuse cannot be opened.
fn advice_on_fuse(source: &io::Error) -> Option<&'static str> {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Some(LOAD_FUSE),
        Some(libc::EACCES) => Some(FUSE_MODES),
        // The device is there, and the group of processes may not use it.
        Some(libc::EPERM) => Some("give the container the device: --device /dev/fuse"),
        _ => None,
    }
}

const FUSE_MODES: &str = "the modes of /dev/fuse keep this user out: as root, chmod 666 /dev/fuse";

/// What to do about what fusermount3 says, in its own words.
fn advice_on_fusermount(message: &str) -> Option<&'static str> {
    if message.contains("modprobe") {
        Some(LOAD_FUSE)
    } else if message.contains("/dev/fuse: Permission denied") {
        Some(FUSE_MODES)
    } else if message.contains("/dev/fuse: Operation not permitted") {
        Some("give the container the device: --device /dev/fuse")
    } else if message.ends_with("Operation not permitted") {
        Some(
            "fusermount3 has to be setuid root: chmod u+s $(command -v fusermount3); \
             where that has no effect, as in containers, cairn run works without it",
        )
    } else if message.contains("no write access to mountpoint") {
        Some("name a directory that belongs to you")
    } else if message.contains("mount_max") {
        Some("unmount some, or raise mount_max in /etc/fuse.conf")
    } else {
        None
    }
}

fn advice_on_boot(error: &boot::Error) -> Option<&'static str> {
    use boot::Error;
    match error {
        Error::NoPlace => Some("mount it, or name a directory: --esp DIR"),
        Error::NoDirectory { .. } => Some("make the directory first: mkdir DIR"),
        Error::NoKernel => Some("install a package that has one; docs/boot.md says where it lies"),
        Error::NoRoom { .. } => Some("keep fewer states in the menu: --older N"),
        Error::UnknownRoot { .. } => Some("say it: --cmdline 'root=DEVICE rw'"),
        Error::Read { source, .. } | Error::Write { source, .. } => advice_on_access(source),
        Error::InvalidState { .. } => Some(LIST_STATES),
        Error::Store(_) => None,
    }
}

fn advice_on_builds(error: &cairn_build::Error) -> Option<&'static str> {
    use cairn_build::Error;
    match error {
        Error::Packages(err) => advice_on_packages(err),
        Error::Io { source, .. } => advice_on_access(source),
        Error::Recipe { .. } => Some("cairn recipe check tells everything that is wrong with it"),
        Error::PhaseFailed { .. } => Some("cairn build --shell opens a shell where it failed"),
        Error::NotBuilt { .. } => Some("cairn build builds it"),
        Error::InUse { .. } => Some("wait until it is done, or end that process"),
        Error::WrongHash { .. } => {
            Some("if it is what you expect, correct the hash: cairn recipe update")
        }
        Error::Unpack { .. } => Some("unpack: false leaves a file as it is"),
        Error::NothingInstalled => {
            Some("scripts install below %(installroot), such as %(installroot)/usr/bin")
        }
        Error::Differs { .. } => Some("if it is what you expect, commit the new manifest"),
        _ => None,
    }
}

fn advice_on_packages(error: &PackageError) -> Option<&'static str> {
    match error {
        PackageError::Store(err) => advice_on_store(err),
        PackageError::Repository(err) => advice_on_repository(err),
        PackageError::Problem(solve::Problem::Unknown(_)) => Some(
            "cairn repo list shows where packages come from, cairn repo update looks for new ones",
        ),
        PackageError::Problem(solve::Problem::NotInstalled(_)) => {
            Some("cairn state show lists what is installed")
        }
        PackageError::Problem(solve::Problem::NothingOlder(_)) => {
            Some("add the repository that has it, or go back to a whole state: cairn rollback")
        }
        PackageError::Outdated => Some("run the command again"),
        PackageError::FileConflicts { .. } => Some("nothing was changed; leave one of them out"),
        PackageError::Stone { source, .. } if is_damage(source) => Some("get the file once more"),
        PackageError::Trigger { .. } | PackageError::Sandbox { .. } => {
            Some("the old state stays; --skip-triggers does it without them")
        }
        PackageError::Read { source, .. } => advice_on_access(source),
        PackageError::Catalog(_) => Some("cairn repo update makes it anew"),
        PackageError::TriggerFile(_) => Some("nothing was changed; leave its package out"),
        PackageError::Stone { .. }
        | PackageError::Layout(_)
        | PackageError::RepeatedName { .. }
        | PackageError::Problem(_)
        | PackageError::Unavailable { .. } => None,
    }
}

fn advice_on_repository(error: &repository::Error) -> Option<&'static str> {
    use repository::Error;
    match error {
        Error::Io { path, source } if source.kind() == io::ErrorKind::NotFound => path
            .ends_with("stone.index")
            .then_some("cairn repo index DIR makes the index of a directory of stones"),
        Error::Io { source, .. } => advice_on_access(source),
        Error::Unknown(_) => Some("cairn repo list shows the repositories"),
        Error::Exists(_) => {
            Some("name it otherwise, or remove the other first: cairn repo remove NAME")
        }
        Error::Url(_) => Some(
            "name a server, such as https://example.org/stones, or a directory, file:///srv/stones",
        ),
        Error::Twice { .. } => Some("remove one of them"),
        Error::Mismatch { .. } => Some("bring the index up to date: cairn repo update"),
        Error::Network { source, .. } => advice_on_network(source),
        Error::Unsigned { .. } => {
            Some("sign it: cairn repo index DIR --sign KEY; what was known of it stays in use")
        }
        Error::Signature { source: SignatureProblem::OtherKey, .. } => Some(
            "if its owner has changed the key, and you have the new one from them: \
             cairn repo set NAME --key KEY",
        ),
        Error::Signature { .. } | Error::SameNumber { .. } => {
            Some("ask the owner of the repository; what was known of it stays in use")
        }
        Error::OtherRepository { .. } => {
            Some("compare the address with that of its owner; what was known of it stays in use")
        }
        Error::Rollback { .. } => Some(
            "somebody may hold back newer packages; if its owner has gone back on purpose: \
             cairn repo update NAME --allow-older",
        ),
        Error::Expired { .. } => {
            Some("its owner has to sign it again; what was known of it stays in use")
        }
        Error::WasSigned { .. } => {
            Some("sign it with --sign KEY, or remove the file stone.index.minisig")
        }
        Error::Key { source: KeyProblem::NoPassword, .. } => {
            Some("run it in a terminal, or use a key without a password")
        }
        Error::Config { .. }
        | Error::RootIndex { .. }
        | Error::Index { .. }
        | Error::Catalog(_)
        | Error::Stone { .. }
        | Error::Key { .. }
        | Error::Location { .. } => None,
    }
}

fn advice_on_network(problem: &NetworkProblem) -> Option<&'static str> {
    match problem {
        NetworkProblem::Status { status: 404 | 410, .. } => {
            Some("compare the address, or bring the index up to date: cairn repo update")
        }
        NetworkProblem::Tls(_) => {
            Some("if the certificates of the machine are missing: apt-get install ca-certificates")
        }
        NetworkProblem::Proxy(_) => Some("look at the variables https_proxy and all_proxy"),
        NetworkProblem::Io(_)
        | NetworkProblem::UnknownHost(_)
        | NetworkProblem::TimedOut
        | NetworkProblem::CutShort { .. } => {
            Some("look at the connection and run it again; it goes on where it stopped")
        }
        _ => None,
    }
}

fn advice_on_access(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Some("run it as root, or name a store of your own with --store")
        }
        io::ErrorKind::StorageFull => {
            Some("free some space and try again; the current state is as it was")
        }
        _ => None,
    }
}
