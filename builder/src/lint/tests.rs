use std::path::Path;

use super::*;
use crate::dockerfile::parse;

/// Looks at a text as a build without arguments would.
fn look_at(text: &str, images: &Images<'_>, patterns: &str, root: Option<&Path>) -> Vec<String> {
    let dockerfile = parse(text).unwrap_or_else(|errors| panic!("{}", errors.render("Dockerfile")));
    let options = PlanOptions {
        target: None,
        build_args: std::collections::BTreeMap::new(),
        contexts: crate::plan::Contexts::default(),
        platform: "linux/amd64".parse().unwrap(),
        build_platform: "linux/amd64".parse().unwrap(),
        allow: crate::plan::Allow::default(),
    };
    let patterns = Patterns::parse(patterns).unwrap();
    let context = root.map(|root| (root, &patterns));
    let question =
        Question { dockerfile: &dockerfile, options: &options, all_stages: true, context, images };
    let findings = look(&question).unwrap_or_else(|problem| panic!("{problem:?}"));
    let shown = |finding: &Finding| {
        let word = dockerfile.source.slice(finding.warning.span).unwrap();
        format!("{} {word}", finding.warning.rule.name()).trim_end().to_owned()
    };
    findings.found.iter().filter(|finding| finding.is_sure).map(shown).collect()
}

fn known(_: &ImageName, _: &Platform) -> Option<ImageFacts> {
    Some(ImageFacts { env: vec!["HOME=/root".to_owned()], ..ImageFacts::default() })
}

fn found(text: &str) -> Vec<String> {
    look_at(text, &known, "", None)
}

