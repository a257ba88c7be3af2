pub(super) mod probe;
pub(super) const ROLE: &str = "probe";
