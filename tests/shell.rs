//! The program as the shell and the terminal of its user have it: configuration files,
//! completions and a pager.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use cairn_tests::{Cairn, Need, Stones};

/// A store with two states, a tag and a repository of which one package is installed.
fn system() -> Cairn {
    let cairn = Cairn::new();
    let stones = Stones::new(&cairn.directory().join("stones"));
    for name in ["zebra", "zucchini", "apple"] {
        stones.add(name, 1, 1000);
    }
    stones.index(None);
    cairn.data(["repo", "add", "orchard", &format!("file://{}", stones.path().display())]);
    cairn.data(["--yes", "install", "zebra"]);
    cairn.data(["state", "tag", "golden", "1"]);
    cairn.data(["--yes", "install", "apple"]);
    cairn
}

/// What bash offers where the last of `words` stands, with the script of the program.
fn offered(cairn: &Cairn, words: &[&str]) -> Vec<String> {
    let script = r#"
        PATH="$1:$PATH"; shift
        source <(cairn completions bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
        _clap_complete_cairn cairn "${COMP_WORDS[COMP_CWORD]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    cairn.settle(&mut bash).args(["-c", script, "bash"]).arg(cairn.program().parent().unwrap());
    let ended = bash.args(words).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = String::from_utf8(ended.stdout).unwrap();
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn a_shell_offers_what_the_store_has_at_that_moment() {
    if !Need::all(&[Need::Program("bash", "bash")]) {
        return;
    }
    let cairn = system();
    assert_eq!(offered(&cairn, &["cairn", "reins"]), ["reinstall"]);
    assert_eq!(offered(&cairn, &["cairn", "remove", "z"]), ["zebra"]);
    assert_eq!(offered(&cairn, &["cairn", "install", "z"]), ["zebra", "zucchini"]);
    assert_eq!(offered(&cairn, &["cairn", "switch", ""]).first().unwrap(), "1");
    assert_eq!(offered(&cairn, &["cairn", "switch", "g"]), ["golden"]);
    assert_eq!(offered(&cairn, &["cairn", "state", "untag", "g"]), ["golden"]);
    assert_eq!(offered(&cairn, &["cairn", "repo", "disable", "o"]), ["orchard"]);
    assert_eq!(offered(&cairn, &["cairn", "repo", "add", "o"]), [""; 0]);
    cairn.data(["--yes", "remove", "zebra"]);
    assert_eq!(offered(&cairn, &["cairn", "remove", "z"]), [""; 0]);
    // Another store, and none at all.
    let other = cairn.directory().join("other");
    let other = other.to_str().unwrap();
    assert_eq!(offered(&cairn, &["cairn", "--store", other, "remove", "a"]), [""; 0]);
    let joined = format!("--store={other}");
    assert_eq!(offered(&cairn, &["cairn", &joined, "remove", "a"]), [""; 0]);
    assert!(!fs::exists(other).unwrap());
}

/// What fish offers where `line` ends, without the descriptions.
fn offered_by_fish(cairn: &Cairn, line: &str) -> Vec<String> {
    let script = r#"
        set -p PATH $argv[1]
        cairn completions fish | source
        complete --do-complete "$argv[2]""#;
    let mut fish = Command::new("fish");
    cairn.settle(&mut fish).args(["--no-config", "-c", script]);
    let ended = fish.arg(cairn.program().parent().unwrap()).arg(line).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = String::from_utf8(ended.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split('\t').next());
    names.map(str::to_owned).collect()
}

#[test]
fn fish_offers_the_same() {
    if !Need::all(&[Need::Program("fish", "fish")]) {
        return;
    }
    let cairn = system();
    let offered = |line| offered_by_fish(&cairn, line);
    assert_eq!(offered("cairn reins"), ["reinstall"]);
    assert_eq!(offered("cairn remove z"), ["zebra"]);
    assert_eq!(offered("cairn install z"), ["zebra", "zucchini"]);
    assert_eq!(offered("cairn switch g"), ["golden"]);
    assert_eq!(offered("cairn install --dry"), ["--dry-run"]);
    assert_eq!(offered("cairn remove no-such"), [""; 0]);
}

/// The line that zsh makes of `line` and a press of Tab, with its completions where `make
/// install` puts them. What it lists for somebody to choose stands before it.
fn completed_by_zsh(cairn: &Cairn, line: &str) -> (String, String) {
    // Its completions only work for somebody who types. `zpty` is a terminal; Ctrl-X shows
    // what the line has become, between marks that are not in what is typed before.
    let script = r#"
        zmodload zsh/zpty
        export PATH="$1:$PATH" TERM=dumb
        zpty shell zsh -f -i
        zpty -w shell 'PS1= PS2=; stty -echo cols 80; fpath=("$PWD/functions" $fpath)
            autoload -Uz compinit; compinit -u -D
            show() { print -r -- $'\''\n'\''"[begin]${BUFFER}[end]"; BUFFER= }
            zle -N show; bindkey "^X" show; bindkey "^I" complete-word; print "rea""dy"'
        zpty -r -m shell text '*ready*' || exit 1
        zpty -n -w shell "$2"$'\t\x18'
        zpty -r -m shell text '*\[end\]*' || exit 1
        print -r -- "$text""#;
    let functions = cairn.directory().join("functions");
    fs::create_dir_all(&functions).unwrap();
    fs::write(functions.join("_cairn"), cairn.data(["completions", "zsh"])).unwrap();
    let mut zsh = Command::new("zsh");
    cairn.settle(&mut zsh).args(["-f", "-c", script, "zsh"]);
    let ended = zsh.arg(cairn.program().parent().unwrap()).arg(line).output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{line:?}: {text}{complaint}");
    let (listed, rest) = text.rsplit_once("[begin]").unwrap();
    let (line, _) = rest.split_once("[end]").unwrap();
    (line.to_owned(), listed.to_owned())
}

#[test]
fn zsh_offers_the_same_at_the_first_press_of_tab() {
    if !Need::all(&[Need::Program("zsh", "zsh")]) {
        return;
    }
    let cairn = system();
    let check = |line, expected: &str| {
        assert_eq!(completed_by_zsh(&cairn, line).0, expected, "{line:?}");
    };
    check("cairn reins", "cairn reinstall ");
    check("cairn remove z", "cairn remove zebra ");
    check("cairn switch g", "cairn switch golden ");
    check("cairn install --dry", "cairn install --dry-run ");
    check("cairn remove no-such", "cairn remove no-such");
    let (line, listed) = completed_by_zsh(&cairn, "cairn install z");
    assert_eq!(line, "cairn install z");
    assert!(listed.contains("zebra") && listed.contains("zucchini"), "{listed}");
}

#[test]
fn files_say_what_options_would_and_less_than_those() {
    let cairn = system();
    let directory = cairn.directory().to_owned();
    let own = directory.join(".config/cairn");
    fs::create_dir_all(own.join("config.d")).unwrap();
    let elsewhere = directory.join("elsewhere");
    fs::write(own.join("config.yaml"), format!("store: {}\n", elsewhere.display())).unwrap();
    let info = |args: &[&str]| {
        let mut command = cairn.command([args, &["store", "info", "--json"]].concat());
        let ended = command.env_remove("CAIRN_STORE").output().unwrap();
        String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap()
    };
    assert!(info(&[]).contains("elsewhere"), "{}", info(&[]));
    assert!(info(&["--store", "store"]).contains("\"states\": 2"));
    fs::write(own.join("config.d/50.yaml"), format!("store: {}\n", cairn.store().display()))
        .unwrap();
    assert!(info(&[]).contains("\"states\": 2"), "a drop-in file counts more");
    assert!(cairn.data(["--color", "always", "list"]).contains('\u{1b}'));
    assert!(!cairn.data(["list"]).contains('\u{1b}'));
    fs::write(own.join("config.d/60.yaml"), "color: always\n").unwrap();
    assert!(cairn.data(["list"]).contains('\u{1b}'));
    assert!(!cairn.data(["--color", "never", "list"]).contains('\u{1b}'));

    fs::write(own.join("config.d/60.yaml"), "colour: always\n").unwrap();
    let complaint = cairn.fails(1, ["list"]);
    assert!(complaint.contains("60.yaml") && complaint.contains("colour"), "{complaint}");
    let ended = cairn.command(["list"]).env("CAIRN_CONFIG", "").output().unwrap();
    assert!(ended.status.success(), "the files can be left out");
}

/// Runs `cairn ARGS` in a terminal of 10 lines with this pager.
fn in_terminal(cairn: &Cairn, pager: &str, args: &str) -> String {
    let program = cairn.program().display();
    let line = format!("stty rows 10 cols 80; '{program}' {args}; echo ended $?");
    let mut script = Command::new("script");
    cairn.settle(&mut script).args(["-qec", &line, "/dev/null"]).env("CAIRN_PAGER", pager);
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // No byte comes, and the input ends: nobody is there to leave a pager.
    script.stdin.take().unwrap().flush().unwrap();
    let ended = script.wait_with_output().unwrap();
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn a_pager_shows_what_does_not_fit_and_nothing_else() {
    if !Need::all(&[Need::Program("script", "bsdutils")]) {
        return;
    }
    let cairn = system();
    let pager = "sed 's/^/paged /'";
    let long = in_terminal(&cairn, pager, "find current '*'");
    assert!(long.contains("paged /") && long.contains("ended 0"), "{long}");
    let short = in_terminal(&cairn, pager, "list");
    assert!(short.contains("zebra") && !short.contains("paged"), "{short}");
    let option = in_terminal(&cairn, pager, "--no-pager find current '*'");
    assert!(option.contains("/usr") && !option.contains("paged"), "{option}");
    let json = in_terminal(&cairn, pager, "--json find current '*'");
    assert!(json.contains("/usr") && !json.contains("paged"), "{json}");
    // A reader who has had enough, and a pager that is not there.
    let left = in_terminal(&cairn, "head -n 1", "find current '*'");
    assert!(left.contains("ended 0"), "{left}");
    let missing = in_terminal(&cairn, "no-such-pager", "find current '*'");
    assert!(missing.contains("/usr/share") && missing.contains("ended 0"), "{missing}");
    let none = in_terminal(&cairn, "", "find current '*'");
    assert!(none.contains("/usr/share"), "{none}");
}
