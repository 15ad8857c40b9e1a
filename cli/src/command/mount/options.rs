//! Mount options as mount(8) and /etc/fstab have them: words between commas.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use cairn_fs::{IdRange, InvalidIdMap, Restrictions, RootBind, check_ranges};
use cairn_store::{TreePath, WorkspaceName};

use crate::escape::Escaped;
use crate::place::StateName;

/// What a list of options asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub(crate) state: Option<StateName>,
    pub(crate) follow: bool,
    pub(crate) workspace: Option<WorkspaceName>,
    pub(crate) binds: Vec<RootBind>,
    pub(crate) restrictions: Restrictions,
    pub(crate) system_root: bool,
    pub(crate) passthrough: bool,
    pub(crate) power_save: bool,
    pub(crate) idmap: Vec<IdRange>,
    /// Only the restrictions of the mount that is there are to be changed.
    pub(crate) remount: bool,
}

/// Why a list of options is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidOption {
    /// Nobody knows such a word.
    #[error("there is no mount option {0:?}")]
    Unknown(String),
    /// The word does not go with what follows it.
    #[error("{0:?} is not a value of the mount option {1}")]
    Value(String, &'static str),
    /// Two words contradict each other.
    #[error("the mount options {0} and {1} do not go together")]
    Together(&'static str, &'static str),
    /// The word has no meaning for what is mounted.
    #[error("the mount option {0} is for the root of a system: it needs follow or state")]
    Needs(&'static str),
    /// A text is not `PATH=DIR`.
    #[error("{0:?} does not have the form PATH=DIR, with two absolute paths")]
    Bind(String),
    /// A map of owners is not one.
    #[error(transparent)]
    IdMap(#[from] InvalidIdMap),
}

/// Words of mount(8) and of fusermount3 that say nothing of this mount, or what it is anyway:
/// it is read-only, has no times of access, and is taken off when its process is told to end.
const IGNORED: [&[u8]; 25] = [
    b"",
    b"_netdev",
    b"atime",
    b"auto",
    b"auto_unmount",
    b"async",
    b"defaults",
    b"dev",
    b"diratime",
    b"exec",
    b"group",
    b"lazytime",
    b"noatime",
    b"noauto",
    b"nodiratime",
    b"nofail",
    b"nouser",
    b"owner",
    b"relatime",
    b"ro",
    b"rw",
    b"strictatime",
    b"suid",
    b"user",
    b"users",
];

impl MountOptions {
    /// Checks that what is asked for goes together, and puts what lies in another
    /// directory behind that.
    pub(crate) fn check(mut self) -> Result<Self, InvalidOption> {
        let shapes = [
            ("follow", self.follow),
            ("workspace", self.workspace.is_some()),
            ("state", self.state.is_some() && self.workspace.is_none()),
        ];
        let mut asked = shapes.iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| *name);
        let shape = asked.next();
        if let (Some(first), Some(second)) = (shape, asked.next()) {
            return Err(InvalidOption::Together(first, second));
        }
        if !self.binds.is_empty() && !matches!(shape, Some("follow" | "state")) {
            return Err(InvalidOption::Needs("bind"));
        }
        if self.system_root && shape != Some("follow") && shape != Some("state") {
            return Err(InvalidOption::Needs("system-root"));
        }
        if self.restrictions.noexec && shape == Some("workspace") {
            return Err(InvalidOption::Together("noexec", "workspace"));
        }
        if self.passthrough && shape == Some("workspace") {
            return Err(InvalidOption::Together("passthrough", "workspace"));
        }
        if self.power_save && shape == Some("workspace") {
            return Err(InvalidOption::Together("power-save", "workspace"));
        }
        if !self.idmap.is_empty() {
            let others = [
                ("workspace", shape == Some("workspace")),
                ("bind", !self.binds.is_empty()),
                ("system-root", self.system_root),
            ];
            if let Some((other, _)) = others.iter().find(|(_, is_asked)| *is_asked) {
                return Err(InvalidOption::Together("idmap", other));
            }
            check_ranges(&self.idmap)?;
        }
        self.binds.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(self)
    }

    /// Reads `list`; unknown words are an error unless `sloppy`.
    pub(crate) fn add(&mut self, list: &OsStr, sloppy: bool) -> Result<(), InvalidOption> {
        for word in list.as_bytes().split(|byte| *byte == b',') {
            match self.add_word(word) {
                Err(InvalidOption::Unknown(_)) if sloppy => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn add_word(&mut self, word: &[u8]) -> Result<(), InvalidOption> {
        let (name, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        };
        let shown = |bytes: &[u8]| Escaped(bytes).to_string();
        let text = |value: &[u8], option| {
            let text = std::str::from_utf8(value).map(str::to_owned);
            text.map_err(|_| InvalidOption::Value(shown(value), option))
        };
        let invalid = |value: &[u8], option| InvalidOption::Value(shown(value), option);
        match (name, value) {
            (b"state", Some(value)) => {
                let state = text(value, "state")?.parse();
                self.state = Some(state.map_err(|_| invalid(value, "state"))?);
            }
            (b"workspace", Some(value)) => {
                let name = text(value, "workspace")?.parse();
                self.workspace = Some(name.map_err(|_| invalid(value, "workspace"))?);
            }
            (b"bind", Some(value)) => self.binds.push(bind(value, false)?),
            (b"writable", Some(value)) => self.binds.push(bind(value, true)?),
            (b"follow", None) => self.follow = true,
            (b"system-root", None) => self.system_root = true,
            (b"passthrough", None) => self.passthrough = true,
            (b"power-save", None) => self.power_save = true,
            (b"idmap", Some(value)) => self.idmap.push(text(value, "idmap")?.parse()?),
            (b"remount", None) => self.remount = true,
            (b"nosuid", None) => self.restrictions.nosuid = true,
            (b"nodev", None) => self.restrictions.nodev = true,
            (b"noexec", None) => self.restrictions.noexec = true,
            (b"comment", Some(_)) => {}
            (name, None) if IGNORED.contains(&name) => {}
            // For programs around mount(8), such as systemd.
            (name, _) if name.starts_with(b"x-") || name.starts_with(b"X-") => {}
            _ => return Err(InvalidOption::Unknown(shown(word))),
        }
        Ok(())
    }
}

/// Reads `PATH=DIR`.
fn bind(text: &[u8], seed: bool) -> Result<RootBind, InvalidOption> {
    let invalid = || InvalidOption::Bind(Escaped(text).to_string());
    let at = text.iter().position(|byte| *byte == b'=').ok_or_else(invalid)?;
    let (path, source) = (&text[..at], PathBuf::from(OsString::from_vec(text[at + 1..].into())));
    if !path.starts_with(b"/") || !source.is_absolute() {
        return Err(invalid());
    }
    let path = TreePath::new(path).map_err(|_| invalid())?;
    if path.names().is_empty() {
        return Err(invalid());
    }
    Ok(RootBind { path, source, seed, filled: false })
}

/// The value of `--bind` and `--writable`.
#[derive(Clone, Debug)]
pub(crate) struct BindArg(OsString);

impl BindArg {
    pub(crate) fn bind(&self, seed: bool) -> Result<RootBind, InvalidOption> {
        bind(self.0.as_bytes(), seed)
    }
}

impl From<OsString> for BindArg {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<MountOptions, InvalidOption> {
        let mut options = MountOptions::default();
        options.add(OsStr::new(list), false).map(|()| options)
    }

    #[test]
    fn words_of_fstab_are_understood_or_refused() {
        let all = "rw,defaults,nofail,auto_unmount,x-systemd.automount,comment=a=b,follow,nosuid,\
                   writable=/etc=/srv/a=b,bind=/home=/home,system-root,passthrough,power-save,\
                   idmap=u:0:1000:10,idmap=g:0:1000:10";
        let options = read(all).unwrap();
        assert!(options.follow && options.system_root && options.restrictions.nosuid);
        assert!(options.passthrough && options.power_save);
        let ranges: Vec<_> = options.idmap.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["u:0:1000:10", "g:0:1000:10"]);
        assert!(!options.restrictions.nodev && options.state.is_none());
        let binds: Vec<_> = options
            .binds
            .iter()
            .map(|bind| (bind.path.to_string(), bind.source.to_str().unwrap(), bind.seed))
            .collect();
        assert_eq!(binds, [("/etc".into(), "/srv/a=b", true), ("/home".into(), "/home", false)]);
        assert_eq!(read("state=5").unwrap().state, Some("5".parse().unwrap()));
        assert_eq!(read("workspace=web").unwrap().workspace.unwrap().as_str(), "web");
        for list in [
            "follow=1",
            "foo",
            "state",
            "state=a/b",
            "workspace=.x",
            "nosuid=1",
            "loop",
            "idmap=0:1:1",
        ] {
            assert!(read(list).is_err(), "{list}");
        }
        for value in ["/etc", "etc=/x", "/etc=x", "/=/x", "/a/../b=/x", "=/x", "/etc="] {
            assert!(read(&format!("bind={value}")).is_err(), "{value}");
        }
        for list in [
            "follow,state=5",
            "follow,workspace=w",
            "bind=/a=/b",
            "workspace=w,bind=/a=/b",
            "workspace=w,noexec",
            "workspace=w,passthrough",
            "workspace=w,power-save",
            "workspace=w,idmap=b:0:1:1",
            "follow,bind=/a=/b,idmap=b:0:1:1",
            "follow,system-root,idmap=b:0:1:1",
            "idmap=b:0:1:1,idmap=u:0:2:1",
            "idmap=u:0:1:1",
            "system-root",
        ] {
            assert!(read(list).unwrap().check().is_err(), "{list}");
        }
        let options = read("state=5,bind=/var/log=/l,bind=/var=/v").unwrap().check().unwrap();
        let order: Vec<_> = options.binds.iter().map(|bind| bind.path.to_string()).collect();
        assert_eq!(order, ["/var", "/var/log"]);
        assert!(read("state=5,workspace=w").unwrap().check().is_ok());
        let mut sloppy = MountOptions::default();
        sloppy.add(OsStr::new("loop,follow"), true).unwrap();
        assert!(sloppy.follow && sloppy.add(OsStr::new("state=a/b"), true).is_err());
    }
}
