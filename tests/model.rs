//! Systems as files: applied, exported, and questions about what is installed.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;

use cairn_tests::{Cairn, Deb};

fn packages() -> [Deb; 5] {
    [
        Deb::new("app", "1").field("Depends", "lib").file("usr/bin/app", 0o755, "app"),
        Deb::new("lib", "1").file("usr/share/lib/x", 0o644, "lib"),
        Deb::new("editor", "1").file("usr/bin/editor", 0o755, "editor"),
        Deb::new("tool", "1").field("Depends", "lib").file("usr/bin/tool", 0o755, "tool"),
        Deb::new("old", "1").file("usr/share/old/x", 0o644, "old"),
    ]
}

fn tree(cairn: &Cairn) -> String {
    cairn.json(["state", "show"])["tree"].as_str().unwrap().into()
}

fn names(value: &serde_json::Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[test]
fn a_file_makes_the_same_system_whatever_was_there_before() {
    let (one, other) = (Cairn::new(), Cairn::new());
    for cairn in [&one, &other] {
        cairn.offer(packages());
    }
    other.data(["--yes", "install", "old", "tool"]);
    let stones = one.directory().join("stones");
    let model = one.directory().join("system.yaml");
    let write = |files: &str| {
        let text = format!(
            "repositories:\n  base:\n    url: file://{}\n    priority: 5\npackages: [app, editor]\n\
             files:\n{files}tags: [stable]\n",
            stones.display()
        );
        fs::write(&model, text).unwrap();
    };
    write(
        "  /etc/motd:\n    content: \"hello\\n\"\n    mode: \"0600\"\n  /etc/link:\n    link: motd\n",
    );
    let path = model.to_str().unwrap();
    // What the repositories will be is told before it is known that no plan can be made.
    let asked = one.run(["apply", "--dry-run", path]);
    assert_eq!(asked.code(), Some(1), "{}", asked.stderr);
    assert!(asked.stderr.contains("when the repositories are as the model says"));
    assert!(asked.stderr.contains("+ base") && asked.stderr.contains("- small"));
    for cairn in [&one, &other] {
        let done = cairn.json(["--yes", "apply", path]);
        assert_eq!(done["files"]["written"].as_array().unwrap().len(), 2, "{done}");
        assert_eq!(cairn.data(["cat", "/etc/link"]), "hello\n");
        assert_eq!(names(&cairn.json(["list"])), ["app", "editor", "lib"]);
        assert_eq!(names(&cairn.json(["list", "--explicit"])), ["app", "editor"]);
        let repositories = cairn.json(["repo", "list"]);
        assert_eq!(names(&repositories), ["base"]);
        assert!(cairn.json(["state", "show", "stable"])["current"].as_bool().unwrap());
    }
    assert_eq!(tree(&one), tree(&other));

    // Again it changes nothing; what it exports says the same.
    let before = one.json(["state", "list"]).as_array().unwrap().len();
    one.data(["--yes", "apply", path]);
    let exported = one.directory().join("exported.yaml");
    one.data(["export-model", "-o", exported.to_str().unwrap()]);
    one.data(["--yes", "apply", exported.to_str().unwrap()]);
    assert_eq!(one.json(["state", "list"]).as_array().unwrap().len(), before);

    // Local files stay through other changes, and go with the file.
    one.data(["--yes", "install", "tool"]);
    assert_eq!(one.data(["cat", "/etc/motd"]), "hello\n");
    write("  /usr/bin/app:\n    content: mine\n");
    one.data(["--yes", "apply", path]);
    assert!(!one.run(["ls", "/etc/motd"]).status.success());
    assert_eq!(one.data(["cat", "/usr/bin/app"]), "mine");
    assert_eq!(names(&one.json(["list"])), ["app", "editor", "lib"]);
    fs::write(&model, "packages: [app, editor]\n").unwrap();
    one.data(["--yes", "apply", path]);
    assert_eq!(one.data(["cat", "/usr/bin/app"]), "app");
}

#[test]
fn system_models_of_moss_go_both_ways() {
    let cairn = Cairn::new();
    cairn.offer(packages());
    cairn.data(["--yes", "install", "app", "old"]);
    let kdl = cairn.data(["export-model", "--kdl"]);
    assert!(kdl.contains("packages {\n    app\n    old\n}\n"), "{kdl}");
    let model = cairn.directory().join("system-model.kdl");
    fs::write(&model, kdl.replace("    old\n", "    \"binary(tool)\"\n")).unwrap();
    cairn.data(["--yes", "apply", model.to_str().unwrap()]);
    assert_eq!(names(&cairn.json(["list"])), ["app", "lib", "tool"]);
    fs::write(&model, "packages {").unwrap();
    let said = cairn.fails(1, ["--yes", "apply", model.to_str().unwrap()]);
    assert!(said.contains("cannot use the model") && said.contains("KDL"), "{said}");
}

#[test]
fn questions_about_packages_are_answered() {
    let cairn = Cairn::new();
    cairn.offer(packages());
    cairn.data(["--yes", "install", "app", "tool"]);
    cairn.data(["--yes", "install", "editor"]);

    assert_eq!(names(&cairn.json(["search", "EDIT"])), ["editor"]);
    assert_eq!(names(&cairn.json(["search", "one", "line", "o"])).len(), 5);
    assert_eq!(
        names(&cairn.json(["search", "--installed", "line"])),
        ["app", "editor", "lib", "tool"]
    );
    assert_eq!(names(&cairn.json(["search", "binary(tool)"])), ["tool"]);
    assert_eq!(names(&cairn.json(["search", "--provides", "tool"])), ["tool"]);
    assert_eq!(cairn.json(["search", "nothing like it"]).as_array().unwrap().len(), 0);
    let files = cairn.json(["search", "--files", "bin/t"]);
    assert_eq!(
        (&files[0]["path"], &files[0]["package"]),
        (&"/usr/bin/tool".into(), &"tool".into())
    );

    let info = cairn.json(["info", "app", "old"]);
    assert_eq!(names(&info), ["app", "old"]);
    assert_eq!(
        (info[0]["installed"].as_bool(), info[1]["installed"].as_bool()),
        (Some(true), Some(false))
    );
    assert_eq!(cairn.data(["files", "app"]), "/usr/bin/app\n");
    assert!(cairn.data(["owner", "/bin/app"]).contains("app"));
    assert!(cairn.data(["owner", "/home"]).contains("no package"));

    assert!(cairn.data(["depends", "app"]).contains("└─ lib"));
    let needed = cairn.data(["rdepends", "lib"]);
    assert!(needed.contains("├─ app") && needed.contains("└─ tool"), "{needed}");
    let why = cairn.json(["why", "lib"]);
    assert_eq!(why["chains"].as_array().unwrap().len(), 2);
    assert_eq!(why["chains"][0][0]["package"], "app");

    assert_eq!(
        names(&cairn.json(["list", "--available"])),
        ["app", "editor", "lib", "old", "tool"]
    );
    assert_eq!(cairn.json(["list", "upgradable"]).as_array().unwrap().len(), 0);
    assert_eq!(cairn.json(["list", "--orphans"]).as_array().unwrap().len(), 0);
    let history = cairn.json(["history"]);
    assert_eq!(history[0]["request"], "install editor");
    assert_eq!(names(&history[1]["packages"]), ["app", "lib", "tool"]);
    assert_eq!(cairn.json(["history", "editor"]).as_array().unwrap().len(), 1);

    for words in
        [&["files", "old"][..], &["why", "old"], &["info", "nobody"], &["depends", "nobody"]]
    {
        let said = cairn.fails(1, words);
        assert!(said.contains("help: "), "{said}");
    }
}
