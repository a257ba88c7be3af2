//! From text to stages: one statement after the other, each error where it is and then on.

use super::directive::{self, DirectiveZone};
use super::error::{SyntaxError, SyntaxErrorKind, SyntaxErrors};
use super::heredoc::{self, Heredoc};
use super::instruction::{GlobalArg, Instruction, InstructionKind, Stage};
use super::lexer::{Lexer, Statement};
use super::lint::{self, Rule, Warning};
use super::source::Source;
use super::span::Span;
use super::statement::{Body, Context, Parsed};
use super::{Dockerfile, statement};

/// Errors after which the rest of a text is not read: it is no Dockerfile.
const ERRORS_MAX: usize = 100;

struct Parser<'a> {
    lexer: Lexer<'a>,
    escape: char,
    errors: Vec<SyntaxError>,
    warnings: Vec<Warning>,
    global_args: Vec<GlobalArg>,
    stages: Vec<Stage>,
    /// Statements that were met, good or bad.
    statements: usize,
    zone: DirectiveZone,
}

/// Reads a whole Dockerfile.
///
/// # Errors
///
/// Returns every error that was found, at least one per bad instruction.
pub fn parse(text: &str) -> Result<Dockerfile, SyntaxErrors> {
    parse_with(text, None)
}

/// Reads a whole Dockerfile; `checks` count in place of its own `# check=`.
///
/// # Errors
///
/// As for [`parse`].
pub fn parse_with(text: &str, checks: Option<lint::Checks>) -> Result<Dockerfile, SyntaxErrors> {
    let mut errors = Vec::new();
    let mut zone = directive::read(text, &mut errors);
    if let Some(checks) = checks {
        zone.checks = checks;
    }
    let mut parser = Parser {
        lexer: Lexer::new(text, zone.directives.escape, zone.end),
        escape: zone.directives.escape,
        errors,
        warnings: Vec::new(),
        global_args: Vec::new(),
        stages: Vec::new(),
        statements: 0,
        zone,
    };
    parser.read_all();
    parser.finish(text)
}

/// Reads a Dockerfile from bytes that should be UTF-8.
///
/// # Errors
///
/// As for [`parse`], and if the bytes are not UTF-8, with the line where that begins.
pub fn parse_bytes(bytes: &[u8]) -> Result<Dockerfile, SyntaxErrors> {
    parse_bytes_with(bytes, None)
}

/// Reads a Dockerfile from bytes that should be UTF-8; `checks` count in place of its own `# check=`.
///
/// # Errors
///
/// As for [`parse_bytes`].
pub fn parse_bytes_with(
    bytes: &[u8],
    checks: Option<lint::Checks>,
) -> Result<Dockerfile, SyntaxErrors> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse_with(text, checks),
        Err(error) => {
            let at = error.valid_up_to();
            let text = String::from_utf8_lossy(bytes).into_owned();
            // The replacement character stands where the bad bytes stood.
            let span = Span::new(at, at + '\u{fffd}'.len_utf8());
            let error = SyntaxError::new(SyntaxErrorKind::NotUtf8, span)
                .hint("save the file as UTF-8; is it a Dockerfile at all?");
            Err(SyntaxErrors { source: Source::new(text), errors: vec![error] })
        }
    }
}

/// Reads an ONBUILD trigger as an image's configuration keeps it: one instruction, its heredocs
/// below it, in the language's default escape.
///
/// # Errors
///
/// If it is not exactly one instruction, or one that may not be triggered.
pub fn parse_trigger(text: &str) -> Result<Instruction, SyntaxErrors> {
    let fail = |error| SyntaxErrors { source: Source::new(text), errors: vec![error] };
    let mut lexer = Lexer::new(text, '\\', 0);
    let statement = lexer
        .statement()
        .map_err(fail)?
        .ok_or_else(|| fail(SyntaxError::new(SyntaxErrorKind::NoInstructions, Span::default())))?;
    let heredocs = read_heredocs(&mut lexer, &statement).map_err(fail)?;
    let end = lexer.offset();
    let context = Context { escape: '\\', heredocs, end: text[..end].trim_end().len() };
    let parsed = statement::parse(&statement, context).map_err(fail)?;
    if let Some(second) = lexer.statement().map_err(fail)? {
        let span = second.fragment().span();
        return Err(fail(SyntaxError::new(SyntaxErrorKind::SeveralTriggers, span)));
    }
    match parsed.body {
        Body::Instruction(kind)
            if !matches!(kind, InstructionKind::OnBuild(_) | InstructionKind::Maintainer(_)) =>
        {
            Ok(Instruction {
                kind,
                span: parsed.span,
                keyword: parsed.keyword,
                text: parsed.text,
                heredocs: parsed.heredocs,
                checks: None,
            })
        }
        _ => {
            let kind = SyntaxErrorKind::Trigger(parsed.keyword.value.to_uppercase());
            Err(fail(SyntaxError::new(kind, parsed.keyword.span)))
        }
    }
}

