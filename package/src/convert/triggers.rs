//! Triggers for well-known tools, which Debian runs from scripts that are not run
//! here: a package that brings such a tool brings its trigger as well.
//!
//! List and reasons: docs/convert.md, "Triggers".

use std::sync::Arc;

use cairn_store::{BlobRef, Timestamp, TreePath};

use super::files::Files;
use crate::stone::{Builder, Layout, LayoutContent, Source};

/// A tool, and the triggers that a package with it gets.
struct Tool {
    /// Its path; `*` stands for any one name.
    path: &'static str,
    /// Names of files below usr/share/moss/triggers, and what is in them.
    triggers: &'static [(&'static str, &'static str)],
    /// Symbolic links that make what it writes be found.
    links: &'static [(&'static str, &'static str)],
}

/// Where ldconfig looks for libraries in a converted system.
macro_rules! libraries {
    ($handler:literal) => {
        concat!(
            "  \"/usr/lib/*.so*\": {handlers: [",
            $handler,
            "]}\n",
            "  \"/usr/lib/*/*.so*\": {handlers: [",
            $handler,
            "]}\n",
            "  \"/usr/lib32/*.so*\": {handlers: [",
            $handler,
            "]}\n",
            "  \"/usr/lib64/*.so*\": {handlers: [",
            $handler,
            "]}\n",
            "  \"/usr/local/lib/*.so*\": {handlers: [",
            $handler,
            "]}\n",
            "  \"/usr/share/defaults/etc/ld.so.conf\": {handlers: [",
            $handler,
            "]}\n",
            "  \"/usr/share/defaults/etc/ld.so.conf.d/*\": {handlers: [",
            $handler,
            "]}\n",
        )
    };
}

const TOOLS: &[Tool] = &[
    Tool {
        path: "/usr/sbin/ldconfig",
        triggers: &[
            (
                "tx.d/ldconfig.yaml",
                concat!(
                    "name: ldconfig\n",
                    "description: List the shared libraries for the dynamic linker\n",
                    "handlers:\n",
                    "  list:\n",
                    "    run: /usr/sbin/ldconfig\n",
                    "    args: [\"-C\", \"/usr/lib/ld.so.cache\"]\n",
                    "paths:\n",
                    libraries!("list"),
                ),
            ),
            (
                // It holds numbers of inodes, which are no part of a state.
                "tx.d/ldconfig-aux-cache.yaml",
                concat!(
                    "name: ldconfig-aux-cache\n",
                    "description: Remove what only speeds up the next ldconfig on one machine\n",
                    "after: ldconfig\n",
                    "handlers:\n",
                    "  remove:\n",
                    "    delete: [/var/cache/ldconfig/aux-cache]\n",
                    "paths:\n",
                    libraries!("remove"),
                ),
            ),
        ],
        links: &[("/etc/ld.so.cache", "../usr/lib/ld.so.cache")],
    },
    Tool {
        path: "/usr/lib/*/glib-2.0/glib-compile-schemas",
        triggers: &[(
            "tx.d/glib-compile-schemas.yaml",
            "name: glib-compile-schemas\n\
             description: Compile the schemas of settings\n\
             handlers:\n\
             \x20 compile:\n\
             \x20   run: $(tool)\n\
             \x20   args: [/usr/share/glib-2.0/schemas]\n\
             paths:\n\
             \x20 \"/usr/share/glib-2.0/schemas/*.xml\": {handlers: [compile]}\n\
             \x20 \"/usr/share/glib-2.0/schemas/*.gschema.override\": {handlers: [compile]}\n",
        )],
        links: &[],
    },
    Tool {
        path: "/usr/lib/*/gdk-pixbuf-2.0/gdk-pixbuf-query-loaders",
        triggers: &[(
            "tx.d/gdk-pixbuf-query-loaders.yaml",
            "name: gdk-pixbuf-query-loaders\n\
             description: List the image loaders\n\
             handlers:\n\
             \x20 list:\n\
             \x20   run: $(tool)\n\
             \x20   args: [--update-cache]\n\
             paths:\n\
             \x20 \"/usr/lib/*/gdk-pixbuf-2.0/*/loaders/*.so\": {handlers: [list]}\n",
        )],
        links: &[],
    },
    Tool {
        path: "/usr/bin/update-mime-database",
        triggers: &[(
            "tx.d/update-mime-database.yaml",
            "name: update-mime-database\n\
             description: Compile the types of files\n\
             handlers:\n\
             \x20 compile:\n\
             \x20   run: $(tool)\n\
             \x20   args: [/usr/share/mime]\n\
             paths:\n\
             \x20 \"/usr/share/mime/packages/*.xml\": {handlers: [compile]}\n",
        )],
        links: &[],
    },
    Tool {
        path: "/usr/bin/update-desktop-database",
        triggers: &[(
            "tx.d/update-desktop-database.yaml",
            "name: update-desktop-database\n\
             description: List which programs open which types of files\n\
             handlers:\n\
             \x20 list:\n\
             \x20   run: $(tool)\n\
             \x20   args: [/usr/share/applications]\n\
             paths:\n\
             \x20 \"/usr/share/applications/*.desktop\": {handlers: [list]}\n",
        )],
        links: &[],
    },
    Tool {
        path: "/usr/bin/gtk-update-icon-cache",
        triggers: &[(
            "tx.d/gtk-update-icon-cache.yaml",
            "name: gtk-update-icon-cache\n\
             description: Collect the icons of a theme\n\
             handlers:\n\
             \x20 collect:\n\
             \x20   run: $(tool)\n\
             \x20   args: [--force, --quiet, --ignore-theme-index, \"/usr/share/icons/$(theme)\"]\n\
             paths:\n\
             \x20 \"/usr/share/icons/(theme:*)\": {handlers: [collect], type: directory}\n",
        )],
        links: &[],
    },
    Tool {
        path: "/usr/sbin/depmod",
        triggers: &[(
            "tx.d/depmod.yaml",
            "name: depmod\n\
             description: List what the modules of a kernel need of each other\n\
             handlers:\n\
             \x20 list:\n\
             \x20   run: $(tool)\n\
             \x20   args: [-a, \"$(version)\"]\n\
             paths:\n\
             \x20 \"/usr/lib/modules/(version:*)/kernel\": {handlers: [list], type: directory}\n\
             \x20 \"/usr/lib/modules/(version:*)/updates\": {handlers: [list], type: directory}\n",
        )],
        links: &[],
    },
    Tool {
        path: "/usr/bin/systemd-hwdb",
        triggers: &[(
            "tx.d/systemd-hwdb.yaml",
            "name: systemd-hwdb\n\
             description: Compile what is known of hardware\n\
             handlers:\n\
             \x20 compile:\n\
             \x20   run: $(tool)\n\
             \x20   args: [--usr, update]\n\
             paths:\n\
             \x20 \"/usr/lib/udev/hwdb.d/*.hwdb\": {handlers: [compile]}\n",
        )],
        links: &[],
    },
];

