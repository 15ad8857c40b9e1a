//! What goes into a store comes out of it the same: real trees are imported,
//! mounted and exported, and other programs compare them with the original.
//!
//! `ENDURE_ROOT` names the files of a machine that are compared in the long test: without it,
//! those of this one in /usr.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_tests::{
    Cairn, Deb, Mount, Mounted, Need, Original, Plain, Random, make_device, make_fifo, posix_acl,
    real, run, set_xattr,
};

const PACKAGES: [&str; 10] = [
    "base-files",
    "bash",
    "coreutils",
    "cron",
    "e2fsprogs",
    "iputils-ping",
    "man-db",
    "mount",
    "passwd",
    "perl-base",
];

/// Real packages in a directory, and beside them one of everything else that a
/// directory can hold.
fn make_root(cairn: &Cairn) -> Option<PathBuf> {
    let mut debs = real::debs()?;
    // Some with setuid programs, hard links, capabilities and odd owners: each byte
    // is hashed more than a dozen times here.
    debs.retain(|deb| {
        let name = deb.file_name().unwrap().to_str().unwrap().split('_').next().unwrap();
        PACKAGES.contains(&name)
    });
    assert!(debs.len() >= PACKAGES.len() - 2, "{debs:?}");
    let root = cairn.directory().join("root");
    let _ = Plain::unpack(&debs, &root);
    let odd = root.join("odd");
    fs::create_dir(&odd).unwrap();
    make_device(&odd.join("null"), 1, 3).unwrap();
    make_device(&odd.join("large"), 300, 70_000).unwrap();
    make_fifo(&odd.join("fifo")).unwrap();
    symlink("nowhere", odd.join("link")).unwrap();
    fs::hard_link(odd.join("link"), odd.join("second name of a link")).unwrap();
    fs::hard_link(odd.join("fifo"), odd.join("second name of a fifo")).unwrap();
    let sparse = odd.join("sparse");
    fs::File::create(&sparse).unwrap().set_len(5_000_001).unwrap();
    set_xattr(&sparse, "user.bytes", &[0, 10, b'=', 255]).unwrap();
    // user::rw-, user:1234:rwx, group::r--, mask::rwx, other::r--
    let none = u32::MAX;
    let acl = [(1, 6, none), (2, 7, 1234), (4, 4, none), (16, 7, none), (32, 4, none)];
    let acl = posix_acl(&acl);
    set_xattr(&sparse, "system.posix_acl_access", &acl).unwrap();
    set_xattr(&odd.join("null"), "trusted.odd", b"of a device").unwrap();
    fs::write(odd.join("\u{fe}\n \u{1b}[2J\\"), "bytes").unwrap();
    let deep = odd.join("a-long-name-of-a-directory/".repeat(12));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("n".repeat(255)), "deep").unwrap();
    for (path, seconds) in [("sparse", "-12345.123456789"), ("link", "9999999999.000000001")] {
        let mut touch = Command::new("touch");
        run(touch.args(["-h", "-d", &format!("@{seconds}")]).arg(odd.join(path)));
    }
    Some(root)
}

/// GNU tar, which unpacks into a new directory.
fn unpacker(directory: &Path) -> Command {
    fs::create_dir(directory).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-xp", "--same-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp"]);
    tar.arg("-C").arg(directory);
    tar
}

fn untar(archive: &Path, directory: &Path) {
    run(unpacker(directory).arg("-f").arg(archive));
}

/// Has GNU tar unpack the only layer of an image.
fn unpack_layer(cairn: &Cairn, layout: &str, name: &str, directory: &Path) {
    let layers = layers(cairn, layout, name);
    let [digest] = &layers[..] else { panic!("{layers:?}") };
    let blob = digest.replace("sha256:", "blobs/sha256/");
    untar(&cairn.directory().join(layout).join(blob), directory);
}

