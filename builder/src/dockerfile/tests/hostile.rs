//! Input that no one writes by hand: nothing panics, nothing takes long, all spans fit.

use crate::dockerfile::instruction::CopySource;
use crate::dockerfile::{Instruction, InstructionKind, Span, parse, parse_trigger, render};

const SEEDS: [&str; 4] = [
    "# syntax=docker/dockerfile:1\n# check=skip=all\nARG A=1 B\nFROM --platform=$P a AS b\nRUN \
     --mount=type=cache,target=/x <<EOF\n echo ${A:-b}\nEOF\n",
    "from ünï\nENV a=\"b c\" d='e' f=\\ g\nCOPY --chown=a:b --link <<-'E' a \\\n # c\n\n  /x\n\tq\nE\n\
     CMD [\"a\", \"b\"]\n",
    "# escape=`\nFROM a\nRUN a `\n b\nHEALTHCHECK --interval=5s CMD x\nONBUILD COPY <<A /a\nx\nA\n",
    "\u{feff}FROM a\r\nLABEL a b\r\nEXPOSE 80/UDP 1-2\r\nVOLUME [\"/a\"]\r\nSHELL [\"a\"]\r\nADD a b\r\n",
];

/// Pieces that a mangled text gets.
const PIECES: [&str; 24] = [
    "\\\n",
    "<<EOF",
    "<<-\"E\"",
    "[\"",
    "]",
    "--mount=",
    "--",
    "$",
    "${",
    "}",
    "'",
    "\"",
    "#",
    "\0",
    "\r\n",
    "\n",
    "`\n",
    "é",
    "\u{202e}",
    "ONBUILD ",
    "FROM x AS y\n",
    "=",
    "\t",
    "RUN ",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % limit.max(1)
    }

    fn boundary(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

#[test]
fn mangled_texts_give_spans_that_fit() {
    let mut random = Random(42);
    for round in 0..6_000 {
        let mut text = SEEDS[round % SEEDS.len()].to_owned();
        for _ in 0..=random.below(6) {
            let at = random.boundary(&text);
            if random.below(3) == 0 {
                let end = at + random.boundary(&text[at..]).min(12);
                let end = (at..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap();
                text.replace_range(at..end, "");
            } else {
                text.insert_str(at, PIECES[random.below(PIECES.len())]);
            }
        }
        check(&text);
    }
}

#[test]
fn every_prefix_of_a_text_can_be_read() {
    for seed in SEEDS {
        for (at, _) in seed.char_indices() {
            check(&seed[..at]);
        }
    }
}

fn check(text: &str) {
    let _ = parse_trigger(text);
    let fits = |span: Span| assert!(text.get(span.range()).is_some(), "{span:?} in {text:?}");
    match parse(text) {
        Err(errors) => {
            assert!(!errors.errors.is_empty());
            errors.errors.iter().for_each(|error| fits(error.span));
            let _ = errors.render("Dockerfile");
        }
        Ok(dockerfile) => {
            for warning in &dockerfile.warnings {
                fits(warning.span);
                let _ = render(&dockerfile.source, "Dockerfile", &warning.diagnostic());
            }
            for stage in &dockerfile.stages {
                fits(stage.span);
                fits(stage.from.image.span);
                stage.instructions.iter().for_each(|it| check_instruction(it, &fits));
            }
        }
    }
}

fn check_instruction(instruction: &Instruction, fits: &impl Fn(Span)) {
    fits(instruction.span);
    fits(instruction.keyword.span);
    instruction.heredocs.iter().for_each(|heredoc| fits(heredoc.content_span));
    match &instruction.kind {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            for pair in pairs {
                fits(pair.key.span);
                fits(pair.value.span);
            }
        }
        InstructionKind::Copy(copy) => {
            fits(copy.destination.span);
            for source in &copy.sources {
                if let CopySource::Path(path) = source {
                    fits(path.span);
                }
            }
        }
        InstructionKind::Run(run) => run.mounts.iter().for_each(|mount| fits(mount.span)),
        InstructionKind::OnBuild(trigger) => check_instruction(&trigger.instruction, fits),
        _ => {}
    }
}

#[test]
fn large_texts_take_no_longer_than_their_size() {
    let many = format!("FROM a\n{}", "RUN true \\\n # c\n\n && true\n".repeat(20_000));
    assert_eq!(parse(&many).unwrap().stages[0].instructions.len(), 20_000);
    let continued = format!("FROM a\nRUN {}", "a \\\n".repeat(100_000));
    assert!(parse(&continued).is_ok());
    let pairs = format!("FROM a\nENV {}", "a=b \\\n".repeat(50_000));
    assert!(parse(&pairs).is_ok());
    let heredocs = format!("FROM a\nRUN {}\n", "<<A ".repeat(10_000));
    assert!(parse(&heredocs).is_err());
    let errors = format!("FROM a\n{}", "X\n".repeat(100_000));
    assert_eq!(parse(&errors).unwrap_err().errors.len(), 100);
    let json = format!("FROM a\nCMD {}\n", "[".repeat(60_000));
    assert!(parse(&json).is_ok());
}
