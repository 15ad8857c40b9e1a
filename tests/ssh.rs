//! `cairn pull` and `cairn push` over ssh, with the client and a server of OpenSSH.
//!
//! The server is Debian's, unpacked and not installed, so that none is left running on this
//! machine: it has a directory as its root, listens on loopback, and ends with the test.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cairn_tests::{Cairn, Need, Plain, Room, eventually, make_device, real, run, signal};

/// A machine that is reached over ssh.
struct Host<'c> {
    cairn: &'c Cairn,
    root: PathBuf,
    port: u16,
    server: Child,
    _room: Room,
}

impl<'c> Host<'c> {
    /// Nothing where it cannot be had, which is said then.
    fn new(cairn: &'c Cairn) -> Option<Self> {
        let client =
            [Need::Program("ssh", "openssh-client"), Need::Program("ssh-keygen", "openssh-client")];
        if !Need::all(&[Need::Root, Need::Fuse]) || !Need::all(&client) {
            return None;
        }
        let debs = real::debs_for(&["dash", "libstdc++6", "openssh-server"], "list-ssh")?;
        let root = cairn.directory().join("host");
        let _ = Plain::unpack(&debs, &root);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        configure(cairn, &root, port);
        let room = Room::new(&root);
        let number = port.to_string();
        let words = ["/usr/sbin/sshd", "-D", "-e", "-f", "/ssh/config", "-p", &number];
        let log = File::create(root.join("ssh/log")).unwrap();
        let server = room.command("", words).stderr(log).spawn().unwrap();
        let host = Self { cairn, root, port, server, _room: room };
        eventually("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(host)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn url(&self, directory: &str) -> String {
        format!("ssh://root@127.0.0.1:{}/{directory}", self.port)
    }

    /// `cairn ARGS` here, with the keys that go with the host.
    fn command(&self, args: &[&str]) -> Command {
        let place = self.cairn.directory().display();
        let mut command = self.cairn.command(args);
        // It is the shell that becomes ssh: the one child that there is.
        command.env(
            "CAIRN_SSH",
            format!(
                "exec ssh -F none -i {place}/key -o BatchMode=yes -o StrictHostKeyChecking=yes \
                 -o UserKnownHostsFile={place}/known_hosts"
            ),
        );
        command
    }

    /// What `cairn --json ARGS` prints, which has to succeed.
    fn json(&self, args: &[&str]) -> serde_json::Value {
        let told = run(&mut self.command(&[&["--json"], args].concat()));
        serde_json::from_str(&told).unwrap()
    }

    /// What `cairn ARGS` complains of, which has to fail.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.command(&[&["--quiet"], args].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs `cairn ARGS` and kills its ssh when some of what is to come has arrived in `store`.
    fn cut(&self, args: &[&str], store: &Path) -> String {
        let mut command = self.command(&[&["--quiet"], args].concat());
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let arrived = || room_of(&store.join("cache/pull"));
        eventually("a part has arrived", || arrived() > LARGE / 8);
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let ssh = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        signal(ssh, libc::SIGKILL).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(arrived() < LARGE, "all of it had arrived");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        // The server itself ends with its room.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Gives the host a program, users and keys, and lets the client know it.
fn configure(cairn: &Cairn, root: &Path, port: u16) {
    for directory in ["ssh", "root", "run/sshd", "etc", "dev"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    make_device(&root.join("dev/null"), 1, 3).unwrap();
    fs::set_permissions(root.join("dev/null"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::copy(cairn.program(), root.join("usr/bin/cairn")).unwrap();
    let users = "root:x:0:0::/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n";
    fs::write(root.join("etc/passwd"), users).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    for key in [root.join("ssh/host"), cairn.directory().join("key")] {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key));
    }
    fs::copy(cairn.directory().join("key.pub"), root.join("ssh/authorized")).unwrap();
    let key = fs::read_to_string(root.join("ssh/host.pub")).unwrap();
    fs::write(cairn.directory().join("known_hosts"), format!("[127.0.0.1]:{port} {key}")).unwrap();
    let config = "ListenAddress 127.0.0.1\nHostKey /ssh/host\nAuthorizedKeysFile /ssh/authorized\n\
        StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n";
    fs::write(root.join("ssh/config"), config).unwrap();
}

/// Bytes that do not compress, in a file of the test's directory.
const LARGE: u64 = 48 << 20;

fn plant(cairn: &Cairn, name: &str) -> PathBuf {
    let root = cairn.directory().join(name);
    fs::create_dir(&root).unwrap();
    fs::write(root.join("small"), name).unwrap();
    let noise = File::open("/dev/urandom").unwrap();
    let mut large = File::create(root.join("large")).unwrap();
    std::io::copy(&mut std::io::Read::take(noise, LARGE), &mut large).unwrap();
    root
}

/// What the files below a directory take on the disk.
fn room_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let entries = entries.flatten().map(|entry| (entry.path(), entry.metadata()));
    let sizes = entries.map(|(path, data)| match data {
        Ok(data) if data.is_dir() => room_of(&path),
        data => data.map_or(0, |data| data.blocks() * 512),
    });
    sizes.sum()
}

#[test]
fn states_come_and_go_over_ssh_and_go_on_where_a_connection_was_cut() {
    let cairn = Cairn::new();
    let Some(host) = Host::new(&cairn) else { return };
    let there = host.path("store");
    let at_host = ["--store", there.to_str().unwrap()];
    let url = host.url("store");
    let here = cairn.store();

    // Pulled: cut, and then the rest.
    let root = plant(&cairn, "one");
    let imported = cairn.json([&at_host[..], &["import", root.to_str().unwrap()]].concat());
    let said = host.cut(&["pull", &url], &here);
    assert!(said.contains("cairn: "), "{said}");
    assert_eq!(cairn.json(["state", "list"]), serde_json::json!([]));
    let pulled = &host.json(&["pull", &url])["states"][0];
    assert_eq!((&pulled["tree"], &pulled["current"]), (&imported["tree"], &true.into()));
    let transferred = pulled["bytes_transferred"].as_u64().unwrap();
    assert!((1..LARGE).contains(&transferred), "{pulled}");
    assert_eq!(host.json(&["pull", &url])["states"][0]["was_there"], true);

    // Pushed: the same.
    let imported = cairn.json([Path::new("import"), &plant(&cairn, "two")]);
    let state = imported["state"].to_string();
    let said = host.cut(&["push", &state, &url], &there);
    assert!(said.contains("cairn: "), "{said}");
    let pushed = &host.json(&["push", &state, &url, "--tag", "pushed"])["states"][0];
    assert_eq!(pushed["tree"], imported["tree"]);
    let transferred = pushed["bytes_transferred"].as_u64().unwrap();
    assert!((1..LARGE).contains(&transferred), "{pushed}");
    let shown = cairn.json([&at_host[..], &["state", "show", "pushed"]].concat());
    assert_eq!(shown["tree"], imported["tree"]);

    for store in [&here, &there] {
        let verified = cairn.data([Path::new("--store"), store, Path::new("verify")]);
        assert!(verified.ends_with(": no damage.\n"), "{verified}");
        assert_eq!(room_of(&store.join("cache/pull")), 0, "nothing is left of it");
    }

    // What cannot be had is told, by whoever knows, and what it means.
    let said = host.fails(&["pull", &host.url("nowhere")]);
    assert!(said.contains("/nowhere") && said.contains("cairn has failed there"), "{said}");
    fs::remove_file(host.path("usr/bin/cairn")).unwrap();
    let said = host.fails(&["pull", &url]);
    assert!(said.contains("there is no cairn there"), "{said}");
    fs::write(cairn.directory().join("known_hosts"), "").unwrap();
    let said = host.fails(&["pull", &url]);
    assert!(said.contains("Host key verification failed"), "{said}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for words in [&["pull"][..], &["push", "1"]] {
        let said = host.fails(&[words, &[&format!("ssh://root@{closed}/store")]].concat());
        assert!(said.contains("Connection refused"), "{said}");
        assert!(said.contains("cairn: ssh failed: there is no connection"), "{said}");
    }
}