#[test]
fn a_real_root_goes_in_and_comes_out_in_every_way_the_same() {
    if !Need::all(&[Need::Fuse]) || !Need::all(&Original::NEEDS) {
        return;
    }
    let cairn = Cairn::new();
    let Some(root) = make_root(&cairn) else { return };
    let place = |name: &str| cairn.directory().join(name);

    let imported = cairn.json(["import", "root"]);
    assert!(imported["entries"].as_u64().unwrap() > 1500, "{imported}");
    assert_eq!(imported["unsettled"], serde_json::json!([]));
    let original = Original::new(&root);

    let mounted = Mount::new(&cairn, &["--state", "1"], "mounted");
    original.assert_is(mounted.path());
    mounted.umount();
    let exported = cairn.json(["export", "1", "directory", "--sparse"]);
    assert_eq!(exported["left_out"], serde_json::json!([]));
    original.assert_is(&place("directory"));
    let exported = cairn.json(["export", "1", "archive.tar.zst"]);
    assert_eq!(exported["left_out"], serde_json::json!([]));
    cairn.data(["import", "archive.tar.zst", "--tag", "archive"]);
    cairn.data(["export", "archive", "archive.tar"]);
    untar(&place("archive.tar"), &place("unpacked"));
    original.assert_is(&place("unpacked"));
    for compress in ["gzip", "zstd"] {
        let target = format!("oci:{compress}:root");
        let exported = cairn.json(["export", "1", &target, "--compress", compress]);
        assert_eq!(exported["left_out"], serde_json::json!([]));
        let unpacked = place(&format!("layer-{compress}"));
        unpack_layer(&cairn, compress, "root", &unpacked);
        original.assert_is(&unpacked);
        assert_eq!(cairn.json(["import", &target])["tree"], imported["tree"], "{compress}");
    }

    // Archives by others come in as well; GNU tar leaves ACLs out, and does not tell
    // of further names of FIFOs.
    let mut tar = Command::new("tar");
    tar.args(["--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--xz"]);
    run(tar
        .env("XZ_OPT", "-0")
        .arg("-cf")
        .arg(place("gnu.tar.xz"))
        .args(["--exclude=./odd/sparse", "--exclude=*of a fifo"])
        .arg("-C")
        .arg(&root)
        .arg("."));
    let some = cairn.json(["import", "root", "--exclude", "odd/sparse", "--exclude", "*of a fifo"]);
    let gnu = cairn.json(["import", "gnu.tar.xz"]);
    assert_eq!(gnu["tree"], some["tree"], "GNU tar");
    let again = cairn.json(["import", "root"]);
    assert_eq!((&again["tree"], &again["bytes_stored"]), (&imported["tree"], &0.into()));
}

/// Gives everything that has one name the mode that it has; returns how much there is.
fn copy_up(directory: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let (path, data) = entry.map(|it| (it.path(), it.metadata().unwrap())).unwrap();
        if data.is_dir() {
            count += copy_up(&path);
        }
        // Of hard links only the name that is changed would be copied.
        if data.is_dir() || data.is_file() && data.nlink() == 1 {
            fs::set_permissions(&path, data.permissions()).unwrap();
            count += 1;
        }
    }
    count
}

#[test]
#[ignore = "it reads the files of a whole machine a dozen times: make endure"]
fn the_files_of_a_whole_machine_are_the_same_on_a_mount_in_a_workspace_and_exported() {
    let tools = [Need::Program("umoci", "umoci"), Need::Program("zstd", "zstd")];
    if !Need::all(&[Need::Fuse]) || !Need::all(&Original::NEEDS) || !Need::all(&tools) {
        return;
    }
    let cairn = Cairn::new();
    let root = std::env::var_os("ENDURE_ROOT").map_or_else(|| "/usr".into(), PathBuf::from);
    let imported = cairn.json([Path::new("import"), &root]);
    let entries = imported["entries"].as_u64().unwrap();
    assert!(entries >= 100_000, "{entries} entries: name a larger directory in ENDURE_ROOT");
    println!("{}: {entries} entries, {} bytes", root.display(), imported["bytes"]);
    let original = Original::new(&root);

    let mounted = Mount::new(&cairn, &["--state", "1"], "mounted");
    original.assert_is(mounted.path());
    println!("a mount is the same, say rsync, mtree, bsdtar and tar");
    mounted.umount();
    let words = ["--rw", "work", "--state", "1"];
    let workspace = Mount::new(&cairn, &words, "workspace");
    original.assert_is(workspace.path());
    println!("a workspace is the same, say they");
    let copied = copy_up(workspace.path());
    original.assert_is(workspace.path());
    println!("so it is with {copied} entries of which the metadata were copied up");
    workspace.umount();
    // Out of its layer alone, and as a state.
    let workspace = Mount::new(&cairn, &words[..2], "workspace");
    original.assert_is(workspace.path());
    workspace.umount();
    let published = cairn.json(["snapshot", "work"]);
    assert_eq!(published["state"], serde_json::Value::Null, "nothing has changed: {published}");
    println!("and mounted again; a snapshot has found no change");
    export_all(&cairn, &root, &original);
}

