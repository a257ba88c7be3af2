//! The linter on whatever can be parsed, with and without what base images say.
#![no_main]

use boatyard_builder::context::ignore::Patterns;
use boatyard_builder::dockerfile::{parse, render};
use boatyard_builder::lint::{ImageFacts, Question, look, outline};
use boatyard_builder::plan::{Allow, Contexts, PlanOptions};
use boatyard_oci::Platform;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(dockerfile) = parse(text) else { return };
    let options = PlanOptions {
        target: None,
        build_args: [("A".to_owned(), "given".to_owned())].into(),
        platform: Platform::host(),
        build_platform: Platform::host(),
        contexts: Contexts::default(),
        allow: Allow::default(),
    };
    let patterns = Patterns::parse("a\n!b\n**/c").unwrap_or_default();
    // A directory that is not there: nothing is measured.
    let context = Some((std::path::Path::new("/nonexistent"), &patterns));
    for knows in [false, true] {
        let facts = ImageFacts { env: vec!["A=b".to_owned()], ..ImageFacts::default() };
        let images = |_: &_, _: &_| knows.then(|| facts.clone());
        let question = Question {
            dockerfile: &dockerfile,
            options: &options,
            all_stages: knows,
            context,
            images: &images,
        };
        match look(&question) {
            Ok(findings) => {
                for finding in findings.found {
                    let _ = render(&dockerfile.source, "Dockerfile", &finding.diagnostic());
                }
            }
            Err(problem) => drop(render(&dockerfile.source, "Dockerfile", &problem)),
        }
    }
    let _ = outline::outline(&dockerfile, &options);
    outline::targets(&dockerfile);
});
