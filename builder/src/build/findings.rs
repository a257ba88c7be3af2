//! What the linter says of a build: most of it before anything is run, and what the layers cost once
//! they are there.

use std::collections::HashMap;

use boatyard_content::Root;

use super::{BuildError, BuildRequest};
use crate::base::Bases;
use crate::contents::Tables;
use crate::dockerfile::{parse_trigger, render};
use crate::lint::measure::Layers;
use crate::lint::{self, Finding, ImageFacts, Question};
use crate::progress::Progress;
use crate::solve::LayerStack;

/// What is told once the layers are built.
pub(super) struct Later<'a> {
    request: &'a BuildRequest,
    findings: Vec<Finding>,
}

/// Tells what the linter finds; with `# check=error=true` that ends the build. What layers must be
/// measured for is told by [`Later::tell`].
pub(super) fn tell<'a>(
    request: &'a BuildRequest,
    bases: &Bases<'_>,
    progress: &dyn Progress,
) -> Result<Later<'a>, BuildError> {
    let images = |name: &_, platform: &_| {
        let found = bases.known(name, platform)?;
        let config = &found.image.config;
        Some(ImageFacts {
            env: config.config.env.clone(),
            has_shell: !config.config.shell.is_empty(),
            platform: (!config.os.is_empty()).then(|| config.platform()),
            triggers: config.config.on_build.iter().flat_map(|text| parse_trigger(text)).collect(),
        })
    };
    let question = Question {
        dockerfile: &request.dockerfile,
        options: &request.plan,
        all_stages: false,
        context: request.context.as_ref().map(|context| (context.path(), context.patterns())),
        images: &images,
    };
    let found = lint::look(&question).map_err(|problem| BuildError::Plan(vec![problem]))?.found;
    let (findings, now): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|finding| finding.measure.is_some());
    let later = Later { request, findings };
    let mut rules = Vec::new();
    for finding in now {
        later.show(&finding, progress);
        if !finding.warning.rule.is_lesson() {
            rules.push(finding.warning.rule.name());
        }
    }
    rules.sort_unstable();
    rules.dedup();
    if request.dockerfile.checks.error && !rules.is_empty() {
        return Err(BuildError::Lint(rules));
    }
    Ok(later)
}

impl Later<'_> {
    /// Tells what the layers of the target show.
    pub(super) fn tell(self, root: &Root, stack: &LayerStack, progress: &dyn Progress) {
        if self.findings.is_empty() {
            return;
        }
        let known = Tables::open(root.path());
        let table = |at: usize| known.find(stack.layers().get(at)?.diff_id()).ok().flatten();
        let steps = &stack.ground().steps;
        let below = stack.layers().len().saturating_sub(steps.len());
        let line = |step: &str| {
            step.strip_prefix(&*self.request.dockerfile_path)?
                .strip_prefix(':')?
                .split(' ')
                .next()?
                .parse::<usize>()
                .ok()
        };
        let of_line: HashMap<usize, usize> =
            (below..).zip(steps).flat_map(|(at, it)| Some((line(&it.step)?, at))).collect();
        let layers = Layers { count: stack.layers().len(), table: &table, of_line: &of_line };
        let source = &self.request.dockerfile.source;
        let line_of = |finding: &Finding| source.line_of(finding.warning.context.start);
        let (findings, request) = (self.findings, self.request);
        let measured = lint::measure::measure(findings, &layers, line_of);
        let later = Later { request, findings: Vec::new() };
        for finding in measured {
            later.show(&finding, progress);
        }
    }

    fn show(&self, finding: &Finding, progress: &dyn Progress) {
        let (source, name) = (&self.request.dockerfile.source, &self.request.file_name);
        progress.warning(&render(source, name, &finding.diagnostic()));
    }
}