/// Exports state 1 in every way, one after the other, for want of room for all at once.
fn export_all(cairn: &Cairn, root: &Path, original: &Original) {
    let check = |what: &str, made: &str, files: &str| {
        original.assert_is(&cairn.directory().join(files));
        println!("{what} is the same, say they");
        fs::remove_dir_all(cairn.directory().join(made)).unwrap();
    };
    cairn.data(["export", "1", "directory"]);
    check("a directory", "directory", "directory");

    let unpacked = cairn.directory().join("unpacked");
    for program in ["tar", "bsdtar"] {
        let mut unpacker = unpacker(&unpacked);
        if program == "bsdtar" {
            unpacker = Command::new(program);
            unpacker.arg("-xpC").arg(&unpacked);
        }
        let mut export = cairn.command(["export", "1", "-"]);
        let mut export = export.stdout(Stdio::piped()).spawn().unwrap();
        run(unpacker.args(["-f", "-"]).stdin(export.stdout.take().unwrap()));
        assert!(export.wait().unwrap().success());
        if program == "bsdtar" {
            // It leaves the directory that it unpacks into its own time.
            run(Command::new("touch").arg("-r").arg(root).arg(&unpacked));
        }
        check(&format!("an archive that {program} has unpacked"), "unpacked", "unpacked");
    }

    cairn.data(["export", "1", "oci:image:it"]);
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", "image:it", "bundle"]);
    run(umoci.current_dir(cairn.directory()));
    fs::remove_dir_all(cairn.directory().join("image")).unwrap();
    check("an image of a layer in gzip that umoci has unpacked", "bundle", "bundle/rootfs");
    cairn.data(["export", "1", "oci:image:it", "--compress", "zstd"]);
    unpack_layer(cairn, "image", "it", &cairn.directory().join("layer"));
    fs::remove_dir_all(cairn.directory().join("image")).unwrap();
    check("one of a layer in zstd that GNU tar has unpacked", "layer", "layer");
}

#[test]
fn layers_in_zstd_are_what_others_unpack_and_come_back() {
    let tools = [Need::Program("skopeo", "skopeo"), Need::Program("zstd", "zstd")];
    if !Need::all(&Original::NEEDS) || !Need::all(&tools) {
        return;
    }
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/tool"), "#!/bin/sh\n").unwrap();
    // More than one frame.
    fs::write(root.join("large"), Random(7).bytes(5 << 20)).unwrap();
    let imported = cairn.json(["import", "root"]);
    let words = ["export", "1", "oci:image:it", "--compress", "zstd"];
    let exported = cairn.json(words);
    cairn.data(["export", "1", "oci:again:it", "--compress", "zstd"]);
    assert_eq!(layers(&cairn, "again", "it"), layers(&cairn, "image", "it"));
    unpack_layer(&cairn, "image", "it", &cairn.directory().join("unpacked"));
    Original::new(&root).assert_is(&cairn.directory().join("unpacked"));

    let skopeo = |words: &[&str]| {
        let mut skopeo = Command::new("skopeo");
        run(skopeo.args(words).current_dir(cairn.directory()))
    };
    let told: serde_json::Value =
        serde_json::from_str(&skopeo(&["inspect", "oci:image:it"])).unwrap();
    assert_eq!(told["Digest"], exported["digest"]);
    let copy = ["--insecure-policy", "copy"];
    skopeo(&[&copy[..], &["oci:image:it", "oci:copy:it"]].concat());
    // skopeo packs the layers of the last one itself.
    cairn.data(["export", "1", "oci:plain:it", "--compress", "none"]);
    let packed = ["--dest-compress-format", "zstd", "oci:plain:it", "oci:theirs:it"];
    skopeo(&[&copy[..], &packed].concat());
    for layout in ["image", "copy", "theirs"] {
        assert_eq!(kind_of_layer(&cairn, layout), "application/vnd.oci.image.layer.v1.tar+zstd");
        let again = cairn.json(["import", &format!("oci:{layout}")]);
        assert_eq!((&again["tree"], &again["bytes_stored"]), (&imported["tree"], &0.into()));
    }
}

