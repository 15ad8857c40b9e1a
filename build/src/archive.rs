//! Unpacks upstream archives: tar with any usual compression, and zip.
//!
//! An archive comes from outside. Nothing is written outside of the directory,
//! whatever names and links it has; owners, setuid bits and devices are left out.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// The most entries of an archive.
const MAX_ENTRIES: usize = 2_000_000;
/// The most plain bytes of an archive.
const MAX_BYTES: u64 = 64 << 30;
/// The memory that a decoder of zstd may take, as a power of 2.
const MAX_WINDOW_LOG: u32 = 31;

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// tar, perhaps compressed.
    Tar(Compression),
    /// zip and what is built on it.
    Zip,
}

/// How a tar archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are names of formats")]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// The archive is damaged, or a file could not be written.
    #[error("cannot unpack {}", archive.display())]
    Io { archive: PathBuf, source: io::Error },
    /// An entry would be written outside of the directory.
    #[error("{}: the entry {entry:?} leads out of the directory", archive.display())]
    Escape { archive: PathBuf, entry: String },
    /// There are more entries or bytes than any real archive has.
    #[error("{}: over {limit}", archive.display())]
    TooMuch { archive: PathBuf, limit: &'static str },
    /// It is no archive that is known here.
    #[error("{} is not an archive that can be unpacked", archive.display())]
    Unknown { archive: PathBuf },
    /// Everything was stripped.
    #[error("{}: nothing is left when {strip} components of each name are stripped", archive.display())]
    NothingLeft { archive: PathBuf, strip: u8 },
}

/// Recognises an archive by its first bytes; `None` if it is none that can be
/// unpacked here.
pub fn kind_of(path: &Path) -> io::Result<Option<Kind>> {
    let mut head = Vec::new();
    File::open(path)?.take(512).read_to_end(&mut head)?;
    let is_tar = head.get(257..262) == Some(b"ustar");
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Some(Kind::Tar(Compression::Gzip)),
        [b'B', b'Z', b'h', ..] => Some(Kind::Tar(Compression::Bzip2)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Kind::Tar(Compression::Xz)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Kind::Tar(Compression::Zstd)),
        [b'P', b'K', 3, 4, ..] => Some(Kind::Zip),
        _ if is_tar => Some(Kind::Tar(Compression::None)),
        _ => None,
    })
}

/// Unpacks an archive into a directory, which is made; each entry loses `strip`
/// leading components of its name.
///
/// # Errors
/// [`Error`]; what was unpacked before stays.
pub fn unpack(archive: &Path, directory: &Path, strip: u8) -> Result<(), Error> {
    let failed = |source| Error::Io { archive: archive.into(), source };
    let kind = kind_of(archive).map_err(failed)?;
    let kind = kind.ok_or_else(|| Error::Unknown { archive: archive.into() })?;
    fs::create_dir_all(directory).map_err(failed)?;
    let mut unpacking = Unpacking {
        archive,
        directory,
        strip,
        made: HashSet::new(),
        entries: 0,
        bytes: 0,
        left: 0,
        times: Vec::new(),
    };
    match kind {
        Kind::Tar(compression) => {
            let file = File::open(archive).map_err(failed)?;
            unpacking.tar(decoder(file, compression).map_err(failed)?)?;
        }
        Kind::Zip => unpacking.zip()?,
    }
    if unpacking.left == 0 && unpacking.entries > 0 {
        return Err(Error::NothingLeft { archive: archive.into(), strip });
    }
    // Directories get their times when nothing more is put into them.
    for (path, time) in unpacking.times.iter().rev() {
        let _ = set_time(path, *time);
    }
    Ok(())
}

/// The latest time of any file in a tar archive, in seconds since 1970; none if
/// it is no such archive.
pub(crate) fn newest(archive: &Path) -> Option<u64> {
    let Some(Kind::Tar(compression)) = kind_of(archive).ok()? else { return None };
    let mut tar = tar::Archive::new(decoder(File::open(archive).ok()?, compression).ok()?);
    let mut newest = None;
    for entry in tar.entries().ok()?.take(MAX_ENTRIES) {
        let entry = entry.ok()?;
        if entry.header().entry_type().is_file() {
            newest = newest.max(entry.header().mtime().ok());
        }
    }
    newest
}

