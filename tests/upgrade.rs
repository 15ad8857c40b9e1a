//! The life of a system of more than 400 real packages: installed, upgraded to what
//! Debian has now, partly removed, pruned, verified.
//!
//! The older versions are not made up: of a release, Debian's archive has those of
//! the last point release, of updates and of security fixes side by side.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cairn_tests::{Cairn, Need, real};
use serde_json::Value;

/// Asked for beside what the other tests have.
const MORE: &[&str] = &[
    "adwaita-icon-theme",
    "build-essential",
    "ffmpeg",
    "gtk-update-icon-cache",
    "hicolor-icon-theme",
    "imagemagick",
    "libc-bin",
    "libglib2.0-bin",
    "nginx-light",
    "postgresql-client",
    "python3-venv",
    "shared-mime-info",
];

/// What is removed again, with all that only these need.
const LEAVING: &[&str] = &["ffmpeg", "imagemagick", "nginx-light"];

#[test]
#[ignore = "it downloads 490 MB: make long"]
fn a_real_system_lives_through_an_upgrade_a_removal_and_a_pruning() {
    let roots = [real::ROOTS, MORE].concat();
    let Some(debs) = real::debs_for(&roots, "list-upgrade") else { return };
    let Some(older) = real::older_debs(&debs) else { return };
    if !Need::all(&[Need::Root, Need::Fuse]) {
        return;
    }
    assert!(debs.len() >= 400, "{} packages", debs.len());
    let cairn = Cairn::new();
    let [old, new] = snapshots(&cairn, &debs, &older);

    cairn.data(["repo", "add", "debian", &url(&old)]);
    let done = cairn.json(["--yes", "install"].into_iter().chain(roots.iter().copied()));
    let first = versions(&cairn);
    assert!(first.len() >= 400, "{} packages", first.len());
    assert_eq!(actions(&done), BTreeMap::from([("install".to_owned(), first.len())]));
    assert!(ran(&done).contains(&"ldconfig".to_owned()), "{:?}", ran(&done));
    assert_cache_lists_all(&cairn);
    assert_eq!(cairn.json(["list", "upgradable"]), Value::Array(vec![]));
    assert_eq!(cairn.json(["list", "--orphans"]), Value::Array(vec![]));
    assert_eq!(cairn.json(["list", "explicit"]).as_array().unwrap().len(), roots.len());
    let old_openssl = openssl(&cairn, "1");
    assert!(is_version_of(&old_openssl, &first["openssl"]), "{old_openssl}");

    cairn.data(["repo", "set", "debian", "--url", &url(&new)]);
    let upgradable = cairn.json(["list", "upgradable"]);
    let done = cairn.json(["--yes", "upgrade"]);
    let second = versions(&cairn);
    let changed = first.iter().filter(|(name, version)| second[*name] != **version).count();
    assert_eq!(actions(&done), BTreeMap::from([("upgrade".to_owned(), changed)]));
    assert_eq!(upgradable.as_array().unwrap().len(), changed);
    assert!(changed > 0, "{changed} of {} have older versions", older.len());
    let newest: BTreeMap<String, String> = debs.iter().map(|deb| name_and_version(deb)).collect();
    for (name, version) in &second {
        assert!(version.starts_with(&newest[name]), "{name} {version}, not {}", newest[name]);
    }
    assert_cache_lists_all(&cairn);
    let new_openssl = openssl(&cairn, "2");
    assert!(is_version_of(&new_openssl, &second["openssl"]), "{new_openssl}");
    assert_eq!(openssl(&cairn, "1"), old_openssl, "the state before shows what it was");
    assert_sound(&cairn);

    let before = cached(&cairn).len();
    let done = cairn.json(["--yes", "remove"].into_iter().chain(LEAVING.iter().copied()));
    assert!(ran(&done).contains(&"ldconfig".to_owned()), "{:?}", ran(&done));
    let third = versions(&cairn);
    assert!(third.len() + 100 < second.len(), "{} packages", third.len());
    assert!(third.iter().all(|(name, version)| second[name] == *version));
    assert_cache_lists_all(&cairn);
    assert!(cached(&cairn).len() < before, "{before} libraries");
    assert_eq!(cairn.json(["list", "orphans"]), Value::Array(vec![]));

    cairn.data(["--yes", "state", "prune", "--keep-last", "1", "--gc"]);
    assert_eq!(cairn.json(["state", "list"]).as_array().unwrap().len(), 1);
    assert_sound(&cairn);
    assert_eq!(openssl(&cairn, "3"), new_openssl);
    // What went comes again from the repository, as it was.
    cairn.data(["--yes", "install"].into_iter().chain(LEAVING.iter().copied()));
    assert_eq!(versions(&cairn), second);
    assert_cache_lists_all(&cairn);
    assert_sound(&cairn);
}

