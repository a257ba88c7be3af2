//! What is read from what is written, row by row of the reference.

use crate::dockerfile::directive::detect_syntax;
use crate::dockerfile::instruction::{
    CommandLine, CopySource, Healthcheck, Network, RunCommand, Security,
};
use crate::dockerfile::{Dockerfile, InstructionKind, parse, parse_trigger};

/// Reads the instructions of one stage; the text follows `FROM a`.
fn read(text: &str) -> Vec<InstructionKind> {
    let text = format!("FROM a\n{text}");
    let mut dockerfile = parsed(&text);
    dockerfile.stages.remove(0).instructions.into_iter().map(|it| it.kind).collect()
}

fn parsed(text: &str) -> Dockerfile {
    parse(text).unwrap_or_else(|errors| panic!("{}", errors.render("Dockerfile")))
}

fn one(text: &str) -> InstructionKind {
    let mut all = read(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

/// Returns the shell text of a RUN.
fn run(text: &str) -> String {
    match one(text) {
        InstructionKind::Run(run) => match run.command {
            RunCommand::Shell(text) => text,
            other => format!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn continuations_and_comments() {
    let rows = [
        ("RUN a \\\n  b", "a   b"),
        ("RUN a \\  \nb", "a b"),
        ("RUN a \\\n# c\n  # d\nb", "a b"),
        ("RUN a \\\n\n \nb", "a b"),
        ("RUN a # b", "a # b"),
        ("  RUN   a  b  ", "a  b"),
        ("run\ta", "a"),
        ("RUN a \\", "a"),
        ("RUN a \\\\", "a \\\\"),
        ("RUN \\\n  a", "a"),
        ("RUN a\\\r\nb\r\n", "ab"),
        ("\\\nRUN a", "a"),
        ("RUN a\\\n\\\nb", "ab"),
        ("RUN -- --a", "--a"),
        ("RUN --network=none -- --a b", "--a b"),
        ("RUN", ""),
    ];
    for (text, expected) in rows {
        assert_eq!(run(text), expected, "{text:?}");
    }
    let dockerfile = parsed("# escape=`\nFROM a\nRUN a `\n  \\ b\\\nRUN c\n");
    let texts: Vec<_> = dockerfile.stages[0].instructions.iter().map(|it| &*it.text).collect();
    assert_eq!(texts, ["RUN a   \\ b\\", "RUN c"]);
}

#[test]
fn directives() {
    let read = |text: &str| parsed(&format!("{text}FROM a\n")).directives;
    let syntax = |text: &str| read(text).syntax.map(|it| it.value);
    assert_eq!(syntax("# syntax=a/b:1 x\n").as_deref(), Some("a/b:1"));
    assert_eq!(syntax("#SYNTAX = a\n").as_deref(), Some("a"));
    assert_eq!(syntax("\u{feff}# syntax=a\r\n").as_deref(), Some("a"));
    assert_eq!(syntax("#!/usr/bin/x\n# syntax=a\n").as_deref(), Some("a"));
    for ended in ["# c\n# syntax=a\n", "\n# syntax=a\n", "# foo=b\n# syntax=a\n"] {
        assert_eq!(syntax(ended), None, "{ended}");
    }
    assert_eq!(read("# escape=`\n# check=skip=all\n").escape, '`');
    assert_eq!(read("# check=skip=all\n").check.unwrap().value, "skip=all");
    assert_eq!(detect_syntax("// syntax=a\nx").as_deref(), Some("a"));
    assert_eq!(detect_syntax("{\"syntax\": \"a\"}").as_deref(), Some("a"));
    assert_eq!(detect_syntax("FROM a\n# syntax=a"), None);
}

#[test]
fn json_and_shell_forms() {
    let command = |text: &str| match one(&format!("CMD {text}")) {
        InstructionKind::Cmd(CommandLine::Exec(words)) => format!("{words:?}"),
        InstructionKind::Cmd(CommandLine::Shell(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(command("[\"a\", \"b c\"]"), "[\"a\", \"b c\"]");
    assert_eq!(command("[ ]"), "[]");
    assert_eq!(command("[\"\\u00e9\", \\\n \"b\"]"), "[\"é\", \"b\"]");
    for shell in ["['a']", "[\"a\"] b", "[\"c:\\win\"]", "[a", "a  b"] {
        assert_eq!(command(shell), shell);
    }
    assert!(
        matches!(one("ENTRYPOINT []"), InstructionKind::Entrypoint(CommandLine::Exec(w)) if w.is_empty())
    );
    assert!(matches!(one("SHELL [\"a\"]"), InstructionKind::Shell(words) if words == ["a"]));
}

#[test]
fn heredocs_of_run() {
    let rows = [
        ("RUN <<EOF\na\nb\nEOF\n", "a\nb\n"),
        ("RUN <<-EOF\n\t\ta\n\tEOF\n", "a\n"),
        ("RUN <<-E\n\tEOF \n\tE\n", "EOF \n"),
        ("RUN <<\"A B\"\nx\nA B", "x\n"),
        ("RUN << EOF\nx\nEOF", "x\n"),
        ("RUN 3<<EOF\nx\nEOF", "x\n"),
        ("RUN <<EOF bash\nx\nEOF\n", "<<EOF bash\nx\nEOF"),
        ("RUN cat <<A >f && cat <<B\n1\nA\n2\nB", "cat <<A >f && cat <<B\n1\nA\n2\nB"),
        ("RUN <<EOF\n# no comment\n\\\nEOF", "# no comment\n\\\n"),
        ("RUN <<EOF\r\nx\r\nEOF\r\n", "x\r\n"),
        ("RUN echo $((1<<2))", "echo $((1<<2))"),
        ("RUN echo '<<EOF'", "echo '<<EOF'"),
        ("RUN echo \\<<EOF", "echo \\<<EOF"),
        ("RUN cat <<<EOF", "cat <<<EOF"),
        ("RUN echo it's <<EOF", "echo it's <<EOF"),
        ("RUN --network=none <<EOF\nx\nEOF", "x\n"),
        ("RUN <<EOF\n#!/bin/sh\nEOF", "Script { name: \"EOF\", content: \"#!/bin/sh\\n\" }"),
        ("RUN [\"cat\", \"<<EOF\"]", "Exec([\"cat\", \"<<EOF\"])"),
    ];
    for (text, expected) in rows {
        assert_eq!(run(text), expected, "{text:?}");
    }
}

#[test]
fn heredocs_of_copy() {
    let InstructionKind::Copy(copy) = one("COPY <<a x <<-'b' /d/\n$v\na\n\t\"q\"\n\tb\n") else {
        panic!()
    };
    assert_eq!(copy.destination.value, "/d/");
    let described = copy.sources.iter().map(|source| match source {
        CopySource::Path(path) => path.value.clone(),
        CopySource::Heredoc(it) => format!("{} {} {:?}", it.name, it.expand, it.body()),
    });
    let described: Vec<_> = described.collect();
    assert_eq!(described, ["a true \"$v\\n\"", "x", "b false \"\\\"q\\\"\\n\""]);
}

#[test]
fn flags_are_words_with_quotes() {
    let InstructionKind::Copy(copy) =
        one("COPY --from=x --chown='a b' --chmod=u\\ x --link --parents=FALSE --exclude=a \
         --exclude=\"b\" s d")
    else {
        panic!()
    };
    assert_eq!(copy.from.unwrap().value, "x");
    assert_eq!(copy.chown.unwrap().value, "a b");
    assert_eq!(copy.chmod.unwrap().value, "u x");
    assert!(copy.link.unwrap().value);
    assert!(!copy.parents.unwrap().value);
    assert_eq!(copy.exclude.iter().map(|it| &*it.value).collect::<Vec<_>>(), ["a", "b"]);
    let InstructionKind::Add(add) =
        one("ADD --keep-git-dir=true --checksum=sha256:a --unpack=false [\"a b\", \"c\"]")
    else {
        panic!()
    };
    assert!(add.keep_git_dir.unwrap().value && !add.unpack.unwrap().value);
    assert_eq!(add.checksum.unwrap().value, "sha256:a");
    assert_eq!(add.destination.value, "c");
    let InstructionKind::Run(run) = one(
        "RUN --mount=target=/a --mount=type=$t --network=host --security=insecure --device=d,required x",
    ) else {
        panic!()
    };
    assert_eq!(run.mounts.len(), 2);
    assert_eq!(run.network.unwrap().value, Network::Host);
    assert_eq!(run.security.unwrap().value, Security::Insecure);
    assert!(run.devices[0].value.required);
}

#[test]
fn pairs_keep_their_quotes() {
    let pairs = |text: &str| match one(text) {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs
            .iter()
            .map(|it| format!("{}|{}|{}", it.key.value, it.value.value, it.legacy))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        pairs("ENV a=b c=\"d e\" f='g h' i=j\\ k"),
        ["a|b|false", "c|\"d e\"|false", "f|'g h'|false", "i|j\\ k|false",]
    );
    assert_eq!(pairs("ENV ONE TWO= THREE=x"), ["ONE|TWO= THREE=x|true"]);
    assert_eq!(pairs("ENV a="), ["a||false"]);
    assert_eq!(pairs("ENV a=b \\\n  c=d"), ["a|b|false", "c|d|false"]);
    assert_eq!(pairs("LABEL \"a b\"=c $k=$v"), ["\"a b\"|c|false", "$k|$v|false"]);
    let InstructionKind::Arg(items) = one("# b what b is\nARG a b=1 c=\"\"") else { panic!() };
    let items = items.iter().map(|it| {
        (&*it.name.value, it.default.as_ref().map(|it| &*it.value), it.description.as_deref())
    });
    let items: Vec<_> = items.collect();
    let expected =
        [("a", None, None), ("b", Some("1"), Some("what b is")), ("c", Some("\"\""), None)];
    assert_eq!(items, expected);
}

#[test]
fn stages_and_global_arguments() {
    let text = "ARG V=1\nARG A B\nFROM --platform=$P a:$V as Base\nRUN x\n\nFROM base\nCMD y\n";
    let dockerfile = parsed(text);
    assert_eq!(dockerfile.global_args.len(), 2);
    assert_eq!(dockerfile.stages.len(), 2);
    let base = &dockerfile.stages[0];
    assert_eq!(base.name.as_ref().unwrap().value, "base");
    assert_eq!(dockerfile.source.slice(base.name.as_ref().unwrap().span), Some("Base"));
    assert_eq!(base.from.image.value, "a:$V");
    assert_eq!(base.from.platform.as_ref().unwrap().value, "$P");
    assert_eq!(base.text, "FROM --platform=$P a:$V as Base");
    assert_eq!(dockerfile.source.slice(base.instructions[0].span), Some("RUN x"));
}

#[test]
fn other_instructions() {
    let values = |text: &str| match one(text) {
        InstructionKind::Expose(list) | InstructionKind::Volume(list) => {
            list.into_iter().map(|it| it.value).collect::<Vec<_>>()
        }
        InstructionKind::Workdir(it)
        | InstructionKind::User(it)
        | InstructionKind::StopSignal(it)
        | InstructionKind::Maintainer(it) => vec![it.value],
        other => panic!("{other:?}"),
    };
    assert_eq!(values("EXPOSE 80 443/tcp  22"), ["22", "443/tcp", "80"]);
    assert_eq!(values("VOLUME a b"), ["a", "b"]);
    assert_eq!(values("VOLUME [\"a b\"]"), ["a b"]);
    assert_eq!(values("WORKDIR /a b"), ["/a b"]);
    assert_eq!(values("USER a:b"), ["a:b"]);
    assert_eq!(values("STOPSIGNAL $s"), ["$s"]);
    assert_eq!(values("MAINTAINER A <a@b>"), ["A <a@b>"]);
    assert_eq!(one("HEALTHCHECK NONE"), InstructionKind::Healthcheck(Healthcheck::None));
    let check = one("HEALTHCHECK --interval=1m --start-interval=500ms --retries=3 cmd [\"a\"]");
    let expected = Healthcheck::Check {
        command: CommandLine::Exec(vec!["a".into()]),
        interval: 60_000_000_000,
        timeout: 0,
        start_period: 0,
        start_interval: 500_000_000,
        retries: 3,
    };
    assert_eq!(check, InstructionKind::Healthcheck(expected));
}

#[test]
fn triggers_keep_their_text_and_can_be_read_again() {
    let InstructionKind::OnBuild(trigger) = one("onbuild  COPY --link <<A b \\\n  /c\nx\nA\n")
    else {
        panic!()
    };
    assert_eq!(trigger.text, "COPY --link <<A b   /c\nx\nA");
    let again = parse_trigger(&trigger.text).unwrap();
    assert_eq!(again.kind.name(), "COPY");
    assert_eq!(again.heredocs[0].content, "x\n");
    assert_eq!(again.text, trigger.instruction.text);
}
