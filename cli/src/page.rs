//! Text for people: lines, aligned tables, labelled values, wrapped words.
//!
//! A page only builds a string. It knows how wide the reader's terminal is and
//! whether it shows colours; on anything but a terminal nothing is cut,
//! wrapped or coloured, so that grep(1) finds what is there.

use std::fmt::Display;

use clap::builder::styling::{AnsiColor, Style as Ansi};

use crate::escape::visible;

/// What a piece of text is, from which its colour follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    /// Text without a meaning of its own.
    #[default]
    Plain,
    /// What is above a group of lines, and what stands out in a list.
    Strong,
    /// What is less important than its neighbours.
    Faint,
    /// What comes, or went well.
    Good,
    /// What goes, or went wrong.
    Bad,
    /// What changes, or deserves a look.
    Note,
}

impl Style {
    fn ansi(self) -> Ansi {
        match self {
            Self::Plain => Ansi::new(),
            Self::Strong => Ansi::new().bold(),
            Self::Faint => Ansi::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Note => AnsiColor::Yellow.on_default(),
        }
    }
}

/// How text is to look where it will be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns of the terminal; `None` where there is none.
    pub width: Option<usize>,
    /// Whether to write colours.
    pub colors: bool,
}

/// One cell of a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    /// A cell that begins at the left edge of its column.
    pub(crate) fn new(text: impl Display) -> Self {
        Self { text: visible(&text.to_string()), ..Self::default() }
    }

    /// A cell that ends at the right edge of its column, for numbers.
    pub(crate) fn right(text: impl Display) -> Self {
        Self { right: true, ..Self::new(text) }
    }

    /// The same cell in another style.
    pub(crate) fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Text in the making.
pub(crate) struct Page {
    look: Look,
    text: String,
}

/// What stands between the columns of a table.
const GAP: &str = "  ";

impl Page {
    /// An empty page.
    pub(crate) fn new(look: Look) -> Self {
        Self { look, text: String::new() }
    }

    /// The text, each line of which ends in a newline.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// Adds a line as it is, however long it is.
    pub(crate) fn line(&mut self, text: impl Display) {
        self.styled_line(Style::Plain, text);
    }

    /// Adds a line in one style.
    pub(crate) fn styled_line(&mut self, style: Style, text: impl Display) {
        self.piece(style, &visible(&text.to_string()));
        self.text.push('\n');
    }

    /// Adds a line that begins with a word in a style.
    pub(crate) fn marked_line(&mut self, style: Style, word: &str, text: impl Display) {
        self.piece(style, word);
        self.line(text);
    }

