//! Real Debian packages: is everything that dpkg would unpack in the stone?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_package::convert::{Converter, Outcome, Script};
use cairn_package::stone::{ContentOptions, Layout, LayoutContent, Package};
use cairn_package::{Dependency, Kind};
use cairn_store::{BlobKey, Xattr};

const PACKAGES: [&str; 10] = [
    "libc6",
    "bash",
    "coreutils",
    "zlib1g",
    "perl-base",
    "base-files",
    "util-linux",
    "iputils-ping",
    "sudo",
    "libpam-modules-bin",
];

/// The packages with all that they need; `None` where there is no apt.
fn debs() -> Option<Vec<PathBuf>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/fetch-debs");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("debs");
    let mut command = Command::new(script);
    let output = command.arg(directory).args(PACKAGES).stderr(Stdio::inherit()).output();
    let output = output.expect("fetch-debs can be run");
    if output.status.code() == Some(3) {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "there is no apt here, and CI has to convert real packages");
        // Written past the test harness, which would keep it to itself.
        let reason = "there is no apt here to download Debian packages with";
        let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
        return None;
    }
    assert!(output.status.success(), "fetch-debs failed");
    let paths = String::from_utf8(output.stdout).expect("paths are UTF-8");
    Some(paths.lines().map(PathBuf::from).collect())
}

fn converter(threads: usize) -> Converter {
    let threads = NonZeroUsize::new(threads).expect("some threads");
    Converter { threads, ..Converter::new(std::env::consts::ARCH) }
}

fn convert(debs: &[PathBuf], to: &Path, threads: usize) -> Vec<Outcome> {
    let results = converter(threads).convert_all(debs, to, &());
    results.into_iter().map(|result| result.unwrap_or_else(|err| panic!("{err:?}"))).collect()
}

/// Everything that can be seen of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: char,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    /// Bytes of a file by their hash, or the text of a link.
    content: String,
    xattrs: Vec<Xattr>,
    /// The paths of all hard links of the file.
    links: BTreeSet<String>,
}

/// Where a path lies in a root with a merged /usr and stateless configuration.
fn merged(path: &str) -> String {
    let top = path.split('/').next().expect("a component");
    match top {
        "bin" | "sbin" | "lib" | "lib32" | "lib64" | "libx32" => format!("usr/{path}"),
        "etc" => format!("usr/share/defaults/{path}"),
        _ => path.to_owned(),
    }
}

/// Resolves `..` without looking at any filesystem.
fn resolve(directory: &str, text: &str) -> String {
    let start = if text.starts_with('/') { "" } else { directory };
    let mut names: Vec<&str> = Vec::new();
    for name in start.split('/').chain(text.split('/')) {
        match name {
            "" | "." => {}
            ".." => _ = names.pop(),
            name => names.push(name),
        }
    }
    names.join("/")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A link as the place that it leads to, so that texts can differ. Links below
/// /etc are to be read where they will be copied to, and are told apart by
/// their text.
fn led_to(original: &str, directory: &str, text: &str) -> String {
    if original.starts_with("etc/") || text.starts_with('/') {
        return text.to_owned();
    }
    merged(&resolve(directory, text))
}

/// What dpkg would unpack, in a merged root.
fn unpacked(deb: &Path) -> BTreeMap<String, Seen> {
    let mut dpkg = Command::new("dpkg-deb");
    let mut dpkg =
        dpkg.arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn().expect("runs");
    let mut tar = tar::Archive::new(dpkg.stdout.take().expect("piped"));
    let mut all = BTreeMap::new();
    let mut hard_links: BTreeMap<String, String> = BTreeMap::new();
    for entry in tar.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let text = |path: &Path| path.to_str().expect("UTF-8").trim_start_matches("./").to_owned();
        let path = text(&entry.path().expect("a path"));
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            continue;
        }
        let header = entry.header().clone();
        let (kind, content) = match header.entry_type() {
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("the bytes");
                ('f', format!("{} bytes {}", bytes.len(), BlobKey::of(&bytes)))
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name().expect("a link").expect("a text");
                let target = target.to_str().expect("UTF-8");
                ('l', led_to(path, parent(path), target))
            }
            tar::EntryType::Link => {
                let target = text(&entry.link_name().expect("a link").expect("a path"));
                hard_links.insert(path.to_owned(), target);
                continue;
            }
            tar::EntryType::Directory => ('d', String::new()),
            other => panic!("{path} is a {other:?}"),
        };
        let seen = Seen {
            kind,
            mode: header.mode().expect("a mode"),
            owner: (header.uid().expect("a user"), header.gid().expect("a group")),
            mtime: header.mtime().expect("a time"),
            content,
            xattrs: Vec::new(),
            links: BTreeSet::new(),
        };
        let twice = all.insert(path.to_owned(), seen);
        assert_eq!(twice, None, "{path} is in {} twice", deb.display());
    }
    assert!(dpkg.wait().expect("ends").success());

    for (path, target) in &hard_links {
        let same = all[target].clone();
        all.insert(path.clone(), same);
    }
    for first in hard_links.values() {
        let others = hard_links.iter().filter(|(_, target)| *target == first);
        let group: BTreeSet<String> =
            others.map(|(path, _)| path).chain([first]).map(|path| merged(path)).collect();
        let members: Vec<&String> =
            hard_links.iter().filter(|(_, t)| *t == first).map(|(path, _)| path).collect();
        for path in members.into_iter().chain([first]) {
            all.get_mut(path).expect("inserted above").links = group.clone();
        }
    }

    let mut root = BTreeMap::new();
    for (path, seen) in all {
        root.insert(merged(&path), seen);
    }
    // Those of the root itself are there without any package.
    for own in ["boot", "dev", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp"] {
        if root.get(own).is_some_and(|seen| seen.kind == 'd') {
            root.remove(own);
        }
    }
    let parents: BTreeSet<String> = root.keys().map(|path| parent(path).to_owned()).collect();
    root.retain(|path, seen| {
        let is_implied = seen.kind == 'd' && seen.mode == 0o755 && seen.owner == (0, 0);
        !(is_implied && parents.contains(path))
    });
    root
}

