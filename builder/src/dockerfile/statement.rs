//! One statement becomes one instruction: a function per instruction, flags before arguments.

use super::error::{SyntaxError, SyntaxErrorKind as Kind};
use super::flags::FlagKind::{List, Switch, Text};
use super::flags::{Flags, Known};
use super::heredoc::{self, Heredoc};
use super::instruction::{
    Add, CommandLine, Copy, CopySource, From, Healthcheck, Instruction, InstructionKind, Network,
    OnBuild, Run, RunCommand, Security,
};
use super::lexer::{Fragment, Statement};
use super::span::{Span, Spanned};
use super::words::{arg_items, json_strings, key_values};
use super::{device, duration, mount, suggest};

/// All instructions, in the order in which suggestions are preferred.
pub(super) const NAMES: [&str; 18] = [
    "FROM",
    "RUN",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "WORKDIR",
    "CMD",
    "ENTRYPOINT",
    "USER",
    "LABEL",
    "EXPOSE",
    "VOLUME",
    "SHELL",
    "HEALTHCHECK",
    "STOPSIGNAL",
    "ONBUILD",
    "MAINTAINER",
];

const RUN_FLAGS: Known =
    &[("mount", List), ("network", Text), ("security", Text), ("device", List)];
const COPY_FLAGS: Known = &[
    ("from", Text),
    ("chown", Text),
    ("chmod", Text),
    ("link", Switch),
    ("parents", Switch),
    ("exclude", List),
];
const ADD_FLAGS: Known = &[
    ("chown", Text),
    ("chmod", Text),
    ("link", Switch),
    ("keep-git-dir", Switch),
    ("checksum", Text),
    ("unpack", Switch),
    ("exclude", List),
];
const FROM_FLAGS: Known = &[("platform", Text)];
const HEALTHCHECK_FLAGS: Known = &[
    ("interval", Text),
    ("timeout", Text),
    ("start-period", Text),
    ("start-interval", Text),
    ("retries", Text),
];

/// What parsing a statement needs beside it.
pub(super) struct Context {
    pub(super) escape: char,
    pub(super) heredocs: Vec<Heredoc>,
    /// Where the instruction ends in the source, heredocs included.
    pub(super) end: usize,
}

/// A statement that was understood.
pub(super) struct Parsed {
    pub(super) body: Body,
    pub(super) span: Span,
    pub(super) keyword: Spanned<String>,
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) comments: Vec<String>,
}

/// FROM opens a stage; all others stand in one.
pub(super) enum Body {
    From { name: Option<Spanned<String>>, from: From },
    Instruction(InstructionKind),
}

/// The arguments of an instruction, flags taken off.
struct Arguments<'a> {
    name: &'static str,
    rest: Fragment<'a>,
    flags: Flags,
    /// Where to complain about what is missing.
    keyword: Span,
}

/// Parses one statement.
pub(super) fn parse(statement: &Statement, context: Context) -> Result<Parsed, SyntaxError> {
    let whole = statement.fragment();
    if let Some(at) = whole.text().find('\0') {
        return Err(SyntaxError::new(Kind::NulByte, whole.at(at..at + 1).span()));
    }
    let (keyword, _) = whole.split_word();
    let body = body(whole, &context, &statement.comments)?;
    Ok(Parsed {
        body,
        span: Span::new(whole.span().start, context.end),
        keyword: keyword.spanned(),
        text: whole.text().to_owned(),
        heredocs: context.heredocs,
        comments: statement.comments.clone(),
    })
}

