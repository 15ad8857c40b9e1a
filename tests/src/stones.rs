//! Repositories of small stones, made for a test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cairn_package::Metadata;
use cairn_package::repository::{Indexed, Signer, index_directory};
use cairn_package::stone::{Builder, Encoding, Extra, Layout, LayoutContent, Source};
use cairn_store::TreePath;

/// A directory of stones with an index.
#[derive(Debug)]
pub struct Stones(PathBuf);

impl Stones {
    /// An empty directory.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        Self(directory.into())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Adds a package with one file that has so many bytes without a pattern;
    /// returns the name of the stone.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn add(&self, name: &str, release: u64, size: usize) -> String {
        let mut random = crate::Random(release << 32 | size as u64 | 1);
        let bytes: Vec<u8> =
            (0..size).map(|_| u8::try_from(random.below(256)).expect("below 256")).collect();
        self.add_files(name, release, &[(&format!("/usr/share/{name}/data"), &bytes)])
    }

    /// Adds a package with these files; returns the name of the stone.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn add_files(&self, name: &str, release: u64, files: &[(&str, &[u8])]) -> String {
        let metadata = Metadata {
            name: name.into(),
            version: format!("1.{release}"),
            release,
            build_release: 1,
            architecture: "x86_64".into(),
            ..Metadata::default()
        };
        let file_name = metadata.file_name();
        let mut builder = Builder::new(metadata);
        for (path, bytes) in files {
            let blob = builder.add_source(Source::Bytes((*bytes).into())).unwrap();
            builder.layout.push(Layout {
                path: TreePath::new(path.as_bytes()).unwrap(),
                uid: 0,
                gid: 0,
                mode: 0o644,
                tag: 0,
                content: LayoutContent::Regular(blob.key),
                extra: Extra::default(),
            });
        }
        builder.write(Encoding::Plain, File::create(self.0.join(&file_name)).unwrap()).unwrap();
        file_name
    }

    /// Writes the index, signed by `signer` if there is one.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn index(&self, signer: Option<&Signer>) -> Indexed {
        index_directory(&self.0, signer, &()).unwrap()
    }
}
