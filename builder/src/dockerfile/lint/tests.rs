use super::*;
use crate::context::ignore::Patterns;
use crate::dockerfile::{Spanned, parse};

/// Returns the rules and marked words of what is found.
fn found(text: &str) -> Vec<String> {
    let dockerfile = parse(text).unwrap_or_else(|errors| panic!("{}", errors.render("Dockerfile")));
    let word = |warning: &Warning| {
        let text = dockerfile.source.slice(warning.span).unwrap();
        format!("{} {text}", warning.rule.name()).trim_end().to_owned()
    };
    dockerfile.warnings.iter().map(word).collect()
}

#[test]
fn rules_that_need_only_the_text() {
    let rows: [(&str, &[&str]); 12] = [
        ("FROM a AS b\nRUN x\n", &[]),
        ("FROM a AS Bee\n", &["StageNameCasing Bee"]),
        ("FROM a as b\n", &["FromAsCasing FROM a as b"]),
        ("from a as b\nrun x\n", &[]),
        ("FROM a\nRUN x \\\n\n y\n", &["NoEmptyContinuation"]),
        ("FROM a\nRun x\n", &["ConsistentInstructionCasing Run"]),
        ("FROM a\nrun x\nrun y\n", &["ConsistentInstructionCasing FROM"]),
        ("FROM a\n# check=skip=all\nRun x\n", &["ConsistentInstructionCasing Run"]),
        ("FROM a AS b\nFROM a AS b\n", &["DuplicateStageName b"]),
        ("FROM a AS scratch\n", &["ReservedStageName scratch"]),
        ("FROM a\nMAINTAINER x\n", &["MaintainerDeprecated MAINTAINER"]),
        ("# c\n\n# what\nFROM a AS b\n", &[]),
    ];
    for (text, expected) in rows {
        assert_eq!(found(text), expected, "{text}");
    }
    let experimental = "# check=experimental=all\n# what\nFROM a AS b\n";
    assert_eq!(found(experimental), ["InvalidDefinitionDescription FROM a AS b"]);
}

#[test]
fn directives_and_comments_switch_rules_off() {
    let text = |top: &str, above: &str| format!("{top}FROM a AS Bee\n{above}MAINTAINER x\n");
    let all = ["StageNameCasing Bee", "MaintainerDeprecated MAINTAINER"];
    assert_eq!(found(&text("", "")), all);
    assert_eq!(found(&text("# check=skip=all\n", "")), [""; 0]);
    assert_eq!(found(&text("# check=skip=StageNameCasing,X\n", "")), all[1..]);
    assert_eq!(found(&text("# check=skip=stagenamecasing\n", "")), all);
    assert_eq!(found(&text("", "# check=skip=MaintainerDeprecated\n")), all[..1]);
    assert_eq!(found(&text("", "# check=skip=StageNameCasing\n")), all);
    assert_eq!(found(&text("", "# check=skip=all\n#\n")), all);
    assert!(Checks::parse("skip=all;error=true").unwrap().error);
    assert!(!Checks::parse("").unwrap().error);
}

#[test]
fn rules_for_the_planner() {
    let span = Span::new(0, 0);
    let warning = planned::undefined_variable("PAHT", ["PATH", "HOME"], span, span);
    assert_eq!(warning.message, "Usage of undefined variable '$PAHT' (did you mean $PATH?)");
    let warning = planned::undefined_arg_in_from("X", [], span, span);
    assert_eq!(warning.message, "FROM argument 'X' is not declared");
    let ignored = |patterns: &str, path: &str| {
        let source = Spanned::new(path.to_owned(), span);
        let patterns = Patterns::parse(patterns).unwrap();
        planned::copy_ignored_file(false, &source, &patterns, span).map(|it| it.message)
    };
    let message = "Attempting to Copy file \"a/b\" that is excluded by .dockerignore";
    assert_eq!(ignored("a", "a/./b").as_deref(), Some(message));
    // As BuildKit has it: patterns have no slash in front.
    assert_eq!(ignored("a", "/a/b"), None);
    assert_eq!(ignored("a\n!a/c", "a/b"), None);
    assert_eq!(ignored("a", "."), None);
    assert!(ignored("*", ".").is_some());
}
