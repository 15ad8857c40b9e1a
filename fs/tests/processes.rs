//! Mounts in processes of their own: left in the background, killed, measured.
//!
//! The tests start this program again with `role NAME` to be such a process.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod support;

use std::error::Error as _;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use cairn_fs::workspace::{self, Becomes, Room};
use cairn_fs::{Error, Network, Options, Program, Shape, Signals, Unmount, control};
use cairn_store::{Attributes, StateId, Store, TreePath, WorkspaceName, diff, resolve};
use support::{Directory, Item, Lab, PATIENCE, eventually, file, items_of, put, sys, twins};

const TESTS: &[(&str, fn())] = &[
    ("a_mount_in_the_background_is_ready_when_the_command_returns", ready),
    ("why_a_mount_in_the_background_fails_is_told_before_the_command_returns", failing),
    ("a_process_with_threads_is_not_copied", threads),
    ("a_mount_ends_in_good_order_on_a_signal", signals),
    ("what_a_killed_mount_leaves_behind_can_be_cleaned_up", killed),
    ("a_supervisor_is_told_when_the_mount_is_ready", supervised),
    ("an_ordinary_user_mounts_for_itself_alone", for_oneself),
    ("a_program_inside_a_state_has_what_it_needs_and_no_more", inside),
    ("the_exit_code_of_a_program_is_passed_on", exit_codes),
    ("what_a_program_leaves_behind_ends_with_it", left_behind),
    ("signals_reach_the_program_inside", passed_on),
    ("a_killed_runner_takes_everything_inside_along", runner_killed),
    ("a_program_inside_has_the_terminal", terminal),
    ("why_a_program_cannot_be_run_is_told", not_run),
    ("an_ordinary_user_runs_programs_inside_a_state", run_by_user),
    ("what_a_program_changes_in_a_workspace_stays_in_it", run_in_workspace),
    ("what_is_thrown_away_was_nowhere", run_and_throw_away),
    ("what_shone_through_becomes_a_part_of_the_workspace_when_it_is_changed", completed),
    ("an_ordinary_user_works_in_a_workspace", workspace_of_user),
    ("an_ordinary_user_mounts_a_workspace", workspace_mounted_by_user),
    ("a_killed_mount_of_a_workspace_loses_nothing", workspace_killed),
    ("a_walk_of_a_whole_system_stays_within_the_memory_that_is_allowed", memory),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, name, rest @ ..] = &arguments[..]
        && role == "role"
    {
        return play(name, rest);
    }
    sys::heed_interrupts();
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
    match role {
        "run" => return run(arguments),
        "workspace" => return work(arguments),
        _ => {}
    }
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
        "unmount" => cairn_fs::unmount(Path::new(target), Unmount::Now).unwrap(),
        "threads" => {
            let (stop, wait) = std::sync::mpsc::channel::<()>();
            std::thread::spawn(move || wait.recv());
            println!("{}", cairn_fs::background(start).unwrap_err());
            drop(stop);
        }
        _ => panic!("{role}"),
    }
}

/// Runs a program inside the current state, and ends as it does.
fn run(arguments: &[String]) {
    let [store, stage, program, arguments @ ..] = arguments else { panic!("{arguments:?}") };
    let environment = [("PATH", "/usr/bin"), ("GREETING", "hello")];
    let program = Program {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment: environment.map(|(name, value)| (name.into(), value.into())).into(),
        stage: stage.into(),
        name: store.clone(),
        run: Some(Path::new(store).join("run")),
        binds: Vec::new(),
        network: Network::OfCaller,
        directory: "/".into(),
    };
    let open = || -> Result<_, Error> {
        let store = Store::open(Path::new(store))?;
        let state = store.current()?.id;
        Ok((store, state))
    };
    match cairn_fs::run(&program, Arc::new(|event| eprintln!("{event}")), open) {
        Ok(code) => std::process::exit(code),
        Err(err) => {
            let cause = err.source().map(|source| format!(": {source}")).unwrap_or_default();
            println!("error: {err}{cause}");
            std::process::exit(200);
        }
    }
}

