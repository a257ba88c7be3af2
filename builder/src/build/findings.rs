//! What the linter says of a build: most of it before anything is run, and what the layers cost once
//! they are there.

use std::collections::{BTreeSet, HashMap, HashSet};

use boatyard_content::Root;

use super::{BuildError, BuildRequest};
use crate::base::Bases;
use crate::contents::Tables;
use crate::dockerfile::{parse_trigger, render};
use crate::lint::measure::Layers;
use crate::lint::{self, Finding, ImageFacts, Question};
use crate::plan::PlanOptions;
use crate::progress::Progress;
use crate::solve::LayerStack;

/// What is told once the layers are built.
pub(super) struct Later<'a> {
    request: &'a BuildRequest,
    /// What may be found for each platform.
    findings: Vec<Vec<Finding>>,
}

/// Tells what the linter finds, once whatever number of platforms it is about; with
/// `# check=error=true` that ends the build. What layers must be measured for is told by
/// [`Later::tell`].
pub(super) fn tell<'a>(
    request: &'a BuildRequest,
    bases: &Bases<'_>,
    progress: &dyn Progress,
) -> Result<Later<'a>, BuildError> {
    let mut rules = BTreeSet::new();
    let mut told = HashSet::new();
    let mut later = Later { request, findings: Vec::new() };
    for platform in &request.platforms {
        let options = PlanOptions { platform: platform.clone(), ..request.plan.clone() };
        let found = look(request, &options, bases)?;
        let (findings, now): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|finding| finding.measure.is_some());
        for finding in now {
            later.show(&finding, &mut told, progress);
            if !finding.warning.rule.is_lesson() {
                rules.insert(finding.warning.rule.name());
            }
        }
        later.findings.push(findings);
    }
    if request.dockerfile.checks.error && !rules.is_empty() {
        return Err(BuildError::Lint(rules.into_iter().collect()));
    }
    Ok(later)
}

fn look(
    request: &BuildRequest,
    options: &PlanOptions,
    bases: &Bases<'_>,
) -> Result<Vec<Finding>, BuildError> {
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
        options,
        all_stages: false,
        context: request.context.as_ref().map(|context| (context.path(), context.patterns())),
        images: &images,
    };
    let found = lint::look(&question).map_err(|problem| BuildError::Plan(vec![problem]))?;
    Ok(found.found)
}

impl Later<'_> {
    /// Tells what the layers of the target show, given those of each platform.
    pub(super) fn tell(self, root: &Root, stacks: &[LayerStack], progress: &dyn Progress) {
        let mut told = HashSet::new();
        let mut places = HashSet::new();
        for (findings, stack) in self.findings.iter().zip(stacks) {
            for finding in self.measure(findings, root, stack) {
                // Layers of other platforms have other sizes.
                if places.insert((finding.warning.rule, finding.warning.span.start)) {
                    self.show(&finding, &mut told, progress);
                }
            }
        }
    }

    fn measure(&self, findings: &[Finding], root: &Root, stack: &LayerStack) -> Vec<Finding> {
        if findings.is_empty() {
            return Vec::new();
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
        lint::measure::measure(findings.to_vec(), &layers, line_of)
    }

    fn show(&self, finding: &Finding, told: &mut HashSet<String>, progress: &dyn Progress) {
        let (source, name) = (&self.request.dockerfile.source, &self.request.file_name);
        let drawn = render(source, name, &finding.diagnostic());
        if told.insert(drawn.clone()) {
            progress.warning(&drawn);
        }
    }
}
