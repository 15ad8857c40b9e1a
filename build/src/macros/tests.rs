//! The standard macros, as a whole.

use std::collections::BTreeMap;

use super::*;
use crate::recipe::{Toolchain, Tuning};

fn targets() -> Vec<Target> {
    let natives = ["aarch64", "riscv64", "x86", "x86_64"].map(Target::native);
    natives.into_iter().chain([Target::emul32("x86_64")]).collect()
}

fn of(target: &Target) -> TargetMacros {
    Macros::standard().of_target(target).expect("a target")
}

/// An expander with every value that a build has.
fn expander(macros: &TargetMacros) -> Expander {
    let text = "name: x\nversion: 1\nrelease: 1\nhomepage: https://x\nlicense: MIT\ninstall: x\n";
    let recipe = crate::Recipe::parse(text).expect("a recipe").recipe;
    let jobs = std::num::NonZeroUsize::MIN;
    let settings = crate::job::Settings { jobs, cache: false, check: true, epoch: 0 };
    let mut expander =
        crate::job::expander(&recipe, macros, crate::job::Stage::Plain, &settings).expect("flags");
    for (name, value) in &mut expander.values {
        *value = format!("<{name}>");
    }
    expander
}

#[test]
fn every_file_is_one_of_macros() {
    for (path, text) in standard::FILES {
        if let Err(problems) = MacroFile::parse(text) {
            let shown: Vec<_> = problems.iter().map(|it| it.located(text).to_string()).collect();
            panic!("{path}: {}", shown.join("\n"));
        }
    }
}

/// What is laid over the standard macros for a distribution changes its flags, and
/// names none that is not there.
#[test]
fn overlays_of_distributions_change_flags_that_are_there() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/data/overlays");
    for entry in std::fs::read_dir(directory).expect("overlays") {
        let path = entry.expect("an overlay").path();
        let mut changed = Macros::standard();
        changed.overlay(&path).expect("macros");
        for target in targets() {
            let (old, new) = (of(&target), changed.of_target(&target).expect("macros"));
            assert_ne!(old.flags, new.flags, "{}", path.display());
            let names = |macros: &TargetMacros| macros.flags.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&old), names(&new), "{}", path.display());
            for toolchain in [Toolchain::Gnu, Toolchain::Llvm] {
                new.flags(&[], &[], toolchain).expect("flags");
            }
        }
    }
}

#[test]
fn every_action_and_definition_can_be_expanded_for_every_target() {
    for target in targets() {
        let macros = of(&target);
        let expander = expander(&macros);
        for name in macros.actions.keys() {
            let expanded = expander.script(&format!("%{name}")).expect(name).text();
            assert!(!expanded.contains("%("), "{target} {name}: {expanded}");
        }
        for name in macros.definitions.keys() {
            expander.script(&format!("%({name})")).expect(name);
        }
        for (name, part) in &macros.packages {
            let texts = part.paths.iter().map(|rule| &rule.value.glob);
            for text in texts.chain([&name.value]) {
                let text = expander.text(text).expect(text);
                crate::glob::Glob::new(&text).expect("a pattern");
            }
        }
        for group in macros.groups.keys() {
            for toolchain in [Toolchain::Gnu, Toolchain::Llvm] {
                macros.flags(&[], &[group], toolchain).expect(group);
            }
        }
    }
}

#[test]
fn every_dependency_of_an_action_is_one() {
    let macros = of(&Target::native("x86_64"));
    let root = macros.root.clone();
    let emul32 = [root.emul32_llvm, root.emul32_gnu];
    let caches = [root.cache, root.cache_cargo];
    let lists = [root.always, root.llvm, root.gnu].into_iter().chain(emul32).chain(caches);
    let of_root = lists.flatten().flatten();
    let of_actions = macros.actions.values().flat_map(|action| action.dependencies.clone());
    for text in of_root.chain(of_actions).chain(root.archives.into_values().flatten()) {
        for one in text.split('|') {
            one.trim().parse::<cairn_package::Dependency>().expect(&text);
        }
    }
}

/// Specification of boulder, "Actions": all that recipes can use.
#[rustfmt::skip]
const ACTIONS: &[&str] = &[
    "autogen", "autogen_with_bash", "bazel_build", "bazel_fetch", "bolt_instr", "bolt_merge",
    "bolt_opt", "bolt_perf", "bolt_perf2bolt", "cargo_build", "cargo_fetch",
    "cargo_home_breaks_this_build", "cargo_install", "cargo_set_environment", "cargo_test",
    "cargo_vendor", "ccache_stats", "ccache_zero", "cmake", "cmake_build", "cmake_install",
    "cmake_kf6", "cmake_make", "cmake_qt6", "cmake_test", "cmake_unity", "configure",
    "configure_with_bash", "export_docbook_catalogs", "gem_build", "gem_install", "go_mod",
    "gtk_update_icon_cache", "install_bin", "install_dir", "install_exe", "install_file",
    "llvm_merge_s1", "llvm_merge_s2", "make", "make_install", "make_no_verbose", "meson",
    "meson_build", "meson_install", "meson_test", "meson_unity", "ninja", "ninja_install",
    "ninja_test", "patch", "perl_module_build", "perl_module_install", "perl_module_setup",
    "perl_setup", "pyproject_build", "pyproject_install", "python_compile", "python_install",
    "python_setup", "qmake_qt5", "qt_user_facing_links", "reconfigure", "reconfigure_with_bash",
    "scriptBase", "sysusers", "tmpfiles",
];

