//! apt: archives of Debian and its kin.

pub mod address;
pub mod catalogue;
pub mod clearsign;
pub mod date;
pub mod pdiff;
pub mod release;
pub mod signature;
pub mod stanza;
pub mod unpack;
