//! `cairn convert` with a directory of small Debian packages.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A tar archive of files with their bytes.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Writes a Debian package, an ar archive with two tar archives in it.
fn write_deb(directory: &Path, name: &str, fields: &str, files: &[(&str, &str)]) {
    let control = format!(
        "Package: {name}\nVersion: 1.2-3\nArchitecture: amd64\nMaintainer: Nobody <a@b>\n\
         Description: {name} in one line\n{fields}"
    );
    let control = tar(&[("./control", &control), ("./postinst", "#!/bin/sh\nexit 1\n")]);
    let members: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &tar(files))];
    let mut deb = b"!<arch>\n".to_vec();
    for (member, bytes) in members {
        let (mode, len) = (100_644, bytes.len());
        let header = format!("{member:<16}{:<12}{:<6}{:<6}{mode:<8}{len:<10}`\n", 0, 0, 0);
        deb.extend_from_slice(header.as_bytes());
        deb.extend_from_slice(bytes);
        deb.resize(deb.len().next_multiple_of(2), b'\n');
    }
    std::fs::write(directory.join(format!("{name}.deb")), deb).unwrap();
}

fn convert(debs: &Path, stones: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.arg("convert").arg(debs).arg("-o").arg(stones).args(options);
    command.stdin(Stdio::null()).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_directory_of_packages_becomes_a_directory_of_stones() {
    let directory = tempfile::tempdir().unwrap();
    let (debs, stones) = (directory.path().join("debs"), directory.path().join("stones"));
    std::fs::create_dir(&debs).unwrap();
    write_deb(&debs, "hello", "Depends: greeting, absent\n", &[("./bin/hello", "#!/bin/sh\n")]);
    write_deb(&debs, "greeting", "", &[("./usr/share/greeting", "hello\n")]);

    let output = convert(&debs, &stones, &[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("unmet: hello needs absent\n"), "{shown}");
    assert!(shown.contains("2 of them have scripts, which are not run.\n"), "{shown}");

    let again = json(&convert(&debs, &stones, &["--json"]));
    let hello = &again["packages"][1];
    assert_eq!(hello["was_there"], true);
    assert_eq!(hello["scripts_not_run"], serde_json::json!(["postinst"]));
    let stone = Path::new(hello["stone"].as_str().unwrap());
    let mut inspect = Command::new(env!("CARGO_BIN_EXE_cairn"));
    let inspected = json(&inspect.args(["--json", "inspect"]).arg(stone).output().unwrap());
    assert_eq!(inspected[0]["layout"][0]["path"], "/usr/bin/hello");
}

#[test]
fn a_package_that_fails_is_told_and_does_not_keep_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let (debs, stones) = (directory.path().join("debs"), directory.path().join("stones"));
    std::fs::create_dir(&debs).unwrap();
    write_deb(&debs, "good", "", &[]);
    std::fs::write(debs.join("bad.deb"), "this is no archive").unwrap();
    let output = convert(&debs, &stones, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let data = json(&output);
    assert_eq!(data["packages"][0]["name"], "good");
    let failure = data["failures"][0].as_str().unwrap();
    assert!(failure.contains("bad.deb: "), "{failure}");
    assert_eq!(stones.read_dir().unwrap().count(), 1);

    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = convert(&empty, &stones, &[]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(complaint, format!("cairn: {} has no *.deb files\n", empty.display()));
}
