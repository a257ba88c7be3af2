//! An OCI layout that is a directory: what `oci-layout://` names.

use std::ffi::OsStr;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, Digest, Index, Manifest, MediaType};

use super::{LoadError, load};
use crate::layer::tar::Writer;
use crate::layer::{Entry, EntryPath, Kind};

/// `blobs/<algorithm>/<hex>`, and one more.
const DEPTH_MAX: usize = 4;

/// Which image of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutReference {
    /// The one that has this tag.
    Tag(String),
    /// The one of this digest.
    Digest(Digest),
    /// The one that is called `latest`, or the only one.
    Any,
}

/// Why there is no such image.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The directory is no layout.
    #[error("{} is no OCI layout", path.display())]
    NoLayout {
        /// Where it was looked for.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The layout has no such image.
    #[error("the OCI layout {} has no image `{wanted}`", path.display())]
    NoImage {
        /// The layout.
        path: std::path::PathBuf,
        /// What was asked for.
        wanted: String,
    },
    /// What it holds cannot be read.
    #[error("cannot read the OCI layout {}", path.display())]
    Load {
        /// The layout.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: LoadError,
    },
}

/// Brings an image of a layout into the store, where the lease holds it.
///
/// # Errors
/// Where it is not there, or damaged.
pub fn layout(
    directory: &Path,
    wanted: &LayoutReference,
    root: &Root,
    lease: &Lease,
) -> Result<Descriptor, LayoutError> {
    let path = directory.to_path_buf();
    let bytes = fs_err::read(directory.join("index.json"))
        .map_err(|error| LayoutError::NoLayout { path: path.clone(), source: error.into() })?;
    let index = Manifest::parse(bytes.into(), &MediaType::OCI_INDEX)
        .map_err(|error| LayoutError::NoLayout { path: path.clone(), source: error.into() })?;
    let Manifest::Index(Index { manifests, .. }) = index.into_value() else {
        let source = "its index.json is no index".into();
        return Err(LayoutError::NoLayout { path, source });
    };
    let mut found = choose(&manifests, wanted).cloned().ok_or_else(|| {
        let wanted = match wanted {
            LayoutReference::Tag(tag) => tag.clone(),
            LayoutReference::Digest(digest) => digest.to_string(),
            LayoutReference::Any => "latest".to_owned(),
        };
        LayoutError::NoImage { path: path.clone(), wanted }
    })?;
    found.annotations.clear();
    let failed = |source| LayoutError::Load { path: path.clone(), source };
    let (reader, writer) = io::pipe().map_err(|error| failed(LoadError::Read(error)))?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // What cannot be read is missed by who reads the archive.
            let _ = archive(directory, writer);
        });
        load(reader, root, lease).map_err(failed)
    })?;
    Ok(found)
}

/// Writes the files of a layout, which lie four directories down at most.
fn archive(directory: &Path, sink: impl Write) -> io::Result<()> {
    let mut writer = Writer::new(BufWriter::new(sink));
    let mut waiting = vec![EntryPath::root()];
    while let Some(path) = waiting.pop() {
        let place = directory.join(OsStr::from_bytes(path.as_bytes()));
        let found = fs_err::metadata(&place)?;
        if found.is_file() {
            let mut entry = Entry::new(path, Kind::File, 0o644);
            entry.size = found.len();
            writer.append(&entry, &mut fs_err::File::open(&place)?)?;
        } else if found.is_dir() && path.components().count() < DEPTH_MAX {
            for name in fs_err::read_dir(&place)? {
                waiting.push(path.join(name?.file_name().as_bytes()));
            }
        }
    }
    writer.finish()?.flush()
}

fn choose<'a>(listed: &'a [Descriptor], wanted: &LayoutReference) -> Option<&'a Descriptor> {
    let tagged = |tag: &str| {
        listed.iter().find(|image| {
            let names = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
            names.iter().filter_map(|key| image.annotations.get(*key)).any(|name: &String| {
                name == tag || name.rsplit_once(':').is_some_and(|(_, own)| own == tag)
            })
        })
    };
    match wanted {
        LayoutReference::Tag(tag) => tagged(tag),
        LayoutReference::Digest(digest) => listed.iter().find(|image| image.digest == *digest),
        LayoutReference::Any => tagged("latest").or(match listed {
            [only] => Some(only),
            _ => None,
        }),
    }
}
