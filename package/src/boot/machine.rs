//! What this machine says of how it is booted: where its boot loader looks, and what the
//! kernel calls the filesystem with the store.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use cairn_fs::machine::Filesystem;
use cairn_store::StateId;

use super::Error;
use super::entry::{STATE, line};

/// Where partitions of boot loaders are mounted by convention
/// (systemd-gpt-auto-generator(8), bootctl(1)).
const PLACES: [&str; 3] = ["/efi", "/boot/efi", "/boot"];

/// Where a boot loader looks for its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The EFI system partition, with the boot loader itself.
    pub esp: PathBuf,
    /// Where entries and kernels lie: the extended partition for boot loaders, or the
    /// same.
    pub boot: PathBuf,
}

impl Place {
    /// The place that was named, or else the one where such a partition is mounted.
    ///
    /// # Errors
    /// [`Error::NoPlace`], [`Error::NoDirectory`], [`Error::Read`].
    pub fn find(esp: Option<&Path>, boot: Option<&Path>) -> Result<Self, Error> {
        for path in [esp, boot].into_iter().flatten() {
            if !path.is_dir() {
                return Err(Error::NoDirectory { path: path.into() });
            }
        }
        let mounted = |path: &Path| -> Result<bool, Error> {
            let found = Filesystem::mounted_on(path)
                .map_err(|source| Error::Read { path: path.into(), source })?;
            Ok(found.is_some_and(|found| found.kind == "vfat"))
        };
        let esp = match (esp, boot) {
            (Some(esp), _) => esp.to_path_buf(),
            (None, Some(boot)) => boot.to_path_buf(),
            (None, None) => {
                let mut esp = None;
                for path in PLACES.map(PathBuf::from) {
                    if esp.is_none() && mounted(&path)? {
                        esp = Some(path);
                    }
                }
                esp.ok_or(Error::NoPlace)?
            }
        };
        let extended = Path::new("/boot");
        let boot = match boot {
            Some(boot) => boot.to_path_buf(),
            None if esp.starts_with("/efi") && mounted(extended)? => extended.into(),
            None => esp.clone(),
        };
        Ok(Self { esp, boot })
    }
}

/// How the kernel finds the filesystem on which `store` lies: `root=` and what belongs to
/// it, and `rw`.
///
/// # Errors
/// [`Error::UnknownRoot`] if it is not on a partition of its own or on btrfs, or is deeper
/// than one LUKS container; [`Error::Read`].
pub fn root_options(store: &Path) -> Result<String, Error> {
    let unknown = || Error::UnknownRoot { path: store.into() };
    let failed = |source| Error::Read { path: store.into(), source };
    let store = store.canonicalize().map_err(failed)?;
    let filesystem = Filesystem::of(&store).map_err(failed)?.ok_or_else(unknown)?;
    let device = fs::metadata(&filesystem.source).map_err(|_| unknown())?;
    if !device.file_type().is_block_device() {
        return Err(unknown());
    }
    let device = device.rdev();
    let mut words = Vec::new();
    match name_of(Path::new("/dev/disk/by-partuuid"), device) {
        Some(id) => words.push(format!("root=PARTUUID={id}")),
        None => {
            let id = name_of(Path::new("/dev/disk/by-uuid"), device).ok_or_else(unknown)?;
            words.push(format!("root=UUID={id}"));
        }
    }
    if filesystem.kind == "btrfs" {
        words.push(format!("rootflags=subvol={}", filesystem.root.display()));
    }
    let (major, minor) = (libc::major(device), libc::minor(device));
    let mapped = format!("/sys/dev/block/{major}:{minor}/dm/uuid");
    if let Ok(uuid) = fs::read_to_string(mapped) {
        words.extend(luks(uuid.trim()).map(|uuid| format!("rd.luks.uuid={uuid}")));
    }
    words.push("rw".into());
    Ok(words.join(" "))
}

/// The name of the link in a directory of udev(7) that leads to a device.
fn name_of(directory: &Path, device: u64) -> Option<String> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        if fs::metadata(entry.path()).is_ok_and(|found| found.rdev() == device) {
            return entry.file_name().into_string().ok();
        }
    }
    None
}

/// The identity of a LUKS container, from what cryptsetup calls its mapping:
/// `CRYPT-LUKS2-<32 hexadecimal digits>-NAME`.
fn luks(mapping: &str) -> Option<String> {
    let digits = mapping.strip_prefix("CRYPT-LUKS")?.split('-').nth(1)?;
    let is_uuid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_uuid.then(|| {
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        parts.join("-")
    })
}

/// What the files `*.cmdline` of a directory of the machine say, by the order of their
/// names; one that is a link to /dev/null says nothing.
pub(super) fn local_options(directory: &Path) -> Result<String, Error> {
    let failed = |path: &Path, source| Error::Read { path: path.into(), source };
    let entries = match fs::read_dir(directory) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        entries => entries.map_err(|source| failed(directory, source))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed(directory, source))?.path();
        if path.extension().is_some_and(|extension| extension == "cmdline") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut lines = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|source| failed(&path, source))?;
        lines.push(snippet(&text));
    }
    Ok(line(&lines.join(" ")))
}

/// What a file with a part of a command line says: its lines in one, without those that
/// begin with `#`.
pub(super) fn snippet(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    line(&lines.collect::<Vec<_>>().join(" "))
}

/// The state that a command line of a kernel names; the last one counts.
///
/// # Errors
/// [`Error::InvalidState`].
pub fn named_state(command_line: &str) -> Result<Option<StateId>, Error> {
    let mut words = command_line.split_ascii_whitespace().filter_map(|it| it.strip_prefix(STATE));
    let Some(text) = words.next_back() else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Error::InvalidState { text: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_names_at_most_one_state() {
        for (text, expected) in [
            ("root=UUID=1 rw quiet", None),
            ("cairn.state=7 quiet\n", Some(7)),
            ("cairn.state=7 xcairn.state=9 cairn.state=8", Some(8)),
        ] {
            assert_eq!(named_state(text).unwrap(), expected.map(StateId), "{text:?}");
        }
        for text in
            ["cairn.state=", "cairn.state=x", "cairn.state=-1", "cairn.state=1 cairn.state=a"]
        {
            assert!(matches!(named_state(text), Err(Error::InvalidState { .. })), "{text:?}");
        }
    }

    #[test]
    fn containers_are_named_by_their_mapping() {
        let digits = "0123456789abcdef0123456789abcdef";
        let expected = Some("01234567-89ab-cdef-0123-456789abcdef".to_owned());
        assert_eq!(luks(&format!("CRYPT-LUKS2-{digits}-luks-root")), expected);
        assert_eq!(luks(&format!("CRYPT-LUKS1-{digits}-x")), expected);
        for other in
            ["", "LVM-abc", "CRYPT-PLAIN-x", "CRYPT-LUKS2-é123456789abcdef0123456789abcde-x"]
        {
            assert_eq!(luks(other), None, "{other}");
        }
    }

    #[test]
    fn parts_of_command_lines_are_joined_in_order() {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("20-b.cmdline", "  b\n# not this\n\tc  d\n"),
            ("10-a.cmdline", "a\r\n"),
            ("30.txt", "nothing"),
        ] {
            fs::write(home.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/dev/null", home.path().join("00.cmdline")).unwrap();
        assert_eq!(local_options(home.path()).unwrap(), "a b c d");
        assert_eq!(local_options(&home.path().join("none")).unwrap(), "");
    }
}
