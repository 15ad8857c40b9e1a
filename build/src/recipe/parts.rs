//! From the nodes of a file to a recipe.

use super::check::{self, MAX_TEXT, is_name, is_version, without_definitions};
use super::upstream;
use super::{
    BuildPart, Options, PackagePart, Profile, Recipe, Script, Spanned, TargetPattern, Toolchain,
    Tuning, package,
};
use crate::problem::{Problem, Span, nearest};
use crate::yaml::{Fields, Node, Reader, Value};

/// What a build can have, in a recipe and in each profile.
const BUILD_KEYS: &[&str] =
    &["builddeps", "checkdeps", "environment", "setup", "build", "install", "check", "workload"];

/// The rest of what a recipe can have.
const RECIPE_KEYS: &[&str] = &[
    "name",
    "version",
    "release",
    "homepage",
    "license",
    "upstreams",
    "packages",
    "profiles",
    "architectures",
    "tuning",
    "toolchain",
    "mold",
    "cspgo",
    "samplepgo",
    "debug",
    "strip",
    "networking",
    "compressman",
    "lastrip",
    "emul32",
];

/// What people write who mean something else.
const MEANT: [(&str, &str); 8] = [
    ("dependencies", "builddeps or rundeps"),
    ("options", "each option as a key of its own, such as networking: true"),
    ("provides", "nothing: providers are found by analysis"),
    ("source", "upstreams"),
    ("sources", "upstreams"),
    ("subpackages", "packages"),
    ("test", "check"),
    ("tune", "tuning"),
];

/// Reads the root of a file; none if something without which nothing can be
/// checked is wrong.
pub(super) fn recipe(root: &Node, file: &str, reader: &mut Reader) -> Option<Recipe> {
    if !matches!(root.value, Value::Map(_)) {
        let message = format!("a recipe is a map of keys and values, and this is {}", root.kind());
        reader.error(Span::new(root.span.start, root.span.start), message);
        return None;
    }
    let mut fields = reader.fields(root, "a recipe");
    for (word, meant) in MEANT {
        if let Some(node) = fields.take(word) {
            let span = Span::new(node.span.start, node.span.start);
            let span = key_span(root, word).unwrap_or(span);
            let problem = Problem::error(span, format!("unknown key {word:?}"));
            reader.push(problem.hint(format!("write {meant}")));
        }
    }
    let source = source(&mut fields, root, reader);
    let upstreams = match fields.take("upstreams") {
        Some(node) => upstream::read_all(node, reader),
        None => Vec::new(),
    };
    let build = build(&mut fields, file, reader);
    let package = package::read(&mut fields, reader);
    let packages = match fields.take("packages") {
        Some(node) => package_templates(node, reader),
        None => Vec::new(),
    };
    let profiles = profiles(&mut fields, file, reader);
    let architectures = architectures(&mut fields, reader);
    let tuning = tuning(&mut fields, reader);
    let options = options(&mut fields, reader);
    let known = [RECIPE_KEYS, BUILD_KEYS, package::KEYS].concat();
    fields.finish(&known, reader);
    if build.install.is_none() && profiles.iter().all(|it| it.build.install.is_none()) {
        let span = Span::new(root.span.start, root.span.start);
        let problem = Problem::warning(span, "the recipe installs nothing");
        reader.push(problem.hint("install: a script that puts files below %(installroot)"));
    }
    let Source { name, version, release, homepage, licenses } = source;
    Some(Recipe {
        name: name?,
        version: version?,
        release: release?,
        homepage: homepage?,
        licenses,
        upstreams,
        build,
        profiles,
        architectures,
        package,
        packages,
        tuning,
        options,
    })
}

fn key_span(node: &Node, name: &str) -> Option<Span> {
    match &node.value {
        Value::Map(pairs) => {
            pairs.iter().find(|(key, _)| key.text == name).map(|(key, _)| key.span)
        }
        _ => None,
    }
}

struct Source {
    name: Option<String>,
    version: Option<String>,
    release: Option<u64>,
    homepage: Option<String>,
    licenses: Vec<String>,
}

