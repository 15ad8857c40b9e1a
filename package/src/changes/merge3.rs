//! Two changes of one text in one text.
//!
//! Lines that only one side has changed are taken from it. Where both have changed lines
//! that overlap or touch, and not to the same, it is a conflict: diff3(1), and git,
//! decide so as well.

use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Longer texts are compared as a whole.
const MAX_LEN: usize = 1 << 20;

/// What `ours` and `theirs`, which both come from `base`, are together; nothing if they
/// contradict each other, or are no texts.
///
/// Costs about the length of the texts times the number of changed lines.
#[must_use]
pub fn merge3(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    if ours == theirs || theirs == base {
        return Some(ours.into());
    }
    if ours == base {
        return Some(theirs.into());
    }
    let is_text = |bytes: &[u8]| bytes.len() <= MAX_LEN && !bytes.contains(&0);
    if ![base, ours, theirs].into_iter().all(is_text) {
        return None;
    }
    let base: Vec<&[u8]> = lines(base);
    let sides = [lines(ours), lines(theirs)];
    let mut hunks: Vec<Hunk> = Vec::new();
    for (side, lines) in sides.iter().enumerate() {
        hunks.extend(Hunk::all(side, &base, lines));
    }
    hunks.sort_by_key(|hunk| (hunk.base.start, hunk.base.end));
    let mut merged = Vec::new();
    let mut at = 0;
    let mut rest = hunks.as_slice();
    while let Some(first) = rest.first() {
        // All hunks that overlap or touch are one question.
        let mut end = first.base.end;
        let together = rest
            .iter()
            .take_while(|hunk| {
                let joins = hunk.base.start <= end;
                end = if joins { end.max(hunk.base.end) } else { end };
                joins
            })
            .count();
        let (group, behind) = rest.split_at(together);
        rest = behind;
        let start = first.base.start;
        merged.extend_from_slice(&base[at..start]);
        let versions = [0, 1].map(|side| version(group, side, start..end, &base, &sides[side]));
        let touched = [0, 1].map(|side| group.iter().any(|hunk| hunk.side == side));
        match (touched, versions) {
            ([true, true], [ours, theirs]) if ours == theirs => merged.extend(ours),
            ([true, true], _) => return None,
            ([true, false], [ours, _]) => merged.extend(ours),
            (_, [_, theirs]) => merged.extend(theirs),
        }
        at = end;
    }
    merged.extend_from_slice(&base[at..]);
    Some(merged.concat())
}

/// Lines of the base that one side has otherwise.
struct Hunk {
    side: usize,
    base: Range<usize>,
    new: Range<usize>,
}

impl Hunk {
    /// What lies between the lines that are in both, so that no two hunks overlap.
    fn all(side: usize, base: &[&[u8]], new: &[&[u8]]) -> Vec<Self> {
        let mut hunks = Vec::new();
        let (mut base_at, mut new_at) = (0, 0);
        let changes = capture_diff_slices(Algorithm::Myers, base, new);
        let end = (base.len()..base.len(), new.len()..new.len());
        let equal = changes.iter().filter_map(|change| match change {
            DiffOp::Equal { .. } => Some((change.old_range(), change.new_range())),
            _ => None,
        });
        for (base, new) in equal.chain([end]) {
            if base.start > base_at || new.start > new_at {
                hunks.push(Self { side, base: base_at..base.start, new: new_at..new.start });
            }
            (base_at, new_at) = (base.end, new.end);
        }
        hunks
    }
}

/// What one side has for the lines `range` of the base, of which `group` has all changes.
fn version<'a>(
    group: &[Hunk],
    side: usize,
    range: Range<usize>,
    base: &[&'a [u8]],
    new: &[&'a [u8]],
) -> Vec<&'a [u8]> {
    let mut lines = Vec::new();
    let mut at = range.start;
    for hunk in group.iter().filter(|hunk| hunk.side == side) {
        lines.extend_from_slice(&base[at..hunk.base.start]);
        lines.extend_from_slice(&new[hunk.new.clone()]);
        at = hunk.base.end;
    }
    lines.extend_from_slice(&base[at..range.end]);
    lines
}

