//! Performs the calls on its standard input, one a line, in its working directory,
//! and prints what each gave.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use cairn_tests::Call;

fn main() -> ExitCode {
    cairn_tests::set_umask(0o022);
    for line in io::stdin().lock().lines() {
        let performed = line
            .map_err(|err| err.to_string())
            .and_then(|line| Call::parse(&line))
            .and_then(|call| call.perform())
            .and_then(|given| writeln!(io::stdout(), "{given}").map_err(|err| err.to_string()));
        if let Err(message) = performed {
            // Whoever asked sees the exit code, too.
            let _ = writeln!(io::stderr(), "perform: {message}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
