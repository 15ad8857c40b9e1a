//! How a build root is entered, and how what happens in there is heard of.
//!
//! One program runs in there for each target and stage: a driver that runs the
//! scripts one after the other. It says on its output which one begins and ends,
//! in lines that begin with a token that only this build knows.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cairn_fs::Bind;
use serde::{Deserialize, Serialize};

use crate::strip::quote;

/// What is run in a build root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of the state that is the build root.
    pub state: u64,
    /// A program and its arguments.
    pub command: Vec<String>,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    /// What of the machine is seen in there.
    pub binds: Vec<Bind>,
    /// Whether it may use the network.
    pub network: bool,
    /// Where it begins.
    pub directory: String,
    /// An empty directory of the machine.
    pub stage: PathBuf,
}

/// Enters build roots. The process that does it must have a single thread, so
/// that it is another one than this.
pub trait Enter {
    /// Starts the entry; its standard output and standard error are one stream,
    /// its standard input is empty.
    fn start(&self, entry: &Entry) -> std::io::Result<Box<dyn Entered>>;
}

/// A build root in which something runs.
pub trait Entered {
    /// Everything that it says.
    fn output(&mut self) -> Box<dyn Read + Send>;
    /// Waits until it has ended; gives its exit code, or 128 and the number of
    /// the signal that ended it.
    fn wait(&mut self) -> std::io::Result<i32>;
}

/// A script of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A script, as a path inside, of the step with this number.
    Script { step: usize, path: String },
    /// Somebody looks around; the scripts go on or end then.
    Breakpoint { step: usize, goes_on: bool },
}

/// The script that runs others one after the other.
pub(crate) fn driver(acts: &[Act], token: &str, shell_rc: &str) -> String {
    let mut script = format!(
        "exec 2>&1 </dev/null\nmark() {{ printf '\\036%s %s\\n' {} \"$*\"; }}\n",
        quote(token)
    );
    let mut current = None;
    for act in acts {
        let step = match act {
            Act::Script { step, .. } | Act::Breakpoint { step, .. } => *step,
        };
        if current != Some(step) {
            if let Some(before) = current {
                let _ = writeln!(script, "mark end {before} 0");
            }
            let _ = writeln!(script, "mark begin {step}");
            current = Some(step);
        }
        match act {
            Act::Script { path, .. } => {
                let path = quote(path);
                let _ = writeln!(
                    script,
                    "/usr/bin/bash {path} || {{ code=$?; mark end {step} $code; exit $code; }}"
                );
            }
            Act::Breakpoint { goes_on, .. } => {
                let rc = quote(shell_rc);
                let _ = writeln!(
                    script,
                    "if test -t 0 </dev/tty 2>/dev/null; then mark pause {step}; \
                     /usr/bin/bash --rcfile {rc} -i </dev/tty >/dev/tty 2>&1; mark resume {step}; \
                     else echo 'breakpoint: there is no terminal'; fi"
                );
                if !goes_on {
                    let _ = writeln!(script, "mark end {step} 0; exit 0");
                }
            }
        }
    }
    if let Some(step) = current {
        let _ = writeln!(script, "mark end {step} 0");
    }
    script
}

/// What a driver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A step begins.
    Begin(usize),
    /// A line of the step that runs.
    Line(Vec<u8>),
    /// A step has ended with this exit code.
    End(usize, i32, Duration),
    /// Somebody has the terminal, or gives it back.
    Pause(bool),
}

/// A line that goes on without end is cut here.
const MAX_LINE: usize = 64 << 10;

/// Reads the output of a driver to its end.
pub(crate) fn listen(output: impl Read, token: &str, mut heard: impl FnMut(Heard)) {
    let mut output = BufReader::with_capacity(64 << 10, output);
    let mark = [b"\x1e", token.as_bytes(), b" "].concat();
    let mut begun = Instant::now();
    let mut line = Vec::new();
    loop {
        line.clear();
        // Some lines are longer than any memory.
        let mut limited = (&mut output).take(MAX_LINE as u64);
        match limited.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let at = text.windows(mark.len()).position(|window| window == mark);
        let Some(at) = at else {
            heard(Heard::Line(text.to_vec()));
            continue;
        };
        // What came before it did not end its line.
        if at > 0 {
            heard(Heard::Line(text[..at].to_vec()));
        }
        let words = String::from_utf8_lossy(&text[at + mark.len()..]).into_owned();
        let words: Vec<&str> = words.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
        match (words.first().copied(), number(1)) {
            (Some("begin"), Some(step)) => {
                begun = Instant::now();
                heard(Heard::Begin(step));
            }
            (Some("end"), Some(step)) => {
                let code = number(2).and_then(|code| i32::try_from(code).ok()).unwrap_or(1);
                heard(Heard::End(step, code, begun.elapsed()));
            }
            (Some("pause"), _) => heard(Heard::Pause(true)),
            (Some("resume"), _) => heard(Heard::Pause(false)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(output: &[u8]) -> Vec<Heard> {
        let mut all = Vec::new();
        listen(output, "T", |it| match it {
            Heard::End(step, code, _) => all.push(Heard::End(step, code, Duration::ZERO)),
            it => all.push(it),
        });
        all
    }

    #[test]
    fn a_driver_tells_what_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let script = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a script");
            path.display().to_string()
        };
        let acts = [
            Act::Script { step: 0, path: script("a", "echo one; printf two") },
            Act::Script { step: 0, path: script("b", "echo three >&2") },
            Act::Script { step: 1, path: script("c", "echo '\x1eother begin 7'; exit 3") },
            Act::Script { step: 2, path: script("d", "echo never") },
        ];
        let driver = driver(&acts, "T", "/rc");
        let output = std::process::Command::new("/usr/bin/bash").arg("-c").arg(driver).output();
        let output = output.expect("bash");
        let line = |text: &str| Heard::Line(text.as_bytes().to_vec());
        assert_eq!(
            heard(&output.stdout),
            [
                Heard::Begin(0),
                line("one"),
                line("twothree"),
                Heard::End(0, 0, Duration::ZERO),
                Heard::Begin(1),
                line("\x1eother begin 7"),
                Heard::End(1, 3, Duration::ZERO),
            ]
        );
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn whatever_is_said_is_heard_in_pieces() {
        let long = vec![b'x'; MAX_LINE * 2 + 5];
        let lines = heard(&[&long[..], b"\nend\x1eT end 4 2\n"].concat());
        let lens: Vec<usize> = lines
            .iter()
            .map(|it| if let Heard::Line(line) = it { line.len() } else { 0 })
            .collect();
        assert_eq!(lens, [MAX_LINE, MAX_LINE, 5, 3, 0]);
        assert_eq!(lines.last(), Some(&Heard::End(4, 2, Duration::ZERO)));
        assert_eq!(heard(b"\x1eT nonsense\n\x1eT begin x\n"), []);
    }
}
