//! From a Dockerfile to an image: parse, plan, solve, execute, snapshot, assemble.
#![deny(unsafe_code)]

pub mod annotation;
pub mod assemble;
pub mod attest;
pub mod base;
pub mod build;
pub mod bundle;
pub mod cache;
pub mod contents;
pub mod context;
pub mod copy;
pub mod dockerfile;
pub mod execute;
pub mod export;
pub mod form;
pub mod ids;
pub mod image;
pub mod import;
pub mod layer;
pub mod lint;
pub mod logs;
mod once;
pub mod pack;
pub mod plan;
pub mod progress;
pub mod run;
pub mod secrets;
pub mod snapshot;
pub mod solve;
pub mod source;
pub mod ssh;
mod stage;
