//! `oci:DIR[:NAME]`: how the command line names an image in an OCI layout.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// An image in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImagePlace {
    /// Directory of the layout.
    pub(crate) layout: PathBuf,
    /// Name of the image in it.
    pub(crate) name: Option<String>,
}

impl ImagePlace {
    /// Reads `oci:DIR[:NAME]`; `None` for what does not begin like that.
    pub(crate) fn new(text: &Path) -> Option<Self> {
        let rest = text.as_os_str().as_bytes().strip_prefix(b"oci:")?;
        let colon = rest.iter().rposition(|byte| *byte == b':');
        let named = colon.and_then(|at| {
            let name = std::str::from_utf8(&rest[at + 1..]).ok()?;
            // A colon in the name of a directory is none before a name.
            (!name.contains('/')).then(|| (&rest[..at], name.to_owned()))
        });
        let (layout, name) = match named {
            Some((layout, name)) => (layout, Some(name).filter(|name| !name.is_empty())),
            None => (rest, None),
        };
        Some(Self { layout: OsStr::from_bytes(layout).into(), name })
    }
}

/// The architecture of this machine, as Go and images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_layout_and_perhaps_a_name() {
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let place = ImagePlace::new(Path::new(text));
            let expected = expected.map(|(layout, name)| ImagePlace {
                layout: layout.into(),
                name: name.map(Into::into),
            });
            assert_eq!(place, expected, "{text}");
        };
        check("oci:a/b", Some(("a/b", None)));
        check("oci:a/b:latest", Some(("a/b", Some("latest"))));
        check("oci:a:b/c", Some(("a:b/c", None)));
        check("oci:a:b/c:1.0", Some(("a:b/c", Some("1.0"))));
        check("oci:a:", Some(("a", None)));
        check("a/oci:b", None);
    }
}
