//! Mounts in processes of their own: left in the background, killed, measured.
//!
//! The tests start this program again with `role NAME` to be such a process.

mod support;

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use cairn_fs::{Error, Options, Shape, Signals, Unmount, control};
use cairn_store::{StateId, Store};
use support::{Lab, PATIENCE, eventually, file, items_of, sys};

const TESTS: &[(&str, fn())] = &[
    ("a_mount_in_the_background_is_ready_when_the_command_returns", ready),
    ("why_a_mount_in_the_background_fails_is_told_before_the_command_returns", failing),
    ("a_process_with_threads_is_not_copied", threads),
    ("a_mount_ends_in_good_order_on_a_signal", signals),
    ("what_a_killed_mount_leaves_behind_can_be_cleaned_up", killed),
    ("a_supervisor_is_told_when_the_mount_is_ready", supervised),
    ("a_walk_of_a_whole_system_stays_within_the_memory_that_is_allowed", memory),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, name, rest @ ..] = &arguments[..]
        && role == "role"
    {
        return play(name, rest);
    }
    let wanted = |name: &str| {
        let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter))
    };
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += i32::from(!passed);
    }
    std::process::exit(failed);
}

/// What this program does when a test starts it: mounts, and says how it went.
fn play(role: &str, arguments: &[String]) {
    let [store, target, shape] = arguments else { panic!("{arguments:?}") };
    let shape = match shape.as_str() {
        "folder" => Shape::Folder,
        "follow" => Shape::Follow,
        state => Shape::Pinned(StateId(state.parse().unwrap())),
    };
    let options = Options::new(shape, Path::new(target), Path::new(store));
    let signals = Signals::hold().unwrap();
    let start = || -> Result<_, Error> {
        let store = Store::open(Path::new(store))?;
        let running = cairn_fs::start(store, &options, Arc::new(|_| {}))?;
        signals.unmount_on_any(running.unmounter()).unwrap();
        Ok(running)
    };
    match role {
        "background" => match cairn_fs::background(start) {
            Ok(pid) => println!("{pid}"),
            Err(err) => println!("error: {err}"),
        },
        "foreground" => {
            let running = start().unwrap();
            if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
                cairn_fs::notify_ready(&socket).unwrap();
            }
            println!("ready");
            running.wait().unwrap();
        }
        "threads" => {
            let (stop, wait) = std::sync::mpsc::channel::<()>();
            std::thread::spawn(move || wait.recv());
            println!("{}", cairn_fs::background(start).unwrap_err());
            drop(stop);
        }
        _ => panic!("{role}"),
    }
}

fn command(lab: &Lab, role: &str, shape: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["role", role]).arg(lab.store.path()).arg(lab.target()).arg(shape);
    command.stdin(Stdio::null());
    command
}

/// The output of a role that ends by itself.
fn output(lab: &Lab, role: &str, shape: &str) -> String {
    let output = command(lab, role, shape).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().into()
}

/// A mount in a process that is a child of this one.
struct Foreground {
    child: Child,
}

