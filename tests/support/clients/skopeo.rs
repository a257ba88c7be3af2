//! skopeo: carries images, runs none.

use std::path::{Path, PathBuf};

use boatyard_oci::Digest;

use super::{Client, digest};
use crate::support::place::text;
use crate::support::{Place, Run};

/// skopeo, with OCI layouts and directories in place of a store.
pub struct Skopeo<'a> {
    place: &'a Place,
}

impl<'a> Skopeo<'a> {
    /// Returns the client.
    pub fn new(place: &'a Place) -> Skopeo<'a> {
        fs_err::create_dir_all(place.path("skopeo")).unwrap();
        Skopeo { place }
    }

    fn copy(&self) -> Run {
        self.place.run("skopeo", ["--insecure-policy", "copy", "-q"])
    }

    fn directory(&self, image: &str) -> PathBuf {
        self.place.path("skopeo").join(image.replace(['/', ':'], "_"))
    }
}

impl Client for Skopeo<'_> {
    fn name(&self) -> &'static str {
        "skopeo"
    }

    fn push_new(&self, rootfs: &Path, image: &str) -> Digest {
        let layout = self.place.path("skopeo/layout.tar");
        let context = self.place.context("skopeo/new", "FROM scratch\nADD rootfs.tar /\n");
        fs_err::copy(rootfs, context.join("rootfs.tar")).unwrap();
        let output = format!("type=oci,dest={}", text(&layout));
        self.place.boatyard(["build", "-q", "-o", &output, text(&context)]).ok();
        let digest_file = self.place.path("skopeo/digest");
        self.copy()
            .args(["--dest-tls-verify=false", "--digestfile", text(&digest_file)])
            .args([format!("oci-archive:{}", text(&layout)), format!("docker://{image}")])
            .ok();
        digest(&fs_err::read_to_string(digest_file).unwrap())
    }

    fn pull(&self, image: &str) -> Digest {
        let directory = self.directory(image);
        self.copy()
            .args(["--src-tls-verify=false", "--preserve-digests"])
            .args([format!("docker://{image}"), format!("dir:{}", text(&directory))])
            .ok();
        Digest::sha256(&fs_err::read(directory.join("manifest.json")).unwrap())
    }

    /// skopeo unpacks nothing: its blobs are laid over one another here, by GNU tar.
    fn unpack(&self, image: &str) -> PathBuf {
        let directory = self.directory(image);
        let manifest = fs_err::read(directory.join("manifest.json")).unwrap();
        let root = directory.join("rootfs");
        fs_err::create_dir_all(&root).unwrap();
        for digest in crate::support::http::needs(&manifest).iter().skip(1) {
            let layer = directory.join(digest.strip_prefix("sha256:").unwrap());
            remove_replaced(&layer, &root);
            self.place
                .run("tar", ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner"])
                .args(["-p", "--exclude=.wh.*", "-C", text(&root), "-xzf", text(&layer)])
                .ok();
        }
        root
    }

    fn run(&self, _image: &str) -> Option<String> {
        None
    }
}

/// Removes from a tree what a layer removes or replaces.
fn remove_replaced(layer: &Path, root: &Path) {
    let reader = flate2::read::MultiGzDecoder::new(fs_err::File::open(layer).unwrap());
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let old = fs_err::symlink_metadata(root.join(&path));
        // GNU tar puts no file in the place of a directory.
        if !entry.header().entry_type().is_dir() && old.is_ok_and(|old| old.is_dir()) {
            fs_err::remove_dir_all(root.join(&path)).unwrap();
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let parent = root.join(path.parent().unwrap());
        if name == ".wh..wh..opq" {
            for child in fs_err::read_dir(&parent).into_iter().flatten() {
                remove(&child.unwrap().path());
            }
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            remove(&parent.join(hidden));
        }
    }
}

fn remove(path: &Path) {
    if fs_err::symlink_metadata(path).unwrap().is_dir() {
        fs_err::remove_dir_all(path).unwrap();
    } else {
        fs_err::remove_file(path).unwrap();
    }
}
