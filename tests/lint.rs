//! What the linter says: in builds, with `--check`, as `boatyard lint`, for people and for programs.

mod support;

use support::Place;
use support::images::busybox;
use support::place::text;

const DOCKERFILE: &str = "FROM scratch AS Base\nENV A_TOKEN=1\nWORKDIR rel\nCMD run $x\n";
const RULES: [&str; 4] =
    ["StageNameCasing", "SecretsUsedInArgOrEnv", "WorkdirRelativePath", "JSONArgsRecommended"];

#[test]
fn findings_are_told_to_people_and_programs() {
    let place = Place::new();
    let context = place.context("context", DOCKERFILE);
    let context = text(&context);
    let told = place.boatyard(["lint", context]).fails(1).text();
    for rule in RULES {
        assert_eq!(told.matches(&format!("[{rule}]")).count(), 1, "{told}");
    }
    assert!(told.contains("Dockerfile:3\n      3 | WORKDIR rel\n"), "{told}");
    assert!(told.ends_with("4 warnings have been found!"), "{told}");
    assert_eq!(place.boatyard(["build", "--check", context]).fails(1).text(), told);

    for call in [["lint", "--format=json"], ["build", "--call=check,format=json"]] {
        let told = place.boatyard(call).arg(context).fails(1).json();
        let names: Vec<_> = told["warnings"].as_array().unwrap().iter().collect();
        let names: Vec<_> = names.iter().map(|it| it["ruleName"].as_str().unwrap()).collect();
        assert_eq!(names, RULES);
        assert_eq!(told["warnings"][2]["location"]["ranges"][0]["start"]["line"], 3);
        assert!(told["warnings"][3]["url"].as_str().unwrap().ends_with("/json-args-recommended/"));
    }
    let told = place.boatyard(["lint", "--format=sarif", context]).fails(1).json();
    assert_eq!(told["version"], "2.1.0");
    let run = &told["runs"][0];
    let result = &run["results"][2];
    let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "WorkdirRelativePath");
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!((&region["startLine"], &region["startColumn"]), (&3.into(), &9.into()));
    assert!(!place.root().exists(), "nothing was built, so nothing is kept");
}

#[test]
fn a_file_or_an_argument_says_what_counts() {
    let place = Place::new();
    let lint = |dockerfile: &str| {
        let context = place.context("context", dockerfile);
        place.boatyard(["lint", text(&context)])
    };
    lint("FROM scratch\nCMD [\"x\"]\n").ok();
    lint(&format!("# check=skip=all\n{DOCKERFILE}")).ok();
    lint("FROM scratch\n# check=skip=JSONArgsRecommended\nCMD x\n").ok();
    let check = "BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended";
    lint("FROM scratch\nCMD x\n").args(["--build-arg", check]).ok();
    lint("FROM scratch\nCMD x\n").args(["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=x"]).fails(2);
    lint("RUNN x\n").fails(1).says(["unknown instruction `RUNN`", "did you mean `RUN`?"]);
    let told = lint("RUNN x\n").arg("--format=json").fails(1).json();
    assert_eq!(told["buildError"]["message"], "unknown instruction `RUNN`");
    let told = lint("RUNN x\n").arg("--format=sarif").fails(1).json();
    assert_eq!(told["runs"][0]["results"][0]["level"], "error");
    let context = place.context("context", "FROM scratch\n");
    let stdin = place.boatyard(["lint", "-f", "-", text(&context)]).input("FROM scratch\nCMD x\n");
    assert!(stdin.fails(1).text().contains("Dockerfile:2"));
}

#[test]
fn a_build_tells_each_finding_once_and_may_fail_for_it() {
    let place = Place::new();
    let context = place.context("context", DOCKERFILE);
    let told = place.boatyard(["build", text(&context)]).ok();
    for rule in RULES {
        assert_eq!(told.stderr.matches(&format!("[{rule}]")).count(), 1, "{told}");
    }
    let strict = place.context("strict", "# check=error=true\nFROM scratch\nENV b=$c\nCMD x\n");
    place
        .boatyard(["build", "--progress=plain", text(&strict)])
        .fails(1)
        .says(["Usage of undefined variable '$c'", "`JSONArgsRecommended`, `UndefinedVar`"]);
    let check = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true"];
    place.boatyard(["build", text(&strict)]).args(check).ok();
}

