//! The files of a build.

pub mod directory;
pub mod glob;
pub mod ignore;
pub mod stat_cache;