#[test]
fn rules_of_instructions() {
    let rows: [(&str, &[&str]); 30] = [
        ("FROM a\nCMD x\n", &["JSONArgsRecommended CMD x"]),
        ("FROM a\nSHELL [\"b\"]\nENTRYPOINT x\n", &[]),
        ("FROM a AS s\nSHELL [\"b\"]\nFROM s\nCMD x\n", &[]),
        ("FROM a\nWORKDIR x\nWORKDIR y\n", &["WorkdirRelativePath x"]),
        ("FROM a\nENV w=rel\nWORKDIR $w\n", &["WorkdirRelativePath $w"]),
        ("FROM a\nENV w=/abs\nWORKDIR $w\n", &[]),
        ("FROM a\nWORKDIR /x\nWORKDIR y\n", &[]),
        ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]\n", &["MultipleInstructionsDisallowed CMD"]),
        ("FROM a\nENV a b\n", &["LegacyKeyValueFormat a b"]),
        ("FROM a\nLABEL a b\n", &["LegacyKeyValueFormat a b"]),
        ("FROM --platform=$TARGETPLATFORM a\n", &["RedundantTargetPlatform $TARGETPLATFORM"]),
        ("FROM --platform=$BUILDPLATFORM a\n", &[]),
        ("FROM --platform=linux/amd64 a\n", &["FromPlatformFlagConstDisallowed linux/amd64"]),
        ("FROM --platform=linux/amd64 a AS b-amd64\n", &[]),
        ("FROM --platform=amd64 a AS linux-b\n", &[]),
        ("FROM a\nARG TOKEN\n", &["SecretsUsedInArgOrEnv TOKEN"]),
        // An argument before FROM is in no image.
        ("ARG a_Api_Key=1\nFROM a\nENV KEYBOARD=x\n", &[]),
        ("FROM a\nENV AUTH_FILE=x PUBLIC_KEY=y\n", &[]),
        ("FROM a\nENV n=my_secret\nENV $n=x\n", &["SecretsUsedInArgOrEnv $n"]),
        ("FROM a\nENV x=$HOME y=$PATH\n", &[]),
        ("FROM a\nENV x=$NONE\n", &["UndefinedVar $NONE"]),
        ("FROM a\nARG x\nENV y=$x\n", &[]),
        ("FROM a\nENV a=1 b=$a\n", &["UndefinedVar $a"]),
        ("FROM a\nARG a=1 b=$a\n", &[]),
        ("FROM a\nCOPY <<EOF /f\n$NONE\nEOF\n", &["UndefinedVar COPY <<EOF /f\n$NONE\nEOF"]),
        ("FROM a\nEXPOSE 80/TCP 1:2\n", &["ExposeProtoCasing 80/TCP", "ExposeInvalidFormat 1:2"]),
        ("FROM $x\n", &["UndefinedArgInFrom $x", "InvalidDefaultArgInFrom $x"]),
        ("ARG x\nFROM a$x\n", &[]),
        ("FROM a\nMAINTAINER x\n", &["MaintainerDeprecated MAINTAINER"]),
        ("FROM a\n# check=skip=all\nCMD x\n", &[]),
    ];
    for (text, expected) in rows {
        let found = found(text);
        let found: Vec<String> = found.into_iter().map(|found| found.trim_end().into()).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn nothing_is_guessed_of_an_image_that_is_not_here() {
    let text = "FROM a\nENV x=$NONE\nWORKDIR $x\nCMD y\n";
    assert_eq!(look_at(text, &|_, _| None, "", None), ["JSONArgsRecommended CMD y"]);
}

#[test]
fn an_image_is_asked_for_its_platform_shell_and_triggers() {
    let trigger = crate::dockerfile::parse_trigger("CMD x").unwrap();
    let facts = ImageFacts {
        platform: Some("linux/arm64".parse().unwrap()),
        triggers: vec![trigger],
        ..ImageFacts::default()
    };
    let images = |_: &ImageName, _: &Platform| Some(facts.clone());
    let expected = ["JSONArgsRecommended a", "InvalidBaseImagePlatform a"];
    let mut found = look_at("FROM a\n", &images, "", None);
    found.sort_by_key(|found| !found.starts_with("JSON"));
    assert_eq!(found, expected);
    let facts = ImageFacts { has_shell: true, ..ImageFacts::default() };
    let images = |_: &ImageName, _: &Platform| Some(facts.clone());
    assert!(look_at("FROM a\nCMD x\n", &images, "", None).is_empty());
}

#[test]
fn what_is_ignored_cannot_be_copied() {
    let directory = tempfile::tempdir().unwrap();
    let of = |text: &str, patterns: &str| look_at(text, &known, patterns, Some(directory.path()));
    assert_eq!(of("FROM a\nARG f=b\nCOPY $f /\n", "b"), ["CopyIgnoredFile $f"]);
    assert_eq!(of("FROM a\nADD b /\n", "*"), ["CopyIgnoredFile b"]);
    assert!(of("FROM a\nADD https://b/b /\n", "*").is_empty());
    assert!(of("FROM a AS x\nFROM a\nCOPY --from=x b /\n", "b").is_empty());
    assert!(of("FROM a\nCOPY b /\n", "b\n!b/c").is_empty());
}

#[test]
fn lessons_of_the_book() {
    let apt = "apt-get update && apt-get install -y";
    let rows: [(String, &[&str]); 14] = [
        (format!("RUN {apt} curl"), &["AptListsLeftBehind RUN"]),
        (format!("RUN {apt} curl && rm -rf /var/lib/apt/lists/*"), &[]),
        (format!("RUN --mount=type=cache,target=/var/lib/apt {apt} curl"), &[]),
        (format!("RUN {apt} gcc && rm -rf /var/lib/apt/lists/*"), &["CompilerInFinalStage RUN"]),
        (format!("RUN {apt} gcc && make && apt-get purge -y gcc && rm -r /var/lib/apt/lists"), &[]),
        ("RUN dd if=/dev/zero of=/large\nRUN rm /large".to_owned(), &["CleanupFreesNothing RUN"]),
        ("RUN make\nRUN rm -rf /var/lib/apt/lists/*".to_owned(), &["CleanupFreesNothing RUN"]),
        ("RUN make\nRUN apt-get clean".to_owned(), &["CleanupFreesNothing RUN"]),
        ("RUN rm /etc/motd".to_owned(), &[]),
        ("RUN make && rm -rf /tmp/x".to_owned(), &[]),
        ("COPY . .\nRUN bundle install".to_owned(), &["CopyBeforeInstall COPY"]),
        ("COPY Gemfile .\nRUN bundle install\nCOPY . .".to_owned(), &[]),
        ("COPY . .\nRUN npm install left-pad".to_owned(), &[]),
        (
            "COPY . .\n# check=skip=all\nRUN pip install -r r.txt".to_owned(),
            &["CopyBeforeInstall COPY"],
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(found(&format!("FROM a\n{text}\n")), expected, "{text}");
    }
    let build_stage = format!("FROM a AS b\nRUN {apt} gcc\nFROM a\nCOPY --from=b /x /\n");
    assert!(found(&build_stage).is_empty(), "what is in no image costs none of it");
}

#[test]
fn large_directories_are_measured() {
    let directory = tempfile::tempdir().unwrap();
    let pack = directory.path().join(".git/objects/pack");
    fs_err::create_dir_all(&pack).unwrap();
    let file = fs_err::File::create(pack.join("pack")).unwrap();
    file.set_len(20_000_000).unwrap();
    let of =
        |patterns: &str| look_at("FROM a\nCOPY . /app\n", &known, patterns, Some(directory.path()));
    assert_eq!(of(""), ["LargeContextDirectory COPY"]);
    assert!(of(".git").is_empty());
}

#[test]
fn an_outline_names_what_a_target_takes() {
    let text = "# version what to build\nARG version=1\nARG unused=2\nFROM a:$version AS base\n\
                FROM base AS other\nARG no\nFROM base AS app\n# mode how\nARG mode=fast-$version\n\
                RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c x\n\
                RUN --mount=type=ssh y\n";
    let dockerfile = parse(text).unwrap();
    let options = PlanOptions {
        target: None,
        build_args: [("version".to_owned(), "3".to_owned())].into(),
        contexts: crate::plan::Contexts::default(),
        platform: "linux/amd64".parse().unwrap(),
        build_platform: "linux/amd64".parse().unwrap(),
        allow: crate::plan::Allow::default(),
    };
    let found = outline::outline(&dockerfile, &options).unwrap();
    let args: Vec<_> =
        found.args.iter().map(|arg| (arg.name.as_str(), arg.value.as_deref())).collect();
    assert_eq!(args, [("version", Some("3")), ("mode", Some("fast-"))]);
    assert_eq!(found.args[0].description.as_deref(), Some("what to build"));
    let names = |wanted: &[outline::Wanted]| {
        wanted.iter().map(|it| (it.name.clone(), it.required)).collect::<Vec<_>>()
    };
    assert_eq!(names(&found.secrets), [("key".to_owned(), true)]);
    assert_eq!(names(&found.ssh), [("default".to_owned(), false)]);
    assert_eq!(names(&found.caches), [("/c".to_owned(), false)]);
    let targets = outline::targets(&dockerfile);
    assert_eq!(targets.len(), 3);
    assert!(targets[2].is_default && !targets[0].is_default);
}