/// Does something with a workspace: runs a program in it, mounts it, publishes it,
/// tells of its changes. The workspace `-` is thrown away.
fn work(arguments: &[String]) {
    let [what, path, workspace, rest @ ..] = arguments else { panic!("{arguments:?}") };
    let path = Path::new(path);
    let store = Store::open(path).unwrap();
    let name = || WorkspaceName::new(workspace).unwrap();
    let journal: cairn_fs::Journal = Arc::new(|event| eprintln!("{event}"));
    let done = match what.as_str() {
        "run" => {
            let [stage, program, arguments @ ..] = rest else { panic!("{rest:?}") };
            let environment = [("PATH", "/usr/bin")];
            let program = Program {
                program: program.into(),
                arguments: arguments.iter().map(Into::into).collect(),
                environment: environment.map(|(name, value)| (name.into(), value.into())).into(),
                stage: stage.into(),
                name: path.display().to_string(),
                run: Some(path.join("run")),
                binds: Vec::new(),
                network: Network::OfCaller,
                directory: "/".into(),
            };
            let room = match workspace.as_str() {
                "-" => Ok(Room::ThrowAway(store.current().unwrap().id)),
                _ => {
                    let held = store.lock_workspace(&name()).unwrap();
                    workspace::open(&held, None, &store).map(|_| Room::Workspace(held))
                }
            };
            room.and_then(|room| workspace::run(&program, &room, path, journal))
                .map(|code| std::process::exit(code))
        }
        "mount" => {
            let held = store.lock_workspace(&name()).unwrap();
            workspace::open(&held, None, &store)
                .and_then(|record| workspace::check_mountable(&held, &record))
                .and_then(|()| workspace::start(store, held, Path::new(&rest[0]), None, journal))
                .and_then(|running| {
                    println!("ready");
                    running.wait()
                })
        }
        "snapshot" => {
            workspace::become_owner(&name(), &store.workspace(&name()).unwrap()).unwrap();
            workspace::snapshot(&store, &name(), "test", Becomes::CurrentIfBaseIs, &()).map(
                |done| {
                    assert!(done.problem.is_none() && done.unsettled.is_empty(), "{done:?}");
                    println!("{}", done.state.map_or(0, |state| state.id.0));
                },
            )
        }
        "diff" => {
            workspace::become_owner(&name(), &store.workspace(&name()).unwrap()).unwrap();
            workspace::changes(&store, &name()).map(|changes| {
                let (old, new) = (changes.reference.tree, changes.tree);
                diff(&changes, old, new, &mut |path, _| {
                    println!("{path}");
                    ControlFlow::Continue(())
                })
                .unwrap();
            })
        }
        "discard" => {
            workspace::become_owner(&name(), &store.workspace(&name()).unwrap()).unwrap();
            workspace::discard(&store.lock_workspace(&name()).unwrap())
        }
        _ => panic!("{what}"),
    };
    if let Err(err) = done {
        println!("error: {err}");
        std::process::exit(200);
    }
}

/// A command with a workspace.
fn in_workspace(lab: &Lab, what: &str, workspace: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["role", "workspace", what]).arg(lab.store.path()).arg(workspace);
    command.stdin(Stdio::null());
    command
}

/// Runs a shell script in a workspace.
fn script_in(lab: &Lab, workspace: &str, script: &str) -> Command {
    let mut command = in_workspace(lab, "run", workspace);
    command.arg(lab.target()).args(["sh", "-c", script]);
    command
}

/// Runs a shell script inside the current state.
fn script(lab: &Lab, script: &str) -> Command {
    inside_of(lab, &["sh", "-c", script])
}

fn inside_of(lab: &Lab, program: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["role", "run"]).arg(lab.store.path()).arg(lab.target()).args(program);
    command
}

/// What a command writes to its output, when it ends well.
fn answer(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().into()
}