    /// Adds the line above a group of lines, with an empty line before it
    /// unless it is the first of the page.
    pub(crate) fn title(&mut self, text: impl Display) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.styled_line(Style::Strong, text);
    }

    /// Adds an empty line.
    pub(crate) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// Adds rows whose columns are aligned, `indent` columns to the right.
    ///
    /// On a terminal the last column is cut where the line would be too long.
    pub(crate) fn table(&mut self, indent: usize, rows: &[Vec<Cell>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            rows.iter().filter_map(|row: &Vec<Cell>| row.get(column)).map(Cell::width).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in rows {
            self.row(indent, row, &widths);
        }
    }

    fn row(&mut self, indent: usize, row: &[Cell], widths: &[usize]) {
        let filled = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |at| at + 1);
        let mut used = indent;
        self.spaces(indent);
        for (column, (cell, width)) in row[..filled].iter().zip(widths).enumerate() {
            let padding = width - cell.width();
            if cell.right {
                self.spaces(padding);
            }
            let is_last = column + 1 == widths.len();
            match self.look.width {
                Some(whole) if is_last && used + cell.width() > whole => {
                    self.piece(cell.style, &cut(&cell.text, whole.saturating_sub(used)));
                }
                _ => self.piece(cell.style, &cell.text),
            }
            if column + 1 < filled {
                if !cell.right {
                    self.spaces(padding);
                }
                self.text.push_str(GAP);
            }
            used += width + GAP.len();
        }
        self.text.push('\n');
    }

    /// Adds lines of a label and its value, the values aligned.
    pub(crate) fn fields(&mut self, indent: usize, fields: &[(&str, String)]) {
        let width = fields.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        for (label, value) in fields {
            let first = format!("{label:width$}{GAP}");
            self.wrapped(indent, &first, value);
        }
    }

    /// Adds text that goes on below itself where a line would be too long:
    /// `first` stands before its first line, as many spaces before the others.
    ///
    /// Words are only separated at spaces; without a terminal, never. A line of `text` begins
    /// a line.
    pub(crate) fn wrapped(&mut self, indent: usize, first: &str, text: &str) {
        let margin = indent + first.chars().count();
        let room = self.look.width.map_or(usize::MAX, |width| width.saturating_sub(margin).max(20));
        self.spaces(indent);
        self.piece(Style::Faint, first);
        for (number, line) in text.lines().enumerate() {
            if number > 0 {
                self.text.push('\n');
                if !line.trim().is_empty() {
                    self.spaces(margin);
                }
            }
            self.words(line, margin, room);
        }
        self.text.push('\n');
    }

    /// Adds the words of a line, in `room` columns behind `margin`.
    fn words(&mut self, line: &str, margin: usize, room: usize) {
        let mut used = 0;
        for word in visible(line).split_whitespace() {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                self.text.push('\n');
                self.spaces(margin);
                used = 0;
            }
            if used > 0 {
                self.text.push(' ');
                used += 1;
            }
            self.text.push_str(word);
            used += length;
        }
    }

    fn piece(&mut self, style: Style, text: &str) {
        if self.look.colors && style != Style::Plain && !text.is_empty() {
            let ansi = style.ansi();
            self.text.push_str(&format!("{ansi}{text}{ansi:#}"));
        } else {
            self.text.push_str(text);
        }
    }

    fn spaces(&mut self, number: usize) {
        self.text.extend(std::iter::repeat_n(' ', number));
    }
}

/// The beginning of `text` in `width` columns, with a sign that there is more.
/// At least eight columns are used, or the text would tell nothing.
fn cut(text: &str, width: usize) -> String {
    let mut short: String = text.chars().take(width.max(8).saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Look = Look { width: None, colors: false };
    const NARROW: Look = Look { width: Some(30), colors: false };

    fn page(look: Look, build: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::new(look);
        build(&mut page);
        page.into_text()
    }

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec![Cell::new("bash"), Cell::right("7.1 MiB"), Cell::new("the shell that GNU has")],
            vec![Cell::new("coreutils"), Cell::right("17 MiB"), Cell::default()],
        ]
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let expected = "  bash       7.1 MiB  the shell that GNU has\n  coreutils   17 MiB\n";
        assert_eq!(page(FILE, |page| page.table(2, &rows())), expected);
    }

    #[test]
    fn a_terminal_cuts_the_last_column_and_nothing_else() {
        let expected = "  bash       7.1 MiB  the she…\n  coreutils   17 MiB\n";
        assert_eq!(page(NARROW, |page| page.table(2, &rows())), expected);
        let text = page(NARROW, |page| page.table(2, &rows()));
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
    }

    #[test]
    fn values_are_wrapped_on_a_terminal_and_left_alone_in_a_file() {
        let fields = [("Name", "nano".into()), ("Summary", "small, friendly text editor".into())];
        let build = |page: &mut Page| page.fields(2, &fields);
        let wide = "  Name     nano\n  Summary  small, friendly text editor\n";
        assert_eq!(page(FILE, build), wide);
        let narrow = "  Name     nano\n  Summary  small, friendly text\n           editor\n";
        assert_eq!(page(NARROW, build), narrow);
        let lines = page(NARROW, |page| page.fields(0, &[("x", "one\n\n- two\n".into())]));
        assert_eq!(lines, "x  one\n\n   - two\n");
    }

    #[test]
    fn colours_are_written_only_where_they_are_wanted() {
        let build = |page: &mut Page| page.title("To install");
        assert_eq!(page(FILE, build), "To install\n");
        let look = Look { colors: true, ..FILE };
        assert_eq!(page(look, build), "\u{1b}[1mTo install\u{1b}[0m\n");
    }

    #[test]
    fn text_cannot_command_the_terminal() {
        let text = page(FILE, |page| {
            page.line("a\u{1b}[2Jb");
            page.table(0, &[vec![Cell::new("c\rd")]]);
            page.fields(0, &[("x", "e\u{9b}f".into())]);
        });
        assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
    }
}
