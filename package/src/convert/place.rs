//! Where a path of a Debian package lies in a root of ours.
//!
//! | Debian | here |
//! |---|---|
//! | `/bin`, `/sbin`, `/lib`, `/lib32`, `/lib64`, `/libx32`, `/libo32` | below `/usr` |
//! | `/etc` | `/usr/share/defaults/etc` |
//! | the directories `/boot`, `/dev`, `/home` and so on themselves | left to the root |
//! | anything else | the same path |
//!
//! Rule: docs/convert.md, "Paths".

use cairn_store::{Name, TreePath};

/// Directories of the root that are links into `/usr` in a merged system.
const MERGED: [&[u8]; 7] = [b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32", b"libo32"];

/// Those of them for which roots here have no link, since few systems have them.
const UNLINKED: [&[u8]; 3] = [b"lib32", b"libx32", b"libo32"];

/// Where configuration is shipped, as names below the root.
const DEFAULTS: [&[u8]; 4] = [b"usr", b"share", b"defaults", b"etc"];

/// Directories that a root has by itself, with modes of its own choice.
const OF_ROOT: [&[u8]; 13] = [
    b"boot", b"dev", b"home", b"mnt", b"opt", b"proc", b"root", b"run", b"srv", b"sys", b"tmp",
    b"usr", b"var",
];

/// Whether a directory is one that every root has, so that no package ships it.
pub(super) fn is_of_root(path: &TreePath) -> bool {
    match path.names() {
        [] => true,
        [top] => OF_ROOT.contains(&top.as_bytes()),
        _ => false,
    }
}

/// Where a path of the archive lies after the conversion; the root stays.
pub(super) fn place(path: &TreePath) -> TreePath {
    let Some((top, rest)) = path.names().split_first() else { return TreePath::root() };
    if MERGED.contains(&top.as_bytes()) {
        return names(&[b"usr"]).chain(path.names().iter().cloned()).collect();
    }
    if top.as_bytes() == b"etc" {
        return names(&DEFAULTS).chain(rest.iter().cloned()).collect();
    }
    path.clone()
}

fn names(constant: &[&'static [u8]]) -> impl Iterator<Item = Name> {
    constant.iter().map(|name| Name::new(name).expect("a constant"))
}

/// Whether a symbolic link is one of those that make a merged system, such as
/// `/lib64 -> usr/lib64`. Every root here has them, so no package ships them.
pub(super) fn is_merge_link(path: &TreePath, target: &[u8]) -> bool {
    let [top] = path.names() else { return false };
    let target = target.strip_prefix(b"/").unwrap_or(target);
    let below = target.strip_prefix(b"usr/").map(|name| name.strip_suffix(b"/").unwrap_or(name));
    MERGED.contains(&top.as_bytes()) && below == Some(top.as_bytes())
}

/// The text of a symbolic link after the conversion.
///
/// A link in a merged directory lies one level deeper now; if it climbs to the
/// root, it has to climb one step more. `/lib/x/y -> ../../usr/z` becomes
/// `../../../usr/z`. One that leads into a merged directory for which the root has no
/// link goes below `/usr`. All other links keep their text: those that lead into another
/// merged directory go through the links of the root, and those below `/etc`
/// are right once they have been copied there.
pub(super) fn link_text(path: &TreePath, text: &[u8]) -> Box<[u8]> {
    let top = text.strip_prefix(b"/").and_then(|text| text.split(|byte| *byte == b'/').next());
    if top.is_some_and(|top| UNLINKED.contains(&top)) {
        return [b"/usr", text].concat().into();
    }
    let is_moved = path.names().first().is_some_and(|top| MERGED.contains(&top.as_bytes()));
    if !is_moved || text.starts_with(b"/") {
        return text.into();
    }
    let depth = path.names().len() - 1;
    // Components of the place that the part of the text read so far leads to.
    let mut place: Vec<&[u8]> = path.names()[..depth].iter().map(Name::as_bytes).collect();
    let mut climbs_to_root = false;
    for component in text.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                place.pop();
                climbs_to_root |= place.is_empty();
            }
            name => place.push(name),
        }
    }
    if !climbs_to_root {
        return text.into();
    }
    if place.first().is_some_and(|top| UNLINKED.contains(top)) {
        place.insert(0, b"usr");
    }
    let mut fixed = b"../".repeat(depth + 1);
    fixed.extend_from_slice(&place.join(&b"/"[..]));
    if place.is_empty() {
        fixed.pop();
    }
    fixed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect(text)
    }

    #[test]
    fn each_path_has_its_place() {
        let check = |from: &str, to: &str| assert_eq!(place(&path(from)).to_string(), to, "{from}");
        check("/", "/");
        check("/bin/bash", "/usr/bin/bash");
        check("/lib", "/usr/lib");
        check("/lib64/ld-linux-x86-64.so.2", "/usr/lib64/ld-linux-x86-64.so.2");
        check("/library/x", "/library/x");
        check("/etc", "/usr/share/defaults/etc");
        check("/etc/init.d/ssh", "/usr/share/defaults/etc/init.d/ssh");
        check("/usr/bin/nano", "/usr/bin/nano");
        check("/usr/lib/lib/x", "/usr/lib/lib/x");
        check("/var/lib/dpkg", "/var/lib/dpkg");
    }

    #[test]
    fn the_links_of_a_merged_root_are_recognised() {
        let check = |from: &str, text: &str, expected: bool| {
            assert_eq!(is_merge_link(&path(from), text.as_bytes()), expected, "{from} -> {text}");
        };
        check("/bin", "usr/bin", true);
        check("/lib64", "/usr/lib64", true);
        check("/lib", "usr/lib/", true);
        check("/lib64", "lib", false);
        check("/lib64", "usr/lib", false);
        check("/usr/bin", "usr/bin", false);
        check("/etc", "usr/etc", false);
    }

    #[test]
    fn a_relative_link_leads_to_where_it_led() {
        let check = |from: &str, text: &str, expected: &str| {
            let fixed = link_text(&path(from), text.as_bytes());
            assert_eq!(fixed.escape_ascii().to_string(), expected, "{from} -> {text}");
        };
        check("/lib/x/y", "../../usr/z", "../../../usr/z");
        check("/lib/y", "../usr/lib/z", "../../usr/lib/z");
        check("/sbin/a", "../bin/b", "../../bin/b");
        check("/lib/ld-linux.so.2", "/lib32/ld-linux.so.2", "/usr/lib32/ld-linux.so.2");
        check("/usr/lib/x", "/libx32/y", "/usr/libx32/y");
        check("/lib/x", "../lib32/y", "../../usr/lib32/y");
        check("/lib/x", "/lib32y", "/lib32y");
        check("/lib/x/y", "../z", "../z");
        check("/lib/x/y", "z/../../w", "z/../../w");
        check("/lib/x/y", "a/../../../usr/./z", "../../../usr/z");
        check("/lib/x", "..", "../..");
        check("/lib/x", "../../../etc/x", "../../etc/x");
        check("/bin/sh", "dash", "dash");
        check("/bin/sh", "/bin/dash", "/bin/dash");
        check("/usr/bin/x", "../../lib/y", "../../lib/y");
        check("/etc/os-release", "../usr/lib/os-release", "../usr/lib/os-release");
    }
}
