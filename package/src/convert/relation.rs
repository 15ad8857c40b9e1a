//! Relations between Debian packages: `a (>= 1) | b, c:any`.
//!
//! Rule: Debian Policy, chapter 7.

/// One group of a relation field: alternatives of which one is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// As the field writes it, for people.
    pub(super) text: String,
    /// At least one.
    pub(super) alternatives: Vec<Alternative>,
}

/// One package of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternative {
    /// Without its architecture qualifier (`:any`).
    pub(super) name: String,
    /// The qualifier, if it is a certain architecture.
    pub(super) architecture: Option<String>,
    /// Whether the field also restricts the version.
    pub(super) versioned: bool,
}

/// Takes a relation field apart; the error is the part that is not a relation.
pub(super) fn parse(field: &str) -> Result<Vec<Group>, String> {
    let groups = field.split(',').map(str::trim).filter(|text| !text.is_empty());
    groups.map(parse_group).collect()
}

fn parse_group(text: &str) -> Result<Group, String> {
    // A field may be folded over several lines.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let alternatives = text.split('|').map(parse_alternative).collect::<Option<_>>();
    match alternatives {
        Some(alternatives) => Ok(Group { text, alternatives }),
        None => Err(text),
    }
}

fn parse_alternative(text: &str) -> Option<Alternative> {
    let text = text.trim();
    let end = text.find([' ', '(', ':']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (qualifier, rest) = match rest.strip_prefix(':') {
        Some(rest) => {
            let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
            rest.split_at(rest.find(|c| !inner(c)).unwrap_or(rest.len()))
        }
        None => ("", rest),
    };
    let architecture = (!["", "any"].contains(&qualifier)).then(|| qualifier.to_owned());
    let rest = rest.trim();
    let versioned = !rest.is_empty();
    let closed = !versioned || (rest.starts_with('(') && rest.ends_with(')'));
    (is_package_name(name) && closed).then(|| Alternative {
        name: name.into(),
        architecture,
        versioned,
    })
}

/// Whether Debian could name a package so; such a name is also a safe part of
/// a file's name.
///
/// Policy wants lower case, but dpkg takes both, and packages from elsewhere
/// use it.
pub(super) fn is_package_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(field: &str) -> Vec<Vec<(String, bool)>> {
        let pair = |one: Alternative| (one.name, one.versioned);
        let groups = parse(field).expect(field).into_iter();
        groups.map(|group| group.alternatives.into_iter().map(pair).collect()).collect()
    }

    #[test]
    fn groups_and_alternatives_are_found() {
        let check = |field: &str, expected: &[&[(&str, bool)]]| {
            let owned = |one: &&[(&str, bool)]| {
                one.iter().map(|(name, versioned)| (name.to_string(), *versioned)).collect()
            };
            let expected: Vec<Vec<_>> = expected.iter().map(owned).collect();
            assert_eq!(names(field), expected, "{field}");
        };
        check("", &[]);
        check("libc6", &[&[("libc6", false)]]);
        check("libc6 (>= 2.34), ", &[&[("libc6", true)]]);
        check("libc6(>=2.34)", &[&[("libc6", true)]]);
        check("python3:any (>= 3.9~) | perl:any", &[&[("python3", true), ("perl", false)]]);
        check("a|b\n , c\n (= 1)", &[&[("a", false), ("b", false)], &[("c", true)]]);
        check("libstdc++6, x2.0-y+z", &[&[("libstdc++6", false)], &[("x2.0-y+z", false)]]);
    }

    #[test]
    fn what_is_no_relation_is_refused() {
        for field in
            ["a | | b", "| a", "../x", "a b", "a (>= 1", "a/b", "-a", "a, \u{e9}", "a [amd64]"]
        {
            assert!(parse(field).is_err(), "{field}");
        }
        assert_eq!(parse("a, b (1"), Err("b (1".into()));
    }
}
