//! A directory that a program can have as its root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Puts programs of this machine into `tree`, with all that they need to run there.
///
/// # Panics
/// If one of them, a path such as `/usr/bin/touch`, is not here.
pub fn put_programs(tree: &Path, programs: &[&str]) {
    for name in ["dev", "proc", "sys", "tmp", "run", "etc", "var"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    for name in ["usr", "lib", "lib64", "bin"] {
        let link = Path::new("/").join(name);
        if fs::symlink_metadata(&link).is_ok_and(|data| data.is_symlink()) {
            let goal = fs::read_link(&link).unwrap();
            fs::create_dir_all(tree.join(&goal)).unwrap();
            symlink(goal, tree.join(name)).unwrap();
        }
    }
    let needed = Command::new("ldd").args(programs).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    let files = needed.split_whitespace().filter(|word| word.starts_with('/'));
    let files = files.filter(|word| !word.ends_with(':'));
    for file in files.chain(programs.iter().copied()) {
        let real = fs::canonicalize(file).unwrap();
        for path in [Path::new(file), &real] {
            let to = tree.join(path.strip_prefix("/").unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&real, to).unwrap();
        }
    }
}
