//! Users and groups that have the same number on every Debian system.
//!
//! An archive has a name and a number for each owner. dpkg believes the name;
//! so does this, for the names whose number Debian's `base-passwd` fixes.

/// The fixed groups: `group.master`.
const GROUPS: [(&[u8], u32); 38] = [
    (b"root", 0),
    (b"daemon", 1),
    (b"bin", 2),
    (b"sys", 3),
    (b"adm", 4),
    (b"tty", 5),
    (b"disk", 6),
    (b"lp", 7),
    (b"mail", 8),
    (b"news", 9),
    (b"uucp", 10),
    (b"man", 12),
    (b"proxy", 13),
    (b"kmem", 15),
    (b"dialout", 20),
    (b"fax", 21),
    (b"voice", 22),
    (b"cdrom", 24),
    (b"floppy", 25),
    (b"tape", 26),
    (b"sudo", 27),
    (b"audio", 29),
    (b"dip", 30),
    (b"www-data", 33),
    (b"backup", 34),
    (b"operator", 37),
    (b"list", 38),
    (b"irc", 39),
    (b"src", 40),
    (b"shadow", 42),
    (b"utmp", 43),
    (b"video", 44),
    (b"sasl", 45),
    (b"plugdev", 46),
    (b"staff", 50),
    (b"games", 60),
    (b"users", 100),
    (b"nogroup", 65534),
];

/// The fixed users: `passwd.master`.
const USERS: [(&[u8], u32); 18] = [
    (b"root", 0),
    (b"daemon", 1),
    (b"bin", 2),
    (b"sys", 3),
    (b"sync", 4),
    (b"games", 5),
    (b"man", 6),
    (b"lp", 7),
    (b"mail", 8),
    (b"news", 9),
    (b"uucp", 10),
    (b"proxy", 13),
    (b"www-data", 33),
    (b"backup", 34),
    (b"list", 38),
    (b"irc", 39),
    (b"_apt", 42),
    (b"nobody", 65534),
];

/// The number of a user, if it is fixed.
pub(super) fn user(name: &[u8]) -> Option<u32> {
    USERS.iter().find(|row| row.0 == name).map(|row| row.1)
}

/// The number of a group, if it is fixed.
pub(super) fn group(name: &[u8]) -> Option<u32> {
    GROUPS.iter().find(|row| row.0 == name).map(|row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fixed_names_have_a_number() {
        assert_eq!((user(b"man"), group(b"man")), (Some(6), Some(12)));
        assert_eq!((user(b"shadow"), group(b"shadow")), (None, Some(42)));
        assert_eq!((user(b""), group(b"messagebus")), (None, None));
    }
}