/// Two repositories: with `older` versions where there are some, and with `debs`.
fn snapshots(cairn: &Cairn, debs: &[PathBuf], older: &[PathBuf]) -> [PathBuf; 2] {
    let directories = ["old", "new"].map(|name| cairn.directory().join(name));
    let [old, new] = &directories;
    let replaced = convert(cairn, older, old);
    for (name, stone) in convert(cairn, debs, new) {
        if !replaced.contains_key(&name) {
            fs::hard_link(&stone, old.join(stone.file_name().unwrap())).unwrap();
        }
    }
    for directory in &directories {
        let indexed = cairn.json(["repo".as_ref(), "index".as_ref(), directory.as_os_str()]);
        assert_eq!(indexed["packages"], debs.len(), "{indexed}");
    }
    directories
}

/// Makes stones of packages; returns the stone of each name.
fn convert(cairn: &Cairn, debs: &[PathBuf], directory: &Path) -> BTreeMap<String, PathBuf> {
    let words = ["convert", "-o"].map(AsRef::as_ref).into_iter();
    let debs = debs.iter().map(|deb| deb.as_os_str());
    let converted = cairn.json(words.chain([directory.as_os_str()]).chain(debs));
    let packages = converted["packages"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let stone = |it: &Value| (text(&it["name"]), directory.join(text(&it["stone"])));
    packages.map(stone).collect()
}

fn url(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

/// Name and version of a file of Debian.
fn name_and_version(deb: &Path) -> (String, String) {
    let file = deb.file_name().unwrap().to_str().unwrap();
    let mut fields = file.split('_');
    let [name, version] = [fields.next().unwrap(), fields.next().unwrap()];
    (name.to_owned(), version.replace("%3a", ":"))
}

/// The packages of the current state.
fn versions(cairn: &Cairn) -> BTreeMap<String, String> {
    let listed = cairn.json(["list"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = listed.as_array().unwrap().iter();
    packages.map(|package| (text(&package["name"]), text(&package["version"]))).collect()
}

/// How many packages came, changed and went.
fn actions(done: &Value) -> BTreeMap<String, usize> {
    let mut actions = BTreeMap::new();
    for step in done["steps"].as_array().unwrap() {
        *actions.entry(step["action"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    actions
}

/// The triggers that have run.
fn ran(done: &Value) -> Vec<String> {
    let ran = done["triggers"].as_array().unwrap().iter();
    ran.map(|it| it["trigger"].as_str().unwrap_or_else(|| panic!("{it}")).to_owned()).collect()
}

/// The libraries that the linker's cache of the current state has.
fn cached(cairn: &Cairn) -> Vec<String> {
    inside(cairn, "current", "ldconfig -p")
}

/// The linker's cache is the one that ldconfig makes of what is there now.
fn assert_cache_lists_all(cairn: &Cairn) {
    let script = "ldconfig -X -C /tmp/fresh && ldconfig -p -C /tmp/fresh";
    let fresh = inside(cairn, "current", script);
    assert!(fresh.iter().any(|line| line.contains("libssl.so.3 ")), "{fresh:?}");
    assert_eq!(cached(cairn), fresh);
}

/// Lines that a script prints inside of a state, without those that name files.
fn inside(cairn: &Cairn, state: &str, script: &str) -> Vec<String> {
    let text = cairn.data(["run", "--state", state, "--", "sh", "-c", script]);
    let lines = text.lines().filter(|line| !line.contains("found in cache"));
    lines.map(ToOwned::to_owned).collect()
}

fn openssl(cairn: &Cairn, state: &str) -> String {
    inside(cairn, state, "openssl version").join("\n")
}

/// Whether `openssl version` has told the version of its package.
fn is_version_of(told: &str, package: &str) -> bool {
    let upstream = package.split(['-', '~']).next().unwrap();
    told.starts_with(&format!("OpenSSL {upstream} "))
        && told.contains(&format!("Library: OpenSSL {upstream} "))
}

/// Nothing in the store is damaged, and every file is as its package has it.
fn assert_sound(cairn: &Cairn) {
    assert_eq!(cairn.json(["verify"])["damage"], Value::Array(vec![]));
    assert_eq!(cairn.json(["check"])["differences"], Value::Array(vec![]));
}