/// What the stone has, read with the reader that installs it.
fn converted(stone: &Path) -> BTreeMap<String, Seen> {
    let mut package = Package::open(stone).expect("a stone");
    assert_eq!(package.warnings, []);
    let directory = stone.parent().expect("a directory");
    let options =
        ContentOptions { memory: 1 << 30, directory, threads: NonZeroUsize::new(2).expect("two") };
    let content = package.content(&options).expect("undamaged");
    let text =
        |entry: &Layout| String::from_utf8(entry.path.to_bytes()[1..].to_vec()).expect("UTF-8");
    let mut groups: HashMap<u32, BTreeSet<String>> = HashMap::new();
    for entry in &package.layout {
        if let Some(group) = entry.extra.link {
            groups.entry(group).or_default().insert(text(entry));
        }
    }
    let see = |entry: &Layout| {
        let path = text(entry);
        let (kind, content) = match &entry.content {
            LayoutContent::Regular(key) => {
                let id = content.get(key).expect("in the content").id();
                ('f', format!("{} bytes {}", id.size, id.key))
            }
            LayoutContent::Symlink(target) => {
                let target = std::str::from_utf8(target).expect("UTF-8");
                let etc = path.strip_prefix("usr/share/defaults/").unwrap_or(&path);
                ('l', led_to(etc, parent(&path), target))
            }
            LayoutContent::Directory => ('d', String::new()),
            other => panic!("{path} is a {other:?}"),
        };
        let mtime = entry.extra.mtime.expect("a time");
        assert_eq!(mtime.nanoseconds(), 0);
        let seen = Seen {
            kind,
            mode: entry.mode.into(),
            owner: (entry.uid.into(), entry.gid.into()),
            mtime: mtime.seconds().try_into().expect("after 1970"),
            content,
            xattrs: entry.extra.xattrs.clone(),
            links: entry.extra.link.map(|group| groups[&group].clone()).unwrap_or_default(),
        };
        (path, seen)
    };
    package.layout.iter().map(see).collect()
}

#[test]
fn every_entry_of_real_packages_is_in_their_stones() {
    let Some(debs) = debs() else { return };
    let to = tempfile::tempdir().expect("a directory");
    let outcomes = convert(&debs, to.path(), 2);
    let (mut entries, mut kinds, mut setuid, mut linked) = (0, BTreeSet::new(), 0, 0);
    for (deb, outcome) in debs.iter().zip(&outcomes) {
        let (expected, found) = (unpacked(deb), converted(&outcome.path));
        for (path, expected) in &expected {
            assert_eq!(found.get(path), Some(expected), "{path} of {}", deb.display());
        }
        for path in found.keys() {
            assert!(expected.contains_key(path), "{path} is too much in {}", deb.display());
        }
        entries += expected.len();
        kinds.extend(expected.values().map(|seen| seen.kind));
        setuid += expected.values().filter(|seen| seen.mode & 0o6000 != 0).count();
        linked += expected.values().filter(|seen| !seen.links.is_empty()).count();
    }
    // Otherwise the packages would say nothing about these.
    assert!(entries > 2000 && setuid > 1 && linked > 1, "{entries} {setuid} {linked}");
    assert_eq!(kinds, BTreeSet::from(['d', 'f', 'l']));
}