/// A store whose current state is a system in which a shell runs.
fn system() -> Lab {
    let lab = Lab::default();
    lab.commit(&system_root());
    lab
}

fn system_root() -> Directory {
    let mut root = Directory::new();
    let programs =
        ["cat", "chmod", "env", "id", "ln", "ls", "mkdir", "mv", "rm", "sh", "sleep", "touch"];
    support::with_programs(&mut root, &programs);
    support::with_skeleton(&mut root);
    put(&mut root, "usr/share/defaults/etc/from-defaults", file("default"));
    put(&mut root, "usr/share/defaults/etc/both", file("default"));
    put(&mut root, "etc/both", file("of the state"));
    put(&mut root, "var/lib/data", file("data"));
    root
}

/// Processes of the machine whose arguments hold `mark`.
fn processes_with(mark: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().map(Result::unwrap);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_mark = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(mark)
    };
    pids.filter(has_mark).collect()
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
    let busy = cairn_fs::unmount(&lab.target(), Unmount::Now);
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    cairn_fs::unmount(&lab.target(), Unmount::WhenUnused).unwrap();
    assert!(!is_mounted(&lab));
    drop(open);
    // Or a new mount takes its place, as often as that is needed.
    for _ in 0..3 {
        let mount = Foreground::start(&lab, "follow");
        let open = fs::File::open(lab.target().join("f")).unwrap();
        mount.kill();
        let mount = Foreground::start(&lab, "follow");
        assert_eq!(fs::read(lab.target().join("f")).unwrap(), b"one");
        mount.kill();
        drop(open);
    }
    let mut mount = Foreground::start(&lab, "follow");
    let again = output(&lab, "background", "follow");
    assert!(again.contains("a mount of Cairn is there already"), "{again}");
    cairn_fs::unmount(&lab.target(), Unmount::Now).unwrap();
    assert!(mount.child.wait().unwrap().success());
    assert!(!is_mounted(&lab));
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

/// Calls `f` in a thread for which anyone may use /dev/fuse, as on most systems.
fn with_fuse_for_all(lab: &Lab, f: impl FnOnce() + Send) {
    fs::set_permissions(lab.temporary.path(), Permissions::from_mode(0o755)).unwrap();
    let node = lab.temporary.path().join("fuse");
    let made = Command::new("cp").args(["-a", "/dev/fuse"]).arg(&node).status().unwrap();
    assert!(made.success());
    fs::set_permissions(&node, Permissions::from_mode(0o666)).unwrap();
    let mut own = Command::new("chown");
    own.args(["-R", "65534:65534"]).args([lab.store.path(), &lab.target()]);
    assert!(own.status().unwrap().success());
    // The program as well has to be where that user can execute it.
    fs::copy(std::env::current_exe().unwrap(), lab.temporary.path().join("program")).unwrap();
    std::thread::scope(|scope| {
        let work = || {
            sys::leave_mount_namespace();
            sys::bind(&node, Path::new("/dev/fuse"));
            f();
        };
        scope.spawn(work).join().expect("no panic");
    });
}

/// The same command for an ordinary user.
fn as_nobody(lab: &Lab, command: &Command) -> Command {
    let mut other = Command::new(lab.temporary.path().join("program"));
    other.args(command.get_args()).uid(65534).gid(65534).stdin(Stdio::null());
    other
}

fn for_oneself() {
    let lab = small();
    with_fuse_for_all(&lab, || {
        let pid = answer(as_nobody(&lab, &command(&lab, "background", "follow")));
        let pid: u32 = pid.parse().unwrap_or_else(|_| panic!("{pid}"));
        let path = lab.target().join("f");
        assert_eq!(sys::as_user(65534, || fs::read(&path)).unwrap(), b"one");
        // Not even root, which such a mount could lead by the nose.
        assert_eq!(fs::read(&path).unwrap_err().raw_os_error(), Some(libc::EACCES));
        let target = format!(" {} fuse.cairn ", lab.target().display());
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(&target)).unwrap();
        for option in ["ro", "nosuid", "nodev", "default_permissions", "user_id=65534"] {
            assert!(line.contains(option), "{line}");
        }
        let again = answer(as_nobody(&lab, &command(&lab, "background", "follow")));
        assert!(again.contains("a mount of Cairn is there already"), "{again}");
        answer(as_nobody(&lab, &command(&lab, "unmount", "follow")));
        assert!(!fs::read_to_string("/proc/thread-self/mounts").unwrap().contains(&target));
        eventually("it ends", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    });
}

