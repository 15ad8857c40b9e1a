//! The only place that prints.
//!
//! Data goes to standard output: as text for people, or with `--json` as one
//! document for programs. Everything else goes to standard error.

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use crate::config::Config;
use crate::context::{Color, Level, Options, no_color, pager_command, pager_variables};
use crate::error::Error;
use crate::lines::Lines;
use crate::page::{Look, Page, Style};
use crate::pager;
use crate::progress::{Mode, Phase, Progress, Unit};
use crate::sys;

/// Something that a command has found out: a value for programs that people
/// can read as well.
pub(crate) trait View: Serialize {
    /// Writes the value for people.
    fn show(&self, page: &mut Page);
}

/// How questions are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// Always yes, without asking.
    Yes,
    /// By who sits at the terminal.
    Asked,
    /// Nobody is there to answer.
    Nobody,
}

/// Where a command's words go.
pub(crate) struct Output<'a> {
    stdout: Box<dyn Write + 'a>,
    stderr: Box<dyn Write + 'a>,
    stdin: Box<dyn BufRead + 'a>,
    look_of_stdout: Look,
    look_of_stderr: Look,
    json: bool,
    level: Level,
    answers: Answers,
    /// The reader of standard output has gone.
    closed: bool,
    progress: Progress,
    /// What shows text that is longer than the terminal.
    pager: Option<Pager>,
}

/// What shows long text.
struct Pager {
    command: String,
    /// Lines of the terminal.
    rows: usize,
    variables: Vec<(&'static str, &'static str)>,
}

impl Output<'static> {
    /// Prints to the streams of the process.
    pub(crate) fn standard(options: &Options, config: &Config) -> Self {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let look = |is_terminal: bool, columns: Option<usize>| Look {
            width: is_terminal.then(|| columns.unwrap_or(80)),
            colors: match options.color {
                Some(Color::Always) => true,
                Some(Color::Never) => false,
                Some(Color::Auto) => is_terminal && !no_color(),
                None => match config.color.unwrap_or_default() {
                    Color::Always => !no_color(),
                    Color::Never => false,
                    Color::Auto => is_terminal && !no_color(),
                },
            },
        };
        let answers = if options.yes {
            Answers::Yes
        } else if stdin.is_terminal() && stderr.is_terminal() && !options.json {
            Answers::Asked
        } else {
            Answers::Nobody
        };
        let mode = if options.level() < Level::Info || options.json {
            Mode::Silent
        } else if stderr.is_terminal() {
            Mode::Bars
        } else {
            Mode::Lines
        };
        let pager = if stdout.is_terminal() && !options.no_pager && !options.json {
            pager_command(config).zip(sys::rows(stdout.as_fd()))
        } else {
            None
        };
        let pager =
            pager.map(|(command, rows)| Pager { command, rows, variables: pager_variables() });
        Self {
            pager,
            look_of_stdout: look(stdout.is_terminal(), sys::columns(stdout.as_fd())),
            look_of_stderr: look(stderr.is_terminal(), sys::columns(stderr.as_fd())),
            stdout: Box::new(io::BufWriter::new(stdout)),
            stderr: Box::new(stderr),
            stdin: Box::new(stdin.lock()),
            json: options.json,
            level: options.level(),
            answers,
            closed: false,
            progress: Progress::new(mode),
        }
    }
}

