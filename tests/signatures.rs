//! What a repository that is pinned to a key refuses, each with an error of its
//! own, and that the last good index stays in use.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_package::repository::{
    Config, Error, Network, Older, PublicKey, Repositories, RepositoryName, SecretKey,
    SignatureProblem, Signer, Source, Update,
};
use cairn_store::disk::{Disk, DiskFile, RealDisk};
use cairn_tests::{Behaviour, Cairn, Need, Server, Stones};
use tempfile::TempDir;

/// A server with a signed repository, and a store that has it pinned.
struct World {
    directory: TempDir,
    stones: Stones,
    server: Server,
    repositories: Repositories,
    signer: Signer,
}

const SIGNATURE: &str = "/stone.index.minisig";
const INDEX: &str = "/stone.index";

fn signer() -> Signer {
    let (file, _) = SecretKey::generate(None).unwrap();
    let key = SecretKey::read(&file, None).unwrap();
    Signer { key, repository: None, valid_for: Some(Duration::from_secs(3600)) }
}

fn name() -> RepositoryName {
    "main".parse().unwrap()
}

impl World {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let stones = Stones::new(&directory.path().join("stones"));
        stones.add("tool", 1, 100);
        let signer = signer();
        stones.index(Some(&signer));
        let server = Server::new(stones.path());
        let network =
            Network { attempts: 2, delay: Duration::from_millis(1), ..Network::default() };
        let repositories = Repositories::new(&directory.path().join("store"), network);
        let world = Self { directory, stones, server, repositories, signer };
        world.repositories.add(&world.config(), &()).unwrap();
        world
    }

    fn config(&self) -> Config {
        let source = Source::direct(self.server.url("/").parse().unwrap());
        Config { keys: vec![self.signer.key.public()], ..Config::new(name(), source) }
    }

    fn update(&self) -> Result<Update, Error> {
        self.repositories.update(&name(), Older::Refused, &())
    }

    /// What an update says that must fail, after which all is as before.
    fn refused(&self) -> Error {
        let before = self.repositories.status(&self.config());
        let err = self.update().unwrap_err();
        assert_eq!(self.repositories.status(&self.config()), before, "{err:?}");
        let loaded = self.repositories.load(&()).unwrap().remove(0);
        assert_eq!(loaded.catalog.named("tool").count(), 1, "the last good one stays in use");
        err
    }

    fn bytes(&self, path: &str) -> Vec<u8> {
        fs::read(self.stones.path().join(&path[1..])).unwrap()
    }

    /// The index and the signature as they are now.
    fn pair(&self) -> [(&'static str, Vec<u8>); 2] {
        [INDEX, SIGNATURE].map(|path| (path, self.bytes(path)))
    }

    fn serve(&self, pair: [(&'static str, Vec<u8>); 2]) {
        for (path, bytes) in pair {
            self.server.always(path, Behaviour::Other(bytes));
        }
    }
}

#[test]
fn a_newer_index_with_a_good_signature_is_taken_over() {
    let world = World::new();
    assert_eq!(world.update().unwrap(), Update { packages: 1, changed: false });
    world.stones.add("other", 1, 100);
    world.stones.index(Some(&world.signer));
    assert_eq!(world.update().unwrap(), Update { packages: 2, changed: true });
    // The same index with a newer signature lives longer.
    let sequence = |world: &World| {
        let status = world.repositories.status(&world.config()).unwrap();
        status.signature.unwrap().sequence
    };
    let before = sequence(&world);
    world.stones.index(Some(&world.signer));
    assert_eq!(world.update().unwrap(), Update { packages: 2, changed: false });
    assert!(sequence(&world) > before);
}

#[test]
fn an_index_without_a_signature_is_refused() {
    let world = World::new();
    fs::remove_file(world.stones.path().join(&SIGNATURE[1..])).unwrap();
    assert!(matches!(world.refused(), Error::Unsigned { .. }));
    world.server.always(SIGNATURE, Behaviour::Other(Vec::new()));
    let err = world.refused();
    assert!(matches!(err, Error::Signature { source: SignatureProblem::Malformed, .. }), "{err:?}");
    world.server.always(SIGNATURE, Behaviour::Other(vec![b'x'; 20_000]));
    assert!(matches!(world.refused(), Error::Network { .. }), "longer than a signature can be");
}

#[test]
fn an_index_that_is_not_the_signed_one_is_refused() {
    let world = World::new();
    let old = world.bytes(SIGNATURE);
    world.stones.add("evil", 1, 100);
    world.stones.index(Some(&world.signer));
    world.server.always(SIGNATURE, Behaviour::Other(old));
    let err = world.refused();
    assert!(matches!(err, Error::Signature { source: SignatureProblem::Forged, .. }), "{err:?}");
}

#[test]
fn fields_beside_the_signature_are_signed_as_well() {
    let world = World::new();
    world.stones.index(Some(&world.signer));
    let text = String::from_utf8(world.bytes(SIGNATURE)).unwrap();
    for (from, to) in [
        ("sequence:", "sequence:9"),
        ("expires:", "expires:9"),
        ("repository:", "repository:x"),
        ("timestamp:", "timestamp:9"),
        ("\tcairn:1", "\tcairn:1\tmore:x"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        world.server.always(SIGNATURE, Behaviour::Other(changed.into_bytes()));
        let err = world.refused();
        assert!(
            matches!(err, Error::Signature { source: SignatureProblem::Forged, .. }),
            "{err:?}"
        );
    }
    // What is not signed is not believed, and not read either.
    let changed = text.replacen("untrusted comment: ", "untrusted comment: sequence:1 ", 1);
    world.server.always(SIGNATURE, Behaviour::Other(changed.into_bytes()));
    world.update().unwrap();
}

#[test]
fn a_signature_of_another_key_is_refused() {
    let world = World::new();
    world.stones.index(Some(&signer()));
    let err = world.refused();
    assert!(matches!(err, Error::Signature { source: SignatureProblem::OtherKey, .. }), "{err:?}");
}

#[test]
fn a_signature_that_borrows_the_number_of_the_key_is_refused() {
    let world = World::new();
    world.stones.index(Some(&signer()));
    let good = world.signer.key.public();
    // Bytes 2 to 9 of a signature and of a key are the number of the key.
    let text = String::from_utf8(world.bytes(SIGNATURE)).unwrap();
    let line = text.lines().nth(1).unwrap();
    let number = &good.to_string()[3..13];
    let forged = text.replacen(&line[3..13], number, 1);
    world.server.always(SIGNATURE, Behaviour::Other(forged.into_bytes()));
    let err = world.refused();
    let is_it = |problem: &SignatureProblem| {
        matches!(problem, SignatureProblem::Forged | SignatureProblem::OtherKey)
    };
    assert!(matches!(&err, Error::Signature { source, .. } if is_it(source)), "{err:?}");
}

#[test]
fn a_signature_of_something_else_than_an_index_is_refused() {
    if !Need::all(&[Need::Program("minisign", "minisign")]) {
        return;
    }
    let world = World::new();
    let key = world.directory.path().join("key");
    let (secret, public) = SecretKey::generate(None).unwrap();
    fs::write(&key, secret).unwrap();
    let index = world.stones.path().join("stone.index");
    let mut minisign = Command::new("minisign");
    let signed = minisign.args(["-S", "-W", "-s"]).arg(&key).arg("-m").arg(&index).output();
    assert!(signed.unwrap().status.success());
    let config = Config { keys: vec![public], ..world.config() };
    let err = world.repositories.set(&config, &()).unwrap_err();
    let problem =
        matches!(err, Error::Signature { source: SignatureProblem::Statement { .. }, .. });
    assert!(problem, "{err:?}");
    assert_eq!(world.repositories.get(&name()).unwrap(), world.config(), "nothing has changed");
}

#[test]
fn an_older_index_is_refused_for_good() {
    let world = World::new();
    let old = world.pair();
    world.stones.add("security", 1, 100);
    world.stones.index(Some(&world.signer));
    world.update().unwrap();
    world.serve(old);
    assert!(matches!(world.refused(), Error::Rollback { .. }));
    // Not by way of an empty cache either.
    fs::remove_dir_all(world.directory.path().join("store/cache")).unwrap();
    assert!(matches!(world.update().unwrap_err(), Error::Rollback { .. }));
    assert!(matches!(world.repositories.load(&()).unwrap_err(), Error::Rollback { .. }));
    // Somebody who knows why may go back.
    let update = world.repositories.update(&name(), Older::Allowed, &()).unwrap();
    assert_eq!(update, Update { packages: 1, changed: true });
    assert_eq!(world.update().unwrap(), Update { packages: 1, changed: false });
}

#[test]
fn another_index_with_a_number_that_was_there_is_refused() {
    let world = World::new();
    let text = String::from_utf8(world.bytes(SIGNATURE)).unwrap();
    let start = text.find("sequence:").unwrap() + "sequence:".len();
    let sequence: u64 = text[start..].split('\t').next().unwrap().parse().unwrap();
    world.stones.add("evil", 1, 100);
    // Whoever has the key may say so.
    let mut before =
        text.replacen(&format!("sequence:{sequence}"), &format!("sequence:{}", sequence - 1), 1);
    before = before.replacen("timestamp:", "timestamp:0", 1);
    fs::write(world.stones.path().join(&SIGNATURE[1..]), before).unwrap();
    let indexed = world.stones.index(Some(&world.signer)).signature.unwrap();
    if indexed.sequence == sequence {
        assert!(matches!(world.refused(), Error::SameNumber { .. }));
    } else {
        // The clock has gone on since, and the number with it.
        world.update().unwrap();
    }
}

#[test]
fn an_expired_index_is_refused_and_the_one_in_use_is_told_of() {
    let world = World::new();
    let expired = Signer {
        key: SecretKey::read(&SecretKey::generate(None).unwrap().0, None).unwrap(),
        repository: None,
        valid_for: Some(Duration::ZERO),
    };
    world.stones.index(Some(&expired));
    let config = Config { keys: vec![expired.key.public()], ..world.config() };
    let err = world.repositories.set(&config, &()).unwrap_err();
    assert!(matches!(err, Error::Expired { .. }), "{err:?}");
    assert_eq!(world.repositories.get(&name()).unwrap(), world.config());
}

#[test]
fn an_index_that_expires_while_it_is_in_use_stays_and_is_told_of() {
    let world = World::new();
    let soon = Signer { valid_for: Some(Duration::from_secs(2)), ..signer() };
    world.stones.index(Some(&soon));
    let config = Config { keys: vec![soon.key.public()], ..world.config() };
    world.repositories.set(&config, &()).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while world.repositories.load(&()).unwrap()[0].expired.is_none() {
        assert!(std::time::Instant::now() < deadline, "it never expires");
        std::thread::yield_now();
    }
    assert!(world.repositories.status(&config).unwrap().signature.unwrap().is_expired);
    // The server has nothing newer: somebody holds it back, or nobody signs.
    let err = world.update().unwrap_err();
    assert!(matches!(err, Error::Expired { .. }), "{err:?}");
    assert_eq!(world.repositories.load(&()).unwrap()[0].catalog.len(), 1);
}

#[test]
fn the_index_of_another_repository_of_the_same_owner_is_refused() {
    let world = World::new();
    let other = Stones::new(&world.directory.path().join("aarch64"));
    other.add("tool", 9, 100);
    other.index(Some(&world.signer));
    for path in [INDEX, SIGNATURE] {
        let bytes = fs::read(other.path().join(&path[1..])).unwrap();
        world.server.always(path, Behaviour::Other(bytes));
    }
    let err = world.refused();
    assert!(matches!(err, Error::OtherRepository { .. }), "{err:?}");
    assert!(err.to_string().contains("signed as that of aarch64, and not of stones"), "{err}");
}

#[test]
fn packages_that_are_not_those_of_the_index_are_refused() {
    let world = World::new();
    let file = world.stones.add("tool", 1, 100);
    let evil = Stones::new(&world.directory.path().join("evil"));
    evil.add("tool", 1, 101);
    let bytes = fs::read(evil.path().join(&file)).unwrap();
    world.server.always(&format!("/{file}"), Behaviour::Other(bytes));
    let repository = world.repositories.load(&()).unwrap().remove(0);
    let entry = repository.catalog.named("tool").next().unwrap();
    let package = repository.catalog.get(entry).unwrap();
    let err = world.repositories.fetch(&repository, &package, &()).unwrap_err();
    assert!(matches!(err, Error::Network { .. } | Error::Mismatch { .. }), "{err:?}");
}

#[test]
fn an_index_and_a_signature_from_both_sides_of_a_change_are_read_again() {
    let world = World::new();
    let old = world.bytes(SIGNATURE);
    world.stones.add("other", 1, 100);
    world.stones.index(Some(&world.signer));
    world.server.once(SIGNATURE, Behaviour::Other(old));
    assert_eq!(world.update().unwrap(), Update { packages: 2, changed: true });
    let last = world.server.requests().pop().unwrap();
    assert_eq!(last.headers.get("cache-control").map(String::as_str), Some("no-cache"));
}

#[test]
fn an_index_that_was_taken_over_without_a_key_is_not_believed_with_one() {
    let world = World::new();
    let config = Config { keys: vec![], ..world.config() };
    world.repositories.set(&config, &()).unwrap();
    fs::remove_file(world.stones.path().join(&SIGNATURE[1..])).unwrap();
    world.stones.add("evil", 1, 100);
    world.stones.index(None);
    world.update().unwrap();
    // Whoever writes the key into the file by hand is served no worse.
    let path = world.directory.path().join("store/repositories/main.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}keys: ['{}']\n", world.signer.key.public())).unwrap();
    assert!(matches!(world.repositories.load(&()).unwrap_err(), Error::Unsigned { .. }));
}

#[test]
fn a_power_cut_leaves_an_index_in_use_and_never_forgets_a_newer_one() {
    let world = World::new();
    let store = world.directory.path().join("store");
    let before = world.directory.path().join("before");
    copy(&store, &before);
    world.stones.add("newer", 1, 100);
    world.stones.index(Some(&world.signer));
    let mut step = 0;
    loop {
        let [work, after] = ["work", "after"].map(|it| world.directory.path().join(it));
        copy(&before, &work);
        copy(&before, &after);
        let disk = Arc::new(Shared(Arc::new(Cut::new(&work, &after, step))));
        let of = |store: &Path| Repositories::new(store, world.repositories.network().clone());
        let reported = of(&work).on_disk(disk).update(&name(), Older::Refused, &()).is_ok();

        // Nothing new is to be had after the power came back.
        world.server.always(INDEX, Behaviour::Status(404, ""));
        world.server.always(SIGNATURE, Behaviour::Status(404, ""));
        let found = of(&after).load(&()).unwrap().remove(0).catalog;
        let is_new = found.named("newer").next().is_some();
        assert!(is_new || !reported, "step {step}: what was reported is lost");
        assert_eq!(found.len(), if is_new { 2 } else { 1 }, "step {step}");
        world.server.behave();
        if is_new {
            // Whoever uses the new one knows that the old one is old.
            let seen = fs::read_to_string(after.join("repositories/main.seen")).unwrap();
            let was = fs::read_to_string(before.join("repositories/main.seen")).unwrap();
            assert_ne!(seen, was, "step {step}");
        }
        for directory in [work, after] {
            fs::remove_dir_all(directory).unwrap();
        }
        if reported {
            assert!(step > 10, "there are few steps: {step}");
            break;
        }
        step += 1;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
            // A copy is to be the very same file for whoever compares times.
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            fs::File::options().write(true).open(&to).unwrap().set_modified(time).unwrap();
        }
    }
}

/// A disk whose power goes after some steps, and what is durable of it.
#[derive(Debug)]
struct Cut {
    now: PathBuf,
    durable: PathBuf,
    left: Mutex<usize>,
    /// Files whose bytes are durable, though perhaps not under their name.
    synced: Mutex<BTreeSet<PathBuf>>,
}

impl Cut {
    fn new(now: &Path, durable: &Path, steps: usize) -> Self {
        let (left, synced) = (Mutex::new(steps), Mutex::default());
        Self { now: now.into(), durable: durable.into(), left, synced }
    }

    fn step(&self) -> io::Result<()> {
        let mut left = self.left.lock().unwrap();
        *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the power is gone"))?;
        Ok(())
    }
}

#[derive(Debug)]
struct CutFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    disk: Arc<Cut>,
}

