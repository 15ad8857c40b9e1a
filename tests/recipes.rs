//! Recipes through the program: upstreams at a server that misbehaves, drafts,
//! and files that are no recipes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::PathBuf;

use cairn_tests::{Behaviour, Cairn, Server};

const ARCHIVE: &str = "/demo-1.0.tar";

/// A server with a release archive of a small project.
struct World {
    cairn: Cairn,
    server: Server,
}

impl World {
    fn new() -> Self {
        let cairn = Cairn::new();
        let root = cairn.directory().join("www");
        fs::create_dir(&root).unwrap();
        let files = [
            ("demo-1.0/Makefile", "all:\n\ninstall:\n"),
            ("demo-1.0/README", "demo is a program that shows what others do.\n"),
        ];
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        fs::write(root.join(&ARCHIVE[1..]), tar.into_inner().unwrap()).unwrap();
        let server = Server::new(&root);
        Self { cairn, server }
    }

    fn command<'a>(&self, words: &[&'a str], more: &[&'a str]) -> Vec<String> {
        let cache = self.cairn.directory().join("cache").display().to_string();
        let words = words.iter().chain(more).map(|it| (*it).to_owned());
        words.chain(["--cache-dir".into(), cache]).collect()
    }

    fn draft(&self, url: &str, to: &str) -> String {
        self.cairn.data(self.command(&["recipe", "new", url, "-o", to], &[]));
        fs::read_to_string(self.cairn.directory().join(to).join("stone.yaml")).unwrap()
    }

    /// Files that were downloaded, and what is left of those that were not.
    fn cached(&self) -> Vec<PathBuf> {
        fn walk(directory: PathBuf, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    walk(entry.path(), found);
                } else {
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.cairn.directory().join("cache/upstreams"), &mut found);
        found
    }
}

#[test]
fn a_draft_comes_from_a_server_that_redirects_and_cuts() {
    let world = World::new();
    let url = world.server.url("/download?release=1");
    world.server.always("/download?release=1", Behaviour::Redirect(world.server.url(ARCHIVE)));
    world.server.once(ARCHIVE, Behaviour::Cut(1000));
    world.server.once(ARCHIVE, Behaviour::Status(503, ""));
    // What it is called, its address does not tell.
    let complaint = world.cairn.fails(1, world.command(&["recipe", "new", &url], &[]));
    assert!(complaint.contains("tells neither the name nor the version"), "{complaint}");
    assert!(complaint.contains("trying again"), "{complaint}");
    assert_eq!(world.cached().len(), 1, "one whole file");

    let text = world.draft(&world.server.url(ARCHIVE), "straight");
    assert!(text.starts_with("name: demo\nversion: \"1.0\"\n"), "{text}");
    assert!(text.contains("summary: Program that shows what others do\n"), "{text}");
    assert!(text.contains(&format!("    - {}: ", world.server.url(ARCHIVE))), "{text}");
    assert_eq!(world.cached().len(), 1, "the same file");
}

#[test]
fn nothing_is_written_where_the_server_has_nothing() {
    let world = World::new();
    let url = world.server.url("/missing-1.0.tar");
    let complaint = world.cairn.fails(1, world.command(&["recipe", "new", &url, "-o", "x"], &[]));
    assert!(complaint.contains(&url) && complaint.contains("404"), "{complaint}");
    assert!(!world.cairn.directory().join("x/stone.yaml").exists());
    assert_eq!(world.cached(), Vec::<PathBuf>::new());
}

#[test]
fn an_upstream_is_what_its_hash_says_and_comes_once() {
    let world = World::new();
    world.draft(&world.server.url(ARCHIVE), "recipe");
    fs::remove_dir_all(world.cairn.directory().join("cache")).unwrap();
    let _ = world.server.requests();

    // Another file than the recipe says is told with both hashes and not kept.
    world.server.once(ARCHIVE, Behaviour::Flip(600));
    let build = world.command(&["build", "recipe"], &[]);
    let complaint = world.cairn.fails(1, &build);
    assert!(complaint.contains("is another file than the recipe says"), "{complaint}");
    assert_eq!(world.cached(), Vec::<PathBuf>::new());

    // Without repositories the build ends at its root, with the upstream in the cache.
    let complaint = world.cairn.fails(1, &build);
    assert!(complaint.contains("cannot make the build root"), "{complaint}");
    assert_eq!((world.cached().len(), world.server.requests().len()), (1, 2));
    world.cairn.fails(1, &build);
    assert_eq!(world.server.requests().len(), 0, "it was there");
}

#[test]
fn an_update_takes_the_hash_of_what_the_server_has() {
    let world = World::new();
    let old = world.draft(&world.server.url(ARCHIVE), "recipe");
    let root = world.cairn.directory().join("www");
    fs::copy(root.join(&ARCHIVE[1..]), root.join("demo-1.1.tar")).unwrap();
    fs::write(world.cairn.directory().join("recipe/stone.yaml"), old.clone() + "# mine\n").unwrap();
    let words = ["-y", "recipe", "update", "recipe", "--ver", "1.1"];
    world.cairn.data(world.command(&words, &[]));
    let new = fs::read_to_string(world.cairn.directory().join("recipe/stone.yaml")).unwrap();
    let expected = old
        .replace("version: \"1.0\"", "version: \"1.1\"")
        .replace("release: 1", "release: 2")
        .replace("demo-1.0.tar", "demo-1.1.tar");
    assert_eq!(new, expected + "# mine\n");

    let words = ["-y", "recipe", "update", "recipe", "--ver", "1.2"];
    let complaint = world.cairn.fails(1, world.command(&words, &[]));
    assert!(complaint.contains("demo-1.2.tar") && complaint.contains("404"), "{complaint}");
    let after = fs::read_to_string(world.cairn.directory().join("recipe/stone.yaml")).unwrap();
    assert_eq!(after, new, "a failed update changes nothing");
}

