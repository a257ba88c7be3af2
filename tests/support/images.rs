//! Images to begin with, made of nothing but busybox and bytes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Place;
use super::place::text;

/// The applets that images of tests need.
const APPLETS: &str = "sh cat chmod chown cp dd echo env find grep head id ln ls mkdir mkfifo mknod mv \
    printf ps pwd rm sha256sum sleep stat sync tail test touch true false uname wc yes sort tr \
    readlink truncate hostname";

/// Makes the root file system of a small Linux: busybox, its names, users, a `/tmp`.
pub fn busybox_tree(place: &Place) -> PathBuf {
    let root = place.path("busybox");
    for directory in ["bin", "etc", "tmp", "root", "usr"] {
        fs_err::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let busybox = busybox.iter().find(|path| path.exists()).expect("busybox-static is installed");
    fs_err::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        let name = root.join("bin").join(applet);
        if !name.exists() {
            fs_err::os::unix::fs::symlink("busybox", name).unwrap();
        }
    }
    let users = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
    fs_err::write(root.join("etc/passwd"), users).unwrap();
    fs_err::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\nstaff:x:50:app\n").unwrap();
    let mode = std::fs::Permissions::from_mode;
    fs_err::set_permissions(root.join("tmp"), mode(0o1777)).unwrap();
    fs_err::set_permissions(root.join("root"), mode(0o700)).unwrap();
    root
}

/// Archives a directory as root's, with times that do not change.
pub fn archive(place: &Place, directory: &Path, name: &str) -> PathBuf {
    let path = place.path(name);
    place
        .run("tar", ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@1"])
        .args(["-C", text(directory), "-cf", text(&path), "."])
        .ok();
    path
}

/// Builds the image `busybox` in the place's root.
pub fn busybox(place: &Place) {
    let context = place.context(
        "busybox-image",
        "FROM scratch\nADD base.tar /\nENV PATH=/bin\nCMD [\"/bin/sh\"]\n",
    );
    archive(place, &busybox_tree(place), "busybox-image/base.tar");
    place.boatyard(["build", "-q", "-t", "busybox", text(&context)]).ok();
}

/// Returns bytes that no compressor makes smaller; the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*: quick, and random enough for gzip.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Returns a config and an image manifest over one uncompressed layer of these bytes.
pub fn image_of(layer: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let layer_digest = boatyard_oci::Digest::sha256(layer);
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": boatyard_oci::Digest::sha256(&config),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer_digest,
            "size": layer.len(),
        }],
    });
    (config, serde_json::to_vec(&manifest).unwrap())
}
