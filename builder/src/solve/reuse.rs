//! Which earlier results a build may use.

use crate::plan::PlannedStage;

/// Which earlier results a build may use. Whatever it makes is what later builds find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// All of them.
    #[default]
    All,
    /// None: `--no-cache`.
    Nothing,
    /// All but those of some stages, by name or number: `--no-cache-filter`.
    AllBut(Vec<String>),
}

impl Reuse {
    /// Says whether earlier results of a stage may be used.
    pub(crate) fn allows(&self, stage: &PlannedStage) -> bool {
        match self {
            Reuse::All => true,
            Reuse::Nothing => false,
            Reuse::AllBut(names) => !names.iter().any(|name| is_of(name, &stage.name, stage.index)),
        }
    }
}

/// Says whether a name that was given is a stage's.
pub(crate) fn is_of(given: &str, name: &str, index: usize) -> bool {
    given.eq_ignore_ascii_case(name) || given.parse() == Ok(index)
}