/// Tells whether `<<` in a statement announces a heredoc: in RUN, COPY and ADD (also under
/// ONBUILD) that are not in JSON form. A mistyped name counts as what it probably means, so that
/// its bodies are not taken for instructions.
pub(super) fn may_hold_heredocs(statement: &Statement) -> bool {
    let (mut keyword, mut rest) = statement.fragment().split_word();
    if keyword.text().eq_ignore_ascii_case("ONBUILD") {
        (keyword, rest) = rest.split_word();
    }
    let name =
        known_name(keyword.text()).or_else(|| suggest::nearest(keyword.text(), NAMES, false));
    let arguments = rest.words().into_iter().find(|word| !word.text().starts_with("--"));
    let json = arguments.is_some_and(|first| {
        let from = rest.text().find(first.text()).unwrap_or_default();
        let arguments = rest.at(from..rest.text().len());
        matches!(json_strings(arguments), Ok(Some(_)) | Err(_))
    });
    matches!(name, Some("RUN" | "COPY" | "ADD")) && !json
}

/// Returns where the first `<<` of a statement stands, to the end of its word.
pub(super) fn heredoc_span(statement: &Statement) -> Span {
    let whole = statement.fragment();
    let word = whole.words().into_iter().find(|word| word.text().contains("<<"));
    word.unwrap_or(whole).span()
}

fn known_name(keyword: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(keyword))
}

fn body(whole: Fragment<'_>, context: &Context, comments: &[String]) -> Result<Body, SyntaxError> {
    let (keyword, rest) = whole.split_word();
    let Some(name) = known_name(keyword.text()) else {
        let error =
            SyntaxError::new(Kind::UnknownInstruction(keyword.text().to_owned()), keyword.span());
        return Err(match suggest::nearest(keyword.text(), NAMES, false) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        });
    };
    let known = match name {
        "RUN" => RUN_FLAGS,
        "COPY" => COPY_FLAGS,
        "ADD" => ADD_FLAGS,
        "FROM" => FROM_FLAGS,
        "HEALTHCHECK" => HEALTHCHECK_FLAGS,
        _ => &[],
    };
    let (flags, rest) = Flags::take(rest, context.escape, known, name)?;
    let arguments = Arguments { name, rest, flags, keyword: keyword.span() };
    if name == "FROM" {
        return arguments.from();
    }
    let kind = match name {
        "RUN" => InstructionKind::Run(arguments.run(&context.heredocs)?),
        "COPY" => InstructionKind::Copy(arguments.copy(&context.heredocs)?),
        "ADD" => InstructionKind::Add(arguments.add(&context.heredocs)?),
        "ENV" => InstructionKind::Env(key_values(arguments.some()?, context.escape, name)?),
        "LABEL" => InstructionKind::Label(key_values(arguments.some()?, context.escape, name)?),
        "ARG" => InstructionKind::Arg(arg_items(arguments.some()?, context.escape, comments)?),
        "WORKDIR" => InstructionKind::Workdir(arguments.some()?.spanned()),
        "USER" => InstructionKind::User(arguments.some()?.spanned()),
        "STOPSIGNAL" => InstructionKind::StopSignal(arguments.some()?.spanned()),
        "MAINTAINER" => InstructionKind::Maintainer(arguments.some()?.spanned()),
        "CMD" => InstructionKind::Cmd(arguments.command_line()?),
        "ENTRYPOINT" => InstructionKind::Entrypoint(arguments.command_line()?),
        "SHELL" => InstructionKind::Shell(arguments.shell()?),
        "EXPOSE" => InstructionKind::Expose(arguments.expose()?),
        "VOLUME" => InstructionKind::Volume(arguments.volume()?),
        "HEALTHCHECK" => InstructionKind::Healthcheck(arguments.healthcheck()?),
        _ => InstructionKind::OnBuild(arguments.onbuild(context)?),
    };
    Ok(Body::Instruction(kind))
}

/// Pairs `<<NAME` words with the bodies that were read.
fn take_heredoc(word: &str, left: &mut Vec<Heredoc>) -> Option<Heredoc> {
    let announced = heredoc::parse_word(word).ok()??;
    let at = left.iter().position(|heredoc| heredoc.name == announced.name)?;
    Some(left.remove(at))
}

