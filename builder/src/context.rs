//! The files of a build.

pub mod archive;
pub mod directory;
pub mod glob;
pub mod ignore;
pub mod load;
pub mod location;
pub(crate) mod opened;
pub mod stat_cache;