/// Other programs of the machine may mount something meanwhile.
fn nothing_stays_mounted(before: &str) {
    let now = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    eventually("all mounts are as before", || (now() == before).then_some(()));
}

fn inside() {
    let lab = system();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let run = |text: &str| answer(script(&lab, text));
    assert_eq!(run("echo $GREETING; pwd"), "hello\n/");
    // The shell adds PWD.
    assert_eq!(run("env"), "GREETING=hello\nPATH=/usr/bin\nPWD=/");
    assert_eq!(answer(inside_of(&lab, &["/usr/bin/env"])), "GREETING=hello\nPATH=/usr/bin");
    assert_eq!(run("cat /etc/both /etc/from-defaults /var/lib/data"), "of the statedefaultdata");
    let written = "for d in dev dev/shm etc run tmp var var/lib var/tmp; do echo $d > /$d/new; cat /$d/new; done";
    assert_eq!(run(written).replace('\n', " "), "dev dev/shm etc run tmp var var/lib var/tmp");
    assert_eq!(run("ls /tmp; ls /run; ls /etc/new 2>/dev/null"), "", "nothing of that is kept");
    for path in ["/new", "/usr/new", "/sys/new", "/proc/new"] {
        let refused = run(&format!("(: > {path}) 2>/dev/null && echo written; echo refused"));
        assert_eq!(refused, "refused", "{path}");
    }
    let devices = "echo x > /dev/null; cat /dev/null; echo y > /dev/full || echo full; ls /dev/pts; cat < /dev/stdin";
    let mut command = script(&lab, devices);
    command.stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "full\nptmx\n");
    assert_eq!(
        run("cat /etc/passwd | { read line; echo $line; }"),
        "root:x:0:0:root:/root:/bin/sh"
    );
    let hosts = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(run("cat /etc/resolv.conf"), hosts.trim_end());
    // Processes of its own: init, the shell and ls.
    let seen = run("ls /proc");
    assert_eq!(seen.lines().filter(|name| name.parse::<u32>().is_ok()).count(), 3, "{seen}");
    assert_eq!(run("id -u"), "0");
    let mounts = run("cat /proc/self/mounts");
    assert!(mounts.lines().next().unwrap().contains(" / fuse.cairn ro,"), "{mounts}");
    assert!(!mounts.contains(lab.temporary.path().join("mount").to_str().unwrap()), "{mounts}");
    nothing_stays_mounted(&before);
}

fn exit_codes() {
    let lab = system();
    for (text, expected) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        assert_eq!(script(&lab, text).status().unwrap().code(), Some(expected), "{text}");
    }
    let mut many =
        script(&lab, "i=0; while [ $i -lt 200 ]; do (exit 1) & i=$((i+1)); done; wait; exit 5");
    assert_eq!(many.status().unwrap().code(), Some(5));
}

fn left_behind() {
    let lab = system();
    let mark = "98765.4";
    let begun = Instant::now();
    let text = format!("(sleep {mark} &) ; sleep {mark} & echo done");
    assert_eq!(answer(script(&lab, &text)), "done");
    assert!(begun.elapsed() < PATIENCE);
    eventually("they have ended", || processes_with(mark).is_empty().then_some(()));
}