impl Foreground {
    fn start(lab: &Lab, shape: &str) -> Self {
        let mut child = command(lab, "foreground", shape).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn registered(lab: &Lab) -> usize {
    cairn_fs::list(&lab.run_directory()).unwrap().len()
}

fn is_mounted(lab: &Lab) -> bool {
    let target = lab.target().display().to_string();
    fs::read_to_string("/proc/self/mounts").unwrap().contains(&format!(" {target} "))
}

fn small() -> Lab {
    let lab = Lab::default();
    lab.commit(&items_of([("f", file("one"))]));
    lab
}

fn ready() {
    let lab = small();
    let pid: u32 = output(&lab, "background", "follow").parse().unwrap();
    assert_eq!(fs::read(lab.target().join("f")).unwrap(), b"one");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let own = fs::read_to_string("/proc/self/stat").unwrap();
    let own: Vec<&str> = own.rsplit(") ").next().unwrap().split(' ').collect();
    assert_ne!(fields[3], own[3], "it has a session of its own");
    assert_ne!(fields[3], pid.to_string(), "it does not lead its session");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    for standard in 0..3 {
        let open = fs::read_link(format!("/proc/{pid}/fd/{standard}")).unwrap();
        assert_eq!(open, Path::new("/dev/null"));
    }
    lab.commit(&items_of([("f", file("two"))]));
    assert_eq!(lab.refresh().state, Some(StateId(2)));
    assert_eq!(fs::read(lab.target().join("f")).unwrap(), b"two");
    cairn_fs::unmount(&lab.target(), Unmount::Now).unwrap();
    eventually("the process ends", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    assert_eq!(registered(&lab), 0);
}

fn failing() {
    let lab = Lab::default();
    assert_eq!(output(&lab, "background", "follow"), "error: the store has no state yet");
    assert_eq!(output(&lab, "background", "9"), "error: there is no state 9");
    fs::remove_dir(lab.target()).unwrap();
    let said = output(&lab, "background", "folder");
    assert!(
        said.starts_with("error: cannot mount on ") && said.ends_with("(os error 2)"),
        "{said}"
    );
    assert_eq!(registered(&lab), 0);
}

fn threads() {
    let lab = small();
    let said = output(&lab, "threads", "follow");
    assert_eq!(said, "cannot leave a process in the background once threads run");
    assert!(!is_mounted(&lab));
}

fn signals() {
    let lab = small();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut mount = Foreground::start(&lab, "folder");
        sys::kill(mount.child.id(), signal);
        assert!(mount.child.wait().unwrap().success());
        assert!(!is_mounted(&lab) && registered(&lab) == 0);
    }
    // Whoever uses the mount may go on.
    let mut mount = Foreground::start(&lab, "follow");
    let open = fs::File::open(lab.target().join("f")).unwrap();
    sys::kill(mount.child.id(), libc::SIGTERM);
    eventually("it is out of sight", || (!is_mounted(&lab)).then_some(()));
    assert!(mount.child.try_wait().unwrap().is_none());
    assert_eq!(io::read_to_string(open).unwrap(), "one");
    assert!(mount.child.wait().unwrap().success());
}

fn killed() {
    let lab = small();
    let mount = Foreground::start(&lab, "follow");
    assert_eq!(registered(&lab), 1);
    let open = fs::File::open(lab.target().join("f")).unwrap();
    mount.kill();
    assert!(is_mounted(&lab));
    let error = fs::metadata(lab.target().join("other")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    assert_eq!(registered(&lab), 0);
    assert_eq!(fs::read_dir(lab.run_directory().join("mounts")).unwrap().count(), 0);
    assert!(control::refresh_all(&lab.run_directory(), PATIENCE).unwrap().is_empty());
    let said = output(&lab, "background", "follow");
    assert!(said.contains("has ended") || said.contains("there already"), "{said}");
    let busy = cairn_fs::unmount(&lab.target(), Unmount::Now);
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    cairn_fs::unmount(&lab.target(), Unmount::WhenUnused).unwrap();
    assert!(!is_mounted(&lab));
    drop(open);
    // At any moment: killed while it begins, it leaves nothing that stays.
    for delay in 0..30 {
        let mut child =
            command(&lab, "foreground", "folder").stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(delay * 400));
        child.kill().unwrap();
        child.wait().unwrap();
        if is_mounted(&lab) {
            cairn_fs::unmount(&lab.target(), Unmount::WhenUnused).unwrap();
        }
        assert_eq!(registered(&lab), 0);
    }
    let left = fs::read_dir(lab.run_directory().join("mounts")).unwrap();
    assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>().len(), 0);
}

fn supervised() {
    let lab = small();
    let path = lab.temporary.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = command(&lab, "foreground", "folder")
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut message = [0; 100];
    let len = socket.recv(&mut message).unwrap();
    let message = std::str::from_utf8(&message[..len]).unwrap();
    assert_eq!(message, format!("READY=1\nMAINPID={}\n", child.id()));
    assert_eq!(fs::read(lab.target().join("current/f")).unwrap(), b"one");
    sys::kill(child.id(), libc::SIGTERM);
    assert!(child.wait().unwrap().success());
}

/// Prints what a mount of a whole system costs; the bound is the design's.
fn memory() {
    let lab = Lab::default();
    support::commit_system(&lab);
    let own = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name| {
            let line: &str = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
        };
        (field("VmRSS"), field("RssAnon"))
    };
    let begun = Instant::now();
    let mut mount = Foreground::start(&lab, "follow");
    let (started, before) = (begun.elapsed(), own(mount.child.id()));
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(support::count(&lab.target()), support::ENTRIES);
        times.push(begun.elapsed());
    }
    let after = own(mount.child.id());
    let registered = cairn_fs::list(&lab.run_directory()).unwrap().remove(0);
    let nodes = control::status(&lab.run_directory(), &registered, PATIENCE).unwrap().nodes;
    assert_eq!(nodes, support::ENTRIES + 1);
    println!(
        "{nodes} nodes; process started and mounted in {started:?}; walks {times:?}; \
         resident {} MB ({} anonymous), before the walk {} MB ({} anonymous)",
        after.0, after.1, before.0, before.1
    );
    let mut switches = Vec::new();
    for state in [2, 1, 2, 1, 2] {
        lab.store.switch(StateId(state)).unwrap();
        let begun = Instant::now();
        assert_eq!(lab.refresh().names, 1);
        switches.push(begun.elapsed());
    }
    println!("switch of one file: {switches:?}");
    sys::drop_names(&lab.target());
    eventually("all is forgotten", || {
        let status = control::status(&lab.run_directory(), &registered, PATIENCE);
        (status.unwrap().nodes == 1).then_some(())
    });
    println!(
        "after forgetting: {} MB ({} anonymous)",
        own(mount.child.id()).0,
        own(mount.child.id()).1
    );
    sys::kill(mount.child.id(), libc::SIGTERM);
    assert!(mount.child.wait().unwrap().success());
    assert!(after.0 < 100, "{} MB", after.0);
}
