//! Long text for people, a screen at a time.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::interrupt;

/// What a shell ends with when it cannot run a program.
const NOT_RUN: [i32; 2] = [126, 127];

/// Shows `text` with the command `pager`, until the reader has enough of it. Returns
/// whether it was shown.
///
/// `variables` are added to the environment that it gets.
pub(crate) fn show(pager: &str, variables: &[(&str, &str)], text: &str) -> bool {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(pager).stdin(Stdio::piped());
    command.envs(variables.iter().copied());
    // Ctrl-C is for the pager, which has the terminal.
    if interrupt::note().is_err() {
        return false;
    }
    let Ok(mut child) = command.spawn() else { return false };
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
    let Ok(status) = child.wait() else { return false };
    match written {
        // A reader who has seen enough ends the pager before the end of the text.
        Some(Err(err)) if err.kind() != io::ErrorKind::BrokenPipe => false,
        _ => !status.code().is_some_and(|code| NOT_RUN.contains(&code)),
    }
}