/// Lines with their ends, so that the last one may have none.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(base: &str, ours: &str, theirs: &str, expected: Option<&str>) {
        let merged = |one: &str, other: &str| {
            merge3(base.as_bytes(), one.as_bytes(), other.as_bytes())
                .map(|bytes| String::from_utf8(bytes).unwrap())
        };
        assert_eq!(merged(ours, theirs).as_deref(), expected, "{ours:?} and {theirs:?}");
        assert_eq!(merged(theirs, ours).as_deref(), expected, "the other way round");
    }

    #[test]
    fn changes_of_different_lines_go_together() {
        let base = "a\nb\nc\nd\ne\n";
        check(base, "A\nb\nc\nd\ne\n", "a\nb\nc\nd\nE\n", Some("A\nb\nc\nd\nE\n"));
        check(base, "a\nc\nd\ne\n", "a\nb\nc\nd\ne\nf\n", Some("a\nc\nd\ne\nf\n"));
        check(base, "", base, Some(""));
        check(base, "a\nB\nc\nd\ne\n", "a\nB\nc\nD\ne\n", Some("a\nB\nc\nD\ne\n"));
        check("a\n\nb", "A\n\nb", "a\n\nB\n", Some("A\n\nB\n"));
    }

    #[test]
    fn changes_of_the_same_or_neighbouring_lines_are_a_conflict() {
        let base = "a\nb\nc\n";
        check(base, "a\nX\nc\n", "a\nY\nc\n", None);
        check(base, "X\nb\nc\n", "a\nY\nc\n", None);
        check(base, "a\nc\n", "a\nB\nc\n", None);
        check(base, "a\nx\nb\nc\n", "a\ny\nb\nc\n", None);
        check("a\0b", "a\0c", "a\0d", None);
        check("a\0b", "a\0c", "a\0b", Some("a\0c"));
    }

    proptest! {
        /// What lies apart goes together, wherever it lies.
        #[test]
        fn each_line_that_one_side_changed_is_as_it_has_it(
            owners in prop::collection::vec(0..3u8, 0..40),
        ) {
            // Lines of nobody lie between those of the two sides.
            let mut whose = vec![0];
            whose.extend(owners.iter().flat_map(|owner| [*owner, 0]));
            let text = |side: u8| -> String {
                let line = |(at, owner): (usize, &u8)| match *owner == side && side > 0 {
                    true => format!("line {at} of {side}\n"),
                    false => format!("line {at}\n"),
                };
                whose.iter().enumerate().map(line).collect()
            };
            let expected: String = whose.iter().enumerate().map(|(at, owner)| match owner {
                0 => format!("line {at}\n"),
                _ => format!("line {at} of {owner}\n"),
            }).collect();
            let merged = merge3(text(0).as_bytes(), text(1).as_bytes(), text(2).as_bytes());
            prop_assert_eq!(merged, Some(expected.into_bytes()));
        }

        /// Nothing that a side has written is lost without a conflict.
        #[test]
        fn a_new_line_of_either_side_is_in_what_they_are_together(
            base in prop::collection::vec(0..6u8, 0..12),
            ours in prop::collection::vec(0..9u8, 0..12),
            theirs in prop::collection::vec(0..9u8, 0..12),
        ) {
            let text = |lines: &[u8]| -> Vec<u8> {
                lines.iter().flat_map(|it| [b'a' + it, b'\n']).collect()
            };
            let merged = merge3(&text(&base), &text(&ours), &text(&theirs));
            if let Some(merged) = merged {
                for line in ours.iter().chain(&theirs).filter(|line| **line >= 6) {
                    prop_assert!(merged.contains(&(b'a' + line)));
                }
            }
        }
    }
}
