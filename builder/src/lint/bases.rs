//! What FROM says, of every stage: variables, platforms, defaults.

use std::collections::BTreeMap;

use boatyard_oci::{ImageName, Platform};

use super::Linter;
use super::stages::Stages;
use crate::dockerfile::expansion::Expander;
use crate::dockerfile::instruction::Stage;
use crate::dockerfile::lint::planned;
use crate::dockerfile::{Rule, Spanned, Warning};
use crate::plan::{Arguments, PlanOptions};

impl Linter<'_> {
    pub(super) fn from(&mut self, stages: &Stages<'_>) {
        let dockerfile = self.question.dockerfile;
        for stage in &dockerfile.stages {
            self.undeclared(stages, &stage.from.image, stage);
            if let Some(platform) = &stage.from.platform {
                self.undeclared(stages, platform, stage);
                self.platform(stages, platform, stage);
            }
        }
        self.defaults();
    }

    fn undeclared(&mut self, stages: &Stages<'_>, word: &Spanned<String>, stage: &Stage) {
        let Some(expanded) = stages.expand(word) else { return };
        for name in &expanded.unset {
            let warning =
                planned::undefined_arg_in_from(name, self.arguments.names(), word.span, stage.span);
            self.report(warning, stage.checks.as_ref());
        }
    }

    fn platform(&mut self, stages: &Stages<'_>, word: &Spanned<String>, stage: &Stage) {
        let Some(expanded) = stages.expand(word) else { return };
        let target = self.arguments.global("TARGETPLATFORM");
        let is_target = expanded.used.iter().eq(["TARGETPLATFORM"])
            && expanded.unset.is_empty()
            && target == Some(&expanded.text);
        if is_target {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default \
                 behavior",
                word.value
            );
            let warning =
                Warning::new(Rule::RedundantTargetPlatform, word.span, stage.span, message);
            self.report(warning, stage.checks.as_ref());
        }
        if !expanded.used.is_empty() || !expanded.unset.is_empty() {
            return;
        }
        let Ok(platform) = expanded.text.parse::<Platform>() else { return };
        // A stage that is named after its platform is meant for it.
        let name = stage.name.as_ref().map_or("", |name| name.value.as_str());
        if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let message =
                format!("FROM --platform flag should not use constant value {:?}", expanded.text);
            let rule = Rule::FromPlatformFlagConstDisallowed;
            let warning = Warning::new(rule, word.span, stage.span, message);
            self.report(warning, stage.checks.as_ref());
        }
    }

    /// With the arguments' defaults alone, each stage should begin with something that has a name.
    fn defaults(&mut self) {
        let dockerfile = self.question.dockerfile;
        let options = PlanOptions { build_args: BTreeMap::new(), ..self.question.options.clone() };
        let Ok(target) = crate::plan::target(dockerfile, &options) else { return };
        let Ok(defaults) = Arguments::new(dockerfile, &options, target) else { return };
        let globals = defaults.globals();
        let expander = Expander::new(dockerfile.directives.escape);
        for stage in &dockerfile.stages {
            let word = &stage.from.image;
            let Ok(expanded) = expander.expand(&word.value, &globals) else { return };
            if expanded.text.parse::<ImageName>().is_err() {
                self.report(planned::invalid_default_arg_in_from(word, stage.span), None);
            }
        }
    }
}
