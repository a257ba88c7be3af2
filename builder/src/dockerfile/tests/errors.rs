//! Every syntax error, exactly as it is printed.

use crate::dockerfile::{parse, parse_bytes, parse_trigger};

const BLOCKS: &str = include_str!("errors.txt");

#[test]
fn errors_are_printed_exactly_so() {
    let mut count = 0;
    for block in BLOCKS.split("====\n").filter(|block| !block.is_empty()) {
        let (source, expected) = block.split_once("----\n").unwrap();
        let printed = match parse(source) {
            Ok(_) => panic!("this has no error:\n{source}"),
            Err(errors) => errors.render("Dockerfile"),
        };
        assert_eq!(printed, expected, "of\n{source}");
        count += 1;
    }
    assert!(count > 40, "{count}");
}

#[test]
fn bytes_that_are_no_text_are_an_error_with_a_line() {
    let errors = parse_bytes(b"FROM a\nRUN \xff\xfe\n").unwrap_err();
    let printed = errors.render("Dockerfile");
    assert!(printed.starts_with("error: the Dockerfile is not UTF-8 text\n  --> Dockerfile:2\n"));
    assert!(parse_bytes(b"FROM a\n").is_ok());
}

#[test]
fn a_line_may_hold_65535_bytes() {
    let longest = format!("FROM a\nRUN {}\n", "x".repeat(65_531));
    assert!(parse(&longest).is_ok());
    let longer = format!("FROM a\nRUN {}\nRUNN\n", "x".repeat(65_532));
    let errors = parse(&longer).unwrap_err().errors;
    let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(messages, ["the line is longer than 65535 bytes", "unknown instruction `RUNN`"]);
}

#[test]
fn nul_bytes_are_errors_only_in_instructions() {
    assert!(parse("FROM a\nRUN a\0b\n").is_err());
    assert!(parse("FROM a\n# \0\nCOPY <<A /a\n\0\nA\n").is_ok());
}

#[test]
fn triggers_are_single_instructions() {
    let message = |text: &str| parse_trigger(text).unwrap_err().to_string();
    assert_eq!(message("FROM x"), "line 1: `ONBUILD` cannot trigger `FROM`");
    assert_eq!(message("ONBUILD RUN x"), "line 1: `ONBUILD` cannot trigger `ONBUILD`");
    assert_eq!(message("RUN a\nRUN b"), "line 2: a trigger is one instruction, not several");
    assert_eq!(message(""), "line 1: the Dockerfile holds no instruction");
}