#[test]
fn an_archive_is_the_same_each_time_and_tells_what_it_cannot_hold() {
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "bytes").unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    cairn.data(["import", "root"]);
    let told = cairn.json(["export", "1", "one.tar.gz"]);
    let expected = serde_json::json!([{
        "path": "/socket", "reason": "no archive can hold a socket",
    }]);
    assert_eq!(told["left_out"], expected);
    cairn.data(["export", "1", "two.tar.gz"]);
    let read = |name: &str| fs::read(cairn.directory().join(name)).unwrap();
    assert_eq!(read("one.tar.gz"), read("two.tar.gz"));
}

#[test]
fn an_image_is_what_clients_of_images_take_and_comes_back() {
    let tools = [Need::Program("skopeo", "skopeo"), Need::Program("umoci", "umoci")];
    if !Need::all(&Original::NEEDS) || !Need::all(&tools) {
        return;
    }
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir_all(root.join("etc/old/deep")).unwrap();
    fs::write(root.join("usr/bin/tool"), "#!/bin/sh\n").unwrap();
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/same")).unwrap();
    fs::write(root.join("etc/old/deep/file"), "gone soon").unwrap();
    fs::write(root.join("etc/changes"), "one").unwrap();
    fs::write(root.join("large"), Random(7).bytes(3 << 20)).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    make_fifo(&root.join("etc/fifo")).unwrap();
    set_xattr(&root.join("etc/changes"), "user.a", b"\0=\n").unwrap();
    let imported = cairn.json(["import", "root"]);

    let words = ["export", "1", "oci:image:first", "--entrypoint", "/bin/tool", "--cmd", "-x"];
    let options = ["--env", "A=B", "--workdir", "/etc", "--label", "kind=test"];
    let exported = cairn.json(words.iter().chain(&options));
    let again =
        cairn.json(["export", "1", "oci:again:first"].iter().chain(&words[3..]).chain(&options));
    assert_eq!(exported["digest"], again["digest"], "the same image");
    let skopeo = |words: &[&str]| {
        let mut skopeo = Command::new("skopeo");
        run(skopeo.args(words).current_dir(cairn.directory()))
    };
    let told: serde_json::Value =
        serde_json::from_str(&skopeo(&["inspect", "oci:image:first"])).unwrap();
    assert_eq!(told["Digest"], exported["digest"]);
    assert_eq!(told["Labels"]["kind"], "test");
    skopeo(&["--insecure-policy", "copy", "oci:image:first", "oci:copy:first"]);
    let copied = cairn.json(["import", "oci:copy:first"]);
    assert_eq!(copied["tree"], imported["tree"]);
    assert_eq!(copied["bytes_stored"], 0);

    // A second layer, by another program, takes away and replaces.
    let umoci = |words: &[&str]| {
        let mut umoci = Command::new("umoci");
        run(umoci.args(words).current_dir(cairn.directory()));
    };
    umoci(&["unpack", "--image", "image:first", "bundle"]);
    let unpacked = cairn.directory().join("bundle/rootfs");
    Original::new(&root).assert_is(&unpacked);
    fs::remove_file(unpacked.join("usr/bin/same")).unwrap();
    fs::remove_dir_all(unpacked.join("etc/old")).unwrap();
    fs::write(unpacked.join("etc/old"), "a file now").unwrap();
    fs::write(unpacked.join("etc/changes"), "two").unwrap();
    fs::create_dir_all(unpacked.join("opt/new")).unwrap();
    fs::write(unpacked.join("opt/new/file"), "new").unwrap();
    umoci(&["repack", "--image", "image:second", "bundle"]);
    cairn.data(["import", "oci:image:second", "--tag", "second"]);
    cairn.data(["export", "second", "second"]);
    // What umoci packs anew has whole seconds, rounded to the nearest.
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXn", "--checksum", "--modify-window=1", "--itemize-changes", "--delete"]);
    let second = cairn.directory().join("second");
    let places = [&unpacked, &second].map(|path| format!("{}/", path.display()));
    assert_eq!(run(rsync.args(places)), "");
    let both = cairn.fails(1, ["--quiet", "import", "oci:image"]);
    assert!(both.contains("it has several images; name one"), "{both}");

    // What was tampered with is noticed, and leaves nothing.
    let blobs = cairn.directory().join("copy/blobs/sha256");
    let blobs = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().path());
    let layer = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let states = cairn.json(["state", "list"]);
    cairn.fails(1, ["--quiet", "import", "oci:copy:first"]);
    assert_eq!(cairn.json(["state", "list"]), states);
}

