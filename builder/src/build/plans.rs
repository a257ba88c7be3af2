//! The plan of each platform, with the ONBUILD triggers of the base images that it needs.

use std::collections::HashMap;

use boatyard_oci::{ImageName, Platform};

use super::{BuildError, BuildRequest, StepFailure, base_failure};
use crate::base::Bases;
use crate::dockerfile::{Instruction, Span, parse_trigger};
use crate::plan::{Base, CopyFrom, Plan, PlanOptions, PlannedStage, plan};
use crate::progress::Steps;

/// How many base images are looked for at once.
const IMAGES_AT_ONCE: usize = 4;

/// Plans the build of each platform.
pub(super) fn of(
    request: &BuildRequest,
    bases: &Bases<'_>,
    steps: &Steps<'_>,
) -> Result<Vec<Plan>, BuildError> {
    let plan = |platform: &Platform| {
        let options = PlanOptions { platform: platform.clone(), ..request.plan.clone() };
        plan_with_triggers(request, &options, bases, steps)
    };
    request.platforms.iter().map(plan).collect()
}

/// Plans, reads the ONBUILD triggers of the base images that the plan needs, and plans again,
/// until nothing new is needed. All images that a plan names are looked for at once.
fn plan_with_triggers(
    request: &BuildRequest,
    options: &PlanOptions,
    bases: &Bases<'_>,
    steps: &Steps<'_>,
) -> Result<Plan, BuildError> {
    let mut known: HashMap<Wanted, Vec<Instruction>> = HashMap::new();
    loop {
        let triggers = |name: &ImageName, platform: &Platform| {
            known.get(&(name.clone(), platform.clone())).cloned()
        };
        let plan = plan(&request.dockerfile, options, &triggers).map_err(BuildError::Plan)?;
        let learned = learn(&plan, &known, bases, steps)?;
        if learned.is_empty() {
            return Ok(plan);
        }
        known.extend(learned);
    }
}

/// An image that a plan needs.
type Wanted = (ImageName, Platform);

/// Where a plan needs an image first.
struct Need<'a> {
    image: Wanted,
    /// The word that names it.
    span: Span,
    /// A stage begins with it: its triggers count.
    base_of: Option<&'a PlannedStage>,
}

/// Looks for the images of a plan that are not known yet, several at once.
fn learn(
    plan: &Plan,
    known: &HashMap<Wanted, Vec<Instruction>>,
    bases: &Bases<'_>,
    steps: &Steps<'_>,
) -> Result<Vec<(Wanted, Vec<Instruction>)>, BuildError> {
    let mut needs: Vec<Need<'_>> = Vec::new();
    for need in images(plan).filter(|need| !known.contains_key(&need.image)) {
        match needs.iter_mut().find(|other| other.image == need.image) {
            Some(other) => other.base_of = other.base_of.or(need.base_of),
            None => needs.push(need),
        }
    }
    let mut learned = Vec::with_capacity(needs.len());
    for some in needs.chunks(IMAGES_AT_ONCE) {
        let found: Vec<_> = std::thread::scope(|scope| {
            let load = |need| scope.spawn(move || load(bases, need, steps));
            let (first, rest) = some.split_first().expect("a chunk has one at least");
            let rest: Vec<_> = rest.iter().map(load).collect();
            let first = self::load(bases, first, steps);
            let rest = rest.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            std::iter::once(first).chain(rest).collect()
        });
        for (need, triggers) in some.iter().zip(found) {
            learned.push((need.image.clone(), triggers?));
        }
    }
    Ok(learned)
}

/// Returns the images that stages begin with, or copy from.
fn images(plan: &Plan) -> impl Iterator<Item = Need<'_>> {
    plan.stages.iter().flat_map(|stage| {
        let of = |name: &ImageName| (name.clone(), stage.platform.clone());
        let base = match &stage.base {
            Base::Image(name) => {
                Some(Need { image: of(name), span: stage.from, base_of: Some(stage) })
            }
            Base::Scratch | Base::Stage(_) => None,
        };
        let copies = stage.instructions.iter().flat_map(move |planned| {
            let span = match planned.is_trigger {
                true => stage.from,
                false => planned.instruction.span,
            };
            planned.sources().filter_map(move |from| {
                let CopyFrom::Image(name) = from else { return None };
                Some(Need { image: of(name), span, base_of: None })
            })
        });
        base.into_iter().chain(copies)
    })
}

/// Finds an image and returns its triggers, if a stage begins with it.
fn load(
    bases: &Bases<'_>,
    need: &Need<'_>,
    steps: &Steps<'_>,
) -> Result<Vec<Instruction>, BuildError> {
    let (name, platform) = &need.image;
    let what = match need.base_of {
        Some(_) => "cannot begin this stage",
        None => "cannot read what this step copies from",
    };
    let at = |message: &str| crate::plan::error(message, need.span);
    let base = steps
        .run(&format!("[internal] load {name}"), |step| {
            let say = |text: &str| steps.progress().status(step, text);
            bases.resolve(name, platform, &say)
        })
        .map_err(|error| BuildError::Step(Box::new(base_failure(error, at(what)))))?
        .image;
    let mut triggers = Vec::new();
    if need.base_of.is_none() {
        return Ok(triggers);
    }
    for text in &base.config.config.on_build {
        let parsed = parse_trigger(text).map_err(|problems| {
            let problem = problems.render("ONBUILD");
            let message = format!("{} has a trigger that cannot be read", name.familiar());
            BuildError::Step(Box::new(StepFailure::new(at(&message)).because(problem)))
        })?;
        triggers.push(parsed);
    }
    Ok(triggers)
}
