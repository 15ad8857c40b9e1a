//! Repositories at a real server on loopback that cuts connections, lies and
//! sleeps.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_package::Metadata;
use cairn_package::repository::{
    Config, DownloadProgress, Error, Network, NetworkProblem, Older, Repositories, Repository,
    RepositoryName, Retry, Source, Update,
};
use cairn_tests::{Behaviour, Cairn, Server, Stones};
use tempfile::TempDir;

/// A server with a repository, and a store that uses it.
struct World {
    directory: TempDir,
    stones: Stones,
    server: Server,
    repositories: Repositories,
}

/// Bytes of the content of the package `large`.
const LARGE: usize = 300_000;

/// Impatient, since whatever goes wrong here does so at once.
fn network() -> Network {
    Network {
        connections: 3,
        attempts: 3,
        delay: Duration::from_millis(1),
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(400),
        proxy: None,
    }
}

impl World {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let stones = Stones::new(&directory.path().join("stones"));
        stones.add("large", 1, LARGE);
        stones.add("small", 1, 10);
        stones.index(None);
        let server = Server::new(stones.path());
        let repositories = Repositories::new(&directory.path().join("store"), network());
        Self { directory, stones, server, repositories }
    }

    /// The same, with the repository added as `main`.
    fn added() -> Self {
        let world = Self::new();
        world.repositories.add(&world.config(), &()).unwrap();
        let _ = world.server.requests();
        world
    }

    fn config(&self) -> Config {
        Config::new(name("main"), Source::direct(self.server.url("/").parse().unwrap()))
    }

    fn repository(&self) -> Repository {
        self.repositories.load(&()).unwrap().remove(0)
    }

    fn package(&self, name: &str) -> Metadata {
        let catalog = self.repository().catalog;
        let entry = catalog.named(name).next().unwrap();
        Metadata::clone(&catalog.get(entry).unwrap())
    }

    fn fetch(&self, package: &str, progress: &dyn DownloadProgress) -> Result<PathBuf, Error> {
        let stone = self.repositories.fetch(&self.repository(), &self.package(package), progress);
        stone.map(|stone| stone.path().to_owned())
    }

    fn update(&self) -> Result<Update, Error> {
        self.repositories.update(&name("main"), Older::Refused, &())
    }

    /// Files in the cache of downloads.
    fn downloads(&self) -> Vec<PathBuf> {
        let directory = self.directory.path().join("store/cache/downloads");
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// What a download of `large` has to be in the end.
    fn assert_large(&self, path: &Path) {
        let there = fs::read(path).unwrap();
        assert_eq!(there, fs::read(self.stones.path().join(LARGE_FILE)).unwrap());
        assert_eq!(self.downloads(), [path.to_owned()], "nothing is left over");
    }
}

const LARGE_FILE: &str = "large-1.1-1-1-x86_64.stone";
const LARGE_PATH: &str = "/large-1.1-1-1-x86_64.stone";

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// Counts what a progress bar would show.
#[derive(Default)]
struct Counted {
    bytes: AtomicU64,
    retries: Mutex<Vec<String>>,
}

