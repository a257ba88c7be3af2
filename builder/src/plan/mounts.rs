//! Where the mounts of a RUN take their files from.

use super::{CopyFrom, PlannedInstruction, Planner, error};
use crate::dockerfile::mount::from_of;
use crate::dockerfile::{Diagnostic, Instruction, InstructionKind, Spanned};

/// Where a mount takes its files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountFrom {
    /// It does not say: a bind mount shows the build context, a cache begins empty.
    Unsaid,
    /// `scratch`: nothing.
    Nothing,
    /// What it names.
    Named(CopyFrom),
}

impl PlannedInstruction {
    /// Returns what its files come from: those of a COPY, or of the mounts of a RUN.
    pub fn sources(&self) -> impl Iterator<Item = &CopyFrom> {
        let mounts = self.mounts_from.iter().filter_map(|from| match from {
            MountFrom::Named(from) => Some(from),
            MountFrom::Unsaid | MountFrom::Nothing => None,
        });
        self.copy_from.iter().chain(mounts)
    }
}

impl Planner<'_> {
    /// Finds where the mounts of an instruction of a stage take their files from.
    pub(super) fn mounts_from(
        &self,
        stage: usize,
        instruction: &Instruction,
    ) -> Result<Vec<MountFrom>, Diagnostic> {
        let InstructionKind::Run(run) = &instruction.kind else { return Ok(Vec::new()) };
        run.mounts.iter().map(|mount| self.mount_from(stage, mount, instruction)).collect()
    }

    fn mount_from(
        &self,
        stage: usize,
        mount: &Spanned<String>,
        instruction: &Instruction,
    ) -> Result<MountFrom, Diagnostic> {
        let Some(from) = from_of(&mount.value) else { return Ok(MountFrom::Unsaid) };
        if from == "scratch" {
            return Ok(MountFrom::Nothing);
        }
        if from.bytes().all(|byte| byte.is_ascii_digit()) {
            let text = format!("a mount cannot take its files from stage {from} by its number");
            let mut problem = error(text, mount.span);
            problem.context = Some(instruction.span);
            problem.hint = Some("give the stage a name with `FROM ... AS name`".to_owned());
            return Err(problem);
        }
        let from = Spanned::new(from, mount.span);
        self.source(stage, &from, instruction.span).map(MountFrom::Named).map_err(|problem| {
            let in_words_of_a_mount = |text: String| text.replace("copy from", "mount from");
            Diagnostic {
                message: in_words_of_a_mount(problem.message),
                note: problem.note.map(in_words_of_a_mount),
                ..problem
            }
        })
    }
}