/// The name and the layers of the first image in the layout `layout`.
fn image(cairn: &Cairn, layout: &str) -> (String, Vec<serde_json::Value>) {
    let read = |path: &str| -> serde_json::Value {
        let path = cairn.directory().join(layout).join(path);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let index = read("index.json");
    let manifest = &index["manifests"][0];
    let name = manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
    let digest = manifest["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    (name.into(), read(&digest)["layers"].as_array().unwrap().clone())
}

/// Digests of the layers of the image `name` in the layout `layout`.
fn layers(cairn: &Cairn, layout: &str, name: &str) -> Vec<String> {
    let (found, layers) = image(cairn, layout);
    assert_eq!(found, name);
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

/// What the only layer of an image says that it is.
fn kind_of_layer(cairn: &Cairn, layout: &str) -> String {
    let (_, layers) = image(cairn, layout);
    let [layer] = &layers[..] else { panic!("{layers:?}") };
    layer["mediaType"].as_str().unwrap().to_owned()
}

#[test]
fn images_of_two_states_share_the_layers_of_packages_that_both_have() {
    let cairn = Cairn::new();
    let package = |name: &str, version: &str| {
        let tool = Deb::new(name, version)
            .file(&format!("usr/bin/{name}"), 0o755, format!("{name} {version}"))
            .file(&format!("usr/share/{name}/data"), 0o644, Random(7).bytes(10_000))
            .file(&format!("usr/share/common/{name}"), 0o644, version);
        tool.symlink(&format!("usr/bin/{name}-link"), name)
    };
    let names: Vec<String> = (0..12).map(|at| format!("tool{at}")).collect();
    cairn.offer(names.iter().map(|name| package(name, "1.0-1")));
    cairn.data(["install", "-y"].into_iter().chain(names.iter().map(String::as_str)));
    let first = cairn.current();
    cairn.offer([package("tool3", "1.1-1")]);
    cairn.data(["upgrade", "-y"]);
    let second = cairn.current();
    let export = |state: u64, layout: &str, count: &str| {
        let (state, target) = (state.to_string(), format!("oci:{layout}:it"));
        let options = ["--layers", count, "--compress", "none"];
        let told = cairn.json(["export", &state, &target].into_iter().chain(options));
        (told["digest"].clone(), layers(&cairn, layout, "it"))
    };
    let (digest, of_first) = export(first, "first", "6");
    assert_eq!(export(first, "again", "6"), (digest.clone(), of_first.clone()));
    let (_, of_second) = export(second, "second", "6");
    assert!((3..=6).contains(&of_first.len()) && of_first.len() == of_second.len());
    let differ = of_first.iter().zip(&of_second).filter(|(one, other)| one != other).count();
    assert_eq!(differ, 1, "that of tool3; the last one has nothing new");
    let (one, alone) = export(first, "alone", "1");
    assert!(one != digest && alone.len() == 1);

    let tree = |state: u64| cairn.json(["state", "show", &state.to_string()])["tree"].clone();
    for (layout, state) in [("first", first), ("second", second), ("alone", first)] {
        let imported = cairn.json(["import", &format!("oci:{layout}")]);
        assert_eq!(imported["tree"], tree(state), "{layout}");
    }
    cairn.fails(2, ["export", "1", "oci:none", "--layers", "0"]);
    cairn.fails(2, ["export", "1", "oci:none", "--layers", "128"]);

    let tools = [Need::Program("skopeo", "skopeo"), Need::Program("umoci", "umoci")];
    if !Need::all(&Original::NEEDS) || !Need::all(&tools) {
        return;
    }
    let here = |command: &mut Command| run(command.current_dir(cairn.directory()));
    let mut skopeo = Command::new("skopeo");
    here(skopeo.args(["--insecure-policy", "copy", "oci:first:it", "oci:copy:it"]));
    // What is not compressed it compresses.
    assert_eq!(layers(&cairn, "copy", "it").len(), of_first.len());
    here(Command::new("umoci").args(["unpack", "--image", "copy:it", "bundle"]));
    cairn.data(["export", &first.to_string(), "plain"]);
    let plain = Original::new(&cairn.directory().join("plain"));
    plain.assert_is(&cairn.directory().join("bundle/rootfs"));
}

#[test]
fn an_image_of_another_filesystem_is_made_by_its_own_program() {
    let tools =
        [Need::Program("mksquashfs", "squashfs-tools"), Need::Program("mkfs.erofs", "erofs-utils")];
    if !Need::all(&[Need::Root]) || !Need::all(&tools) {
        return;
    }
    let kernels = [Need::Loop, Need::Kernel("squashfs"), Need::Kernel("erofs")];
    if !Need::all(&kernels) || !Need::all(&Original::NEEDS) {
        return;
    }
    let cairn = Cairn::new();
    let root = cairn.directory().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/tool"), "#!/bin/sh\n").unwrap();
    fs::write(root.join("large"), Random(7).bytes(2 << 20)).unwrap();
    set_xattr(&root.join("large"), "user.a", b"b").unwrap();
    set_xattr(&root.join("usr"), "trusted.t", b"\0").unwrap();
    fs::hard_link(root.join("large"), root.join("usr/same")).unwrap();
    symlink("../large", root.join("usr/link")).unwrap();
    make_device(&root.join("null"), 1, 3).unwrap();
    make_fifo(&root.join("fifo")).unwrap();
    let mut chmod = Command::new("chmod");
    run(chmod.arg("4750").arg(root.join("usr/bin/tool")));
    let mut chown = Command::new("chown");
    run(chown.arg("123:70000").arg(root.join("null")));
    run(Command::new("touch").args(["-d", "@1000000000.123456789"]).arg(root.join("large")));
    cairn.data(["import", "root"]);
    let original = Original::new(&root);
    for kind in ["squashfs", "erofs"] {
        let image = format!("out.{kind}");
        cairn.data(["export", "1", &image]);
        let path = cairn.directory().join(&image);
        let options = ["-t", kind, "-o", "loop,ro", path.to_str().unwrap()];
        let mounted = Mounted::new(&cairn.directory().join("mounted"), &options);
        if kind == "erofs" {
            original.assert_is(mounted.path());
        }
        // Times of squashfs have whole seconds.
        let mut rsync = Command::new("rsync");
        rsync.args(["-aHAXn", "--checksum", "--modify-window=1", "--itemize-changes", "--delete"]);
        let places = [&root, mounted.path()].map(|path| format!("{}/", path.display()));
        assert_eq!(run(rsync.args(places)), "", "{kind}");
        mounted.umount();
        let said = cairn.fails(1, ["--quiet", "export", "1", &image]);
        assert!(said.contains(&format!("{image} is not empty")), "{said}");
    }
    assert_eq!(fs::read_dir(cairn.directory()).unwrap().count(), 5, "nothing else is left");
}