impl<'a> Arguments<'a> {
    fn fail<T>(&self, kind: Kind) -> Result<T, SyntaxError> {
        Err(SyntaxError::new(kind, self.keyword))
    }

    /// Returns the arguments; there must be some.
    fn some(&self) -> Result<Fragment<'a>, SyntaxError> {
        if self.rest.is_empty() {
            return self.fail(Kind::ArgumentMissing(self.name.to_owned()));
        }
        Ok(self.rest)
    }

    fn command_line(&self) -> Result<CommandLine, SyntaxError> {
        let shell = || CommandLine::Shell(self.rest.text().to_owned());
        Ok(json_strings(self.rest)?.map_or_else(shell, CommandLine::Exec))
    }

    /// Words, or the strings of a JSON array, each at its place.
    fn word_list(&self) -> Result<Vec<Spanned<String>>, SyntaxError> {
        let Some(strings) = json_strings(self.rest)? else {
            return Ok(self.rest.words().iter().map(Fragment::spanned).collect());
        };
        // A string of an array is blamed by the whole array: escapes hide where it stands.
        let span = self.rest.span();
        Ok(strings.into_iter().map(|text| Spanned::new(text, span)).collect())
    }

    fn from(&self) -> Result<Body, SyntaxError> {
        let words = self.rest.words();
        let name = match words.as_slice() {
            [_] => None,
            [_, keyword, name] if keyword.text().eq_ignore_ascii_case("as") => {
                Some(stage_name(*name)?)
            }
            _ => {
                let span = if words.is_empty() { self.keyword } else { self.rest.span() };
                let hint = "write `FROM image` or `FROM image AS name`";
                return Err(SyntaxError::new(Kind::FromArguments, span).hint(hint));
            }
        };
        let from = From { image: words[0].spanned(), platform: self.flags.text("platform") };
        Ok(Body::From { name, from })
    }

    fn run(&self, heredocs: &[Heredoc]) -> Result<Run, SyntaxError> {
        let mounts = self.flags.list("mount");
        for value in &mounts {
            mount::check(&value.value).map_err(|error| {
                let hint = error.hint();
                let error = SyntaxError::new(Kind::Mount(error), value.span);
                match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            })?;
        }
        let devices = self.flags.list("device").into_iter().map(|value| {
            let device = device::parse(&value.value);
            let device = device.map_err(|error| SyntaxError::new(error.into(), value.span))?;
            Ok(Spanned::new(device, value.span))
        });
        Ok(Run {
            command: self.run_command(heredocs)?,
            mounts,
            network: self.flags.text("network").map(network).transpose()?,
            security: self.flags.text("security").map(security).transpose()?,
            devices: devices.collect::<Result<_, SyntaxError>>()?,
        })
    }

    fn run_command(&self, heredocs: &[Heredoc]) -> Result<RunCommand, SyntaxError> {
        let Some(first) = heredocs.first() else {
            return Ok(match self.command_line()? {
                CommandLine::Shell(text) => RunCommand::Shell(text),
                CommandLine::Exec(arguments) => RunCommand::Exec(arguments),
            });
        };
        if matches!(heredoc::parse_word(self.rest.text()), Ok(Some(_))) {
            let body = first.body().into_owned();
            return Ok(if body.starts_with("#!") {
                RunCommand::Script { name: first.name.clone(), content: body }
            } else {
                RunCommand::Shell(body)
            });
        }
        Ok(RunCommand::Shell(with_bodies(self.rest.text(), heredocs)))
    }

    fn sources(
        &self,
        heredocs: &[Heredoc],
    ) -> Result<(Vec<CopySource>, Spanned<String>), SyntaxError> {
        let mut words = self.word_list()?;
        let missing =
            || SyntaxError::new(Kind::DestinationMissing(self.name.to_owned()), self.keyword);
        let destination = words.pop().ok_or_else(missing)?;
        if words.is_empty() {
            return Err(missing());
        }
        let mut left = heredocs.to_vec();
        let mut sources = Vec::with_capacity(words.len());
        for word in words {
            sources.push(match take_heredoc(&word.value, &mut left) {
                Some(heredoc) => CopySource::Heredoc(heredoc),
                None => CopySource::Path(word),
            });
        }
        if take_heredoc(&destination.value, &mut left).is_some() {
            let kind = Kind::HeredocDestination(self.name.to_owned());
            return Err(SyntaxError::new(kind, destination.span));
        }
        Ok((sources, destination))
    }

    fn copy(&self, heredocs: &[Heredoc]) -> Result<Copy, SyntaxError> {
        let (sources, destination) = self.sources(heredocs)?;
        let from = self.flags.text("from");
        if let Some(from) = &from
            && mount::has_variable(&from.value)
        {
            return Err(SyntaxError::new(Kind::VariableInFrom, from.span)
                .hint("name a stage with `FROM ... AS name` and copy from that"));
        }
        Ok(Copy {
            sources,
            destination,
            from,
            chown: self.flags.text("chown"),
            chmod: self.flags.text("chmod"),
            link: self.flags.switch("link"),
            parents: self.flags.switch("parents"),
            exclude: self.flags.list("exclude"),
        })
    }

    fn add(&self, heredocs: &[Heredoc]) -> Result<Add, SyntaxError> {
        let (sources, destination) = self.sources(heredocs)?;
        Ok(Add {
            sources,
            destination,
            chown: self.flags.text("chown"),
            chmod: self.flags.text("chmod"),
            link: self.flags.switch("link"),
            keep_git_dir: self.flags.switch("keep-git-dir"),
            checksum: self.flags.text("checksum"),
            unpack: self.flags.switch("unpack"),
            exclude: self.flags.list("exclude"),
        })
    }

    fn shell(&self) -> Result<Vec<String>, SyntaxError> {
        let arguments = self.some()?;
        match json_strings(arguments)? {
            Some(strings) if strings.is_empty() => {
                self.fail(Kind::ArgumentMissing(self.name.to_owned()))
            }
            Some(strings) => Ok(strings),
            None => Err(SyntaxError::new(Kind::ShellNotJson, arguments.span())
                .hint("write `SHELL [\"/bin/bash\", \"-c\"]`")),
        }
    }

    fn expose(&self) -> Result<Vec<Spanned<String>>, SyntaxError> {
        let mut ports: Vec<_> = self.some()?.words().iter().map(Fragment::spanned).collect();
        ports.sort_by(|left, right| left.value.cmp(&right.value));
        Ok(ports)
    }

    fn volume(&self) -> Result<Vec<Spanned<String>>, SyntaxError> {
        self.some()?;
        let mut volumes = self.word_list()?;
        if volumes.is_empty() {
            return self.fail(Kind::ArgumentMissing(self.name.to_owned()));
        }
        for volume in &mut volumes {
            volume.value = volume.value.trim().to_owned();
            if volume.value.is_empty() {
                return Err(SyntaxError::new(Kind::EmptyVolume, volume.span));
            }
        }
        Ok(volumes)
    }

    fn healthcheck(&self) -> Result<Healthcheck, SyntaxError> {
        let (kind, command) = self.some()?.split_word();
        match kind.text().to_ascii_uppercase().as_str() {
            "NONE" if command.is_empty() => Ok(Healthcheck::None),
            "NONE" => Err(SyntaxError::new(Kind::HealthcheckNone, command.span())),
            "CMD" => {
                let of = Arguments { rest: command, flags: Flags::default(), ..*self };
                let line = of.command_line()?;
                let empty = match &line {
                    CommandLine::Shell(text) => text.is_empty(),
                    CommandLine::Exec(arguments) => arguments.is_empty(),
                };
                if empty {
                    return Err(SyntaxError::new(Kind::HealthcheckCommand, kind.span()));
                }
                self.check(line)
            }
            _ => {
                let unknown = Kind::HealthcheckKind(kind.text().to_owned());
                Err(SyntaxError::new(unknown, kind.span())
                    .hint("write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`"))
            }
        }
    }

    fn check(&self, command: CommandLine) -> Result<Healthcheck, SyntaxError> {
        let retries = match self.flags.text("retries") {
            Some(text) if !text.value.is_empty() => {
                // Docker keeps it as a signed number of 32 bits.
                let count = text.value.parse::<i32>().ok().and_then(|n| u32::try_from(n).ok());
                count.ok_or_else(|| SyntaxError::new(Kind::Retries(text.value), text.span))?
            }
            _ => 0,
        };
        Ok(Healthcheck::Check {
            command,
            interval: self.duration("interval")?,
            timeout: self.duration("timeout")?,
            start_period: self.duration("start-period")?,
            start_interval: self.duration("start-interval")?,
            retries,
        })
    }

    fn duration(&self, flag: &'static str) -> Result<u64, SyntaxError> {
        match self.flags.text(flag) {
            Some(text) if !text.value.is_empty() => {
                duration::parse_interval(&text.value).map_err(|error| {
                    SyntaxError::new(Kind::Duration { flag, error }, text.span)
                        .note("durations are written like `30s`, `1m30s` or `500ms`")
                })
            }
            _ => Ok(0),
        }
    }

    fn onbuild(&self, context: &Context) -> Result<OnBuild, SyntaxError> {
        let trigger = self.some()?;
        let (keyword, _) = trigger.split_word();
        let name = keyword.text().to_ascii_uppercase();
        if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            return Err(SyntaxError::new(Kind::Trigger(name), keyword.span()));
        }
        // The child build reads the trigger with the default escape, so that is what is checked.
        let inner = Context { escape: '\\', heredocs: context.heredocs.clone(), end: context.end };
        let Body::Instruction(kind) = body(trigger, &inner, &[])? else {
            return Err(SyntaxError::new(Kind::Trigger(name), keyword.span()));
        };
        let instruction = Instruction {
            kind,
            span: Span::new(trigger.span().start, context.end),
            keyword: keyword.spanned(),
            text: trigger.text().to_owned(),
            heredocs: context.heredocs.clone(),
            checks: None,
        };
        Ok(OnBuild {
            text: with_bodies(trigger.text(), &context.heredocs),
            heredocs: context.heredocs.clone(),
            instruction: Box::new(instruction),
        })
    }
}