#[test]
fn all_actions_of_the_specification_are_there() {
    let macros = of(&Target::native("x86_64"));
    let missing: Vec<_> = ACTIONS.iter().filter(|it| !macros.actions.contains_key(**it)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let silent = macros.actions.iter().filter(|(_, action)| action.description.is_empty());
    assert_eq!(silent.count(), 0);
}

/// Specification of boulder, "Definitions", with the values that it tells.
#[test]
fn all_definitions_of_the_specification_are_there() {
    let macros = of(&Target::native("x86_64"));
    let expander = expander(&macros);
    let check = |name: &str, expected: &str| {
        let found = expander.text(&format!("%({name})")).expect(name);
        assert_eq!(found, expected, "{name}");
    };
    for (name, expected) in [
        ("bindir", "/usr/bin"),
        ("sbindir", "/usr/sbin"),
        ("libdir", "/usr/lib"),
        ("libexecdir", "/usr/lib/<name>"),
        ("datadir", "/usr/share"),
        ("mandir", "/usr/share/man"),
        ("docdir", "/usr/share/doc"),
        ("includedir", "/usr/include"),
        ("vendordir", "/usr/share/defaults"),
        ("sysconfdir", "/etc"),
        ("localstatedir", "/var"),
        ("sharedstatedir", "/var/lib"),
        ("runstatedir", "/run"),
        ("bashcompletionsdir", "/usr/share/bash-completion/completions"),
        ("completionsdir", "/usr/share/bash-completion/completions"),
        ("zshcompletionsdir", "/usr/share/zsh/site-functions"),
        ("fishcompletionsdir", "/usr/share/fish/vendor_completions.d"),
        ("tmpfilesdir", "/usr/lib/tmpfiles.d"),
        ("udevrulesdir", "/usr/lib/udev/rules.d"),
        ("target_triple", "x86_64-unknown-linux-gnu"),
        ("cargo_target_dir", "target/x86_64-unknown-linux-gnu/release"),
        ("installroot", "<installroot>"),
        ("libsuffix", ""),
    ] {
        check(name, expected);
    }
    for name in [
        "ar",
        "build_platform",
        "builddir",
        "buildroot",
        "cargo_profile",
        "cc",
        "cflags",
        "cxx",
        "elvishcompletionsdir",
        "host_platform",
        "infodir",
        "jobs",
        "ld",
        "ldflags",
        "localedir",
        "march",
        "mtune",
        "name",
        "nm",
        "objcopy",
        "options_cargo_release",
        "options_cmake",
        "options_cmake_kf6",
        "options_configure",
        "options_meson",
        "options_qmake",
        "pgo_dir",
        "pgo_stage",
        "pkgconfigpath",
        "pkgdir",
        "prefix",
        "ranlib",
        "release",
        "sourcedir",
        "sysusersdir",
        "vendorID",
        "version",
        "workdir",
    ] {
        assert!(macros.definitions.contains_key(name), "{name}");
    }
    let emul32 = of(&Target::emul32("x86_64"));
    let libdir = super::tests::expander(&emul32).text("%(libdir)").expect("a directory");
    assert_eq!(libdir, "/usr/lib32");
}

/// Specification of boulder, "Effective defaults", measured there.
#[test]
fn the_default_flags_are_those_of_the_specification() {
    let macros = of(&Target::native("x86_64"));
    let flags = macros.flags(&[], &[], Toolchain::Llvm).expect("the defaults");
    let expander = expander(&macros);
    let check = |language: Language, expected: &str| {
        let found = expander.text(flags.of(language)).expect("flags");
        assert_eq!(found, expected, "{language:?}");
    };
    let c = "-O2 -Werror=odr -Werror=strict-aliasing -Wp,-D_GLIBCXX_ASSERTIONS \
             -Wp,-U_FORTIFY_SOURCE,-D_FORTIFY_SOURCE=3 -fcf-protection -fexceptions \
             -ffat-lto-objects -flto=thin -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer \
             -fstack-protector --param ssp-buffer-size=32 -g -fasynchronous-unwind-tables \
             -march=x86-64-v2 -mtune=ivybridge -mprefer-vector-width=128 -mtls-dialect=gnu2 -pipe \
             -Wformat -Wformat-security -Wno-error -fPIC";
    check(Language::C, c);
    check(Language::Cxx, c);
    check(
        Language::Ld,
        "-Wl,--as-needed -Wl,--build-id=sha1 -Wl,--compress-debug-sections=zstd -Wl,--icf=safe \
         -Wl,--undefined-version -Wl,-Bsymbolic-functions -Wl,-O2,--gc-sections \
         -Wl,-z,pack-relative-relocs -Wl,-z,relro,-z,now -flto=thin",
    );
    check(Language::Fortran, "-O2 -flto=thin -fno-omit-frame-pointer -g");
    check(
        Language::Rust,
        "-C debuginfo=2 -C split-debuginfo=off -C force-frame-pointers \
         -C link-args=-Wl,--build-id=sha1 -C link-args=-Wl,--compress-debug-sections=zstd \
         -C lto=thin -C linker-plugin-lto -C embed-bitcode=yes -C opt-level=3 -C codegen-units=1 \
         -C strip=none -C target-cpu=x86-64-v2",
    );
    check(
        Language::Go,
        "-buildmode=pie -ldflags=-linkmode=external -mod=readonly -modcacherw -trimpath",
    );
}

#[test]
fn tuning_adds_takes_away_and_chooses() {
    let macros = of(&Target::native("x86_64"));
    let flags = |tuning: &[Tuning], toolchain| {
        let span = crate::problem::Span::default();
        let wanted: Vec<_> = tuning.iter().map(|it| Spanned::new(span, it.clone())).collect();
        macros.flags(&wanted, &[], toolchain)
    };
    let c = |tuning: &[Tuning]| {
        flags(tuning, Toolchain::Gnu).expect("known groups").of(Language::C).to_owned()
    };
    let plain = c(&[]);
    assert!(plain.contains("-flto=auto ") && plain.contains("-O2"), "{plain}");
    assert!(plain.contains("-feliminate-unused-debug-types"), "{plain}");
    assert!(!c(&[Tuning::Disable("lto".into())]).contains("-flto"));
    let speed = c(&[Tuning::Choose("optimize".into(), "speed".into())]);
    assert!(speed.contains("-O3") && !speed.contains("-O2"), "{speed}");
    assert!(c(&[Tuning::Enable("sections".into())]).contains("-ffunction-sections"));
    assert!(c(&[Tuning::Disable("frame-pointer".into())]).contains("-fomit-frame-pointer"));
    // The machine is not a matter of taste.
    assert!(c(&[Tuning::Disable("architecture".into())]).contains("-march=%(march)"));
    let noplt = [Tuning::Enable("noplt".into()), Tuning::Disable("bindnow".into())];
    assert!(flags(&noplt, Toolchain::Gnu).expect("groups").of(Language::Ld).contains("-z,now"));

    let (number, err) =
        flags(&[Tuning::Enable("math".into()), Tuning::Enable("optimise".into())], Toolchain::Gnu)
            .expect_err("there is none");
    let meant = Some("optimize".to_owned());
    assert_eq!((number, err), (Some(1), UnknownTuning::Group { group: "optimise".into(), meant }));
    let (_, err) = flags(&[Tuning::Choose("lto".into(), "fat".into())], Toolchain::Gnu)
        .expect_err("there is none");
    assert!(matches!(err, UnknownTuning::Choice { .. }), "{err:?}");
}

#[test]
fn files_of_a_distribution_replace_and_extend() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    };
    write("arch/base.yaml", "definitions:\n    - vendorID: acme\nroot:\n    gnu: [gcc-acme]\n");
    write("actions/own.yaml", "actions:\n    - own:\n        command: own %(vendorID)\n");
    write("arch/emul32/x86_64.yaml", "definitions:\n    - libsuffix: \"-32\"\n");
    let mut macros = Macros::standard();
    macros.overlay(directory.path()).expect("an overlay");
    let native = macros.of_target(&Target::native("x86_64")).expect("a target");
    let text =
        |macros: &TargetMacros, text: &str| expander(macros).script(text).expect(text).text();
    assert_eq!(text(&native, "%own"), "own acme");
    assert_eq!(text(&native, "%(build_platform)"), "x86_64-acme-linux");
    assert_eq!(text(&native, "%(libdir)"), "/usr/lib");
    assert_eq!(native.root.gnu, Some(vec!["gcc-acme".to_owned()]));
    assert!(native.root.always.is_some());
    let emul32 = macros.of_target(&Target::emul32("x86_64")).expect("a target");
    assert_eq!(text(&emul32, "%(libdir)"), "/usr/lib-32");

    write("actions/own.yaml", "actions:\n    - own:\n        comand: x\n");
    let err = Macros::standard().overlay(directory.path()).expect_err("a mistake").to_string();
    assert!(err.contains("own.yaml:3:9: error: unknown key \"comand\""), "{err}");
    assert!(err.contains("did you mean \"command\"?"), "{err}");
    let none = Macros::standard().of_target(&Target::native("vax")).expect_err("no such machine");
    assert!(none.to_string().contains("known: aarch64, emul32/x86_64"), "{none}");
    let _: BTreeMap<String, Action> = native.actions;
}