/// The plain bytes of a compressed file.
pub(crate) fn decoder(mut file: File, compression: Compression) -> io::Result<Box<dyn Read>> {
    file.seek(SeekFrom::Start(0))?;
    let file = BufReader::with_capacity(128 << 10, file);
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(file)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(file)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

struct Unpacking<'a> {
    archive: &'a Path,
    directory: &'a Path,
    strip: u8,
    /// Directories that are known to be such, and no links.
    made: HashSet<PathBuf>,
    entries: usize,
    bytes: u64,
    left: usize,
    times: Vec<(PathBuf, u64)>,
}

impl Unpacking<'_> {
    fn failed(&self, source: io::Error) -> Error {
        Error::Io { archive: self.archive.into(), source }
    }

    fn escape(&self, name: &Path) -> Error {
        Error::Escape { archive: self.archive.into(), entry: name.display().to_string() }
    }

    fn count(&mut self, bytes: u64) -> Result<(), Error> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let limit = if self.entries > MAX_ENTRIES {
            "2,000,000 entries"
        } else if self.bytes > MAX_BYTES {
            "64 GiB of files"
        } else {
            return Ok(());
        };
        Err(Error::TooMuch { archive: self.archive.into(), limit })
    }

    /// Where an entry goes, relative to the directory; none if all of its name
    /// is stripped.
    fn place(&self, name: &Path) -> Result<Option<PathBuf>, Error> {
        let mut kept = PathBuf::new();
        let mut left = usize::from(self.strip);
        for component in name.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(_) if left > 0 => left -= 1,
                Component::Normal(part) => kept.push(part),
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                    return Err(self.escape(name));
                }
            }
        }
        Ok((!kept.as_os_str().is_empty()).then_some(kept))
    }

    /// Makes the directories above `place`, none of which may be a link.
    fn make_parents(&mut self, place: &Path) -> Result<(), Error> {
        let Some(parent) = place.parent() else { return Ok(()) };
        let mut path = PathBuf::new();
        for component in parent.components() {
            path.push(component);
            self.make_directory(&path)?;
        }
        Ok(())
    }

    fn make_directory(&mut self, place: &Path) -> Result<(), Error> {
        if self.made.contains(place) {
            return Ok(());
        }
        let path = self.directory.join(place);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(self.escape(place)),
            Err(_) => fs::create_dir(&path).map_err(|err| self.failed(err))?,
        }
        self.made.insert(place.into());
        Ok(())
    }

    /// Takes away what an earlier entry has put there.
    fn clear(&self, place: &Path) -> Result<PathBuf, Error> {
        let path = self.directory.join(place);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Err(self.escape(place)),
            Ok(_) => fs::remove_file(&path).map(|()| path).map_err(|err| self.failed(err)),
            Err(_) => Ok(path),
        }
    }

    fn file(
        &mut self,
        place: &Path,
        mode: u32,
        time: u64,
        from: &mut dyn Read,
    ) -> Result<(), Error> {
        self.make_parents(place)?;
        let path = self.clear(place)?;
        let mut write = || -> io::Result<()> {
            let mut file = File::create_new(&path)?;
            io::copy(from, &mut file)?;
            file.set_permissions(fs::Permissions::from_mode((mode & 0o755) | 0o600))?;
            file.set_times(times(time))
        };
        write().map_err(|err| self.failed(err))
    }

    fn tar(&mut self, from: Box<dyn Read>) -> Result<(), Error> {
        let mut archive = tar::Archive::new(from);
        let entries = archive.entries().map_err(|err| self.failed(err))?;
        for entry in entries {
            let mut entry = entry.map_err(|err| self.failed(err))?;
            self.count(entry.header().size().unwrap_or(0))?;
            let kind = entry.header().entry_type();
            let name = entry.path().map_err(|err| self.failed(err))?.into_owned();
            let is_header = kind.is_pax_global_extensions() || kind.is_pax_local_extensions();
            if is_header {
                continue;
            }
            let Some(place) = self.place(&name)? else { continue };
            self.left += 1;
            let mode = entry.header().mode().unwrap_or(0o644);
            let time = entry.header().mtime().unwrap_or(0);
            if kind.is_dir() {
                self.make_parents(&place)?;
                self.make_directory(&place)?;
                self.times.push((self.directory.join(&place), time));
            } else if kind.is_symlink() {
                let link = entry.link_name().map_err(|err| self.failed(err))?;
                let link = link.map(std::borrow::Cow::into_owned).unwrap_or_default();
                self.make_parents(&place)?;
                let path = self.clear(&place)?;
                symlink(&link, &path).map_err(|err| self.failed(err))?;
            } else if kind.is_hard_link() {
                let link = entry.link_name().map_err(|err| self.failed(err))?;
                let link = link.map(std::borrow::Cow::into_owned).unwrap_or_default();
                self.hard_link(&place, &link)?;
            } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                self.file(&place, mode, time, &mut entry)?;
            }
            // Devices and named pipes are nothing that a build needs.
        }
        Ok(())
    }

    fn hard_link(&mut self, place: &Path, link: &Path) -> Result<(), Error> {
        let Some(target) = self.place(link)? else { return Err(self.escape(link)) };
        // No component of the target may be a link.
        let mut path = PathBuf::new();
        for component in target.components() {
            path.push(component);
            let is_link = fs::symlink_metadata(self.directory.join(&path))
                .map_err(|err| self.failed(err))?
                .is_symlink();
            if is_link {
                return Err(self.escape(link));
            }
        }
        self.make_parents(place)?;
        let path = self.clear(place)?;
        fs::hard_link(self.directory.join(target), path).map_err(|err| self.failed(err))
    }

    fn zip(&mut self) -> Result<(), Error> {
        let file = File::open(self.archive).map_err(|err| self.failed(err))?;
        let broken = |err: zip::result::ZipError| io::Error::other(err);
        let mut zip =
            zip::ZipArchive::new(BufReader::new(file)).map_err(|err| self.failed(broken(err)))?;
        for number in 0..zip.len() {
            let mut entry = zip.by_index(number).map_err(|err| self.failed(broken(err)))?;
            self.count(entry.size())?;
            let name = PathBuf::from(std::ffi::OsStr::from_bytes(entry.name_raw()));
            let Some(place) = self.place(&name)? else { continue };
            self.left += 1;
            if entry.is_dir() {
                self.make_parents(&place)?;
                self.make_directory(&place)?;
            } else if entry.is_symlink() {
                let mut text = Vec::new();
                (&mut entry).take(4096).read_to_end(&mut text).map_err(|err| self.failed(err))?;
                self.make_parents(&place)?;
                let path = self.clear(&place)?;
                let text = std::ffi::OsStr::from_bytes(&text);
                symlink(text, &path).map_err(|err| self.failed(err))?;
            } else {
                let mode = entry.unix_mode().unwrap_or(0o644);
                let time = entry.last_modified().map_or(0, seconds_of);
                // The announced size may be a lie.
                let limit = entry.size();
                self.file(&place, mode, time, &mut entry.take(limit.saturating_add(1)))?;
            }
        }
        Ok(())
    }
}

