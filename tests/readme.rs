//! The README's first quarter of an hour: its own commands do what it says they do.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cairn_tests::{Cairn, Mount, Need};

/// The project's own directory.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap()
}

/// A command of the README, and what it prints there.
#[derive(Debug)]
struct Shown {
    command: String,
    output: Vec<String>,
}

/// The commands of the section `heading`, in their order.
fn commands_of(readme: &str, heading: &str) -> Vec<Shown> {
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).expect("the section");
    let section = section.split("\n## ").next().unwrap();
    let mut shown: Vec<Shown> = Vec::new();
    for block in section.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => shown.push(Shown { command: command.into(), output: vec![] }),
                None => shown.last_mut().expect("a command").output.push(line.into()),
            }
        }
    }
    shown
}

/// A line with what differs between machines and days taken out: times, sizes,
/// counts and versions of packages, numbers of processes. Numbers of states stay.
fn masked(line: &str) -> String {
    const MASKS: [(&str, &[&str]); 3] = [
        ("SIZE", &["B", "KiB", "MiB", "GiB"]),
        ("TIME", &["ms", "s", "min"]),
        ("COUNT", &["package", "packages", "objects", "packs", "of", "%"]),
    ];
    let tokens = tokens(line);
    let mut masked = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let follows = tokens.get(at).copied().unwrap_or_default();
        let mask = MASKS.iter().find(|(_, units)| units.contains(&follows));
        if !token.starts_with(|c: char| c.is_ascii_digit()) {
            masked.push(*token);
        } else if let Some((mask, _)) = mask {
            // The unit depends on the number.
            masked.push(mask);
            at += 1;
        } else if token.contains(['.', ',', ':', '-']) || masked.last() == Some(&"process") {
            masked.push("NUMBER");
        } else {
            masked.push(token);
        }
    }
    masked.join(" ")
}

/// Numbers, with what stands between their digits; words; everything else.
fn tokens(line: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = line.trim();
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| match first {
            '0'..='9' => c.is_ascii_digit() || ".,:-".contains(c),
            _ => first.is_alphabetic() && c.is_alphanumeric(),
        };
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len()).max(first.len_utf8());
        let token = match first {
            '0'..='9' => rest[..end].trim_end_matches(['.', ',', ':', '-']),
            _ => &rest[..end],
        };
        tokens.push(token);
        rest = rest[token.len()..].trim_start();
    }
    tokens
}

/// Whether `printed` is what was `shown`, where a line `…` stands for any lines.
fn is_shown(shown: &[String], printed: &[String]) -> bool {
    match shown {
        [] => printed.is_empty(),
        [dots, rest @ ..] if dots == "…" => {
            (0..=printed.len()).any(|from| is_shown(rest, &printed[from..]))
        }
        [line, rest @ ..] => match printed {
            [first, after @ ..] => masked(line) == masked(first) && is_shown(rest, after),
            [] => false,
        },
    }
}

/// Runs commands one after the other in one shell, as one types them; returns the
/// exit code and the lines that each printed.
fn type_all(cairn: &Cairn, commands: &[Shown]) -> Vec<(i32, Vec<String>)> {
    let mut script = String::new();
    let home = cairn.directory();
    for (number, Shown { command, .. }) in commands.iter().enumerate() {
        let out = home.join(format!(".{number}"));
        let out = out.display();
        script.push_str(&format!("{{ {command}\n}} >{out} 2>&1\necho $? >{out}.code\n"));
    }
    let mut shell = Command::new("bash");
    let others = std::env::var("PATH").unwrap();
    let path = format!("{}:{others}", cairn.program().parent().unwrap().display());
    cairn.settle(&mut shell).env("PATH", path).env_remove("CAIRN_STORE");
    // The state has no locales.
    shell.env("LC_ALL", "C");
    let ended = shell.args(["-c", &script]).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let read = |number: usize| {
        let text = fs::read_to_string(home.join(format!(".{number}"))).unwrap();
        let code = fs::read_to_string(home.join(format!(".{number}.code"))).unwrap();
        (code.trim().parse().unwrap(), text.lines().map(Into::into).collect())
    };
    (0..commands.len()).map(read).collect()
}

