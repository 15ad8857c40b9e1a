//! States from a store that a web server serves as files, one on loopback that cuts
//! connections, lies, and knows no ranges.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use cairn_package::repository::{Network, ServedStore};
use cairn_store::transfer::{PullExtent, PullSource, Pulled, decode_pack_list};
use cairn_store::{Error, GcOptions, ImportOptions, Standing, State, Store, import_directory};
use cairn_tests::{Behaviour, Cairn, Server};
use tempfile::TempDir;

/// A store behind a server, and one that takes from it.
struct World {
    directory: TempDir,
    from: Store,
    to: Store,
    server: Server,
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl World {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let make = |name: &str| Store::create(&directory.path().join(name)).unwrap();
        let (from, to) = (make("from"), make("to"));
        fs::create_dir(directory.path().join("root")).unwrap();
        let server = Server::new(from.path());
        Self { directory, from, to, server }
    }

    /// The same with a state of large and small files.
    fn filled() -> (Self, State) {
        let world = Self::new();
        for at in 0..200 {
            world.write(&format!("small {at}"), &noise(at, 9000));
        }
        for at in 0..4 {
            world.write(&format!("large {at}"), &noise(1000 + at, 2 << 20));
        }
        let state = world.import();
        (world, state)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory.path().join("root").join(name), bytes).unwrap();
    }

    fn import(&self) -> State {
        let options = ImportOptions {
            request: "a test",
            parent: self.from.refs().current,
            switch: true,
            leave_out: None,
            one_filesystem: false,
            afresh: true,
        };
        let root = self.directory.path().join("root");
        import_directory(&self.from, &root, &options, &()).unwrap().state
    }

    fn source(&self) -> ServedStore {
        let network = Network {
            connections: 3,
            attempts: 3,
            delay: Duration::from_millis(1),
            connect: Duration::from_secs(5),
            stall: Duration::from_millis(400),
            proxy: None,
        };
        ServedStore::new(self.server.url("").parse().unwrap(), network)
    }

    fn pull(&self, state: &State) -> Result<Pulled, Error> {
        let extent = PullExtent::Publish(Standing::Aside);
        let mut done = self.to.pull(&self.source(), std::slice::from_ref(state), extent, &())?;
        Ok(done.pop().unwrap())
    }

    /// Paths of the packs of the server.
    fn pack_paths(&self) -> BTreeSet<String> {
        packs(&self.from).into_iter().map(|name| format!("/packs/{name}")).collect()
    }
}

fn packs(store: &Store) -> BTreeSet<String> {
    let packs = fs::read_dir(store.path().join("packs")).unwrap();
    let names = packs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".pack")).collect()
}

