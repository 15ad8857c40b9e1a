//! Gets what a recipe downloads: from the cache, from files, from servers, and
//! from git.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::places::{Places, Work};
use crate::recipe::{Archive, Git, Hash, Upstream};

/// Gets files from servers.
pub trait Download: Sync {
    /// Writes the file at an `http://` or `https://` address to `to`.
    ///
    /// # Errors
    /// Whatever went wrong; then `to` may have a part of it.
    fn download(
        &self,
        url: &str,
        to: &mut File,
        progress: &dyn FetchProgress,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Is told how far downloads have come; called from several threads.
pub trait FetchProgress: Sync {
    /// So many more bytes will come.
    fn expect(&self, _bytes: u64) {}
    /// So many more bytes have come.
    fn advance(&self, _bytes: u64) {}
    /// So many bytes have to come again.
    fn lose(&self, _bytes: u64) {}
    /// Something has failed and is tried again.
    fn note(&self, _text: &str) {}
}

impl FetchProgress for () {}

/// An upstream that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The file, or the mirror of a git repository.
    pub path: PathBuf,
    /// The commit, if it is of git.
    pub commit: Option<String>,
    /// Whether it was there already.
    pub was_there: bool,
}

/// As many files are fetched at once.
const CONNECTIONS: usize = 4;

/// Gets all upstreams, in their order. What is in the cache is hashed again.
///
/// # Errors
/// The first upstream that cannot be had: [`Error::Download`],
/// [`Error::WrongHash`], [`Error::Git`], [`Error::Io`].
pub fn fetch_all(
    upstreams: &[Upstream],
    places: &Places,
    download: &dyn Download,
    progress: &dyn FetchProgress,
) -> Result<Vec<Fetched>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<Fetched>>>> =
        Mutex::new(upstreams.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS.min(upstreams.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(upstream) = upstreams.get(at) else { break };
                    let fetched = match upstream {
                        Upstream::Archive(archive) => {
                            fetch_archive(archive, places, download, progress)
                        }
                        Upstream::Git(git) => fetch_git(git, places),
                    };
                    if fetched.is_err() {
                        // Nothing new is begun.
                        next.store(upstreams.len(), Ordering::Relaxed);
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(fetched);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_iter().flatten().collect()
}

fn fetch_archive(
    archive: &Archive,
    places: &Places,
    download: &dyn Download,
    progress: &dyn FetchProgress,
) -> Result<Fetched> {
    let wanted = archive.hash.value;
    let path = places.upstream(&wanted);
    if path.exists() {
        if hash_of(&path)? == wanted {
            return Ok(Fetched { path, commit: None, was_there: true });
        }
        fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    let url = &archive.url.value;
    let temporary = get(url, places, download, progress)?;
    let found = hash_of(temporary.path())?;
    if found != wanted {
        let url = url.clone();
        return Err(Error::WrongHash { url, wanted, found });
    }
    keep(temporary, &path)?;
    Ok(Fetched { path, commit: None, was_there: false })
}

/// Downloads a file whose hash is not known yet, keeps it in the cache, and
/// returns it with its hash.
///
/// # Errors
/// [`Error::Download`], [`Error::Io`].
pub fn fetch_new(
    url: &str,
    places: &Places,
    download: &dyn Download,
    progress: &dyn FetchProgress,
) -> Result<(PathBuf, Hash)> {
    let temporary = get(url, places, download, progress)?;
    let hash = hash_of(temporary.path())?;
    let path = places.upstream(&hash);
    keep(temporary, &path)?;
    Ok((path, hash))
}

fn get(
    url: &str,
    places: &Places,
    download: &dyn Download,
    progress: &dyn FetchProgress,
) -> Result<tempfile::NamedTempFile> {
    let directory = places.cache.join("upstreams");
    fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".download-")
        .tempfile_in(&directory)
        .map_err(Error::io(&directory))?;
    if let Some(path) = url.strip_prefix("file://") {
        let path = PathBuf::from(percent_decoded(path));
        let mut from = File::open(&path).map_err(Error::io(&path))?;
        io::copy(&mut from, temporary.as_file_mut()).map_err(Error::io(&path))?;
    } else {
        download
            .download(url, temporary.as_file_mut(), progress)
            .map_err(|source| Error::Download { url: url.into(), source })?;
    }
    Ok(temporary)
}

fn keep(temporary: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let directory = path.parent().expect("it lies in the cache");
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let mode = fs::Permissions::from_mode(0o644);
    temporary.as_file().set_permissions(mode).map_err(Error::io(path))?;
    temporary.persist(path).map_err(|err| Error::io(path)(err.error))?;
    Ok(())
}

/// The SHA-256 of a file.
///
/// # Errors
/// [`Error::Io`].
pub fn hash_of(path: &Path) -> Result<Hash> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 256 << 10];
    loop {
        match file.read(&mut buf).map_err(Error::io(path))? {
            0 => return Ok(Hash::from_bytes(hasher.finalize().into())),
            len => hasher.update(&buf[..len]),
        }
    }
}

/// Undoes the escapes of RFC 3986, section 2.1.
pub(crate) fn percent_decoded(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;

    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digits = rest.clone();
        let mut digit = || char::from(digits.next()?).to_digit(16);
        let escaped = match (byte, digit(), digit()) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        if escaped.is_some() {
            rest = digits;
        }
        bytes.push(escaped.unwrap_or(byte));
    }
    std::ffi::OsString::from_vec(bytes)
}