fn source(fields: &mut Fields<'_>, root: &Node, reader: &mut Reader) -> Source {
    let top = Span::new(root.span.start, root.span.start);
    let missing = |reader: &mut Reader, key: &str, example: &str| {
        let problem = Problem::error(top, format!("the recipe has no {key}"));
        reader.push(problem.hint(format!("{key}: {example}")));
    };
    let name = match fields.take("name") {
        None => {
            missing(reader, "name", "nano");
            None
        }
        Some(node) => reader.text(node, "name").filter(|text| {
            if !is_name(text) {
                let problem = Problem::error(node.span, format!("{text:?} cannot name a package"));
                reader.push(problem.hint("letters, digits, '+', '-', '.' and '_', up to 128"));
            }
            is_name(text)
        }),
    };
    let version = match fields.take("version") {
        None => {
            missing(reader, "version", "\"8.7\"");
            None
        }
        Some(node) => reader.text(node, "version").filter(|text| {
            if !is_version(text) {
                let problem = Problem::error(node.span, format!("{text:?} cannot be a version"));
                let digit = text.strip_prefix('v').filter(|rest| is_version(rest));
                reader.push(match digit {
                    Some(rest) => problem.hint(format!("leave the v out: {rest:?}")),
                    None => problem.hint("a digit, then letters, digits and \"+-._~\", up to 128"),
                });
            }
            is_version(text)
        }),
    };
    let release = match fields.take("release") {
        None => {
            missing(reader, "release", "1");
            None
        }
        Some(node) => reader.number(node, "release", (1, u64::MAX)),
    };
    let homepage = match fields.take("homepage") {
        None => {
            missing(reader, "homepage", "https://www.nano-editor.org");
            None
        }
        Some(node) => reader.text(node, "homepage").inspect(|text| {
            if !text.starts_with("https://") && !text.starts_with("http://") {
                let problem = Problem::warning(node.span, "the homepage is not a web page");
                reader.push(problem.hint("write it with https://"));
            }
        }),
    };
    let mut licenses = Vec::new();
    match fields.take("license") {
        None => missing(reader, "license", "GPL-3.0-or-later"),
        Some(node) => {
            let items = match &node.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            if items.is_empty() {
                missing(reader, "license", "GPL-3.0-or-later");
            }
            for item in items {
                if let Some(text) = reader.text(item, "license") {
                    check::license(reader, text, item.span);
                    licenses.push(text.to_owned());
                }
            }
        }
    }
    let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
    let (name, version, homepage) = (owned(name), owned(version), owned(homepage));
    Source { name, version, release, homepage, licenses }
}

fn build(fields: &mut Fields<'_>, file: &str, reader: &mut Reader) -> BuildPart {
    let builddeps = package::dependencies(fields, "builddeps", reader);
    let checkdeps = package::dependencies(fields, "checkdeps", reader);
    let mut script = |name| {
        let node = fields.take(name)?;
        if node.is_null() {
            return None;
        }
        let text = reader.text(node, name)?;
        if text.len() > MAX_TEXT {
            reader.error(node.span, format!("a script of over {MAX_TEXT} bytes"));
            return None;
        }
        Script::of(node, file)
    };
    BuildPart {
        environment: script("environment"),
        setup: script("setup"),
        build: script("build"),
        install: script("install"),
        check: script("check"),
        workload: script("workload"),
        builddeps,
        checkdeps,
    }
}

/// Reads a list of packages, whose names are templates: `%(name)-devel`.
pub(crate) fn package_templates(
    node: &Node,
    reader: &mut Reader,
) -> Vec<(Spanned<String>, PackagePart)> {
    let mut packages = Vec::new();
    for item in reader.list(node, "packages") {
        let Some((key, value)) = reader.pair(item, "a package") else { continue };
        if !is_name(&without_definitions(&key.text)) {
            let problem = Problem::error(key.span, format!("{:?} cannot name a package", key.text));
            reader.push(problem.hint("letters, digits, '+', '-', '.' and '_', up to 128"));
            continue;
        }
        let mut fields = reader.fields(value, "a package");
        let part = package::read(&mut fields, reader);
        fields.finish(package::KEYS, reader);
        packages.push((Spanned::new(key.span, key.text.clone()), part));
    }
    packages
}