fn passed_on() {
    let lab = system();
    for (signal, name) in [(libc::SIGTERM, "TERM"), (libc::SIGUSR1, "USR1"), (libc::SIGINT, "INT")]
    {
        let text = format!(
            "trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let mut child = script(&lab, &text).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        sys::kill(child.id(), signal);
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("ready\ngot {name}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
}

fn runner_killed() {
    let lab = system();
    let mark = "87654.3";
    let text = format!("sleep {mark} & echo ready; sleep {mark}; echo");
    let mut child = script(&lab, &text).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(processes_with(mark).len() >= 2);
    let used = cairn_fs::list(&lab.run_directory()).unwrap().remove(0);
    assert_eq!((used.shape, used.pid), (Shape::Pinned(StateId(1)), child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("they have ended", || processes_with(mark).is_empty().then_some(()));
    assert!(!is_mounted(&lab));
    assert_eq!(registered(&lab), 0);
}

fn terminal() {
    let lab = system();
    let text = "[ -t 0 ] && [ -t 1 ] && echo terminal; echo direct > /dev/tty";
    let command = script(&lab, text);
    let words = command.get_args().map(|word| format!("'{}'", word.to_str().unwrap()));
    let words = words.collect::<Vec<_>>().join(" ");
    let program = std::env::current_exe().unwrap().display().to_string();
    // script(1) gives the command a terminal of its own.
    let output = Command::new("script")
        .args(["-qec", &format!("'{program}' {words}"), "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "terminal\r\ndirect\r\n");
    assert!(output.status.success());
}

fn not_run() {
    let lab = system();
    let run = |program: &[&str]| answer(inside_of(&lab, program));
    assert_eq!(
        run(&["nonesuch"]),
        "error: cannot run nonesuch: No such file or directory (os error 2)"
    );
    assert_eq!(run(&["/etc/both"]), "error: cannot run /etc/both: Permission denied (os error 13)");
    let mut root = system_root();
    root.remove(&b"sys"[..]);
    lab.commit(&root);
    assert_eq!(run(&["sh"]), "error: cannot enter the state: it has no directory /sys");
    let empty = Lab::default();
    assert_eq!(answer(inside_of(&empty, &["sh"])), "error: the store has no state yet");
    fs::remove_dir(lab.target()).unwrap();
    let said = run(&["sh"]);
    assert!(said.starts_with("error: cannot enter the state: cannot mount tmpfs on "), "{said}");
}

fn run_by_user() {
    let lab = system();
    with_fuse_for_all(&lab, || {
        let run = |text: &str| answer(as_nobody(&lab, &script(&lab, text)));
        assert_eq!(run("id -u; echo x > /etc/new; cat /etc/new /var/lib/data"), "0\nx\ndata");
        assert_eq!(run("ls /proc/1/fd > /dev/null && touch /tmp/a && ls /tmp"), "a");
        let status = as_nobody(&lab, &script(&lab, "exit 9")).status().unwrap();
        assert_eq!(status.code(), Some(9));
    });
}

/// A file of a state: its mode, owner and content.
fn stored(lab: &Lab, state: u64, path: &str) -> Option<(u16, u32, String)> {
    lab.store.refresh().unwrap();
    let tree = lab.store.state(StateId(state)).unwrap().tree;
    let entry = resolve(&lab.store, tree, &TreePath::new(path.as_bytes()).unwrap()).unwrap()?;
    let leaf = entry.as_leaf()?.clone();
    let text = String::from_utf8(lab.store.read(leaf.blob()?).unwrap()).unwrap();
    Some((leaf.attributes.mode, leaf.attributes.uid, text))
}

fn run_in_workspace() {
    let lab = system();
    let run = |text: &str| answer(script_in(&lab, "web", text));
    let told = || answer(in_workspace(&lab, "diff", "web"));
    assert_eq!(run("cat /var/lib/data /etc/both /etc/from-defaults"), "dataof the statedefault");
    assert_eq!(told(), "", "a program that changes nothing leaves nothing");
    run("echo new > /usr/new; echo more >> /var/lib/data; rm /etc/both; echo x > /tmp/gone; \
         mv /usr/share/defaults /usr/share/other; mkdir /made; echo y > /run/gone");
    let seen = "cat /usr/new /var/lib/data; ls /etc/both 2>/dev/null; ls /tmp /run /made";
    assert_eq!(run(seen), "new\ndatamore\n/made:\n\n/run:\n\n/tmp:");
    let changed = "/\n/etc\n/etc/both\n/made\n/usr\n/usr/new\n/usr/share\n\
                   /usr/share/defaults\n/usr/share/other\n/var/lib/data";
    assert_eq!(told(), changed);
    assert_eq!(answer(in_workspace(&lab, "snapshot", "web")), "2");
    assert_eq!(stored(&lab, 2, "usr/new"), Some((0o644, 0, "new\n".into())));
    assert_eq!(stored(&lab, 2, "var/lib/data").unwrap().2, "datamore\n");
    assert_eq!(stored(&lab, 2, "etc/both"), None);
    assert_eq!(stored(&lab, 2, "usr/share/other/etc/both").unwrap().2, "default");
    assert_eq!(stored(&lab, 1, "etc/both").unwrap().2, "of the state");
    assert_eq!(told(), "");
    assert_eq!(run("cat /usr/new; exit 0"), "new");
    // The stage may be a directory in which the store lies, such as /tmp.
    let mut hidden = in_workspace(&lab, "run", "web");
    hidden.arg(lab.temporary.path()).args(["sh", "-c", "cat /usr/new"]);
    assert_eq!(answer(hidden), "new");
    assert_eq!(script_in(&lab, "web", "exit 7").status().unwrap().code(), Some(7));
    assert_eq!(registered(&lab), 0);
    // While a program runs in it, it is left to that.
    let mut child =
        script_in(&lab, "web", "echo ready; sleep 9876.5").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let name = WorkspaceName::new("web").unwrap();
    let held = lab.store.lock_workspace(&name);
    assert!(matches!(held, Err(cairn_store::Error::WorkspaceInUse { .. })), "{held:?}");
    let registered = cairn_fs::list(&lab.run_directory()).unwrap();
    assert_eq!(registered[0].workspace.as_deref(), Some("web"));
    let kept: Vec<_> = lab.store.workspace(&name).unwrap().trees().collect();
    assert_eq!(registered[0].trees, kept, "trees of the store, which gc can read");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("it is free", || lab.store.lock_workspace(&name).ok());
}

fn run_and_throw_away() {
    let lab = system();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let text = "echo new > /usr/new; rm -r /usr/share; echo x >> /etc/both; cat /usr/new /etc/both; \
                ls /usr; chmod 700 /etc/from-defaults; cat /etc/from-defaults";
    let seen = answer(script_in(&lab, "-", text));
    assert_eq!(seen, "new\nof the statex\nbin\nlib\nlib64\nnew\ndefault");
    assert_eq!(
        answer(script_in(&lab, "-", "ls /usr; cat /etc/both")),
        "bin\nlib\nlib64\nshare\nof the state"
    );
    assert!(lab.store.workspaces().unwrap().is_empty());
    assert_eq!(registered(&lab), 0);
    nothing_stays_mounted(&before);
}

fn completed() {
    let lab = system();
    let run = |text: &str| answer(script_in(&lab, "web", text));
    // A new mode alone: the content is only below, where a mount does not show it.
    run("chmod 600 /etc/from-defaults; mv /etc/hosts /etc/moved");
    mount_and(&lab, "web", |root| {
        assert_eq!(fs::read_to_string(root.join("etc/from-defaults")).unwrap(), "default");
        assert!(fs::read_to_string(root.join("etc/moved")).unwrap().contains("localhost"));
    });
    assert_eq!(answer(in_workspace(&lab, "diff", "web")), "/etc\n/etc/from-defaults\n/etc/moved");
    // All of /etc, with what shone through, in another place.
    run("mv /etc /usr/etc; mkdir /etc");
    assert_eq!(answer(in_workspace(&lab, "snapshot", "web")), "2");
    assert_eq!(stored(&lab, 2, "usr/etc/from-defaults"), Some((0o600, 0, "default".into())));
    assert_eq!(stored(&lab, 2, "usr/etc/both").unwrap().2, "of the state");
    assert!(stored(&lab, 2, "usr/etc/passwd").unwrap().2.starts_with("root:x:0:0:"));
    assert_eq!(stored(&lab, 2, "etc/both"), None);
    assert!(lab.store.verify(&()).unwrap().damage.is_empty());
    // Nothing shows through in a workspace in which only files were looked at.
    drop(lab);
    let lab = system();
    answer(script_in(&lab, "web", "cat /etc/hosts > /dev/null; touch /usr/new"));
    mount_and(&lab, "web", |root| assert!(!root.join("etc/hosts").exists()));
}

/// Mounts a workspace in a process of its own for as long as `f` takes.
fn mount_and(lab: &Lab, workspace: &str, f: impl FnOnce(&Path)) {
    let mut command = in_workspace(lab, "mount", workspace);
    let mut child = command.arg(lab.target()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    f(&lab.target());
    cairn_fs::unmount(&lab.target(), Unmount::Now).unwrap();
    assert!(child.wait().unwrap().success());
}

fn workspace_of_user() {
    let lab = system();
    with_fuse_for_all(&lab, || {
        let run = |text: &str| answer(as_nobody(&lab, &script_in(&lab, "web", text)));
        let told = || answer(as_nobody(&lab, &in_workspace(&lab, "diff", "web")));
        assert_eq!(run("id -u; cat /etc/from-defaults"), "0\ndefault");
        assert_eq!(told(), "");
        run("echo new > /usr/new; chmod 000 /usr/new; echo more >> /var/lib/data; rm /etc/both; \
             mkdir /made; echo y > /made/file; chmod 000 /made; chmod 700 /etc/from-defaults; \
             rm -r /root; mkdir /root; echo z > /root/z; ln /root/z /root/zz; mv /usr/share /usr/moved");
        let changed = told();
        for path in [
            "/usr/new",
            "/var/lib/data",
            "/etc/both",
            "/made",
            "/root/zz",
            "/usr/share",
            "/usr/moved",
        ] {
            assert!(changed.lines().any(|line| line == path), "{path}: {changed}");
        }
        assert_eq!(answer(as_nobody(&lab, &in_workspace(&lab, "snapshot", "web"))), "2");
        assert_eq!(run("cat /usr/new /made/file /root/zz"), "new\ny\nz");
        run("rm -r /made; echo again > /usr/again");
        assert_eq!(answer(as_nobody(&lab, &in_workspace(&lab, "snapshot", "web"))), "3");
        run("mkdir /made; chmod 000 /made");
        answer(as_nobody(&lab, &in_workspace(&lab, "discard", "web")));
        assert!(!lab.store.workspace_path(&WorkspaceName::new("web").unwrap()).exists());
        let thrown = answer(as_nobody(&lab, &script_in(&lab, "-", "echo x > /usr/x; cat /usr/x")));
        assert_eq!(thrown, "x");
    });
    // What the user made as root of its namespace belongs to root in the state.
    assert_eq!(stored(&lab, 2, "usr/new"), Some((0, 0, "new\n".into())));
    assert_eq!(stored(&lab, 2, "made/file"), Some((0o644, 0, "y\n".into())));
    assert_eq!(stored(&lab, 2, "etc/from-defaults"), Some((0o700, 0, "default".into())));
    assert_eq!(stored(&lab, 2, "usr/moved/defaults/etc/both").unwrap().2, "default");
    assert_eq!(stored(&lab, 2, "etc/both"), None);
    assert_eq!(stored(&lab, 3, "made/file"), None);
    assert_eq!(stored(&lab, 3, "usr/again").unwrap().2, "again\n");
}

/// Mounts the workspace `web` as an ordinary user, and calls `f` with its directory as
/// that user.
fn mount_as_nobody(lab: &Lab, f: impl FnOnce(&Path) + Send) {
    let mut command = as_nobody(lab, in_workspace(lab, "mount", "web").arg(lab.target()));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    sys::as_user(65534, || f(&lab.target()));
    answer(as_nobody(lab, &self::command(lab, "unmount", "follow")));
    assert!(child.wait().unwrap().success(), "it ends with the mount");
    assert_eq!(registered(lab), 0);
}

fn workspace_mounted_by_user() {
    let mut root = system_root();
    for path in ["srv/a", "srv/b", "srv/sub/c", "srv/sub/deep/d", "srv/other/e"] {
        put(&mut root, path, file(path.repeat(1000)));
    }
    for path in ["linked/one", "linked/two", "linked/sub/three"] {
        let attributes = Attributes::of_root(0o644);
        let item = Item::Link("/linked/one".into(), 3, attributes, b"linked".to_vec());
        put(&mut root, path, item);
    }
    let lab = Lab::default();
    lab.commit(&root);
    let plain = lab.temporary.path().join("plain");
    fs::create_dir(&plain).unwrap();
    chown(&plain, Some(65534), Some(65534)).unwrap();
    with_fuse_for_all(&lab, || {
        mount_as_nobody(&lab, |mount| {
            // A name of a hard link of the state goes its own way when it is written.
            fs::write(mount.join("linked/two"), "alone").unwrap();
            let read = |name: &str| fs::read_to_string(mount.join("linked").join(name)).unwrap();
            assert_eq!(["one", "two", "sub/three"].map(read), ["linked", "alone", "linked"]);
            // What belongs to root in there belongs to the user.
            let data = fs::metadata(mount.join("srv/a")).unwrap();
            assert_eq!((data.uid(), data.gid()), (65534, 65534));
            let from = mount.join("srv/.");
            let copied = Command::new("cp").arg("-a").arg(from).arg(&plain).status().unwrap();
            assert!(copied.success());
        });
        for seed in 1..=4 {
            mount_as_nobody(&lab, |mount| {
                twins::assert_alike(&mount.join("srv"), &plain, "mounted again");
                twins::do_alike(&mount.join("srv"), &plain, seed, 250);
            });
        }
        let run = |text: &str| answer(as_nobody(&lab, &script_in(&lab, "web", text)));
        assert_eq!(run("cat /linked/two; echo inside > /linked/new"), "alone");
        mount_as_nobody(&lab, |mount| {
            assert_eq!(fs::read(mount.join("linked/new")).unwrap(), b"inside\n");
        });
        assert_eq!(answer(as_nobody(&lab, &in_workspace(&lab, "snapshot", "web"))), "2");
    });
    lab.store.refresh().unwrap();
    let mounted = lab.mount(Shape::Pinned(StateId(2)));
    twins::assert_alike(&lab.target().join("srv"), &plain, "published");
    let data = fs::metadata(lab.target().join("linked/two")).unwrap();
    assert_eq!((data.uid(), data.gid(), data.size()), (0, 0, 5));
    drop(mounted);
}

fn workspace_killed() {
    let lab = system();
    let mut command = in_workspace(&lab, "mount", "web");
    let mut child = command.arg(lab.target()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    fs::write(lab.target().join("usr/new"), "new").unwrap();
    fs::remove_file(lab.target().join("etc/both")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // What was changed is in the layer; nobody gets it before the dead mount is gone.
    let said = answer(script_in(&lab, "web", "true"));
    assert!(said.starts_with("error: the workspace web is still mounted on "), "{said}");
    assert_eq!(answer(in_workspace(&lab, "diff", "web")), "/etc\n/etc/both\n/usr\n/usr/new");
    cairn_fs::unmount(&lab.target(), Unmount::WhenUnused).unwrap();
    assert_eq!(answer(script_in(&lab, "web", "cat /usr/new; ls /etc/both 2>/dev/null")), "new");
    assert_eq!(answer(in_workspace(&lab, "snapshot", "web")), "2");
    assert_eq!(stored(&lab, 2, "usr/new").unwrap().2, "new");
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