/// Puts heredocs back below the line that announces them.
fn with_bodies(line: &str, heredocs: &[Heredoc]) -> String {
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    text
}

/// "The name can't start with a number or contain symbols", but `-`, `_` and `.`.
fn stage_name(word: Fragment<'_>) -> Result<Spanned<String>, SyntaxError> {
    let name = word.text().to_lowercase();
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'));
    if valid {
        return Ok(Spanned::new(name, word.span()));
    }
    Err(SyntaxError::new(Kind::StageName(word.text().to_owned()), word.span())
        .note("a name begins with a letter and holds letters, digits, `-`, `_` and `.`"))
}

fn network(value: Spanned<String>) -> Result<Spanned<Network>, SyntaxError> {
    let mode = match value.value.as_str() {
        "default" => Network::Default,
        "none" => Network::None,
        "host" => Network::Host,
        _ => {
            return Err(SyntaxError::new(Kind::Network(value.value), value.span)
                .hint("use `default`, `none` or `host`"));
        }
    };
    Ok(Spanned::new(mode, value.span))
}

fn security(value: Spanned<String>) -> Result<Spanned<Security>, SyntaxError> {
    let mode = match value.value.as_str() {
        "sandbox" => Security::Sandbox,
        "insecure" => Security::Insecure,
        _ => {
            return Err(SyntaxError::new(Kind::Security(value.value), value.span)
                .hint("use `sandbox` or `insecure`"));
        }
    };
    Ok(Spanned::new(mode, value.span))
}
