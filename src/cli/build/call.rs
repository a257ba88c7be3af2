//! `--call` and `--check`: what a Dockerfile offers and what is wrong with it, without a build.

use std::process::ExitCode;

use boatyard_builder::context::location::Location as ContextLocation;
use boatyard_builder::dockerfile::{Dockerfile, render};
use boatyard_builder::lint::outline::{self, Arg, Outline, Target, Wanted};
use boatyard_builder::plan::{Contexts, PlanOptions};
use boatyard_oci::Platform;
use serde::Serialize;

use super::context::Opened;
use super::options::{Args, Options};
use super::{Session, context, mounts};
use crate::cli::lint::{self, Format, Location, Subject};
use crate::isolation;
use crate::output;
use crate::report::{Context as _, Failure, Result};
use crate::sources::Lent;
use crate::world::World;

/// What is asked of a Dockerfile in place of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    method: Method,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
}

impl Call {
    /// Reads `--call=METHOD[,format=FORMAT]` and `--check`; `None` for a build.
    pub fn read(args: &Args) -> Result<Option<Call>> {
        let text = match (&args.call, args.check) {
            (None, false) => return Ok(None),
            (Some(text), _) => text.as_str(),
            (None, true) => "check",
        };
        let mut parts = text.split(',');
        let method = parts.next().unwrap_or_default();
        let method = match method.strip_prefix("frontend.").unwrap_or(method) {
            "build" => return Ok(None),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            _ => {
                return Err(Failure::usage(format!(
                    "--call={text} is not supported: use build, check, outline or targets"
                )));
            }
        };
        let mut format = Format::Text;
        for part in parts {
            format = match (part, method) {
                ("format=text", _) => Format::Text,
                ("format=json", _) => Format::Json,
                ("format=sarif", Method::Check) => Format::Sarif,
                _ => return Err(Failure::usage(format!("--call={text}: `{part}` is unknown"))),
            };
        }
        Ok(Some(Call { method, format }))
    }
}