/// Brings the mirror of a repository so far that it has what is wanted.
fn fetch_git(git: &Git, places: &Places) -> Result<Fetched> {
    let mirror = places.mirror(&git.url.value);
    let url = &git.url.value;
    let reference = &git.reference.value;
    let is_commit = reference.len() == 40 && reference.bytes().all(|it| it.is_ascii_hexdigit());
    let directory = mirror.parent().expect("it lies in the cache");
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let commit = |mirror: &Path| {
        // The commit of a tag, not the tag.
        let wanted = format!("{reference}^{{commit}}");
        git_output(url, mirror, &["rev-parse", "--verify", "--quiet", &wanted])
    };
    if mirror.exists() {
        // What a branch or tag means may have changed.
        if is_commit && let Ok(commit) = commit(&mirror) {
            return Ok(Fetched { path: mirror, commit: Some(commit), was_there: true });
        }
        git_output(url, &mirror, &["fetch", "--quiet", "--prune", "--force", "--tags", "origin"])?;
    } else {
        let temporary = tempfile::Builder::new()
            .prefix(".clone-")
            .tempdir_in(directory)
            .map_err(Error::io(directory))?;
        let to = temporary.path().join("mirror");
        let to_text = to.display().to_string();
        git_output(url, directory, &["clone", "--quiet", "--mirror", "--", url, &to_text])?;
        fs::rename(&to, &mirror).map_err(Error::io(&mirror))?;
    }
    let commit = commit(&mirror)?;
    Ok(Fetched { path: mirror, commit: Some(commit), was_there: false })
}

fn git_output(url: &str, directory: &Path, arguments: &[&str]) -> Result<String> {
    let failed = |message: String| Error::Git { url: url.into(), message };
    let output = Command::new("git")
        .args(["-c", "advice.detachedHead=false", "-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|err| failed(format!("git cannot be run: {err}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().rfind(|line| !line.trim().is_empty());
    Err(failed(line.map_or_else(|| format!("git {} failed", arguments[0]), ToOwned::to_owned)))
}

/// Puts the files of a recipe where scripts find them as they were downloaded.
///
/// # Errors
/// [`Error::Io`].
pub fn lay_out(upstreams: &[Upstream], fetched: &[Fetched], work: &Work) -> Result<()> {
    work.empty("sources")?;
    for (upstream, fetched) in upstreams.iter().zip(fetched) {
        let Upstream::Archive(archive) = upstream else { continue };
        let to = work.at("sources").join(&archive.name);
        // A copy where the cache is on another filesystem.
        fs::hard_link(&fetched.path, &to)
            .or_else(|_| fs::copy(&fetched.path, &to).map(drop))
            .map_err(Error::io(&to))?;
    }
    Ok(())
}

/// Puts the upstreams into the directory of a target's build, unpacked. Returns
/// those that nothing here can unpack.
///
/// # Errors
/// [`Error::Unpack`], [`Error::Git`], [`Error::Io`].
pub fn unpack_all<'u>(
    upstreams: &'u [Upstream],
    fetched: &[Fetched],
    directory: &Path,
) -> Result<Vec<&'u Archive>> {
    let mut foreign = Vec::new();
    for (upstream, fetched) in upstreams.iter().zip(fetched) {
        match upstream {
            Upstream::Archive(archive) => {
                let Some(place) = &archive.unpack else { continue };
                match crate::archive::kind_of(&fetched.path).map_err(Error::io(&fetched.path))? {
                    Some(_) => {
                        crate::archive::unpack(
                            &fetched.path,
                            &directory.join(place),
                            archive.strip,
                        )
                        .map_err(|source| Error::Unpack { name: archive.name.clone(), source })?;
                    }
                    None => foreign.push(archive),
                }
            }
            Upstream::Git(git) => check_out(git, fetched, &directory.join(&git.directory))?,
        }
    }
    Ok(foreign)
}