/// The disk as the store is given it.
#[derive(Clone, Debug)]
struct Shared(Arc<Cut>);

impl Disk for Shared {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.step()?;
        let file = RealDisk.create(path)?;
        Ok(Box::new(CutFile { path: path.into(), file, disk: Arc::clone(&self.0) }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        unreachable!("{} is never changed in place", path.display())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.step()?;
        let mut synced = self.0.synced.lock().unwrap();
        if synced.remove(from) {
            synced.insert(to.into());
        }
        RealDisk.rename(from, to)
    }

    fn link(&self, from: &Path, _: &Path) -> io::Result<()> {
        unreachable!("{} gets no second name", from.display())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.remove(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.create_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        let durable = self.0.durable.join(path.strip_prefix(&self.0.now).unwrap());
        let synced = self.0.synced.lock().unwrap();
        for entry in fs::read_dir(path)? {
            let (from, to) = (entry.as_ref().unwrap().path(), durable.join(entry?.file_name()));
            if from.is_dir() {
                fs::create_dir_all(to)?;
            } else if synced.contains(&from) {
                fs::copy(&from, &to)?;
                let time = fs::metadata(&from)?.modified()?;
                fs::File::options().write(true).open(&to)?.set_modified(time)?;
            } else if !to.exists() {
                // The name is there, and nothing of the bytes.
                fs::write(&to, b"")?;
            }
        }
        Ok(())
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        unreachable!("{} is synced by its directory", path.display())
    }
}

impl DiskFile for CutFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.step()?;
        self.file.write_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.disk.step()?;
        self.file.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.step()?;
        self.disk.synced.lock().unwrap().insert(self.path.clone());
        self.file.sync()
    }
}