impl Output<'_> {
    /// Prints what the command was asked for; once a command, since with
    /// `--json` it is a document.
    ///
    /// A reader that has gone (`cairn ... | head`) is no error here: what the
    /// command does must not depend on who listens.
    pub(crate) fn data(&mut self, view: &impl View) -> Result<(), Error> {
        if self.json {
            let mut text = serde_json::to_string_pretty(view).map_err(Error::Json)?;
            text.push('\n');
            return self.print(text.as_bytes());
        }
        let mut page = Page::new(self.look_of_stdout);
        view.show(&mut page);
        self.print(page.into_text().as_bytes())
    }

    /// Like [`Output::data`], for what may be long: on a terminal that it does not fit on,
    /// a pager shows it.
    pub(crate) fn list(&mut self, view: &impl View) -> Result<(), Error> {
        let Some(pager) = &self.pager else { return self.data(view) };
        let mut page = Page::new(self.look_of_stdout);
        view.show(&mut page);
        let text = page.into_text();
        // The prompt takes a line, too.
        let is_long = text.lines().count() >= pager.rows;
        let show = || pager::show(&pager.command, &pager.variables, &text);
        if is_long && self.progress.suspend(show) {
            return Ok(());
        }
        self.print(text.as_bytes())
    }

    /// Prints bytes as they are, such as a file's content.
    ///
    /// Returns whether somebody still reads.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        self.print(bytes)?;
        Ok(!self.closed)
    }

    /// Prints no data from here on, as if its reader had gone.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    fn print(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.closed {
            return Ok(());
        }
        let written = self.progress.suspend(|| {
            self.stdout.write_all(bytes)?;
            self.stdout.flush()
        });
        match written {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written.map_err(Error::Output),
        }
    }

    /// Tells people what is about to happen, before a question. Programs get it
    /// as a part of the data.
    pub(crate) fn preview(&mut self, view: &impl View) {
        if self.json || (!self.tells(Level::Info) && self.answers == Answers::Yes) {
            return;
        }
        let mut page = Page::new(self.look_of_stderr);
        view.show(&mut page);
        self.tell(&page.into_text());
    }

    /// Tells people what has happened.
    pub(crate) fn status(&mut self, text: fmt::Arguments<'_>) {
        if !self.json && self.tells(Level::Info) {
            self.tell_styled(Style::Plain, "", text);
        }
    }

    /// Tells people what they should know although the command goes on.
    pub(crate) fn warning(&mut self, text: fmt::Arguments<'_>) {
        if !self.json && self.tells(Level::Warn) {
            self.tell_styled(Style::Note, "warning: ", text);
        }
    }

    /// Tells why the command has failed, and what might help.
    pub(crate) fn failure(&mut self, error: &Error) {
        if !self.tells(Level::Error) {
            return;
        }
        let failure = error.failure();
        if self.json {
            let text = serde_json::to_string_pretty(&failure);
            self.tell(&format!("{}\n", text.expect("strings make a document")));
            return;
        }
        // An explanation may have several lines; each is escaped on its own.
        let line = failure.line();
        let mut lines = line.lines();
        let first = lines.next().unwrap_or_default();
        self.tell_styled(Style::Bad, "cairn: ", format_args!("{first}"));
        for line in lines {
            self.tell_styled(Style::Plain, "  ", format_args!("{line}"));
        }
        if let Some(help) = &failure.help {
            self.tell_styled(Style::Note, "help: ", format_args!("{help}"));
        }
    }

    /// Asks `question`, to which anything but `y` and `yes` means no, as does
    /// the end of the input.
    ///
    /// # Errors
    /// [`Error::CannotAsk`]: nobody is there to answer, and `--yes` was not
    /// given. [`Error::Declined`]: the answer is no.
    pub(crate) fn confirm(&mut self, question: &str) -> Result<(), Error> {
        match self.answers {
            Answers::Yes => return Ok(()),
            Answers::Nobody => return Err(Error::CannotAsk),
            Answers::Asked => {}
        }
        self.tell(&format!("{question} [y/N] "));
        let mut answer = String::new();
        let read = self.stdin.read_line(&mut answer).map_err(Error::Input)?;
        if read == 0 {
            self.tell("\n");
        }
        let yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        if yes { Ok(()) } else { Err(Error::Declined) }
    }

    /// Asks for something that nobody is to see, and that is not shown while it
    /// is typed; nothing if nobody is there to answer.
    pub(crate) fn ask_secretly(&mut self, question: &str) -> Result<Option<String>, Error> {
        if !io::stdin().is_terminal() || self.json {
            return Ok(None);
        }
        self.tell(question);
        rpassword::read_password().map(Some).map_err(Error::Input)
    }

    /// Begins a phase of work that may take a while.
    pub(crate) fn phase(&self, name: &str, total: Option<u64>, unit: Unit) -> Phase {
        self.progress.phase(name, total, unit)
    }

    /// The same for work that tells of its phases itself.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Shows what programs say while they run.
    pub(crate) fn lines(&self) -> Lines {
        let silent = self.json || !self.tells(Level::Info);
        Lines::new(self.progress.clone(), self.look_of_stderr, silent)
    }

    /// Whether people want to know of what has this level.
    fn tells(&self, level: Level) -> bool {
        self.level >= level
    }

    fn tell_styled(&mut self, style: Style, word: &str, text: fmt::Arguments<'_>) {
        let mut page = Page::new(Look { width: None, ..self.look_of_stderr });
        page.marked_line(style, word, text);
        self.tell(&page.into_text());
    }

    /// Writes to standard error. When even that fails there is nobody to tell.
    fn tell(&mut self, text: &str) {
        let _ = self.progress.suspend(|| {
            self.stderr.write_all(text.as_bytes())?;
            self.stderr.flush()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Greeting {
        to: &'static str,
    }

    impl View for Greeting {
        fn show(&self, page: &mut Page) {
            page.line(format_args!("Hello {}", self.to));
        }
    }

    const LOOK: Look = Look { width: None, colors: false };

    /// Runs `command` with an output of its own; returns what it printed.
    fn run<R>(
        change: impl FnOnce(&mut Output<'_>),
        input: &str,
        command: impl FnOnce(&mut Output<'_>) -> R,
    ) -> (R, String, String) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut output = Output {
            stdout: Box::new(&mut stdout),
            stderr: Box::new(&mut stderr),
            stdin: Box::new(input.as_bytes()),
            look_of_stdout: LOOK,
            look_of_stderr: LOOK,
            json: false,
            level: Level::Info,
            answers: Answers::Asked,
            closed: false,
            progress: Progress::new(Mode::Silent),
            pager: None,
        };
        change(&mut output);
        let result = command(&mut output);
        drop(output);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (result, text(stdout), text(stderr))
    }

    fn everything(output: &mut Output<'_>) {
        output.preview(&Greeting { to: "before" });
        output.status(format_args!("Greeted."));
        output.data(&Greeting { to: "world" }).unwrap();
    }

    #[test]
    fn people_get_data_on_one_stream_and_the_rest_on_the_other() {
        let ((), stdout, stderr) = run(|_| (), "", everything);
        assert_eq!(stdout, "Hello world\n");
        assert_eq!(stderr, "Hello before\nGreeted.\n");
    }

    #[test]
    fn programs_get_one_document_and_nothing_else() {
        let ((), stdout, stderr) = run(|output| output.json = true, "", everything);
        assert_eq!(stdout, "{\n  \"to\": \"world\"\n}\n");
        assert_eq!(stderr, "");
    }

    #[test]
    fn quiet_hides_what_was_done_but_never_what_a_question_is_about() {
        let quiet = |output: &mut Output<'_>| output.level = Level::Warn;
        let ((), _, stderr) = run(quiet, "", everything);
        assert_eq!(stderr, "Hello before\n");
        let sure = |output: &mut Output<'_>| {
            (output.level, output.answers) = (Level::Warn, Answers::Yes);
        };
        let ((), _, stderr) = run(sure, "", everything);
        assert_eq!(stderr, "");
    }

    #[test]
    fn each_level_tells_what_the_one_below_does_and_more() {
        let told = |level| {
            let set =
                |output: &mut Output<'_>| (output.level, output.answers) = (level, Answers::Yes);
            let all = |output: &mut Output<'_>| {
                output.warning(format_args!("old"));
                output.failure(&Error::Declined);
                everything(output);
            };
            let ((), stdout, stderr) = run(set, "", all);
            assert_eq!(stdout, "Hello world\n", "{level:?}");
            ["warning: ", "cairn: ", "Greeted"].map(|word| stderr.contains(word))
        };
        assert_eq!(told(Level::Off), [false; 3]);
        assert_eq!(told(Level::Error), [false, true, false]);
        assert_eq!(told(Level::Warn), [true, true, false]);
        assert_eq!(told(Level::Info), [true; 3]);
        assert_eq!(told(Level::Trace), [true; 3]);
    }

    #[test]
    fn only_yes_is_yes() {
        let ask = |output: &mut Output<'_>| output.confirm("Continue?");
        for input in ["y\n", "Y\n", "yes\n", "YES", " y \n"] {
            assert!(run(|_| (), input, ask).0.is_ok(), "{input:?}");
        }
        for input in ["", "\n", "n\n", "yep\n", "no\ny\n"] {
            let (answer, _, stderr) = run(|_| (), input, ask);
            assert!(matches!(answer, Err(Error::Declined)), "{input:?}");
            assert!(stderr.starts_with("Continue? [y/N] "), "{stderr:?}");
        }
        let nobody = |output: &mut Output<'_>| output.answers = Answers::Nobody;
        assert!(matches!(run(nobody, "y\n", ask).0, Err(Error::CannotAsk)));
        let sure = |output: &mut Output<'_>| output.answers = Answers::Yes;
        assert!(run(sure, "", ask).0.is_ok());
    }

    #[test]
    fn an_explanation_of_several_lines_keeps_them_and_nothing_else_of_a_terminal() {
        let source = io::Error::other("nothing provides x\n  - y needs x\u{1b}[2J");
        let error = Error::Read { path: "here".into(), source };
        let ((), _, stderr) = run(|_| (), "", |output| output.failure(&error));
        let expected = "cairn: cannot read here: nothing provides x\n    - y needs x\u{fffd}[2J\n";
        assert_eq!(stderr, expected);
    }

    /// A pipe whose reader has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_stops_the_printing_and_not_the_command() {
        let closed = |output: &mut Output<'_>| output.stdout = Box::new(Closed);
        let (result, ..) = run(closed, "", |output| {
            output.data(&Greeting { to: "nobody" })?;
            output.bytes(b"more")
        });
        assert!(!result.unwrap(), "nobody reads");
    }
}