impl DownloadProgress for Counted {
    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    fn lose(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    fn retry(&self, retry: &Retry<'_>) {
        self.retries.lock().unwrap().push(retry.problem.to_string());
    }
}

/// The problem of a failed download.
fn problem<T: std::fmt::Debug>(result: Result<T, Error>) -> NetworkProblem {
    match result.unwrap_err() {
        Error::Network { source, .. } => *source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_download_is_whole_reused_and_counted() {
    let world = World::added();
    let progress = Counted::default();
    let path = world.fetch("large", &progress).unwrap();
    world.assert_large(&path);
    let size = world.package("large").location.unwrap().size;
    assert_eq!(progress.bytes.load(Ordering::SeqCst), size);
    assert_eq!(world.server.requests().len(), 1);

    assert_eq!(world.fetch("large", &()).unwrap(), path);
    assert_eq!(world.server.requests(), [], "it is there already");

    // A copy that was damaged since is found out, and replaced.
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    world.assert_large(&world.fetch("large", &()).unwrap());
    assert_eq!(world.server.requests().len(), 1);
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let world = World::added();
    for cut in [100_000, 150_000] {
        world.server.once(LARGE_PATH, Behaviour::Cut(cut));
    }
    let progress = Counted::default();
    world.assert_large(&world.fetch("large", &progress).unwrap());
    let from: Vec<Option<u64>> = world.server.requests().iter().map(|it| it.from).collect();
    assert_eq!(from, [None, Some(100_000), Some(250_000)]);
    let size = world.package("large").location.unwrap().size;
    assert_eq!(progress.bytes.load(Ordering::SeqCst), size);
    assert_eq!(progress.retries.lock().unwrap().len(), 2);
}

#[test]
fn another_process_goes_on_with_what_is_there() {
    let world = World::added();
    world.server.always(LARGE_PATH, Behaviour::Cut(1000));
    let found = problem(world.fetch("large", &()));
    assert!(matches!(found, NetworkProblem::CutShort { .. }), "{found:?}");
    world.server.behave();
    let had = world.server.requests().last().unwrap().from.unwrap() + 1000;
    let again = Repositories::new(&world.directory.path().join("store"), network());
    let path = again.fetch(&world.repository(), &world.package("large"), &()).unwrap();
    world.assert_large(path.path());
    assert_eq!(world.server.requests()[0].from, Some(had));
}

#[test]
fn a_stone_that_was_replaced_after_its_verification_is_not_unpacked() {
    let world = World::new();
    let file = Config::new(
        name("file"),
        Source::direct(world.stones.path().to_str().unwrap().parse().unwrap()),
    );
    world.repositories.add(&file, &()).unwrap();
    let repository = world.repository();
    let package = world.package("small");
    let stone = world.repositories.fetch(&repository, &package, &()).unwrap();
    // Another stone comes in its place, which is sound by itself.
    let evil = Stones::new(&world.directory.path().join("evil"));
    fs::rename(evil.path().join(evil.add("small", 1, 11)), stone.path()).unwrap();

    let store = cairn_store::Store::create(&world.directory.path().join("system")).unwrap();
    let mut transaction = store.begin().unwrap();
    let unpacked =
        cairn_package::system::unpack(&mut transaction, std::slice::from_ref(&stone), &());
    let Err(cairn_package::Error::Stone { source, .. }) = unpacked else { panic!("{unpacked:?}") };
    assert!(matches!(source, cairn_package::stone::Error::Replaced), "{source}");
    let copy = world.directory.path().join("copy");
    cairn_package::repository::copy(&stone, &copy).unwrap_err();
    assert!(!copy.exists());
}

#[test]
fn a_server_that_cannot_send_parts_sends_the_whole_again() {
    for behaviour in [Behaviour::NoRanges, Behaviour::WrongRange] {
        let world = World::added();
        world.server.once(LARGE_PATH, Behaviour::Cut(100_000));
        world.server.once(LARGE_PATH, behaviour.clone());
        let progress = Counted::default();
        world.assert_large(&world.fetch("large", &progress).unwrap());
        let size = world.package("large").location.unwrap().size;
        assert_eq!(progress.bytes.load(Ordering::SeqCst), size, "{behaviour:?}");
    }
}

#[test]
fn what_is_there_of_another_file_is_thrown_away() {
    let world = World::added();
    let hash = world.package("large").location.unwrap().hash;
    let downloads = world.directory.path().join("store/cache/downloads");
    fs::create_dir_all(&downloads).unwrap();
    for len in [1000, LARGE * 2] {
        fs::write(downloads.join(format!("{hash}.part")), vec![7; len]).unwrap();
        let path = world.fetch("large", &()).unwrap();
        world.assert_large(&path);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn wrong_bytes_are_refused_and_nothing_is_kept_of_them() {
    let world = World::added();
    world.server.always(LARGE_PATH, Behaviour::Flip(200_000));
    let err = world.fetch("large", &()).unwrap_err();
    assert!(matches!(err, Error::Mismatch { .. }), "{err:?}");
    assert_eq!(world.server.requests().len(), 1, "a server that lies is not asked again");
    let left: u64 = world.downloads().iter().map(|it| fs::metadata(it).unwrap().len()).sum();
    assert_eq!(left, 0);
}

#[test]
fn wrong_lengths_are_refused_before_they_are_read() {
    let world = World::added();
    let check = |behaviour: Behaviour, expected: fn(&NetworkProblem) -> bool| {
        world.server.behave();
        world.server.always(LARGE_PATH, behaviour.clone());
        let found = problem(world.fetch("large", &()));
        assert!(expected(&found), "{behaviour:?}: {found:?}");
    };
    check(Behaviour::Length(10), |it| matches!(it, NetworkProblem::WrongLength { found: 10, .. }));
    check(Behaviour::Longer(5), |it| matches!(it, NetworkProblem::WrongLength { .. }));
    check(Behaviour::Endless, |it| matches!(it, NetworkProblem::TooLong { .. }));
}

#[test]
fn a_server_that_is_slow_or_out_of_order_is_asked_again_and_then_given_up() {
    let check = |behaviour: Behaviour, requests: usize, expected: fn(&NetworkProblem) -> bool| {
        let world = World::added();
        world.server.always(LARGE_PATH, behaviour.clone());
        let found = problem(world.fetch("large", &()));
        assert!(expected(&found), "{behaviour:?}: {found:?}");
        assert_eq!(world.server.requests().len(), requests, "{behaviour:?}");
        // Once it is well again, all is well.
        world.server.behave();
        world.assert_large(&world.fetch("large", &()).unwrap());
    };
    let status = |status| Behaviour::Status(status, "");
    check(Behaviour::Stall, 3, |it| matches!(it, NetworkProblem::TimedOut));
    check(status(503), 3, |it| matches!(it, NetworkProblem::Status { status: 503, .. }));
    check(status(404), 1, |it| matches!(it, NetworkProblem::Status { status: 404, .. }));
    check(status(403), 1, |it| matches!(it, NetworkProblem::Status { status: 403, .. }));
    check(Behaviour::Noise, 1, |it| matches!(it, NetworkProblem::Http(_)));
    check(Behaviour::Headers, 1, |it| matches!(it, NetworkProblem::Http(_)));
}

#[test]
fn a_server_that_is_not_there_is_told_of() {
    let world = World::added();
    let config = Config::new(name("none"), Source::direct("http://127.0.0.1:9/".parse().unwrap()));
    let found = problem(world.repositories.add(&config, &()));
    assert!(matches!(found, NetworkProblem::Io(_)), "{found:?}");
    assert_eq!(world.repositories.list().unwrap().len(), 1);
}

#[test]
fn redirects_are_followed_to_servers_and_not_for_ever() {
    let world = World::added();
    let to = |location: &str| {
        world.server.behave();
        world.server.once(LARGE_PATH, Behaviour::Redirect(location.into()));
        world.fetch("large", &())
    };
    let found = problem(to("file:///etc/passwd"));
    assert!(matches!(found, NetworkProblem::Redirect { .. }), "{found:?}");
    let found = problem(to(""));
    assert!(matches!(found, NetworkProblem::Redirect { .. }), "{found:?}");
    world.server.behave();
    world.server.always(LARGE_PATH, Behaviour::Redirect(LARGE_PATH.into()));
    let found = problem(world.fetch("large", &()));
    assert!(matches!(found, NetworkProblem::TooManyRedirects), "{found:?}");

    let other = Server::new(world.stones.path());
    world.assert_large(&to(&other.url(LARGE_PATH)).unwrap());
    assert_eq!(other.requests().len(), 1);
}

#[test]
fn a_mirror_has_what_the_first_place_lacks() {
    let world = World::new();
    let mirror = Server::new(world.stones.path());
    let mirrors = vec![mirror.url("/").parse().unwrap()];
    world.repositories.add(&Config { mirrors, ..world.config() }, &()).unwrap();
    for behaviour in [
        Behaviour::Status(404, ""),
        Behaviour::Status(503, ""),
        Behaviour::Flip(7),
        Behaviour::Length(7),
        Behaviour::Cut(1000),
        Behaviour::Redirect("gopher://x".into()),
    ] {
        world.server.always(LARGE_PATH, behaviour.clone());
        let path = world.fetch("large", &()).unwrap();
        world.assert_large(&path);
        fs::remove_file(path).unwrap();
        assert_eq!(mirror.requests().len(), 1, "{behaviour:?}");
    }
    world.server.always("/stone.index", Behaviour::Status(404, ""));
    assert!(!world.update().unwrap().changed);
    world.server.always("/stone.index", Behaviour::Other(b"damaged".to_vec()));
    assert!(!world.update().unwrap().changed);
}

#[test]
fn an_index_that_has_not_changed_is_not_sent_again() {
    let world = World::added();
    assert_eq!(world.update().unwrap(), Update { packages: 2, changed: false });
    let requests = world.server.requests();
    assert!(requests[0].conditional, "{requests:?}");

    world.stones.add("new", 1, 10);
    world.stones.index(None);
    assert_eq!(world.update().unwrap(), Update { packages: 3, changed: true });
    assert!(world.repository().catalog.named("new").next().is_some());

    // A server that knows no tags sends it again, which changes nothing.
    let bytes = fs::read(world.stones.path().join("stone.index")).unwrap();
    world.server.once("/stone.index", Behaviour::Other(bytes));
    assert_eq!(world.update().unwrap(), Update { packages: 3, changed: false });
}

#[test]
fn a_bad_index_leaves_the_last_good_one_in_use() {
    let world = World::added();
    world.stones.add("new", 1, 10);
    world.stones.index(None);
    let whole = fs::read(world.stones.path().join("stone.index")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 5] ^= 1;
    for behaviour in [
        Behaviour::Other(Vec::new()),
        Behaviour::Other(b"<html>Welcome to the hotel</html>".to_vec()),
        Behaviour::Other(whole[..whole.len() / 2].to_vec()),
        Behaviour::Other(flipped),
        Behaviour::Cut(20),
        Behaviour::Status(500, ""),
        Behaviour::Length(300 << 20),
    ] {
        world.server.always("/stone.index", behaviour.clone());
        assert!(world.update().is_err(), "{behaviour:?}");
        assert_eq!(world.repository().catalog.len(), 2, "{behaviour:?}");
    }
}

#[test]
fn an_index_cannot_place_a_package_elsewhere() {
    let world = World::added();
    let bytes = fs::read(world.stones.path().join("stone.index")).unwrap();
    let mut packages = cairn_package::stone::read_index(std::io::Cursor::new(bytes)).unwrap();
    for uri in ["/etc/passwd", "http://elsewhere.example.org/x.stone", "//elsewhere/x.stone", ""] {
        packages[0].location.as_mut().unwrap().uri = uri.into();
        let mut bytes = Vec::new();
        cairn_package::stone::write_index(&packages, &mut bytes).unwrap();
        world.server.always("/stone.index", Behaviour::Other(bytes));
        let err = world.update().unwrap_err();
        assert!(matches!(err, Error::Location { .. }), "{uri}: {err:?}");
    }
}

#[test]
fn the_cache_may_be_emptied_at_any_time() {
    let world = World::added();
    world.fetch("large", &()).unwrap();
    world.server.always("/small-1.1-1-1-x86_64.stone", Behaviour::Cut(5));
    world.fetch("small", &()).unwrap_err();
    assert_eq!(world.downloads().len(), 2);
    let cleaned = world.repositories.clean(|_| true).unwrap();
    assert_eq!((cleaned.stones, cleaned.busy), (2, 0));
    assert_eq!(world.downloads(), Vec::<PathBuf>::new());

    let _ = world.server.requests();
    fs::remove_dir_all(world.directory.path().join("store/cache")).unwrap();
    assert_eq!(world.repository().catalog.len(), 2);
    world.assert_large(&world.fetch("large", &()).unwrap());
    let paths: Vec<String> = world.server.requests().into_iter().map(|it| it.path).collect();
    assert_eq!(paths, ["/stone.index", LARGE_PATH]);
}

#[test]
fn a_root_index_leads_to_the_index_and_to_its_packages() {
    let world = World::new();
    let base = world.directory.path().join("base");
    let there = Stones::new(&base.join("main/history/2026-01-05/x86_64"));
    there.add("large", 1, LARGE);
    there.index(None);
    let root = base.join("main/moss-root-index.json");
    let text = |day: &str| {
        format!(
            r#"{{"formats": {{"v0": {{}}}}, "streams": {{"daily": {{"format": "v0", "history": "{day}"}}}},
               "tags": {{}}, "history": {{"2026-01-05": {{"format": "v0"}}}}}}"#
        )
    };
    fs::write(&root, text("2026-01-05")).unwrap();
    let server = Server::new(&base);
    for url in [server.url("/"), base.display().to_string()] {
        let source = Source::Root {
            base: url.parse().unwrap(),
            channel: "main".parse().unwrap(),
            version: "stream/daily".parse().unwrap(),
            architecture: "x86_64".parse().unwrap(),
        };
        world.repositories.add(&Config::new(name("moss"), source), &()).unwrap();
        let path = world.fetch("large", &()).unwrap();
        assert!(fs::metadata(path).unwrap().len() > LARGE as u64);
        fs::write(&root, text("2026-01-06")).unwrap();
        let err = world.repositories.update(&name("moss"), Older::Refused, &()).unwrap_err();
        assert!(matches!(err, Error::RootIndex { .. }), "{err:?}");
        assert_eq!(world.repository().catalog.len(), 1, "the last good one stays");
        fs::write(&root, text("2026-01-05")).unwrap();
        world.repositories.remove(&name("moss")).unwrap();
    }
}

#[test]
fn packages_are_installed_from_a_server() {
    let cairn = Cairn::new();
    let stones = Stones::new(&cairn.directory().join("stones"));
    stones.add("large", 1, LARGE);
    stones.add("small", 1, 10);
    stones.index(None);
    let server = Server::new(stones.path());
    let added = cairn.run(["repo", "add", "main", &server.url("")]);
    assert_eq!(added.stdout, "Repository main is added: 2 packages.\n");
    assert!(added.stderr.contains("neither signed nor encrypted"), "{}", added.stderr);

    let plan = cairn.json(["install", "--dry-run", "large", "small"]);
    assert_eq!(plan["size_change"], LARGE + 10);
    assert_eq!(plan["download"], plan["stone_size"]);
    let paths: Vec<String> = server.requests().into_iter().map(|it| it.path).collect();
    assert_eq!(paths, ["/stone.index"], "a plan downloads nothing");

    server.once(LARGE_PATH, Behaviour::Cut(100_000));
    let ended = cairn.run(["install", "-y", "large", "small"]);
    assert!(ended.stdout.contains("State 1 is current"), "{ended:?}");
    assert!(ended.stderr.contains("To download: "), "{ended:?}");
    assert!(ended.stderr.contains("Downloading stones ..."), "{ended:?}");
    assert!(ended.stderr.contains("trying again in 1.0 s"), "{ended:?}");
    assert_eq!(cairn.installed().len(), 2);

    let fetched = cairn.data(["fetch", "large", "-o", "here"]);
    assert_eq!(fetched, format!("here/{LARGE_FILE}\n"));
    let cleaned = cairn.json(["cache", "clean", "--unused"]);
    assert_eq!(cleaned["stones"], 0);
    assert_eq!(cairn.json(["cache", "clean"])["stones"], 2);

    cairn.data(["repo", "disable", "main"]);
    let said = cairn.fails(1, ["fetch", "large"]);
    assert!(said.contains("nothing provides large"), "{said}");
    cairn.data(["repo", "enable", "main"]);
    drop(server);
    let update = cairn.run(["repo", "update"]);
    assert_eq!(update.code(), Some(1));
    assert!(update.stdout.contains("failed: main: cannot download"), "{}", update.stdout);
    assert_eq!(cairn.json(["repo", "list"])[0]["index"]["packages"], 2);
}
