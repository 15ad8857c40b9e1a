//! What of a state is there to be booted: kernels, what belongs to them, and the name of
//! the system. All of it comes from packages and is not trusted.

use cairn_store::{BlobRef, LastLink, Store, TreeId, follow};

use super::Error;
use super::entry::line;

/// The largest text that is read of a state: nobody writes more to a command line.
const MAX_TEXT: u64 = 64 << 10;

/// Where command lines for all kernels of a state lie, one a file.
const VENDOR: &[u8] = b"usr/lib/kernel/cmdline.d";

/// A kernel of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its version, which is the name of its modules' directory.
    pub version: String,
    /// What the boot loader starts.
    pub image: BlobRef,
    /// Initial file systems in the order in which the kernel gets them, with their names.
    pub initrds: Vec<(String, BlobRef)>,
    /// What it wants on its command line.
    pub options: Vec<String>,
}

/// What a system calls itself (os-release(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `PRETTY_NAME`, as people read it.
    pub name: String,
}

/// The kernels of a tree, the newest first by its version.
///
/// Three layouts are known, and the first of them that has a version counts:
/// `/usr/lib/kernel/VERSION/vmlinuz` with `*.initrd` and `*.cmdline` (moss),
/// `/usr/lib/modules/VERSION/vmlinuz` with `initrd` or `initramfs.img` (kernel-install(8)),
/// and `/boot/vmlinuz-VERSION` with `initrd.img-VERSION`, `initramfs-VERSION.img` or
/// `initrd-VERSION` (Debian, Fedora, SUSE). Costs a tree a kernel and no content but that of
/// command lines.
///
/// # Errors
/// [`Error::Store`].
pub fn kernels(store: &Store, tree: TreeId) -> Result<Vec<Kernel>, Error> {
    let root = Root { store, tree };
    let vendor = root.command_lines(VENDOR)?;
    let mut found: Vec<Kernel> = Vec::new();
    let mut add = |kernel: Option<Kernel>| {
        if let Some(mut kernel) = kernel
            && found.iter().all(|it| it.version != kernel.version)
        {
            kernel.options.extend(vendor.iter().cloned());
            found.push(kernel);
        }
    };
    for version in root.names(b"usr/lib/kernel")? {
        add(root.of_moss(&version)?);
    }
    for version in root.names(b"usr/lib/modules")? {
        let directory = format!("usr/lib/modules/{version}");
        let initrds = ["initrd", "initramfs.img"].map(|name| format!("{directory}/{name}"));
        add(root.kernel(version, &format!("{directory}/vmlinuz"), &initrds)?);
    }
    for name in root.names(b"boot")? {
        let Some(version) = name.strip_prefix("vmlinuz-") else { continue };
        let initrds = [
            format!("boot/initrd.img-{version}"),
            format!("boot/initramfs-{version}.img"),
            format!("boot/initrd-{version}"),
        ];
        add(root.kernel(version.into(), &format!("boot/{name}"), &initrds)?);
    }
    found.sort_by(|one, other| compare_versions(&other.version, &one.version));
    Ok(found)
}

/// Numbers by their value, all else by its bytes: 6.10 is newer than 6.9.
fn compare_versions(one: &str, other: &str) -> std::cmp::Ordering {
    let parts = |text: &str| {
        let mut parts: Vec<(u64, String)> = vec![(0, String::new())];
        for char in text.chars() {
            let (number, word) = parts.last_mut().expect("it begins with one");
            match char.to_digit(10) {
                Some(digit) if word.is_empty() => {
                    *number = number.saturating_mul(10).saturating_add(digit.into());
                }
                Some(digit) => parts.push((digit.into(), String::new())),
                None => word.push(char),
            }
        }
        parts
    };
    parts(one).cmp(&parts(other))
}

impl OsRelease {
    /// Reads `/etc/os-release` of a tree, or else that in `/usr/lib`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn of(store: &Store, tree: TreeId) -> Result<Self, Error> {
        let root = Root { store, tree };
        let mut text = root.text(b"etc/os-release")?;
        if text.is_none() {
            text = root.text(b"usr/lib/os-release")?;
        }
        Ok(Self::parse(&text.unwrap_or_default()))
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let mut values =
                text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            let value = values.next_back()?.trim();
            let within = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
            let value = within('"').or_else(|| within('\'')).unwrap_or(value);
            // What the shell would take from between quotes.
            let value = line(&value.replace("\\\"", "\"").replace("\\$", "$"));
            (!value.is_empty()).then_some(value)
        };
        let id = value("ID").filter(|id| is_plain(id)).unwrap_or_else(|| "linux".into());
        Self { id, name: value("PRETTY_NAME").unwrap_or_else(|| "Linux".into()) }
    }
}

