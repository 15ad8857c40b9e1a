//! Splits debug information off and strips ELF files, with the tools of the
//! build root, as a script that runs in there.
//!
//! Only files with a build id are touched, and each file once, however many
//! hard links it has. Static archives of gcc lose what only its link-time
//! optimisation reads: it has names that are drawn by lot.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;

use crate::analyse::elf_of;
use crate::collect::{Found, FoundKind};
use crate::error::Result;
use crate::guest;
use crate::job::Tools;
use crate::recipe::{Options, Toolchain};

/// What is done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Work {
    /// All paths of the file, from the install root on.
    paths: Vec<String>,
    /// Where its debug information goes, if there is any and it is wanted.
    debug: Option<String>,
    /// Whether everything goes that running it does not need.
    strip: Option<Strip>,
    mode: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strip {
    /// A program: all symbols.
    All,
    /// A library: those that linking does not need.
    Unneeded,
}

/// The script that does it, if there is anything to do.
///
/// The paths of files with which it fails, which then stay whole, are what it
/// writes to its standard output, one a line.
///
/// # Errors
/// A file cannot be read.
pub fn script(files: &[Found], options: &Options, jobs: NonZeroUsize) -> Result<Option<String>> {
    let archives: Vec<&Found> = match options.toolchain {
        Toolchain::Gnu => files.iter().filter(|file| is_static_archive(file)).collect(),
        Toolchain::Llvm => Vec::new(),
    };
    let mut works: Vec<Work> = Vec::new();
    let mut linked: BTreeMap<u32, usize> = BTreeMap::new();
    for file in files {
        if let Some(at) = file.link.and_then(|link| linked.get(&link)) {
            works[*at].paths.push(file.text.clone());
            continue;
        }
        if !options.debug && !options.strip {
            continue;
        }
        let Some(work) = work(file, options)? else { continue };
        if let Some(link) = file.link {
            linked.insert(link, works.len());
        }
        works.push(work);
    }
    if works.is_empty() && archives.is_empty() {
        return Ok(None);
    }
    let tools = Tools::of(options.toolchain, options.mold);
    let mut script = render(&works, &tools, jobs);
    for archive in archives {
        let file = quote(archive.text.trim_start_matches('/'));
        let _ = writeln!(
            script,
            "{} -D -p -R '.gnu.lto_*' -R '.gnu.debuglto_*' -R '.rel*.gnu.debuglto_*' \
             -N __gnu_lto_v1 -N __gnu_lto_slim --wildcard {file} >&2 || printf '%s\\n' {file}",
            tools.get("objcopy"),
        );
    }
    Ok(Some(script))
}

fn is_static_archive(file: &Found) -> bool {
    let mut head = [0; 8];
    let is_named = file.text.ends_with(".a") && matches!(file.kind, FoundKind::File(_));
    let read = |head: &mut [u8]| File::open(&file.source)?.read_exact(head);
    is_named && read(&mut head).is_ok() && head == *b"!<arch>\n"
}

fn work(file: &Found, options: &Options) -> Result<Option<Work>> {
    let Some(path) = file.below_usr() else { return Ok(None) };
    let Some(elf) = elf_of(file)? else { return Ok(None) };
    let Some(build_id) = elf.build_id else { return Ok(None) };
    let id: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let library = if path.first() == Some(&"lib32") { "lib32" } else { "lib" };
    let debug = (options.debug && elf.has_debug_info)
        .then(|| format!("/usr/{library}/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    let is_program = matches!(path.as_slice(), [.., "bin" | "sbin", _]);
    let strip = options.strip.then_some(if is_program { Strip::All } else { Strip::Unneeded });
    // Modules of the kernel need their symbols.
    let strip = if elf.is_relocatable { None } else { strip };
    if debug.is_none() && strip.is_none() {
        return Ok(None);
    }
    Ok(Some(Work { paths: vec![file.text.clone()], debug, strip, mode: file.mode }))
}

fn render(works: &[Work], tools: &Tools, jobs: NonZeroUsize) -> String {
    let (objcopy, strip) = (tools.get("objcopy"), tools.get("strip"));
    let mut script = format!(
        r#"set -u -o pipefail
PATH=/usr/bin:/bin
LC_ALL=C
export PATH LC_ALL
cd {install} || exit 1
# FILE DEBUG STRIP MODE: an empty word means that it is not wanted.
process() {{
    local file=$1 debug=$2 strip=$3 mode=$4
    if test -n "$debug" && test ! -e "$debug"; then
        mkdir -p "${{debug%/*}}" || return
        {objcopy} --only-keep-debug "$file" "$debug.part" || return
        chmod 0644 "$debug.part" || return
        mv "$debug.part" "$debug" || return
    fi
    case $strip in
        all) {strip} --strip-all "$file" || return ;;
        unneeded) {strip} --strip-debug --strip-unneeded "$file" || return ;;
    esac
    if test -n "$debug"; then
        {objcopy} --add-gnu-debuglink="$debug" "$file" || return
    fi
    # Tools of either kind may lose bits of it.
    chmod "$mode" "$file"
}}
run() {{
    while test "$(jobs -rp | wc -l)" -ge {jobs}; do wait -n; done
    {{ process "$@" >&2 || printf '%s\n' "$1"; }} &
}}
"#,
        install = quote(&guest::below(guest::INSTALL)),
    );
    for work in works {
        let relative = |path: &str| quote(path.trim_start_matches('/'));
        let debug = work.debug.as_ref().map_or("''".into(), |path| relative(path));
        let strip = match work.strip {
            None => "''",
            Some(Strip::All) => "all",
            Some(Strip::Unneeded) => "unneeded",
        };
        let file = relative(&work.paths[0]);
        let _ = writeln!(script, "run {file} {debug} {strip} {:o}", work.mode);
    }
    script.push_str("wait\n");
    for work in works {
        // A tool that replaces a file leaves its other names behind.
        for other in &work.paths[1..] {
            let relative = |path: &str| quote(path.trim_start_matches('/'));
            let _ = writeln!(script, "ln -f {} {}", relative(&work.paths[0]), relative(other));
        }
    }
    script
}

/// A text as one word of a shell.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_worked_on_once_with_the_tools_of_the_toolchain() {
        let works = [
            Work {
                paths: vec!["/usr/bin/it's".into(), "/usr/bin/other".into()],
                debug: Some("/usr/lib/debug/.build-id/ab/cd.debug".into()),
                strip: Some(Strip::All),
                mode: 0o4755,
            },
            Work {
                paths: vec!["/usr/lib/libx.so.1".into()],
                debug: None,
                strip: Some(Strip::Unneeded),
                mode: 0o755,
            },
        ];
        let jobs = NonZeroUsize::new(2).expect("two");
        let script = render(&works, &Tools::of(Toolchain::Gnu, false), jobs);
        for line in [
            r"run 'usr/bin/it'\''s' 'usr/lib/debug/.build-id/ab/cd.debug' all 4755",
            "run 'usr/lib/libx.so.1' '' unneeded 755",
            r"ln -f 'usr/bin/it'\''s' 'usr/bin/other'",
            "        objcopy --only-keep-debug \"$file\" \"$debug.part\" || return",
        ] {
            assert!(script.lines().any(|it| it == line), "{line}\n{script}");
        }
        let llvm = render(&works, &Tools::of(Toolchain::Llvm, false), jobs);
        assert!(llvm.contains("llvm-strip --strip-all"), "{llvm}");
    }
}
