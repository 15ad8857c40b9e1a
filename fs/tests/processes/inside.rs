//! Programs that run inside a state.

use super::*;

pub fn inside() {
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

pub fn exit_codes() {
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

pub fn left_behind() {
    let lab = system();
    let mark = "98765.4";
    let begun = Instant::now();
    let text = format!("(sleep {mark} &) ; sleep {mark} & echo done");
    assert_eq!(answer(script(&lab, &text)), "done");
    assert!(begun.elapsed() < PATIENCE);
    eventually("they have ended", || processes_with(mark).is_empty().then_some(()));
}

pub fn passed_on() {
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

pub fn runner_killed() {
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

pub fn terminal() {
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

pub fn not_run() {
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

pub fn run_by_user() {
    let lab = system();
    with_fuse_for_all(&lab, || {
        let run = |text: &str| answer(as_nobody(&lab, &script(&lab, text)));
        assert_eq!(run("id -u; echo x > /etc/new; cat /etc/new /var/lib/data"), "0\nx\ndata");
        assert_eq!(run("ls /proc/1/fd > /dev/null && touch /tmp/a && ls /tmp"), "a");
        let status = as_nobody(&lab, &script(&lab, "exit 9")).status().unwrap();
        assert_eq!(status.code(), Some(9));
    });
}
