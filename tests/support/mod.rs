//! What the end-to-end tests share: a place of their own, the command and our server as processes,
//! the clients that others wrote, images to send about, and trees of files to compare.
//!
//! These tests need root, and from Debian: skopeo, podman, runc, docker.io, containerd, curl,
//! busybox-static, debootstrap, gnupg, dnf, createrepo-c and rpm. Nothing is skipped: what is not installed fails and says so.

#![allow(clippy::allow_attributes, reason = "each test file uses its own part of this module")]
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of this module")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "that is how a test fails")]

pub mod archive;
pub mod built;
pub mod clients;
pub mod debian;
pub mod disk;
pub mod distribution;
pub mod files;
pub mod git;
pub mod http;
pub mod images;
pub mod lab;
pub mod npm;
pub mod origin;
pub mod place;
pub mod process;
pub mod proxy;
pub mod pypi;
pub mod receiver;
pub mod relay;
pub mod rendezvous;
pub mod secure;
pub mod server;
pub mod tree;

pub use place::Place;
#[allow(unused_imports, reason = "each test file uses its own part of this module")]
pub use process::{Run, until};
#[allow(unused_imports, reason = "each test file uses its own part of this module")]
pub use server::Server;