fn profiles(fields: &mut Fields<'_>, file: &str, reader: &mut Reader) -> Vec<Profile> {
    let Some(node) = fields.take("profiles") else { return Vec::new() };
    let mut profiles = Vec::new();
    for item in reader.list(node, "profiles") {
        let Some((key, value)) = reader.pair(item, "a profile") else { continue };
        let Some(target) = target(&key.text, key.span, reader) else { continue };
        let mut fields = reader.fields(value, "a profile");
        let build = build(&mut fields, file, reader);
        fields.finish(BUILD_KEYS, reader);
        profiles.push(Profile { target, build });
    }
    profiles
}

fn target(text: &str, span: Span, reader: &mut Reader) -> Option<TargetPattern> {
    match text.parse() {
        Ok(target) => Some(target),
        Err(_) => {
            let problem = Problem::error(span, format!("{text:?} is not a target"));
            reader.push(problem.hint("known: native, emul32, x86_64 and emul32/x86_64 and so on"));
            None
        }
    }
}

fn architectures(fields: &mut Fields<'_>, reader: &mut Reader) -> Vec<TargetPattern> {
    let Some(node) = fields.take("architectures") else { return Vec::new() };
    let texts = reader.texts(node, "architectures");
    texts.into_iter().filter_map(|(text, span)| target(text, span, reader)).collect()
}

/// `name`, `name: true`, `name: false` or `name: choice`.
fn tuning(fields: &mut Fields<'_>, reader: &mut Reader) -> Vec<Spanned<Tuning>> {
    let Some(node) = fields.take("tuning") else { return Vec::new() };
    let mut found: Vec<Spanned<Tuning>> = Vec::new();
    for item in reader.list(node, "tuning") {
        let tuning = match &item.value {
            Value::Scalar(_) => {
                let Some(text) = reader.text(item, "a tuning group") else { continue };
                Spanned::new(item.span, Tuning::Enable(text.into()))
            }
            _ => {
                let Some((key, value)) = reader.pair(item, "a tuning group") else { continue };
                let group = key.text.clone();
                let tuning = match value.as_text() {
                    Some("true" | "True" | "TRUE") => Tuning::Enable(group),
                    Some("false" | "False" | "FALSE") => Tuning::Disable(group),
                    _ => match reader.text(value, "the choice of a tuning group") {
                        Some(text) => Tuning::Choose(group, text.into()),
                        None => continue,
                    },
                };
                Spanned::new(key.span, tuning)
            }
        };
        let same = found.iter().find(|it| it.value.group() == tuning.value.group());
        if let Some(first) = same {
            let message = format!("{:?} is tuned twice", tuning.value.group());
            let problem = Problem::error(tuning.span, message);
            reader.push(problem.also(first.span, "the first one is here"));
        }
        found.push(tuning);
    }
    found
}

fn options(fields: &mut Fields<'_>, reader: &mut Reader) -> Options {
    let mut options = Options::default();
    if let Some(node) = fields.take("toolchain")
        && let Some(text) = reader.text(node, "toolchain")
    {
        match text {
            "llvm" => options.toolchain = Toolchain::Llvm,
            "gnu" => options.toolchain = Toolchain::Gnu,
            _ => {
                let problem = Problem::error(node.span, format!("{text:?} is not a toolchain"));
                let meant = nearest(text, ["llvm", "gnu"]).unwrap_or(match text {
                    "clang" => "llvm",
                    _ => "llvm or gnu",
                });
                reader.push(problem.hint(format!("write {meant}")));
            }
        }
    }
    for (name, option) in [
        ("mold", &mut options.mold),
        ("cspgo", &mut options.cspgo),
        ("samplepgo", &mut options.samplepgo),
        ("debug", &mut options.debug),
        ("strip", &mut options.strip),
        ("networking", &mut options.networking),
        ("compressman", &mut options.compressman),
        ("lastrip", &mut options.lastrip),
        ("emul32", &mut options.emul32),
    ] {
        if let Some(node) = fields.take(name)
            && let Some(value) = reader.boolean(node, name)
        {
            *option = value;
        }
    }
    options
}