#[test]
fn the_lessons_of_the_book_have_their_price() {
    let place = Place::new();
    busybox(&place);
    let dockerfile = "# check=error=true\nFROM busybox\nCOPY . /app\n\
                      RUN dd if=/dev/zero of=/large bs=1M count=3\nRUN rm /large\n";
    let context = place.context("context", dockerfile);
    place.write("context/.git/objects/pack", vec![1; 12_000_000]);
    let told = place.boatyard(["build", text(&context)]).ok();
    told.says([
        "This copies `.git` of the context: 1 file [LargeContextDirectory]",
        "note: it copies 12.0 MB",
        "keep every byte of them [CleanupFreesNothing]",
        "note: it costs 3.1 MB of the image",
    ]);
    // What a cached build costs is the same.
    let again = place.boatyard(["build", text(&context)]).ok();
    again.says(["note: it costs 3.1 MB of the image"]);
    // What deletes its own files costs nothing.
    let mended = "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=3 && rm /large\n";
    let context = place.context("mended", mended);
    let told = place.boatyard(["build", text(&context)]).ok();
    assert!(!told.stderr.contains("CleanupFreesNothing"), "{told}");
}

#[test]
fn an_image_that_is_here_is_asked_for_its_variables() {
    let place = Place::new();
    busybox(&place);
    let context = place.context("context", "FROM busybox\nENV a=$PATH b=$NONE\n");
    let told = place.boatyard(["lint", text(&context)]).fails(1).text();
    assert!(told.contains("'$NONE'") && !told.contains("'$PATH'"), "{told}");
    let context = place.context("context", "FROM busybox:none\nENV a=$PATH b=$NONE\n");
    place.boatyard(["lint", text(&context)]).ok().says(["busybox:none is not on this machine"]);
}

#[test]
fn a_dockerfile_says_what_it_offers() {
    let place = Place::new();
    let dockerfile = "# version what to build\nARG version=1\n# tools what it is built with\n\
                      FROM scratch AS tools\nFROM tools AS app\nARG version\n\
                      RUN --mount=type=secret,id=key,required x\n";
    let context = place.context("context", dockerfile);
    let call = |call: &str| place.boatyard(["build", text(&context)]).arg(call).ok();
    let outline = call("--call=outline").text();
    assert!(outline.contains("version     1       what to build"), "{outline}");
    assert!(outline.contains("key      true"), "{outline}");
    let outline = call("--call=outline,format=json").json();
    assert_eq!(outline["name"], "app");
    assert_eq!(outline["args"][0]["name"], "version");
    assert_eq!(outline["secrets"][0]["required"], true);
    let targets = call("--print=targets").text();
    assert!(targets.contains("tools           what it is built with"), "{targets}");
    assert!(targets.contains("app (default)"), "{targets}");
    let targets = call("--call=targets,format=json").json();
    assert_eq!(targets["targets"][1]["default"], true);
    place.boatyard(["build", "--call=sing", text(&context)]).fails(2);
}

#[test]
fn the_page_explains_every_rule() {
    let page = include_str!("../docs/lint.md");
    for rule in boatyard_builder::dockerfile::Rule::ALL {
        let section = page.split(&format!("\n### {}\n", rule.name())).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/lint.md has no {}", rule.name()));
        let section = section.split("\n### ").next().unwrap();
        let mut blocks = section.split("```dockerfile\n").skip(1);
        let mut next = || blocks.next().and_then(|block| block.split("```").next()).unwrap_or("");
        let (example, cure) = (next(), next());
        // Those that need an image of another platform, or a large context, have tests of their own.
        if ["InvalidBaseImagePlatform", "LargeContextDirectory"].contains(&rule.name()) {
            continue;
        }
        let place = Place::new();
        place.write("context/.dockerignore", "secret.txt\n");
        let found = |dockerfile: &str| {
            let context = place.context("context", dockerfile);
            let ran = place.boatyard(["lint", "--format=json", text(&context)]).run();
            ran.json()["warnings"].to_string().contains(rule.name())
        };
        assert!(found(example), "the example of {} is one:\n{example}", rule.name());
        assert!(!found(cure), "the cure of {} is one:\n{cure}", rule.name());
    }
}
