//! Paragraphs of `Field: value` lines, as in a package's `control` file.
//!
//! Format: deb-control(5).

/// One paragraph: fields in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paragraph {
    fields: Vec<(String, String)>,
}

/// Why a text is not a sequence of paragraphs; lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParagraph {
    /// A line is neither `Field: value` nor the continuation of one.
    #[error("line {line} is neither a field nor the continuation of one")]
    NotAField {
        /// Which line.
        line: usize,
    },
    /// A field is there twice.
    #[error("field {field} is there twice, again at line {line}")]
    Twice {
        /// Its name.
        field: String,
        /// Which line.
        line: usize,
    },
}

impl Paragraph {
    /// The value of a field, whose name has no case. Lines after the first
    /// keep the blank with which they begin.
    pub(super) fn get(&self, field: &str) -> Option<&str> {
        let same = |row: &&(String, String)| row.0.eq_ignore_ascii_case(field);
        self.fields.iter().find(same).map(|row| row.1.as_str())
    }
}

/// Reads paragraphs, which empty lines separate; lines that begin with `#` are
/// comments.
pub(super) fn parse(text: &str) -> Result<Vec<Paragraph>, InvalidParagraph> {
    let mut paragraphs = Vec::new();
    let mut current = Paragraph::default();
    for (line, text) in text.lines().enumerate() {
        let line = line + 1;
        if text.starts_with('#') {
            continue;
        }
        if text.trim().is_empty() {
            if !current.fields.is_empty() {
                paragraphs.push(std::mem::take(&mut current));
            }
            continue;
        }
        if text.starts_with([' ', '\t']) {
            let (_, value) =
                current.fields.last_mut().ok_or(InvalidParagraph::NotAField { line })?;
            value.push('\n');
            value.push_str(text.trim_end());
            continue;
        }
        let (field, value) = text.split_once(':').ok_or(InvalidParagraph::NotAField { line })?;
        if field.is_empty() || !field.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidParagraph::NotAField { line });
        }
        if current.get(field).is_some() {
            return Err(InvalidParagraph::Twice { field: field.into(), line });
        }
        current.fields.push((field.into(), value.trim().into()));
    }
    if !current.fields.is_empty() {
        paragraphs.push(current);
    }
    Ok(paragraphs)
}

/// Splits a `Description` field into its synopsis and its text.
///
/// A line of the text begins with one blank that says nothing, and ` .` is an
/// empty line; a further blank is an indentation and stays.
pub(super) fn description(field: &str) -> (String, String) {
    let mut lines = field.lines();
    let synopsis = lines.next().unwrap_or_default().trim();
    let text = lines.map(|line| match line.strip_prefix([' ', '\t']).unwrap_or(line) {
        "." => "",
        line => line,
    });
    let text = text.collect::<Vec<_>>().join("\n");
    (synopsis.into(), text.trim_matches('\n').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_their_case() {
        let text = "Package: nano\nDepends: libc6,\n libtinfo6\n# comment\nempty:\n\n\nA: b\n";
        let [first, second] = &parse(text).expect("paragraphs")[..] else { panic!("two") };
        assert_eq!(first.get("package"), Some("nano"));
        assert_eq!(first.get("DEPENDS"), Some("libc6,\n libtinfo6"));
        assert_eq!(first.get("Empty"), Some(""));
        assert_eq!(first.get("A"), None);
        assert_eq!(second.get("a"), Some("b"));
    }

    #[test]
    fn what_is_no_paragraph_names_its_line() {
        let check = |text, expected| assert_eq!(parse(text), Err(expected), "{text:?}");
        check(" a", InvalidParagraph::NotAField { line: 1 });
        check("A: b\nnothing", InvalidParagraph::NotAField { line: 2 });
        check("A: b\n: c", InvalidParagraph::NotAField { line: 2 });
        check("A: b\na: c", InvalidParagraph::Twice { field: "a".into(), line: 2 });
    }

    #[test]
    fn a_description_loses_its_escapes() {
        let field = "small editor\n First\n line.\n .\n   * indented\n .\n";
        let (synopsis, text) = description(field);
        assert_eq!(synopsis, "small editor");
        assert_eq!(text, "First\nline.\n\n  * indented");
        assert_eq!(description("only"), ("only".into(), String::new()));
    }
}
