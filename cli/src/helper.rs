//! The program as mount(8) calls it: `mount.fuse.cairn STORE DIR -o OPTIONS`.
//!
//! A link of this name to the program in /sbin is enough for `mount -t fuse.cairn`
//! and for /etc/fstab.
//!
//! Source: mount(8), "External helpers".

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Exit code of a helper: it was called otherwise than it can be.
pub(crate) const USAGE: u8 = 1;
/// Exit code of a helper: the mount failed.
pub(crate) const FAILED: u8 = 32;

/// What mount(8) asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// These arguments of `cairn`.
    Mount(Vec<OsString>),
    /// To do nothing, successfully.
    Fake,
    /// Something that cannot be done.
    Unknown(OsString),
}

/// Whether the program was called by one of the names of a helper, also as the
/// process of a root.
pub(crate) fn is_helper(program: &OsStr) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default().as_encoded_bytes();
    let name = name.strip_prefix(b"@").unwrap_or(name);
    name == b"mount.fuse.cairn" || name == b"mount.cairn"
}

/// Translates the arguments of a helper, without its name.
pub(crate) fn call(arguments: impl IntoIterator<Item = OsString>) -> Call {
    let mut arguments = arguments.into_iter();
    let (mut places, mut options, mut is_sloppy) = (Vec::new(), Vec::new(), false);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        match text.strip_prefix('-') {
            None | Some("") => places.push(argument),
            Some("o") => options.extend(arguments.next()),
            // The type, which this helper is for.
            Some("t") => drop(arguments.next()),
            Some(letters) if letters.bytes().all(|letter| b"sfnv".contains(&letter)) => {
                if letters.contains('f') {
                    return Call::Fake;
                }
                is_sloppy |= letters.contains('s');
            }
            // A namespace among others, into which mount(8) does not bring us.
            Some(_) => return Call::Unknown(argument),
        }
    }
    let [store, directory] = &places[..] else {
        return Call::Unknown("STORE and DIR are needed".into());
    };
    let mut call: Vec<OsString> = ["--quiet", "--store"].map(OsString::from).into();
    call.extend([store.clone(), "mount".into(), directory.clone()]);
    if is_sloppy {
        call.push("--sloppy".into());
    }
    for list in options {
        call.extend(["-o".into(), list]);
    }
    Call::Mount(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_mount_is_one_of_the_program() {
        let check = |words: &str, expected: &str| {
            let words = words.split(' ').map(OsString::from);
            let expected = expected.split(' ').map(OsString::from).collect();
            assert_eq!(call(words), Call::Mount(expected));
        };
        check("/s /d -o rw,follow", "--quiet --store /s mount /d -o rw,follow");
        check("/s /d -sn -o a -o b", "--quiet --store /s mount /d --sloppy -o a -o b");
        check("/s /d -v -t fuse.cairn", "--quiet --store /s mount /d");
        let words = |words: &str| call(words.split(' ').map(OsString::from));
        assert_eq!(words("/s /d -f -o x"), Call::Fake);
        assert_eq!(words("/s /d -N 12"), Call::Unknown("-N".into()));
        assert!(matches!(words("/s"), Call::Unknown(_)));
        for (name, expected) in [
            ("/sbin/mount.fuse.cairn", true),
            ("mount.cairn", true),
            ("cairn", false),
            ("@cairn", false),
            ("@mount.fuse.cairn", true),
        ] {
            assert_eq!(is_helper(OsStr::new(name)), expected, "{name}");
        }
    }
}