/// Answers.
pub fn run(world: &World, args: &Args, options: &Options, call: Call) -> Result<ExitCode> {
    let (Opened { dockerfile, file_name, context, .. }, contexts) = open(world, args, options)?;
    let plan = PlanOptions {
        target: args.target.clone(),
        build_args: options.build_args.clone(),
        contexts,
        platform: options.platforms.first().cloned().unwrap_or_else(Platform::host),
        build_platform: Platform::host(),
        allow: options.allow,
    };
    match call.method {
        Method::Check => {
            let subject = Subject {
                dockerfile: &dockerfile,
                file_name: &file_name,
                options: &plan,
                platforms: &options.platforms,
                context: context.as_ref().map(|context| (context.path(), context.patterns())),
            };
            return lint::check(&subject, world, call.format);
        }
        Method::Outline => {
            let found = outline::outline(&dockerfile, &plan).map_err(|problem| {
                Failure::verbatim(render(&dockerfile.source, &file_name, &problem))
            })?;
            match call.format {
                Format::Text => print_outline(&found)?,
                _ => output::json(&OutlineReport::new(&dockerfile, &found))?,
            }
        }
        Method::Targets => {
            let found = outline::targets(&dockerfile);
            match call.format {
                Format::Text => print_targets(&found)?,
                _ => output::json(&TargetsReport::new(&dockerfile, &found))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the Dockerfile, and what has a name beside it. A build's root is needed only for what has to be
/// brought here.
fn open(world: &World, args: &Args, options: &Options) -> Result<(Opened, Contexts)> {
    let location = context::location(args)?;
    if let (ContextLocation::Directory(directory), []) = (&location, &args.build_contexts[..]) {
        let opened = context::open_directory(args, options, directory)?;
        return Ok((opened, Contexts::default()));
    }
    let world = &world.with_rung(isolation::isolate(world.config.build.isolation)?);
    let (root, session) = (world.open_root()?, Session::begin()?);
    let lease = root.lease().context("cannot begin a lease")?;
    let mounts = mounts::of(world, args)?;
    let lent = Lent { secrets: &mounts.secrets, agents: &mounts.agents };
    let opened = super::open_context(world, &session, &root, &lease, args, options, lent)?;
    let (contexts, _) = context::named(args, &root, &lease)?;
    Ok((opened, contexts))
}

fn print_outline(found: &Outline) -> Result<()> {
    if found.name.is_some() || found.description.is_some() {
        output::line(&format!("TARGET:      {}", found.name.as_deref().unwrap_or("(default)")))?;
        if let Some(description) = &found.description {
            output::line(&format!("DESCRIPTION: {}", output::one_line(description)))?;
        }
        output::line("")?;
    }
    if !found.args.is_empty() {
        let row = |arg: &Arg| {
            [arg.name.as_str(), text(&arg.value), text(&arg.description)].map(output::one_line)
        };
        let rows: Vec<_> = found.args.iter().map(row).collect();
        output::table(["BUILD ARG", "VALUE", "DESCRIPTION"], &rows)?;
        output::line("")?;
    }
    for (head, wanted) in [("SECRET", &found.secrets), ("SSH", &found.ssh)] {
        if !wanted.is_empty() {
            let required = |it: &Wanted| if it.required { "true" } else { "" };
            let row = |it: &Wanted| [it.name.as_str(), required(it)].map(output::one_line);
            output::table([head, "REQUIRED"], &wanted.iter().map(row).collect::<Vec<_>>())?;
            output::line("")?;
        }
    }
    if !found.caches.is_empty() {
        let rows: Vec<_> = found.caches.iter().map(|it| [output::one_line(&it.name)]).collect();
        output::table(["CACHE"], &rows)?;
    }
    Ok(())
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn print_targets(found: &[Target]) -> Result<()> {
    let row = |target: &Target| {
        let name = match (&target.name, target.is_default) {
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name.clone(),
            (None, true) => "(default)".to_owned(),
            (None, false) => String::new(),
        };
        [name, output::one_line(text(&target.description))]
    };
    output::table(["TARGET", "DESCRIPTION"], &found.iter().map(row).collect::<Vec<_>>())
}

/// An outline as BuildKit tells it to programs.
#[derive(Serialize)]
struct OutlineReport<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgReport<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<WantedReport<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<WantedReport<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache: Vec<CacheReport<'a>>,
}

#[derive(Serialize)]
struct ArgReport<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    location: Location,
}

#[derive(Serialize)]
struct WantedReport<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct CacheReport<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    location: Location,
}

impl<'a> OutlineReport<'a> {
    fn new(dockerfile: &Dockerfile, found: &'a Outline) -> OutlineReport<'a> {
        let place = |span| Location::of(&dockerfile.source, span);
        let arg = |arg: &'a Arg| ArgReport {
            name: &arg.name,
            description: arg.description.as_deref(),
            value: arg.value.as_deref(),
            location: place(arg.span),
        };
        let wanted = |it: &'a Wanted| WantedReport {
            name: &it.name,
            required: it.required,
            location: place(it.span),
        };
        let cache = |it: &'a Wanted| CacheReport { id: &it.name, location: place(it.span) };
        OutlineReport {
            name: found.name.as_deref(),
            description: found.description.as_deref(),
            args: found.args.iter().map(arg).collect(),
            secrets: found.secrets.iter().map(wanted).collect(),
            ssh: found.ssh.iter().map(wanted).collect(),
            cache: found.caches.iter().map(cache).collect(),
        }
    }
}

/// Stages as BuildKit tells them to programs.
#[derive(Serialize)]
struct TargetsReport<'a> {
    targets: Vec<TargetReport<'a>>,
}

#[derive(Serialize)]
struct TargetReport<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

impl<'a> TargetsReport<'a> {
    fn new(dockerfile: &Dockerfile, found: &'a [Target]) -> TargetsReport<'a> {
        let target = |target: &'a Target| TargetReport {
            name: target.name.as_deref(),
            default: target.is_default,
            description: target.description.as_deref(),
            base: &target.base,
            platform: target.platform.as_deref(),
            location: Location::of(&dockerfile.source, target.span),
        };
        TargetsReport { targets: found.iter().map(target).collect() }
    }
}