/// Whether something can be part of a name on a FAT filesystem, and of a line of an entry.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-~@".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('.')
}

/// A tree that is read without following anything out of it.
struct Root<'s> {
    store: &'s Store,
    tree: TreeId,
}

impl Root<'_> {
    fn of_moss(&self, version: &str) -> Result<Option<Kernel>, Error> {
        let directory = format!("usr/lib/kernel/{version}");
        let names = self.names(directory.as_bytes())?;
        let initrds: Vec<String> = names
            .iter()
            .filter(|name| name.ends_with(".initrd"))
            .map(|name| format!("{directory}/{name}"))
            .collect();
        let image = format!("{directory}/vmlinuz");
        let Some(mut kernel) = self.kernel(version.into(), &image, &[])? else { return Ok(None) };
        for path in initrds {
            kernel.initrds.extend(self.initrd(&path)?);
        }
        kernel.options = self.command_lines(directory.as_bytes())?;
        Ok(Some(kernel))
    }

    /// The kernel at `image` with the first of `initrds` that is there.
    fn kernel(
        &self,
        version: String,
        image: &str,
        initrds: &[String],
    ) -> Result<Option<Kernel>, Error> {
        let Some(image) = self.file(image.as_bytes())? else { return Ok(None) };
        let mut found = Vec::new();
        for path in initrds {
            if found.is_empty() {
                found.extend(self.initrd(path)?);
            }
        }
        Ok(Some(Kernel { version, image, initrds: found, options: Vec::new() }))
    }

    fn initrd(&self, path: &str) -> Result<Option<(String, BlobRef)>, Error> {
        let name = path.rsplit('/').next().unwrap_or(path);
        Ok(self.file(path.as_bytes())?.map(|blob| (name.into(), blob)))
    }

    /// What `*.cmdline` in a directory say, by the order of their names.
    fn command_lines(&self, directory: &[u8]) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for name in self.names(directory)?.iter().filter(|name| name.ends_with(".cmdline")) {
            let path = [directory, b"/", name.as_bytes()].concat();
            let text = self.text(&path)?.unwrap_or_default();
            lines.extend(Some(super::machine::snippet(&text)).filter(|line| !line.is_empty()));
        }
        Ok(lines)
    }

    /// What a directory has, in order; names that cannot be part of an entry are left out.
    fn names(&self, directory: &[u8]) -> Result<Vec<String>, Error> {
        let found = follow(self.store, self.tree, directory, LastLink::Follow)?.found();
        let Some((_, entry)) = found else { return Ok(Vec::new()) };
        let Some(directory) = entry.as_directory() else { return Ok(Vec::new()) };
        let tree = self.store.tree(directory.id)?;
        let names = tree.entries().iter().map(|(name, _)| String::from_utf8_lossy(name.as_bytes()));
        Ok(names.filter(|name| is_plain(name)).map(Into::into).collect())
    }

    fn file(&self, path: &[u8]) -> Result<Option<BlobRef>, Error> {
        let found = follow(self.store, self.tree, path, LastLink::Follow)?.found();
        Ok(found.and_then(|(_, entry)| entry.as_leaf()?.blob().copied()))
    }

    fn text(&self, path: &[u8]) -> Result<Option<String>, Error> {
        match self.file(path)?.filter(|blob| blob.size <= MAX_TEXT) {
            Some(blob) => Ok(Some(String::from_utf8_lossy(&self.store.read(&blob)?).into())),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let mut versions = ["6.9.1", "6.10.0-rc1", "6.10.0", "6.1.0-18-amd64", "6.1.0-9-amd64"];
        versions.sort_by(|one, other| compare_versions(one, other));
        let expected = ["6.1.0-9-amd64", "6.1.0-18-amd64", "6.9.1", "6.10.0", "6.10.0-rc1"];
        assert_eq!(versions, expected);
    }

    #[test]
    fn names_of_systems_come_from_os_release() {
        for (text, id, name) in [
            ("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n", "debian", "Debian GNU/Linux 12"),
            ("PRETTY_NAME='A  B'\nID=\"x\"\n", "x", "A B"),
            ("ID=a b\nPRETTY_NAME=A\x1b[1m\\\"B\\\"\n", "linux", "A [1m\"B\""),
            ("ID=../../x\nIDENTITY=y\n", "linux", "Linux"),
            ("", "linux", "Linux"),
        ] {
            assert_eq!(OsRelease::parse(text), OsRelease { id: id.into(), name: name.into() });
        }
    }
}
