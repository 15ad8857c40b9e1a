//! The files of macros that are part of the program.

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../data/macros/", $path)))),*]
    };
}

/// Their paths and texts, in the order in which they count.
pub(super) const FILES: &[(&str, &str)] = files![
    "arch/base.yaml",
    "arch/aarch64.yaml",
    "arch/emul32/x86_64.yaml",
    "arch/riscv64.yaml",
    "arch/x86.yaml",
    "arch/x86_64.yaml",
    "actions/autotools.yaml",
    "actions/bazel.yaml",
    "actions/cargo.yaml",
    "actions/cmake.yaml",
    "actions/go.yaml",
    "actions/make.yaml",
    "actions/meson.yaml",
    "actions/misc.yaml",
    "actions/perl.yaml",
    "actions/pgo.yaml",
    "actions/python.yaml",
    "actions/qt.yaml",
    "actions/ruby.yaml",
];