#[test]
fn the_first_quarter_of_an_hour_is_as_the_readme_tells_it() {
    if !Need::all(&[Need::Debian, Need::Fuse, Need::Root]) {
        return;
    }
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let commands = commands_of(&readme, "The first quarter of an hour");
    assert!(commands.len() >= 15, "{commands:?}");
    let cairn = Cairn::new();
    symlink(project().join("tests"), cairn.directory().join("tests")).unwrap();
    // They go away whatever happens.
    let _mounts = ["root", "states", "work"].map(|name| Mount::expected(&cairn, name));

    for (Shown { command, output }, (code, mut printed)) in
        commands.iter().zip(type_all(&cairn, &commands))
    {
        let lines = printed.join("\n");
        let program = command.split(' ').next().unwrap();
        let fails = output.first().is_some_and(|line| line.starts_with(&format!("{program}: ")));
        assert_eq!(code != 0, fails, "$ {command}\n{lines}");
        // On a terminal these are bars, which are gone in the end.
        printed.retain(|line| !line.ends_with(" ..."));
        // A command of which nothing is shown may print what it likes.
        let same = output.is_empty() || is_shown(output, &printed);
        assert!(same, "$ {command}\n{lines}\n\nbut the README shows\n{}", output.join("\n"));
    }
}

#[test]
fn the_numbers_of_a_machine_are_masked_and_nothing_else() {
    let same = |left: &str, right: &str| assert_eq!(masked(left), masked(right));
    same("State 1: 14 packages installed (397 ms).", "State 1: 9 packages installed (1.2 s).");
    same("root shows it (process 14533).", "root shows it (process 7).");
    same("5.2.15(1)-release", "5.2.37(1)-release");
    same("Files of all states   82 MiB (21 % of it)", "Files of all states  7.1 MiB (9 % of it)");
    same("*  2  2026-11-23 03:06:56  1,203  42 MiB", "*  2  2027-01-02 13:16:59  999,111  1.5 GiB");
    let differ = |left: &str, right: &str| assert_ne!(masked(left), masked(right));
    differ("State 1 is current instead of 2 (6 ms).", "State 2 is current instead of 1 (6 ms).");
    differ("states shows all (process 1).", "root shows all (process 1).");
    differ("1 packages to install", "1 packages to remove");
    differ("2", "12");
}

/// Runs tools/demo in an empty directory for temporary files.
fn demo(cairn: &Cairn, path: &str) -> Output {
    let temporary = cairn.directory().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut demo = Command::new(project().join("tools/demo"));
    cairn.settle(&mut demo).env("TMPDIR", &temporary).env("PATH", path);
    let ended = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().collect();
    assert!(left.is_empty(), "the demonstration leaves {left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(temporary.to_str().unwrap()), "the demonstration leaves a mount");
    ended
}

fn assert_shows(ended: &Output, expected: &[&str]) {
    let [stdout, stderr] = [&ended.stdout, &ended.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(ended.status.success(), "{}\n{stdout}{stderr}", ended.status);
    let mut rest = &*stdout;
    for words in expected {
        let at = rest.find(words);
        let at = at.unwrap_or_else(|| panic!("{words:?} is not next in\n{stdout}{stderr}"));
        rest = &rest[at..];
    }
}

#[test]
fn the_demonstration_shows_what_it_promises_and_leaves_nothing() {
    if !Need::all(&[Need::Debian, Need::Fuse]) {
        return;
    }
    let cairn = Cairn::new();
    let ended = demo(&cairn, &std::env::var("PATH").unwrap());
    assert_shows(
        &ended,
        &[
            "Download bash, coreutils, nano, python3",
            "$ cairn --quiet convert debs -o stones",
            "$ cairn repo index stones",
            "State 1 is current: ",
            "root shows the current state",
            "bash 5.",
            "State 2 is current: ",
            "GNU nano, version ",
            "install bash coreutils",
            "State 1 is current instead of 2",
            "/usr/bin/nano is gone from the live root;",
            "state 2 still has it:  GNU nano, version ",
            ": no damage.",
            "On the disk",
            "Times",
        ],
    );
}

#[test]
fn the_demonstration_goes_without_apt() {
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let cairn = Cairn::new();
    // All programs of this machine but those of Debian.
    let programs = cairn.directory().join("programs");
    fs::create_dir(&programs).unwrap();
    for directory in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_debians =
                ["apt", "dpkg"].iter().any(|it| name.as_encoded_bytes().starts_with(it.as_bytes()));
            if !is_debians {
                // The first of a name is the one that is run.
                let _ = symlink(entry.path(), programs.join(name));
            }
        }
    }
    let ended = demo(&cairn, programs.to_str().unwrap());
    assert_shows(
        &ended,
        &["There is no apt here", "State 1 is current: ", "is in the live root again", "Times"],
    );
}