/// Reads the bodies of the heredocs that a statement announces.
fn read_heredocs(
    lexer: &mut Lexer<'_>,
    statement: &Statement,
) -> Result<Vec<Heredoc>, SyntaxError> {
    if !statement::may_hold_heredocs(statement) {
        return Ok(Vec::new());
    }
    let at = statement.fragment().span();
    let announced =
        heredoc::announced(&statement.text).map_err(|kind| SyntaxError::new(kind, at))?;
    let mut heredocs = Vec::with_capacity(announced.len());
    for mut heredoc in announced {
        let Some(body) = lexer.heredoc_body(&heredoc.name, heredoc.strip_tabs)? else {
            let hint = format!("end it with a line that is `{}` and nothing else", heredoc.name);
            let kind = SyntaxErrorKind::UnterminatedHeredoc(heredoc.name);
            return Err(SyntaxError::new(kind, statement::heredoc_span(statement)).hint(hint));
        };
        heredoc.content = body.value;
        heredoc.content_span = body.span;
        heredocs.push(heredoc);
    }
    Ok(heredocs)
}

impl Parser<'_> {
    fn read_all(&mut self) {
        while self.errors.len() < ERRORS_MAX {
            match self.lexer.statement() {
                Ok(Some(statement)) => {
                    self.statements += 1;
                    if let Err(error) = self.read(&statement) {
                        let whole = statement.fragment().span();
                        self.errors.push(error.within(whole));
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    // The lexer stands behind the bad line and can go on.
                    self.statements += 1;
                    self.errors.push(error);
                }
            }
        }
    }

    fn read(&mut self, statement: &Statement) -> Result<(), SyntaxError> {
        let heredocs = read_heredocs(&mut self.lexer, statement)?;
        let end = match heredocs.last() {
            Some(_) => self.lexer.offset(),
            None => statement.fragment().span().end,
        };
        let context = Context { escape: self.escape, heredocs, end };
        let parsed = statement::parse(statement, context)?;
        let checks = lint::comment_checks(&statement.comments);
        if let Some(span) = statement.empty_line {
            let warning = Warning::new(
                Rule::NoEmptyContinuation,
                span,
                parsed.span,
                "Empty continuation line",
            );
            let in_effect = &self.zone.checks;
            self.warnings.extend(in_effect.allows(Rule::NoEmptyContinuation).then_some(warning));
        }
        self.place(parsed, checks)
    }

    /// Puts an instruction where it belongs: before the stages, or into the last one.
    fn place(&mut self, parsed: Parsed, checks: Option<lint::Checks>) -> Result<(), SyntaxError> {
        let Parsed { body, span, keyword, text, heredocs, comments } = parsed;
        match body {
            Body::From { name, from } => {
                let description = name
                    .as_ref()
                    .and_then(|name| super::words::description(&name.value, &comments));
                self.check_description(
                    "FROM",
                    name.iter().map(|n| &*n.value),
                    &comments,
                    span,
                    checks.as_ref(),
                );
                let instructions = Vec::new();
                self.stages.push(Stage {
                    name,
                    from,
                    instructions,
                    span,
                    keyword,
                    text,
                    description,
                    checks,
                });
            }
            Body::Instruction(kind) => {
                if let InstructionKind::Arg(items) = &kind {
                    let names = items.iter().map(|item| &*item.name.value);
                    self.check_description("ARG", names, &comments, span, checks.as_ref());
                }
                match (self.stages.last_mut(), kind) {
                    (Some(stage), kind) => stage.instructions.push(Instruction {
                        kind,
                        span,
                        keyword,
                        text,
                        heredocs,
                        checks,
                    }),
                    (None, InstructionKind::Arg(items)) => {
                        self.global_args.push(GlobalArg { items, span, keyword, text, checks });
                    }
                    (None, kind) => {
                        // After a bad FROM this would be a second complaint about the same thing.
                        if self.errors.is_empty() {
                            let kind = SyntaxErrorKind::OutsideStage(kind.name().to_owned());
                            return Err(SyntaxError::new(kind, keyword.span)
                                .hint("only `ARG` may stand before `FROM`"));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn check_description<'n>(
        &mut self,
        instruction: &'static str,
        names: impl Iterator<Item = &'n str>,
        comments: &[String],
        span: Span,
        checks: Option<&lint::Checks>,
    ) {
        let in_effect = self.zone.checks.merged(checks);
        let warning = lint::definition_description(instruction, names, comments, span);
        self.warnings.extend(warning.filter(|warning| in_effect.allows(warning.rule)));
    }

    fn finish(mut self, text: &str) -> Result<Dockerfile, SyntaxErrors> {
        let source = Source::new(text);
        let end = Span::new(text.len(), text.len());
        if self.errors.is_empty() && self.statements == 0 {
            self.errors.push(SyntaxError::new(SyntaxErrorKind::NoInstructions, end));
        } else if self.errors.is_empty() && self.stages.is_empty() {
            let error = SyntaxError::new(SyntaxErrorKind::NoStage, end);
            self.errors.push(error.hint("begin with `FROM <image>` or `FROM scratch`"));
        }
        if !self.errors.is_empty() {
            let errors = self.errors;
            return Err(SyntaxErrors { source, errors });
        }
        let mut dockerfile = Dockerfile {
            source,
            directives: self.zone.directives,
            checks: self.zone.checks,
            global_args: self.global_args,
            stages: self.stages,
            warnings: self.warnings,
        };
        let found = lint::check(&dockerfile, &dockerfile.checks);
        dockerfile.warnings.extend(found);
        dockerfile.warnings.sort_by_key(|warning| (warning.span.start, warning.rule));
        Ok(dockerfile)
    }
}
