//! Text from packages and names of files, made safe for a terminal.
//!
//! A name may hold any byte, and a summary any character. Printed as they are,
//! they could move the cursor, recolour the screen or pretend to be another
//! line, so that everything that is not a visible character is escaped.

use std::fmt::{self, Write};

/// Shows bytes as text: visible characters as they are, a backslash doubled,
/// everything else (control characters, marks that change the direction of
/// writing, bytes that are not UTF-8) as `\n`, `\t`, `\xNN`.
///
/// No two byte strings look the same, so that it also serves in JSON.
#[derive(Clone, Copy)]
pub(crate) struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    char if is_visible(char) => f.write_char(char)?,
                    char => {
                        let mut buf = [0; 4];
                        write_bytes(f, char.encode_utf8(&mut buf).as_bytes())?;
                    }
                }
            }
            write_bytes(f, chunk.invalid())?;
        }
        Ok(())
    }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

impl serde::Serialize for Escaped<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// `text` with everything invisible replaced by the replacement character;
/// text that has been through [`Escaped`] stays as it is.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|char| if is_visible(char) { char } else { '\u{fffd}' }).collect()
}

/// Whether a character takes its place in a line and does nothing else.
fn is_visible(char: char) -> bool {
    let changes_direction = matches!(char,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks_line = matches!(char, '\u{2028}' | '\u{2029}');
    !char.is_control() && !changes_direction && !breaks_line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_command_a_terminal_is_escaped() {
        let cases: [(&[u8], &str); 7] = [
            (b"/usr/bin/[", "/usr/bin/["),
            ("Főtanúsítvány.crt".as_bytes(), "Főtanúsítvány.crt"),
            (b"a\x1b[31mred", "a\\x1b[31mred"),
            (b"two\nlines\t", "two\\nlines\\t"),
            (b"back\\slash", "back\\\\slash"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{202e}txt.exe\u{9b}".as_bytes(), "\\xe2\\x80\\xaetxt.exe\\xc2\\x9b"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Escaped(bytes).to_string(), expected);
            assert_eq!(visible(expected), expected, "escaped text is visible");
        }
        assert_eq!(visible("a\u{1b}b\u{202e}"), "a\u{fffd}b\u{fffd}");
    }
}
