//! Repositories over TLS: only who proves to be the host that was asked for is believed.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

use cairn_tests::{Authority, Behaviour, Cairn, Ended, Need, Server, Stones};

struct World {
    cairn: Cairn,
    server: Server,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let cairn = Cairn::new();
        let stones = Stones::new(&cairn.directory().join("stones"));
        stones.add("small", 1, 1000);
        stones.index(None);
        let server = Server::new(stones.path());
        let authority = Authority::new(&cairn.directory().join("authority"));
        Self { cairn, server, authority }
    }

    /// `127.0.0.1:<port>` of the server that speaks HTTP.
    fn http(&self) -> String {
        self.server.url("").trim_start_matches("http://").into()
    }

    /// `cairn ARGS`, which believes those whose certificates are in `trusted`.
    fn run(&self, trusted: &Path, args: &[&str]) -> Ended {
        self.cairn.command(args).env("SSL_CERT_FILE", trusted).output().unwrap().into()
    }

    /// Adding the repository at `url` fails, and nothing was asked of the server.
    fn refuses(&self, trusted: &Path, url: &str, reason: &str) {
        let ended = self.run(trusted, &["repo", "add", "main", url]);
        assert_eq!(ended.code(), Some(1), "{}", ended.stdout);
        assert!(ended.stderr.contains(reason), "{reason:?} is not why: {}", ended.stderr);
        assert_eq!(self.server.requests(), [], "what is asked for is told to nobody");
        assert_eq!(self.cairn.json(["repo", "list"]), serde_json::json!([]));
    }
}

#[test]
fn only_a_host_that_somebody_vouches_for_is_believed() {
    if !Need::all(&[Need::Program("openssl", "openssl")]) {
        return;
    }
    let world = World::new();
    let tls = world.authority.serve(&world.http(), "localhost");
    let stranger = Authority::new(&world.cairn.directory().join("stranger"));
    world.refuses(&stranger.certificate(), &tls.url("/"), "certificate");

    let trusted = world.authority.certificate();
    let other = world.authority.serve(&world.http(), "elsewhere.example");
    world.refuses(&trusted, &other.url("/"), "certificate");

    let ended = world.run(&trusted, &["repo", "add", "main", &tls.url("/")]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let ended = world.run(&trusted, &["--yes", "install", "small"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(world.cairn.installed().len(), 1);
}

#[test]
fn nobody_leads_away_from_tls() {
    if !Need::all(&[Need::Program("openssl", "openssl")]) {
        return;
    }
    let world = World::new();
    let tls = world.authority.serve(&world.http(), "localhost");
    let plain = world.server.url("/stone.index");
    world.server.always("/stone.index", Behaviour::Redirect(plain));
    let ended = world.run(&world.authority.certificate(), &["repo", "add", "main", &tls.url("/")]);
    assert_eq!(ended.code(), Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("http"), "{}", ended.stderr);
    // Once over TLS, and never again without.
    let asked = world.server.requests();
    assert_eq!(asked.iter().filter(|it| it.path == "/stone.index").count(), 1, "{asked:?}");
}
