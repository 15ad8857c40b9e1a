//! Mounts in processes of their own: left in the background, killed, measured.
//!
//! The tests start this program again with `role NAME` to be such a process.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod background;
mod inside;
#[path = "../support/mod.rs"]
mod support;
mod workspaces;

use std::error::Error as _;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use cairn_fs::workspace::{self, Becomes, Room};
use cairn_fs::{Error, Network, Options, Program, Shape, Signals, Unmount, control};
use cairn_store::{Attributes, StateId, Store, TreePath, WorkspaceName, diff, resolve};
use support::{Directory, Item, Lab, PATIENCE, eventually, file, items_of, put, sys, twins};

const TESTS: &[(&str, fn())] = &[
    ("a_mount_in_the_background_is_ready_when_the_command_returns", background::ready),
    ("why_a_mount_in_the_background_fails_is_told_before_the_command_returns", background::failing),
    ("a_process_with_threads_is_not_copied", background::threads),
    ("a_mount_ends_in_good_order_on_a_signal", background::signals),
    ("what_a_killed_mount_leaves_behind_can_be_cleaned_up", background::killed),
    ("a_supervisor_is_told_when_the_mount_is_ready", background::supervised),
    ("an_ordinary_user_mounts_for_itself_alone", background::for_oneself),
    ("a_program_inside_a_state_has_what_it_needs_and_no_more", inside::inside),
    ("the_exit_code_of_a_program_is_passed_on", inside::exit_codes),
    ("what_a_program_leaves_behind_ends_with_it", inside::left_behind),
    ("signals_reach_the_program_inside", inside::passed_on),
    ("a_killed_runner_takes_everything_inside_along", inside::runner_killed),
    ("a_program_inside_has_the_terminal", inside::terminal),
    ("why_a_program_cannot_be_run_is_told", inside::not_run),
    ("an_ordinary_user_runs_programs_inside_a_state", inside::run_by_user),
    ("what_a_program_changes_in_a_workspace_stays_in_it", workspaces::run_in_workspace),
    ("what_is_thrown_away_was_nowhere", workspaces::run_and_throw_away),
    (
        "what_shone_through_becomes_a_part_of_the_workspace_when_it_is_changed",
        workspaces::completed,
    ),
    ("an_ordinary_user_works_in_a_workspace", workspaces::workspace_of_user),
    ("an_ordinary_user_mounts_a_workspace", workspaces::workspace_mounted_by_user),
    ("a_killed_mount_of_a_workspace_loses_nothing", workspaces::workspace_killed),
    ("a_walk_of_a_whole_system_stays_within_the_memory_that_is_allowed", background::memory),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, name, rest @ ..] = &arguments[..]
        && role == "role"
    {
        return play(name, rest);
    }
    sys::heed_interrupts();
    support::run(TESTS, &arguments)
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

/// Other programs of the machine may mount something meanwhile.
fn nothing_stays_mounted(before: &str) {
    let now = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    eventually("all mounts are as before", || (now() == before).then_some(()));
}