#[test]
fn minisign_makes_and_proves_the_same_signatures() {
    if !Need::all(&[Need::Program("minisign", "minisign")]) {
        return;
    }
    let cairn = Cairn::new();
    let here = |name: &str| -> PathBuf { cairn.directory().join(name) };
    let stones = Stones::new(&here("stones"));
    stones.add("tool", 1, 100);
    cairn.data(["key", "generate", "key"]);
    let said = cairn.data(["repo", "index", "stones", "--sign", "key", "--name", "my/stones"]);
    assert!(said.contains("Signed as my/stones with the key "), "{said}");
    let minisign = |args: &[&str]| {
        let output = Command::new("minisign").args(args).current_dir(cairn.directory()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let proved = minisign(&["-V", "-p", "key.pub", "-m", "stones/stone.index"]);
    assert!(proved.contains("repository:my/stones\tsequence:"), "{proved}");

    // And the other way round: a key of minisign signs for cairn.
    minisign(&["-G", "-W", "-p", "theirs.pub", "-s", "theirs"]);
    cairn.data(["repo", "index", "stones", "--sign", "theirs"]);
    minisign(&["-V", "-p", "theirs.pub", "-m", "stones/stone.index"]);
    cairn.data(["repo", "add", "main", "stones", "--key", "theirs.pub"]);
    let shown = cairn.json(["repo", "list"]);
    assert_eq!(shown[0]["index"]["signature"]["repository"], "my/stones");
}

#[test]
fn a_repository_is_signed_pinned_and_refused_by_commands() {
    let cairn = Cairn::new();
    let stones = Stones::new(&cairn.directory().join("stones"));
    stones.add("tool", 1, 100);
    cairn.data(["key", "generate", "key"]);
    let key = cairn.json(["key", "show", "key"]);
    assert_eq!(cairn.json(["key", "show", "key.pub"])["key"], key["key"]);
    assert!(key["key"].as_str().unwrap().parse::<PublicKey>().is_ok());
    let said = cairn.fails(1, ["key", "generate", "key"]);
    assert!(said.contains("cannot write into key: "), "{said}");

    cairn.data(["repo", "index", "stones"]);
    let said = cairn.fails(1, ["repo", "add", "main", "stones", "--key", "key.pub"]);
    assert!(said.contains("the index of main is not signed"), "{said}");
    assert!(said.contains("\nhelp: sign it: "), "{said}");
    cairn.data(["repo", "index", "stones", "--sign", "key"]);
    let ended = cairn.run(["repo", "index", "stones"]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("is signed, and the new index would not be"), "{ended:?}");
    cairn.data(["repo", "add", "main", "stones", "--key", "key.pub"]);
    let list = cairn.data(["repo", "list"]);
    assert!(list.contains("  signed  "), "{list}");
    let verbose = cairn.data(["repo", "list", "--verbose"]);
    assert!(verbose.contains(key["id"].as_str().unwrap()), "{verbose}");

    cairn.data(["key", "generate", "other"]);
    cairn.data(["repo", "index", "stones", "--sign", "other"]);
    let update = cairn.run(["repo", "update"]);
    assert_eq!(update.code(), Some(1));
    assert!(update.stdout.contains("it was made with another key"), "{}", update.stdout);
    assert!(update.stdout.contains("cairn repo set NAME --key KEY"), "{}", update.stdout);
    assert!(cairn.data(["install", "-y", "tool"]).starts_with("State 1 is current"));
    cairn.data(["repo", "set", "main", "--key", "other.pub"]);
    assert_eq!(cairn.data(["repo", "update"]), "main: 1 package, unchanged\n");

    let mut encrypted = cairn.command(["key", "generate", "--password", "secret"]);
    assert!(encrypted.env("CAIRN_KEY_PASSWORD", "word").output().unwrap().status.success());
    let said = cairn.fails(1, ["repo", "index", "stones", "--sign", "secret"]);
    assert!(said.contains("the key has a password"), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(cairn.directory().join("secret")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert!(!Path::new("secret").exists());
}
