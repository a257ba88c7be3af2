//! The clients that others wrote, each with a store of its own.

use std::path::PathBuf;

use boatyard_oci::Digest;

use super::Place;

mod containerd;
mod docker;
mod podman;
mod skopeo;

pub use containerd::Containerd;
pub use docker::Docker;
pub use podman::Podman;
pub use skopeo::Skopeo;

/// What every client can do.
pub trait Client {
    /// Returns its name.
    fn name(&self) -> &'static str;

    /// Makes an image of its own from the archive of a root file system and pushes it. Returns the
    /// digest that the client says it pushed.
    fn push_new(&self, rootfs: &std::path::Path, image: &str) -> Digest;

    /// Pulls an image and returns the digest that the client says it pulled.
    fn pull(&self, image: &str) -> Digest;

    /// Unpacks an image that was pulled, the client's way, and returns the directory.
    fn unpack(&self, image: &str) -> PathBuf;

    /// Runs the image's command, without a network, and returns what it printed; none if the
    /// client only carries images.
    fn run(&self, image: &str) -> Option<String>;
}

/// Starts all clients.
pub fn all(place: &Place) -> [Box<dyn Client + '_>; 4] {
    [
        Box::new(Skopeo::new(place)),
        Box::new(Podman::new(place)),
        Box::new(Docker::start(place)),
        Box::new(Containerd::start(place)),
    ]
}

/// Reads a digest from a client's words.
#[track_caller]
fn digest(text: &str) -> Digest {
    text.trim().parse().unwrap_or_else(|error| panic!("{text:?} is no digest: {error}"))
}