#[test]
fn a_complete_set_of_packages_needs_nothing_else() {
    let Some(debs) = debs() else { return };
    let to = tempfile::tempdir().expect("a directory");
    let outcomes = convert(&debs, to.path(), 2);
    let mut offered = BTreeSet::new();
    for outcome in &outcomes {
        assert_eq!(outcome.unmet, [""; 0], "{}", outcome.metadata.name);
        offered.insert(Dependency::on_package(&*outcome.metadata.name));
        offered.extend(outcome.metadata.provides.iter().cloned());
    }
    for metadata in outcomes.iter().map(|outcome| &outcome.metadata) {
        for wanted in &metadata.depends {
            assert_eq!(wanted.kind, Kind::Name);
            assert!(offered.contains(wanted), "{} needs {wanted}", metadata.name);
        }
        for conflict in &metadata.conflicts {
            let is_there = outcomes.iter().any(|other| other.metadata.offers(conflict));
            assert!(!is_there, "{} cannot be beside {conflict}", metadata.name);
        }
        assert!(!metadata.offers(&Dependency::on_package("")));
        assert!(!metadata.summary.is_empty() && !metadata.licenses.is_empty());
    }
}

#[test]
fn real_packages_offer_what_they_have() {
    let Some(debs) = debs() else { return };
    let to = tempfile::tempdir().expect("a directory");
    let outcomes = convert(&debs, to.path(), 2);
    let package = |name: &str| {
        let found = outcomes.iter().find(|outcome| outcome.metadata.name == name);
        found.unwrap_or_else(|| panic!("{name} is among the packages"))
    };
    let check = |name: &str, provider: &str| {
        let provider: Dependency = provider.parse().expect(provider);
        assert!(package(name).metadata.offers(&provider), "{name} lacks {provider}");
    };
    check("bash", "binary(bash)");
    check("coreutils", "binary(ls)");
    check("coreutils", "sysbinary(chroot)");
    check("util-linux", "binary(dmesg)");
    check("util-linux", "sysbinary(agetty)");
    check("perl-base", "binary(perl)");
    check("mawk", "awk");
    if std::env::consts::ARCH == "x86_64" {
        check("zlib1g", "soname(libz.so.1(x86_64))");
        check("libc6", "soname(libc.so.6(x86_64))");
        check("libc6", "interpreter(/lib64/ld-linux-x86-64.so.2(x86_64))");
        check("libpam-modules", "soname(security/pam_unix.so(x86_64))");
    }

    let has = |name: &str, script| package(name).scripts.contains(&script);
    assert!(has("libc6", Script::PostInst) && has("libc6", Script::Triggers));
    assert!(has("sudo", Script::PreRm) && !has("sudo", Script::Config));
    assert!(outcomes.iter().any(|outcome| outcome.scripts.is_empty()));
    assert!(package("bash").is_essential && !package("sudo").is_essential);
    assert_eq!(package("libc6").metadata.source_id, "glibc");
    assert!(package("zlib1g").metadata.licenses.contains("Zlib"));
}

#[test]
fn a_repeated_conversion_is_the_same_to_the_byte() {
    let Some(debs) = debs() else { return };
    let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    let first = convert(&debs, one.path(), 2);
    let mut backwards = debs.clone();
    backwards.reverse();
    let mut second = convert(&backwards, two.path(), 1);
    second.reverse();
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.metadata, second.metadata);
        let same = fs::read(&first.path).expect("a stone") == fs::read(&second.path).expect("too");
        assert!(same, "{} differs", first.metadata.name);
    }
    let modified = |outcome: &Outcome| fs::metadata(&outcome.path).unwrap().modified().unwrap();
    let times: Vec<_> = first.iter().map(modified).collect();
    let again = convert(&debs, one.path(), 2);
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(*again, Outcome { was_there: true, ..first.clone() });
    }
    assert_eq!(again.iter().map(modified).collect::<Vec<_>>(), times, "nothing was written");
}