fn assert_sound(store: &Store) {
    let report = store.verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

/// Bytes of packs that a server was asked for.
fn asked(server: &Server) -> u64 {
    let requests = server.requests().into_iter();
    let ranges = requests.filter(|request| request.path.starts_with("/packs/"));
    ranges.map(|it| it.last.unwrap() + 1 - it.from.unwrap()).sum()
}

#[test]
fn a_state_arrives_in_the_packs_that_it_had_and_the_next_one_in_ranges() {
    let (world, state) = World::filled();
    assert_eq!(world.source().refs().unwrap(), world.from.refs());
    let _ = world.server.requests();
    let pulled = world.pull(&state).unwrap();
    let ours = pulled.state.unwrap();
    assert_eq!((ours.tree, ours.packages), (state.tree, state.packages));
    assert!(packs(&world.from).is_subset(&packs(&world.to)));
    assert_sound(&world.to);
    let stored: u64 = world.from.packs().unwrap().iter().map(|pack| pack.len).sum();
    let asked_first = asked(&world.server);
    // The ends of packs, which have their tables, may come twice.
    let ends = world.pack_paths().len() as u64 * (16 << 10) + 8;
    assert!(asked_first <= stored + ends, "each byte once: {asked_first} of {stored}");

    world.write("small 7", &noise(5000, 9000));
    let second = world.import();
    let pulled = world.pull(&second).unwrap();
    assert_eq!(pulled.state.unwrap().parent, Some(ours.id));
    let asked_then = asked(&world.server);
    assert!(asked_then < 200_000, "{asked_then} bytes for one file");
    assert_sound(&world.to);
    assert_eq!(fs::read_dir(world.to.path().join("cache/pull")).unwrap().count(), 0);
}

#[test]
fn few_objects_of_a_pack_are_ranges_of_it() {
    let world = World::new();
    for at in 0..2000 {
        world.write(&format!("{at:04}"), &noise(at, 9000));
    }
    world.import();
    for at in 0..2000 {
        if at % 700 != 0 {
            fs::remove_file(world.directory.path().join(format!("root/{at:04}"))).unwrap();
        }
    }
    let few = world.import();
    let pulled = world.pull(&few).unwrap();
    assert!(pulled.transferred < 1_500_000, "{} of 18,000,000", pulled.transferred);
    assert_sound(&world.to);
}

#[test]
fn a_server_without_ranges_gives_each_pack_once() {
    let (world, state) = World::filled();
    for path in world.pack_paths() {
        world.server.always(&path, Behaviour::NoRanges);
    }
    world.pull(&state).unwrap();
    assert_sound(&world.to);
    let requests = world.server.requests();
    let of_packs = requests.iter().filter(|it| it.path.starts_with("/packs/")).count();
    assert_eq!(of_packs, world.pack_paths().len() + 1, "one finds out");
}

#[test]
fn redirects_are_followed() {
    let (world, state) = World::filled();
    let mirror = Server::new(world.from.path());
    for path in world.pack_paths().iter().map(String::as_str).chain(["/refs/log", "/refs/packs"]) {
        world.server.always(path, Behaviour::Redirect(mirror.url(path)));
    }
    world.pull(&state).unwrap();
    assert_sound(&world.to);
}

#[test]
fn what_is_cut_goes_on_where_it_stopped() {
    let (world, state) = World::filled();
    for path in world.pack_paths() {
        for after in [3, 90_000] {
            world.server.once(&path, Behaviour::Cut(after));
        }
    }
    world.pull(&state).unwrap();
    assert_sound(&world.to);

    let other = Store::create(&world.directory.path().join("other")).unwrap();
    let world = World { to: other, ..world };
    // The server gives the tables of one, and no more of it.
    let first = world.source().packs().unwrap()[0].id;
    let path = format!("/packs/{first}.pack");
    world.server.once(&path, Behaviour::Cut(usize::MAX));
    for _ in 0..3 {
        world.server.once(&path, Behaviour::Status(503, ""));
    }
    let _ = world.server.requests();
    let cut = world.pull(&state);
    assert!(matches!(cut, Err(Error::Remote { .. })), "{cut:?}");
    assert!(world.to.refs().states.is_empty());
    assert!(asked(&world.server) > 0);
    world.server.behave();
    world.pull(&state).unwrap();
    assert_sound(&world.to);
    // No table comes again, and no directory.
    let stored: u64 = world.from.packs().unwrap().iter().map(|pack| pack.len).sum();
    let after = asked(&world.server);
    assert!(after < stored, "{after} of {stored}");
}

#[test]
fn what_a_server_changes_is_not_taken() {
    let (world, state) = World::filled();
    let refused = |world: &World, what: &str| {
        let err = world.pull(&state).expect_err(what);
        assert!(world.to.refs().states.is_empty(), "{what}");
        fs::remove_dir_all(world.to.path().join("cache/pull")).unwrap();
        world.server.behave();
        err
    };
    let whole = |store: &Store, path: &str| fs::read(store.path().join(&path[1..])).unwrap();
    for path in world.pack_paths() {
        let len = whole(&world.from, &path).len();
        for at in [100, len / 2, len - 60, len - 1] {
            world.server.always(&path, Behaviour::Flip(at));
            let err = refused(&world, &format!("byte {at} of {path}"));
            assert!(matches!(err, Error::DamagedSource { .. }), "{err:?}");
        }
        for behaviour in [Behaviour::WrongRange, Behaviour::Longer(9), Behaviour::Length(99)] {
            world.server.always(&path, behaviour.clone());
            refused(&world, &format!("{behaviour:?} of {path}"));
        }
        world.server.always(&path, Behaviour::Other(b"<html>no such page</html>".into()));
        refused(&world, &path);
    }
    for path in ["/refs/log", "/refs/packs"] {
        let bytes = whole(&world.from, path);
        for at in [0, bytes.len() / 2] {
            world.server.always(path, Behaviour::Flip(at));
            // The only line of a log may have been torn.
            let refs = world.source().refs();
            assert!(path != "/refs/log" || refs.unwrap().states.is_empty(), "byte {at}");
            if path != "/refs/log" {
                refused(&world, &format!("byte {at} of {path}"));
            }
            world.server.behave();
        }
    }
}

#[test]
fn a_store_that_is_collected_meanwhile_is_looked_at_again() {
    let world = World::new();
    for at in 0..400 {
        world.write(&format!("{at:03}"), &noise(at, 9000));
    }
    let first = world.import();
    for at in 0..300 {
        fs::remove_file(world.directory.path().join(format!("root/{at:03}"))).unwrap();
    }
    let second = world.import();
    let list = fs::read(world.from.path().join("refs/packs")).unwrap();
    let log = fs::read(world.from.path().join("refs/log")).unwrap();
    world.from.remove_states(&[first.id]).unwrap();
    let collected = world.from.gc(GcOptions::default(), &()).unwrap();
    assert!(collected.packs_rewritten > 0, "{collected:?}");
    let gone = |list: &[u8]| decode_pack_list(list).unwrap();
    let now = fs::read(world.from.path().join("refs/packs")).unwrap();
    assert_ne!(gone(&list), gone(&now));
    assert_eq!(gone(&now), PullSource::packs(&world.from).unwrap(), "gc keeps the list");

    // As if it came between the list and the packs.
    world.server.once("/refs/packs", Behaviour::Other(list.clone()));
    world.pull(&second).unwrap();
    assert_sound(&world.to);

    // The state that was asked for is gone.
    let other = Store::create(&world.directory.path().join("other")).unwrap();
    let world = World { to: other, ..world };
    world.server.once("/refs/packs", Behaviour::Other(list.clone()));
    world.server.once("/refs/log", Behaviour::Other(log));
    let gone = world.pull(&first).unwrap_err();
    let cause = std::error::Error::source(&gone).unwrap().to_string();
    assert!(cause.contains("has been removed there meanwhile"), "{gone}: {cause}");

    // It never comes to rest.
    world.server.always("/refs/packs", Behaviour::Other(list));
    let changing = world.pull(&second).unwrap_err();
    assert!(matches!(changing, Error::SourceChanged { .. }), "{changing:?}");
    assert!(world.to.refs().states.is_empty());
}

#[test]
fn what_is_no_store_is_told_as_such() {
    let (world, state) = World::filled();
    let check = |path: &str, behaviour: Behaviour, expected: &str| {
        world.server.always(path, behaviour);
        let err = world.pull(&state).unwrap_err();
        let cause = std::error::Error::source(&err).map(ToString::to_string).unwrap_or_default();
        let said = format!("{err}: {cause}");
        assert!(said.contains(expected), "{said}");
        world.server.behave();
    };
    let missing = || Behaviour::Status(404, "");
    check("/format", missing(), "there is no store");
    check("/format", Behaviour::Other(b"cairn store 2\n".to_vec()), "has store format");
    check("/refs/log", missing(), "it has no refs/log");
    check("/refs/packs", missing(), "`cairn gc` there makes anew");
    check("/refs/packs", Behaviour::Other(b"cairn packs 9\n\n".to_vec()), "of another version");
    check("/refs/packs", Behaviour::Flip(20), "is damaged");
}

#[test]
fn a_state_is_pulled_by_its_address() {
    let (world, _) = World::filled();
    let cairn = Cairn::new();
    let url = world.server.url("/");
    let said = cairn.data(["pull", &url]);
    assert!(said.starts_with("State 1 is there as 1 and current: "), "{said}");
    assert!(cairn.data(["pull", &url]).contains("already"));
    cairn.data(["verify"]);
    cairn.fails(2, ["push", &url]);

    world.write("small 7", &noise(5000, 9000));
    world.import();
    world.server.always("/refs/packs", Behaviour::Status(404, ""));
    cairn.data(["cache", "clean"]);
    let said = cairn.fails(1, ["pull", &url]);
    assert!(said.contains("refs/packs"), "{said}");
    world.server.behave();
    let newest = world
        .pack_paths()
        .into_iter()
        .find(|path| !cairn.store().join(path.trim_start_matches('/')).exists());
    world.server.always(&newest.unwrap(), Behaviour::Flip(100));
    let said = cairn.fails(3, ["pull", &url]);
    assert!(said.contains("gives damaged data"), "{said}");
    let cleaned = cairn.json(["cache", "clean", "--unused"]);
    assert_eq!(cleaned["pulls"]["files"], 0);
    assert_ne!(cairn.json(["cache", "clean"])["pulls"]["files"], 0);
    assert_eq!(cairn.json(["cache", "clean"])["pulls"]["files"], 0);
    world.server.behave();
    cairn.data(["pull", &url]);
}