/// Adds the triggers of the tools among `files`.
pub(super) fn add(files: &Files, builder: &mut Builder) -> crate::stone::Result<()> {
    let paths: Vec<String> = files
        .entries
        .iter()
        .filter_map(|entry| String::from_utf8(entry.path.to_bytes()).ok())
        .collect();
    for tool in TOOLS {
        let Some(found) = paths.iter().find(|path| is_at(path, tool.path)) else { continue };
        for (name, text) in tool.triggers {
            let text = text.replace("$(tool)", found);
            let bytes: Arc<[u8]> = text.as_bytes().into();
            let blob = BlobRef::of(&bytes);
            let path = format!("/usr/share/moss/triggers/{name}");
            put(builder, &path, 0o644, LayoutContent::Regular(blob.key));
            builder.add_hashed(blob, Source::Bytes(bytes))?;
        }
        for (path, target) in tool.links {
            put(builder, path, 0o777, LayoutContent::Symlink(target.as_bytes().into()));
        }
    }
    builder.layout.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(())
}

fn put(builder: &mut Builder, path: &str, mode: u16, content: LayoutContent) {
    let path = TreePath::new(path.as_bytes()).expect("the table has paths");
    // What the package itself has there stays.
    if builder.layout.iter().all(|entry| entry.path != path) {
        let mut layout = Layout::new(path, mode, content);
        layout.extra.mtime = Some(Timestamp::default());
        builder.layout.push(layout);
    }
}

/// Whether a path is that of a tool.
fn is_at(path: &str, tool: &str) -> bool {
    let (mut path, mut tool) = (path.split('/'), tool.split('/'));
    loop {
        match (path.next(), tool.next()) {
            (None, None) => return true,
            (Some(name), Some(wanted)) if name == wanted || wanted == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::Trigger;

    #[test]
    fn every_trigger_of_the_table_is_one() {
        for tool in TOOLS {
            for (name, text) in tool.triggers {
                let file = TreePath::new(name.as_bytes()).expect(name);
                let text = text.replace("$(tool)", "/usr/bin/tool");
                let trigger = Trigger::parse(&file, text.as_bytes());
                let trigger = trigger.unwrap_or_else(|err| panic!("{name}: {err}\n{text}"));
                assert_eq!(format!("tx.d/{}.yaml", trigger.name), *name);
            }
        }
    }

    #[test]
    fn a_star_of_a_path_is_one_name() {
        assert!(is_at("/usr/lib/x86_64-linux-gnu/glib-2.0/x", "/usr/lib/*/glib-2.0/x"));
        assert!(!is_at("/usr/lib/a/b/glib-2.0/x", "/usr/lib/*/glib-2.0/x"));
        assert!(!is_at("/usr/sbin/ldconfig.real", "/usr/sbin/ldconfig"));
        assert!(!is_at("/usr/sbin", "/usr/sbin/ldconfig"));
    }
}
