use super::*;
use crate::context::location::Location;
use crate::dockerfile::{parse, render};

fn options() -> PlanOptions {
    let platform: Platform = "linux/amd64".parse().unwrap();
    PlanOptions {
        target: None,
        build_args: BTreeMap::new(),
        contexts: Contexts::default(),
        platform: platform.clone(),
        build_platform: platform,
        allow: Allow::default(),
    }
}

fn plan_of(text: &str, options: &PlanOptions) -> Result<Plan, String> {
    let dockerfile = parse(text).unwrap();
    plan(&dockerfile, options, &|_, _| None).map_err(|errors| {
        errors.iter().map(|e| render(&dockerfile.source, "Dockerfile", e)).collect()
    })
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.stages.iter().map(|stage| stage.name.as_str()).collect()
}

#[test]
fn stages_that_nothing_needs_are_left_out() {
    let text = "FROM scratch AS a\nFROM scratch AS unused\nFROM a AS b\nFROM scratch\n\
                COPY --from=b /x /x\nCOPY --from=0 /y /y\n";
    assert_eq!(names(&plan_of(text, &options()).unwrap()), ["a", "b", "stage-3"]);
    let only = PlanOptions { target: Some("UNUSED".to_owned()), ..options() };
    assert_eq!(names(&plan_of(text, &only).unwrap()), ["unused"]);
    let number = PlanOptions { target: Some("0".to_owned()), ..options() };
    assert_eq!(names(&plan_of(text, &number).unwrap()), ["a"]);
}

#[test]
fn arguments_before_from_choose_the_base() {
    let text = "ARG DISTRO=debian\nARG TAG=${DISTRO}-12\nFROM --platform=$BUILDPLATFORM x:$TAG\n";
    let base = |options: &PlanOptions| plan_of(text, options).unwrap().stages[0].base.clone();
    assert_eq!(base(&options()), Base::Image("x:debian-12".parse().unwrap()));
    let mut given = options();
    given.build_args.insert("DISTRO".to_owned(), "alpine".to_owned());
    assert_eq!(base(&given), Base::Image("x:alpine-12".parse().unwrap()));
}

#[test]
fn a_name_is_an_earlier_stage_before_it_is_an_image() {
    let plan =
        plan_of("FROM debian AS debian\nFROM debian\nCOPY --from=other:1 /a /b\n", &options())
            .unwrap();
    assert_eq!(plan.stages[0].base, Base::Image("debian".parse().unwrap()));
    assert_eq!(plan.stages[1].base, Base::Stage(0));
    let from = plan.stages[1].instructions[0].copy_from.clone();
    assert_eq!(from, Some(CopyFrom::Image("other:1".parse().unwrap())));
    assert_eq!(plan.images().len(), 2);
}

#[test]
fn triggers_of_a_stage_run_in_its_child() {
    let text = "FROM scratch AS a\nONBUILD COPY x y\nFROM a\nENV z=1\n";
    let plan = plan_of(text, &options()).unwrap();
    let kinds: Vec<_> =
        plan.stages[1].instructions.iter().map(|p| p.instruction.kind.name()).collect();
    assert_eq!(kinds, ["COPY", "ENV"]);
    assert!(plan.stages[1].instructions[0].is_trigger);
}

#[test]
fn every_mistake_points_at_its_word() {
    let table = [
        (
            "FROM scratch AS assets\nFROM scratch\nCOPY --from=asset /out /srv\n",
            "error: cannot copy from stage `asset`\n  --> Dockerfile:3\n      3 | COPY --from=asset /out /srv\n        |             ^^^^^\n",
        ),
        (
            "FROM $NOTHING\n",
            "error: base name ($NOTHING) should not be blank\n  --> Dockerfile:1\n",
        ),
        ("FROM scratch\nCOPY --from=3 a b\n", "error: cannot copy from stage 3\n"),
        (
            "FROM scratch\nCOPY --from=later a b\nFROM scratch AS later\nCOPY --from=0 x y\n",
            "error: cannot copy from stage `later`\n",
        ),
        ("FROM UPPER\n", "error: `UPPER` is not a repository name"),
        (
            "FROM scratch\nRUN --mount=from=later,target=/x true\nFROM scratch AS later\nCOPY --from=0 a b\n",
            "error: cannot mount from stage `later`\n  --> Dockerfile:2\n",
        ),
        ("FROM --platform=a/b/c/d scratch\n", "error: `a/b/c/d` is not a platform"),
    ];
    for (text, expected) in table {
        let error = plan_of(text, &options()).map(|plan| names(&plan).join(" ")).unwrap_err();
        assert!(error.starts_with(expected), "{text}\n{error}");
    }
}

#[test]
fn an_unknown_target_is_told_with_what_may_be_meant() {
    let options = PlanOptions { target: Some("buidl".to_owned()), ..options() };
    let error = plan_of("FROM scratch AS build\n", &options).unwrap_err();
    assert!(error.contains("target stage `buidl` is not in the Dockerfile"), "{error}");
    assert!(error.contains("hint: did you mean `build`?"), "{error}");
}

#[test]
fn a_context_that_was_given_comes_before_stages_and_images() {
    let text = "FROM debian AS base\nRUN x\nFROM base AS tools\nFROM golang:latest\n\
                COPY --from=tools /a /a\nCOPY --from=files /b /b\nCOPY --from=0 /c /c\n";
    let mut given = options();
    let files = NamedContext::Files(Location::Directory("dir".into()));
    given.contexts.insert("files", files.clone());
    given.contexts.insert("BASE", files);
    given.contexts.insert("docker.io/library/golang", NamedContext::Image("go:1".parse().unwrap()));
    let plan = plan_of(text, &given).unwrap();
    assert_eq!(names(&plan), ["base", "tools", "stage-2"]);
    let [base, tools, last] = &plan.stages[..] else { panic!("there are three") };
    assert_eq!((&base.base, base.instructions.len()), (&Base::Scratch, 1));
    assert_eq!(base.instructions[0].copy_from, Some(CopyFrom::Named("base".to_owned())));
    assert_eq!(tools.base, Base::Stage(0));
    assert_eq!(last.base, Base::Image("go:1".parse().unwrap()));
    let from: Vec<_> = last.instructions.iter().filter_map(|it| it.copy_from.clone()).collect();
    let named = CopyFrom::Named("files".to_owned());
    assert_eq!(from, [CopyFrom::Stage(1), named, CopyFrom::Stage(0)]);
}
