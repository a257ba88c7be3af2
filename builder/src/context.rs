//! The files of a build.

pub mod glob;
pub mod ignore;
