//! Recipes as people write them, and as they do not.

use super::*;
use crate::problem::Located;

/// Every key that there is.
const WHOLE: &str = r#"# A comment.
name: demo
version: 1.10
release: 3
homepage: https://example.org/demo
license:
    - MIT
    - GPL-3.0-or-later OR Apache-2.0
summary: A demo of %(name)
description: |
    Shows everything.

    Twice.
upstreams:
    - https://example.org/demo-1.10.tar.xz: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF
    - https://example.org/data.zip?x=1:
        hash: 1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        rename: data-1.zip
        unpack: "false"
    - file:///srv/more.tar:
        hash: 2123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        unpackdir: more/files
        stripdirs: 0
    - git|https://example.org/sub.git: v1.2
    - git|https://example.org/other.git:
        ref: 0123abc
        clonedir: other
builddeps:
    - pkgconfig(zlib)
    - cmake(fmt)
    - python(foo-bar)
    - soname(libz.so.1(x86_64))
    - plain-name
checkdeps: [binary(valgrind)]
environment: |
    export A=1
setup: |
    %configure
build: "%make"
install: |
    %make_install

    install -d %(installroot)/x
check: |
    %make check
workload: |
    ./demo
rundeps:
    - "%(name)-data"
rundeps-exclude:
    - ^soname\(libfoo
provides-exclude:
    - binary\(.*-test\)
conflicts:
    - old-demo
paths:
    - /usr/share/demo
packages:
    - "%(name)-devel":
        paths:
            - /usr/lib/demo/*.h
    - "%(name)-data":
        summary: Data
        description: Data.
        rundeps: [other]
        rundeps-exclude: [a]
        provides-exclude: [b]
        conflicts: [c]
        paths:
            - /usr/share/demo/data
            - /usr/bin/*-data: exe
            - /usr/lib/x: symlink
            - /usr/lib/y: special
            - "%(datadir)/z": any
profiles:
    - emul32:
        builddeps: [pkgconfig32(zlib)]
        setup: |
            %configure --without-x
    - emul32/x86_64:
        build: make exact
    - aarch64:
        check:
architectures:
    - native
    - emul32/x86_64
tuning:
    - lto: false
    - optimize: speed
    - math
    - harden: true
toolchain: gnu
mold: true
cspgo: true
samplepgo: true
debug: false
strip: false
networking: true
compressman: true
lastrip: false
emul32: true
"#;

fn parse(text: &str) -> Checked {
    Recipe::parse(text).unwrap_or_else(|problems| panic!("{}", shown(text, &problems)))
}

fn shown(text: &str, problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|it| it.located(text).to_string()).collect();
    lines.join("\n")
}

#[test]
fn every_key_is_read() {
    let Checked { recipe, warnings } = parse(WHOLE);
    assert!(warnings.is_empty(), "{}", shown(WHOLE, &warnings));
    // As it is written, not as a number.
    assert_eq!(
        (recipe.name.as_str(), recipe.version.as_str(), recipe.release),
        ("demo", "1.10", 3)
    );
    assert_eq!(recipe.licenses, ["MIT", "GPL-3.0-or-later OR Apache-2.0"]);
    assert_eq!(recipe.package.description.as_ref().unwrap().value, "Shows everything.\n\nTwice.");

    let [first, second, third, fourth, fifth] = recipe.upstreams.as_slice() else {
        panic!("{:?}", recipe.upstreams)
    };
    let archive = |it: &Upstream| match it {
        Upstream::Archive(it) => (it.name.clone(), it.unpack.clone(), it.strip),
        Upstream::Git(it) => panic!("{it:?}"),
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(archive(first), ("demo-1.10.tar.xz".into(), some("demo-1.10.tar.xz"), 1));
    assert_eq!(archive(second), ("data-1.zip".into(), None, 1));
    assert_eq!(archive(third), ("more.tar".into(), some("more/files"), 0));
    let git = |it: &Upstream| match it {
        Upstream::Git(it) => (it.reference.value.clone(), it.directory.clone()),
        Upstream::Archive(it) => panic!("{it:?}"),
    };
    assert_eq!(git(fourth), ("v1.2".into(), "sub.git".into()));
    assert_eq!(git(fifth), ("0123abc".into(), "other".into()));

    let build = &recipe.build;
    let deps: Vec<&str> = build.builddeps.iter().map(|it| it.value.as_str()).collect();
    assert_eq!(deps[3..], ["soname(libz.so.1(x86_64))", "plain-name"]);
    for script in [&build.environment, &build.setup, &build.build, &build.check, &build.workload] {
        assert!(script.is_some());
    }
    let package = &recipe.package;
    let counts = [
        package.rundeps.len(),
        package.rundeps_exclude.len(),
        package.provides_exclude.len(),
        package.conflicts.len(),
        package.paths.len(),
    ];
    assert_eq!(counts, [1; 5]);
    let (name, data) = &recipe.packages[1];
    assert_eq!(name.value, "%(name)-data");
    let kinds: Vec<PathKind> = data.paths.iter().map(|rule| rule.value.kind).collect();
    let expected =
        [PathKind::Any, PathKind::Exe, PathKind::Symlink, PathKind::Special, PathKind::Any];
    assert_eq!(kinds, expected);
    let tuning: Vec<_> = recipe.tuning.iter().map(|it| it.value.clone()).collect();
    assert_eq!(
        tuning,
        [
            Tuning::Disable("lto".into()),
            Tuning::Choose("optimize".into(), "speed".into()),
            Tuning::Enable("math".into()),
            Tuning::Enable("harden".into()),
        ]
    );
    let Options { toolchain, mold, cspgo, samplepgo, debug, strip, .. } = recipe.options;
    assert_eq!(toolchain, Toolchain::Gnu);
    assert_eq!([mold, cspgo, samplepgo, debug, strip], [true, true, true, false, false]);
    let Options { networking, compressman, lastrip, emul32, .. } = recipe.options;
    assert_eq!([networking, compressman, lastrip, emul32], [true, true, false, true]);
}

#[test]
fn what_is_not_written_has_its_default() {
    let text = "name: x\nversion: '1'\nrelease: 1\nhomepage: https://x\nlicense: MIT\ninstall: x\n";
    let Checked { recipe, warnings } = parse(text);
    assert!(warnings.is_empty(), "{}", shown(text, &warnings));
    assert_eq!(recipe.options, Options::default());
    assert!(recipe.options.debug && recipe.options.strip && recipe.options.lastrip);
    assert_eq!(recipe.options.toolchain, Toolchain::Llvm);
    assert!(recipe.upstreams.is_empty() && recipe.packages.is_empty());
    assert_eq!(recipe.targets("x86_64"), [Target::native("x86_64")]);
}

#[test]
fn targets_are_built_in_order_and_have_what_their_profiles_say() {
    let recipe = parse(WHOLE).recipe;
    let (emul32, native) = (Target::emul32("x86_64"), Target::native("x86_64"));
    assert_eq!(recipe.targets("x86_64"), [emul32.clone(), native.clone()]);
    // The list names the emulation of another machine only.
    assert_eq!(recipe.targets("aarch64"), [Target::native("aarch64")]);
    let text = |script: &Option<Script>| script.as_ref().map(|it| it.text.trim().to_owned());
    let build = recipe.build_of(&emul32);
    assert_eq!(text(&build.setup).unwrap(), "%configure --without-x");
    assert_eq!(text(&build.build).unwrap(), "make exact");
    assert_eq!(text(&build.check), text(&recipe.build.check));
    assert_eq!(build.builddeps.len(), recipe.build.builddeps.len() + 1);
    assert_eq!(recipe.build_of(&native), recipe.build);
}

/// The recipe with one change, which has to be refused: `at` is the text that
/// the first problem points at.
fn refused(from: &str, to: &str) -> Located {
    assert!(WHOLE.contains(from), "{from}");
    let text = WHOLE.replacen(from, to, 1);
    let problems = Recipe::parse(&text).expect_err(to);
    let first = problems.iter().find(|it| it.severity == Severity::Error);
    first.expect("an error is among them").located(&text)
}

#[test]
fn mistakes_are_told_at_their_line_with_a_hint() {
    let check = |from: &str, to: &str, line: &str, message: &str, hint: &str| {
        let found = refused(from, to);
        let (text, shown) = (&found.place.text, found.to_string());
        assert!(text.contains(line), "{to:?}: {shown}");
        assert!(found.message.contains(message), "{to:?}: {shown}");
        assert!(found.hint.clone().unwrap_or_default().contains(hint), "{to:?}: {shown}");
    };
    // Unknown keys.
    check("mold: true", "molt: true", "molt", "unknown key \"molt\"", "\"mold\"");
    check("tuning:", "tune:", "tune:", "unknown key \"tune\"", "tuning");
    check("checkdeps:", "test:", "test:", "unknown key", "check");
    check(
        "        rundeps: [other]",
        "        license: MIT",
        "license",
        "unknown key",
        "known here",
    );
    check(
        "        setup: |",
        "        summary: |",
        "summary",
        "unknown key",
        "known here: builddeps",
    );
    check("        rename:", "        renam:", "renam", "unknown key", "\"rename\"");
    // Wrong types.
    check("release: 3", "release: three", "three", "whole number from 1 on", "");
    check("release: 3", "release: \"3\"", "3", "whole number", "without quotes");
    check("release: 3", "release: 0", "0", "whole number from 1 on", "");
    check("release: 3", "release: 99999999999999999999", "999", "whole number", "");
    check("networking: true", "networking: yes", "yes", "true or false", "write true");
    check("checkdeps: [binary(valgrind)]", "checkdeps: x", "checkdeps", "must be a list", "item");
    check("toolchain: gnu", "toolchain: gcc", "gcc", "not a toolchain", "gnu");
    check("setup: |\n    %configure", "setup: [a]", "setup", "must be a text", "");
    check("        stripdirs: 0", "        stripdirs: 256", "256", "from 0 to 255", "");
    check("    - lto: false", "    - lto: [a]", "lto", "must be a text", "");
    check("    - math", "    - lto", "lto", "tuned twice", "");
    check("name: demo\n", "", "version", "has no name", "nano");
    check(
        "license:\n    - MIT\n    - GPL-3.0-or-later OR Apache-2.0",
        "license: []",
        "",
        "no license",
        "",
    );
    // Values that lead elsewhere.
    check("name: demo", "name: ../demo", "name", "cannot name a package", "letters");
    check("version: 1.10", "version: v1.10", "v1.10", "cannot be a version", "\"1.10\"");
    check("version: 1.10", "version: 1/../../x", "1/..", "cannot be a version", "digit");
    check("rename: data-1.zip", "rename: ../data", "../data", "not the name of a file", "");
    check("unpackdir: more/files", "unpackdir: ../../etc", "etc", "leads out", "..");
    check("unpackdir: more/files", "unpackdir: /etc", "/etc", "leads out", "..");
    check("clonedir: other", "clonedir: a/../b", "a/../b", "leads out", "");
    check(
        "\"%(name)-data\":\n        s",
        "\"a/b\":\n        s",
        "a/b",
        "cannot name a package",
        "",
    );
    check("/usr/share/demo/data", "/usr/../etc/passwd", "passwd", "can match nothing", "");
    check("/usr/share/demo/data", "usr/share", "usr/share", "begin with /", "\"/usr/share\"");
    check("/usr/share/demo/data", "/usr/[a", "[a", "not a pattern", "");
    check("    - emul32:\n", "    - ../x:\n", "../x", "not a target", "known");
    // Upstreams.
    check("0123456789ABCDEF", "0123", "demo-1.10", "not a SHA-256", "sha256sum");
    check(
        "    - https://example.org/demo",
        "    - ftp://example.org/demo",
        "ftp",
        "ftp://",
        "known",
    );
    check(
        "    - https://example.org/demo",
        "    - example.org/demo",
        "example",
        "not a URL",
        "scheme",
    );
    check("file:///srv", "file://srv", "srv", "three slashes", "");
    check("        ref: 0123abc", "        hash: a", "other.git", "", "");
    check("ref: 0123abc", "ref: --upload-pack=x", "upload", "not a commit", "");
    check("rename: data-1.zip", "rename: demo-1.10.tar.xz", "data.zip", "saved as", "rename");
    check(
        "        unpack: \"false\"",
        "        clonedir: x",
        "data.zip",
        "no \"clonedir\"",
        "git|",
    );
    // Dependencies and expressions.
    check("cmake(fmt)", "cmak(fmt)", "cmak(fmt)", "not a kind", "did you mean cmake");
    check("cmake(fmt)", "cmake(fmt", "cmake(fmt", "closing parenthesis", "");
    check("plain-name", "two names", "two names", "white space", "item of its own");
    check("binary\\(.*-test\\)", "binary(", "binary(", "not a regular expression", "");
    check("/usr/bin/*-data: exe", "/usr/bin/*-data: exec", "exec", "not a kind of path", "exe");
    check("    - \"%(name)-data\":\n", "    \"%(name)-data\":\n", "", "broken YAML", "");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "name: a b\nrelease: x\nfoo: 1\nhomepage: h\nbuild: [1]\n";
    let problems = Recipe::parse(text).expect_err("many mistakes");
    let lines: Vec<usize> = problems.iter().map(|it| it.located(text).place.line).collect();
    assert!(problems.len() >= 6, "{}", shown(text, &problems));
    assert!(lines.is_sorted(), "{lines:?}");
}

#[test]
fn some_things_are_only_warnings() {
    let check = |from: &str, to: &str, expected: &str| {
        let text = WHOLE.replacen(from, to, 1);
        let warnings = parse(&text).warnings;
        assert!(shown(&text, &warnings).contains(expected), "{}", shown(&text, &warnings));
        assert_eq!(warnings.len(), 1);
    };
    check("    - MIT", "    - MITT", "did you mean \"MIT\"?");
    check("https://example.org/demo\n", "example.org\n", "not a web page");
    check("    - /usr/share/demo\n", "    - /etc/demo\n", "below /usr");
}

#[test]
fn bytes_of_scripts_are_found_in_the_file() {
    let recipe = parse(WHOLE).recipe;
    let check = |script: &Option<Script>, part: &str| {
        let script = script.as_ref().expect("a script");
        let at = script.text.find(part).expect(part);
        let place = script.place(Span::new(at, at + part.len()));
        assert_eq!(&WHOLE[place.start..place.end], part);
    };
    check(&recipe.build.setup, "%configure");
    check(&recipe.build.build, "%make");
    check(&recipe.build.install, "%make_install");
    check(&recipe.build.install, "install -d %(installroot)/x");
    check(&recipe.build_of(&Target::emul32("x86_64")).setup, "--without-x");
    check(&recipe.build_of(&Target::emul32("x86_64")).build, "exact");
    let crlf = WHOLE.replace('\n', "\r\n");
    let recipe = parse(&crlf).recipe;
    let script = recipe.build.install.expect("a script");
    let at = script.text.find("%(installroot)").expect("it is there");
    let place = script.place(Span::new(at, at + 14));
    assert_eq!(&crlf[place.start..place.end], "%(installroot)");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Whatever the text, there is an answer, and each problem has a place.
    #[test]
    fn no_text_is_too_odd(
        at in 0..WHOLE.len(), len in 0..40usize, text in "([\\[\\]{}:&*!|>'\"%@#~\n -]|[a-z]|ü){0,12}",
    ) {
        let floor = |at: usize| (0..=at.min(WHOLE.len())).rev().find(|it| WHOLE.is_char_boundary(*it));
        let (start, end) = (floor(at).unwrap_or(0), floor(at + len).unwrap_or(0));
        let changed = [&WHOLE[..start], &text, &WHOLE[end..]].concat();
        if let Err(problems) = Recipe::parse(&changed) {
            proptest::prop_assert!(!problems.is_empty());
            for problem in problems {
                let located = problem.located(&changed);
                proptest::prop_assert!(!located.message.is_empty());
                let _ = located.to_string();
            }
        }
    }
}
