//! What tests of every store share: the suite, and stores and disks that fail on purpose.

pub mod crashing;
pub mod faulty;
pub mod suite;
