//! Nothing, unless a step fails: then the end of its log, without which nobody could mend it.

use std::collections::BTreeMap;
use std::time::Duration;

use boatyard_builder::progress::{StepEnd, StepId};

use super::Summary;
use super::log::{Controls, FailedLog, StepLog};
use super::renderer::{Event, Moment, Renderer};
use super::text;

/// Renders the logs of steps that failed.
#[derive(Debug, Default)]
pub struct Quiet {
    running: BTreeMap<StepId, Step>,
    failed: Vec<FailedLog>,
}

#[derive(Debug)]
struct Step {
    name: String,
    began: Duration,
    log: StepLog,
}

impl Renderer for Quiet {
    fn tell(&mut self, event: &Event<'_>, now: Moment, _out: &mut Vec<u8>) {
        let now = now.elapsed;
        match *event {
            Event::Begin { step, name } => {
                let (name, log) = (text::one_line(name), StepLog::default());
                self.running.insert(step, Step { name, began: now, log });
            }
            Event::Output { step, stream, bytes } => {
                if let Some(step) = self.running.get_mut(&step) {
                    step.log.push(stream, bytes, now.saturating_sub(step.began), &mut |_| {});
                }
            }
            Event::End { step, end, took } => {
                let Some(mut ended) = self.running.remove(&step) else { return };
                if matches!(end, StepEnd::Failed(_)) {
                    ended.log.close(took, &mut |_| {});
                    self.failed.push(ended.log.into_failed(&ended.name));
                }
            }
            Event::Failed { .. } | Event::Status { .. } | Event::Warning { .. } => {}
        }
    }

    fn finish(&mut self, _summary: Option<&Summary>, _now: Moment, out: &mut Vec<u8>) {
        for failed in &self.failed {
            failed.print(Controls::Dropped, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ending;
    use super::super::renderer::testing::{Stage, summary};
    use super::*;

    #[test]
    fn says_nothing_but_why_a_step_failed() {
        let mut stage = Stage::new(Quiet::default());
        stage.begin(0, 1, "[1/2] RUN true");
        stage.stdout(1, 1, "all is well\n");
        stage.end(2, 1, &StepEnd::Done, 2);
        stage.tell(2, Event::Warning { text: "warning: x" });
        stage.begin(3, 2, "[2/2] RUN false");
        stage.stderr(4, 2, "\x1b[31mno");
        stage.end(5, 2, &StepEnd::Failed("exit code: 1".into()), 2);
        assert_eq!(stage.printed(), "");
        stage.finish(6, &summary(Ending::Failed, "cannot build app"));
        assert_eq!(stage.printed(), "------\n > [2/2] RUN false:\n0.002 no\n------\n");
    }
}