fn check_out(git: &Git, fetched: &Fetched, to: &Path) -> Result<()> {
    let url = &git.url.value;
    let commit = fetched.commit.as_deref().unwrap_or("HEAD");
    let parent = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let (mirror, to_text) = (fetched.path.display().to_string(), to.display().to_string());
    git_output(url, parent, &["clone", "--quiet", "--no-checkout", "--", &mirror, &to_text])?;
    git_output(url, to, &["checkout", "--quiet", "--detach", commit])?;
    // Relative addresses of submodules are those of the real repository.
    git_output(url, to, &["remote", "set-url", "origin", url])?;
    if to.join(".gitmodules").exists() {
        git_output(url, to, &["submodule", "--quiet", "update", "--init", "--recursive"])?;
    }
    // So that it is the same each time: when it was checked out is nobody's concern.
    let time = git_output(url, to, &["log", "-1", "--format=%ct"])?.parse().unwrap_or(0);
    set_times(to, time).map_err(Error::io(to))
}

/// Gives all files below a directory one time.
fn set_times(directory: &Path, seconds: u64) -> io::Result<()> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let times = fs::FileTimes::new().set_modified(time);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            set_times(&entry.path(), seconds)?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            // Git's own objects may be anybody's.
            let _ = file.set_times(times);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Nothing;

    impl Download for Nothing {
        fn download(
            &self,
            _: &str,
            to: &mut File,
            _: &dyn FetchProgress,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            to.write_all(b"from a server")?;
            Ok(())
        }
    }

    fn recipe(upstreams: &str) -> Vec<Upstream> {
        let text = format!(
            "name: x\nversion: 1\nrelease: 1\nhomepage: https://x\nlicense: MIT\ninstall: x\n\
             upstreams:\n{upstreams}"
        );
        crate::Recipe::parse(&text).expect("a recipe").recipe.upstreams
    }

    fn sha256(bytes: &[u8]) -> String {
        Hash::from_bytes(Sha256::digest(bytes).into()).to_string()
    }

    #[test]
    fn files_come_once_and_are_hashed_each_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let places = Places { cache: directory.path().join("cache") };
        let file = directory.path().join("a file");
        fs::write(&file, "text").expect("a file");
        let url = format!("file://{}/a%20file", directory.path().display());
        let upstreams = recipe(&format!(
            "- {url}: {}\n- https://example.org/b: {}\n",
            sha256(b"text"),
            sha256(b"from a server")
        ));
        let fetch = || fetch_all(&upstreams, &places, &Nothing, &());
        let first = fetch().expect("fetched");
        assert!(first.iter().all(|it| !it.was_there));
        assert_eq!(fs::read(&first[1].path).expect("a file"), b"from a server");
        let second = fetch().expect("fetched");
        assert!(second.iter().all(|it| it.was_there));
        // A damaged cache is mended.
        fs::write(&first[0].path, "damaged").expect("a file");
        let third = fetch().expect("fetched");
        assert_eq!((third[0].was_there, third[1].was_there), (false, true));
        fs::remove_file(&third[0].path).expect("removed");
        fs::write(&file, "other").expect("a file");
        let Err(Error::WrongHash { found, .. }) = fetch() else { panic!("it is another file") };
        assert_eq!(found.to_string(), sha256(b"other"));
        assert!(!third[0].path.exists());
    }

    #[test]
    fn git_gives_the_commit_of_a_tag_branch_or_hash() {
        let directory = tempfile::tempdir().expect("a directory");
        let repository = directory.path().join("repo");
        fs::create_dir(&repository).expect("a directory");
        let git = |arguments: &[&str]| git_output("x", &repository, arguments).expect("git");
        if Command::new("git").arg("--version").output().is_err() {
            eprintln!("SKIPPED: there is no git");
            return;
        }
        git(&["init", "--quiet", "--initial-branch=main"]);
        git(&["config", "user.email", "a@example.org"]);
        git(&["config", "user.name", "A"]);
        fs::write(repository.join("file"), "one").expect("a file");
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "one"]);
        git(&["tag", "-a", "v1", "-m", "v1"]);
        let first = git(&["rev-parse", "HEAD"]);
        fs::write(repository.join("file"), "two").expect("a file");
        git(&["commit", "--quiet", "-am", "two"]);

        let places = Places { cache: directory.path().join("cache") };
        let url = format!("git|file://{}", repository.display());
        let text = |reference: &str| {
            let upstreams = recipe(&format!("- {url}: {reference}\n"));
            let fetched = fetch_all(&upstreams, &places, &Nothing, &()).expect("fetched");
            let to = tempfile::tempdir().expect("a directory");
            unpack_all(&upstreams, &fetched, to.path()).expect("checked out");
            fs::read_to_string(to.path().join("repo/file")).expect("a file")
        };
        assert_eq!(text("v1"), "one");
        assert_eq!(text("main"), "two");
        // A branch that goes on is followed.
        fs::write(repository.join("file"), "three").expect("a file");
        git(&["commit", "--quiet", "-am", "three"]);
        assert_eq!(text("main"), "three");
        assert_eq!(text(&first), "one");
        let upstreams = recipe(&format!("- {url}: nothing\n"));
        let err = fetch_all(&upstreams, &places, &Nothing, &());
        assert!(matches!(err, Err(Error::Git { .. })), "{err:?}");
    }
}