/// A recipe without anything wrong.
const SOUND: &str = "name: demo\nversion: 1.0\nrelease: 1\nhomepage: https://example.org\n\
                     license: MIT\ninstall: |\n    %install_bin demo\n";

#[test]
fn what_is_no_recipe_is_refused_at_its_line_and_column() {
    let cairn = Cairn::new();
    let file = cairn.directory().join("stone.yaml");
    let check = |bytes: &[u8], place: &str, message: &str| {
        fs::write(&file, bytes).unwrap();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        for command in ["check", "build"] {
            let words = if command == "check" { vec!["recipe", "check"] } else { vec!["build"] };
            let ended = cairn.run(words.into_iter().chain(["stone.yaml"]));
            let said = ended.stdout + &ended.stderr;
            assert_eq!(ended.status.code(), Some(1), "{shown}: {said}");
            let at = format!("stone.yaml:{place}: ");
            assert!(said.contains(&at), "{command}: {place} of {shown}: {said}");
            assert!(said.contains(message), "{command}: {message} of {shown}: {said}");
            assert!(said.len() < 2_000, "{command} of {shown} says {} bytes", said.len());
        }
        let left = fs::read_dir(cairn.directory()).unwrap().count();
        assert!(left <= 3, "only the recipe, the cache and the store are there");
    };
    let with = |more: &str| [SOUND, more].concat();

    check(b"", "1:1", "empty");
    check(b"name: a\xff\n", "1:8", "not UTF-8");
    check(&vec![b'x'; 5 << 20], "1:1", "more than 4194304 bytes");
    check(&b"[".repeat(100), "1:25", "levels deep");
    check(&b"[".repeat(1 << 20), "1:256", "recursion limit");
    check(with("unknown: 1\n").as_bytes(), "8:1", "unknown key \"unknown\"");
    check(with("builddeps: {a: b}\n").as_bytes(), "8:12", "must be a list");
    check(with("name: twice\n").as_bytes(), "8:1", "twice");
    check(with("summary: !!binary eA==\n").as_bytes(), "8:10", "tag");
    let bomb: String =
        (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".into(), |bomb: String, level| {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb + &format!("a{level}: &a{level} [{items}]\n")
        });
    check(bomb.as_bytes(), "6:10", "over 200000 values");
    let huge = SOUND.replace("release: 1", "release: 18446744073709551616");
    check(huge.as_bytes(), "3:10", "whole number");
    let long = SOUND.replace("name: demo", &format!("name: {}", "n".repeat(100_000)));
    check(long.as_bytes(), "1:7", "cannot name a package");
    let away = SOUND.replace("version: 1.0", "version: 1.0/../../../etc");
    check(away.as_bytes(), "2:10", "cannot be a version");
    let upstream = format!("https://example.org/x.tar: {{hash: {}, ", "0".repeat(64));
    let escape = with(&format!("upstreams:\n    - {upstream}unpackdir: ../../etc}}\n"));
    check(escape.as_bytes(), "9:118", "leads out");
    let rename = with(&format!("upstreams:\n    - {upstream}rename: ../x}}\n"));
    check(rename.as_bytes(), "9:115", "not the name of a file");
    check(with("paths: [/usr/../etc]\n").as_bytes(), "8:9", "can match nothing");
    check(with("packages: [{../x: {}}]\n").as_bytes(), "8:13", "cannot name a package");
    check(with("build: |\n    %nothing\n").as_bytes(), "9:5", "nothing");
    check(with("rundeps: [\"%(nothing)\"]\n").as_bytes(), "8:11", "nothing");
    check(with("rundeps-exclude: [\"(((\"]\n").as_bytes(), "8:19", "not a regular expression");
}

#[test]
fn macros_that_need_each_other_are_refused_where_they_are_used() {
    let cairn = Cairn::new();
    let macros = cairn.directory().join("macros/actions");
    fs::create_dir_all(&macros).unwrap();
    let circle = "definitions:\n    - one: \"%(two)\"\n    - two: \"%(one)\"\nactions:\n    - round:\n        \
                  description: Never ends\n        command: \"%round %round\"\n        dependencies: []\n";
    fs::write(macros.join("circle.yaml"), circle).unwrap();
    let file = cairn.directory().join("stone.yaml");
    for (script, place) in [("%(one)", "9:5"), ("echo %round", "9:10")] {
        fs::write(&file, format!("{SOUND}build: |\n    {script}\n")).unwrap();
        let ended = cairn.run(["recipe", "check", "--macros", "macros", "stone.yaml"]);
        let said = ended.stdout + &ended.stderr;
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("stone.yaml:{place}: ")), "{said}");
        assert!(said.contains("need each other in a circle"), "{said}");
    }
}