/// Seconds since 1970 of a time in a zip archive, taken as UTC.
fn seconds_of(time: zip::DateTime) -> u64 {
    // Days from civil date, as in Howard Hinnant's "chrono-compatible low-level
    // date algorithms".
    let (year, month) = (i64::from(time.year()), i64::from(time.month()));
    let day = i64::from(time.day());
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let (hour, minute) = (i64::from(time.hour()), i64::from(time.minute()));
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + i64::from(time.second());
    u64::try_from(seconds).unwrap_or(0)
}

fn times(seconds: u64) -> fs::FileTimes {
    // A time beyond what the filesystem knows is no reason to fail.
    let seconds = seconds.min(u64::from(u32::MAX));
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    fs::FileTimes::new().set_modified(time).set_accessed(time)
}

fn set_time(path: &Path, seconds: u64) -> io::Result<()> {
    File::open(path)?.set_times(times(seconds))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A tar archive of entries: kind, name, link or content.
    fn tar_of(entries: &[(u8, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_mode(0o4755);
            header.set_mtime(1_600_000_000);
            let is_file = *kind == b'0';
            header.set_size(if is_file { text.len() as u64 } else { 0 });
            // The library's own setters refuse what is tested here.
            let raw = header.as_old_mut();
            raw.name[..name.len()].copy_from_slice(name.as_bytes());
            if !is_file {
                raw.linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_cksum();
            let bytes = if is_file { text.as_bytes() } else { b"" };
            builder.append(&header, bytes).expect("a tar archive");
        }
        builder.into_inner().expect("a tar archive")
    }

    fn unpacked(bytes: &[u8], strip: u8) -> (tempfile::TempDir, Result<(), Error>) {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = directory.path().join("archive");
        fs::write(&archive, bytes).expect("a file");
        let result = unpack(&archive, &directory.path().join("out/in"), strip);
        (directory, result)
    }

    #[test]
    fn entries_lose_leading_components_and_keep_times_and_modes() {
        let tar = tar_of(&[
            (b'5', "x-1/", ""),
            (b'0', "x-1/configure", "#!"),
            (b'2', "x-1/link", "configure"),
            (b'1', "x-1/hard", "x-1/configure"),
            (b'0', "x-1/a/b/c", "deep"),
            (b'3', "x-1/device", ""),
        ]);
        let (directory, result) = unpacked(&tar, 1);
        result.expect("unpacked");
        let at = |name: &str| directory.path().join("out/in").join(name);
        let metadata = fs::metadata(at("configure")).expect("a file");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o755);
        let time = metadata.modified().expect("a time").duration_since(std::time::UNIX_EPOCH);
        assert_eq!(time.expect("after 1970").as_secs(), 1_600_000_000);
        assert_eq!(fs::read_link(at("link")).expect("a link"), Path::new("configure"));
        assert_eq!(fs::read(at("hard")).expect("a file"), b"#!");
        assert_eq!(fs::read(at("a/b/c")).expect("a file"), b"deep");
        assert!(!at("device").exists());
        let (_directory, result) = unpacked(&tar, 9);
        assert!(matches!(result, Err(Error::NothingLeft { strip: 9, .. })), "{result:?}");
    }

    #[test]
    fn every_compression_is_recognised() {
        let tar = tar_of(&[(b'0', "x/file", "text")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).expect("gzip");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).expect("xz");
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&tar).expect("bzip2");
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("x/file", options.unix_permissions(0o644)).expect("zip");
        zip.write_all(b"text").expect("zip");
        for bytes in [
            tar.clone(),
            gzip.finish().expect("gzip"),
            xz.finish().expect("xz"),
            bzip2.finish().expect("bzip2"),
            zstd::bulk::compress(&tar, 1).expect("zstd"),
            zip.finish().expect("zip").into_inner(),
        ] {
            let (directory, result) = unpacked(&bytes, 1);
            result.expect("unpacked");
            let text = fs::read(directory.path().join("out/in/file")).expect("a file");
            assert_eq!(text, b"text", "{:?}", &bytes[..6]);
        }
        let (_directory, result) = unpacked(b"no archive", 1);
        assert!(matches!(result, Err(Error::Unknown { .. })), "{result:?}");
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        for entries in [
            &[(b'0', "../evil", "x")][..],
            &[(b'0', "/evil", "x")],
            &[(b'0', "a/../../evil", "x")],
            &[(b'2', "a", "../.."), (b'0', "a/evil", "x")],
            &[(b'2', "a", "/tmp"), (b'5', "a/", ""), (b'0', "a/evil", "x")],
            &[(b'1', "a", "../../archive")],
            &[(b'2', "a", "../../archive"), (b'1', "b", "a")],
            &[(b'5', "d", ""), (b'0', "d", "x")],
        ] {
            let (directory, result) = unpacked(&tar_of(entries), 0);
            assert!(matches!(result, Err(Error::Escape { .. })), "{entries:?}: {result:?}");
            let outside = directory.path().join("evil").exists();
            assert!(!outside && !directory.path().join("out/evil").exists(), "{entries:?}");
        }
        // A link may lead anywhere, as long as nothing is written through it.
        let link = [(b'2', "a", "/etc/passwd"), (b'0', "a", "instead")];
        let (directory, result) = unpacked(&tar_of(&link), 0);
        result.expect("unpacked");
        let text = fs::read(directory.path().join("out/in/a")).expect("a file");
        assert_eq!(text, b"instead");
    }

    #[test]
    fn damaged_archives_are_errors() {
        let mut tar = tar_of(&[(b'0', "x/file", &"text".repeat(1000))]);
        tar.truncate(2000);
        let (_directory, result) = unpacked(&tar, 1);
        assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
        let (_directory, result) = unpacked(b"PK\x03\x04nothing", 1);
        assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
    }
}
