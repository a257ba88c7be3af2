//! `boatyard lint`, and what it shares with `boatyard build --check`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use boatyard_builder::context::ignore::Patterns;
use boatyard_builder::dockerfile::lint::Checks;
use boatyard_builder::dockerfile::{
    Dockerfile, SyntaxErrors, parse_bytes_with, parse_trigger, render,
};
use boatyard_builder::lint::{Finding, ImageFacts, Question, look};
use boatyard_builder::plan::{Allow, Contexts, PlanOptions};
use boatyard_oci::{ImageName, Platform};

use crate::images;
use crate::output;
use crate::report::{self, Context as _, FAILED, Failure, Result};
use crate::world::World;

mod json;
mod sarif;

pub use json::Location;

/// The build argument that takes the place of `# check=`.
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Say what a Dockerfile allows and probably does not mean.
///
/// Nothing is built and nothing is fetched: of base images, what is on this machine counts. The
/// exit code is 1 where anything was found.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The build context, or a Dockerfile in it
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// The Dockerfile [default: PATH/Dockerfile]; `-` for stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Look only at this stage and those that it needs [default: all]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set a build argument
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    build_args: Vec<String>,
    /// The platform that the image is for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// text, json (as `docker build --call=check,format=json`) or sarif (2.1.0)
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// How findings are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs, in BuildKit's form.
    Json,
    /// For code hosts and editors.
    Sarif,
}

/// What is looked at.
pub struct Subject<'a> {
    /// The Dockerfile.
    pub dockerfile: &'a Dockerfile,
    /// What messages call it.
    pub file_name: &'a str,
    /// Target, arguments, platforms.
    pub options: &'a PlanOptions,
    /// What the image is for: each finding is told once.
    pub platforms: &'a [Platform],
    /// The build context, and what is left out of it.
    pub context: Option<(&'a Path, &'a Patterns)>,
}

/// Looks at a Dockerfile.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let mut build_args = BTreeMap::new();
    for text in &args.build_args {
        let wrong = || Failure::usage(format!("--build-arg {text}: write NAME=VALUE"));
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        build_args.insert(name.to_owned(), value.to_owned());
    }
    let checks = checks(&build_args)?;
    let (bytes, path, context) = read(args)?;
    let file_name =
        path.as_ref().map_or_else(|| "Dockerfile".to_owned(), |path| path.display().to_string());
    let dockerfile = match parse_bytes_with(&bytes, checks) {
        Ok(dockerfile) => dockerfile,
        Err(errors) => return unreadable(&errors, &file_name, args.format),
    };
    let context = boatyard_builder::context::directory::Directory::open(&context, path.as_deref())
        .context("cannot use the build context")?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let options = PlanOptions {
        target: args.target.clone(),
        build_args,
        contexts: Contexts::default(),
        platform: platform.clone(),
        build_platform: Platform::host(),
        allow: Allow::default(),
    };
    let subject = Subject {
        dockerfile: &dockerfile,
        file_name: &file_name,
        options: &options,
        platforms: &[platform],
        context: Some((context.path(), context.patterns())),
    };
    check(&subject, world, args.format)
}

/// Returns what the build argument says in place of `# check=`.
pub fn checks(build_args: &BTreeMap<String, String>) -> Result<Option<Checks>> {
    let Some(text) = build_args.get(CHECK_ARGUMENT) else { return Ok(None) };
    let parsed = Checks::parse(text).map_err(|error| {
        Failure::usage(format!("cannot use --build-arg {CHECK_ARGUMENT}={text}")).because(error)
    });
    parsed.map(Some)
}

/// Looks at a Dockerfile, tells what is found, and returns the exit code.
pub fn check(subject: &Subject<'_>, world: &World, format: Format) -> Result<ExitCode> {
    let root = match world.root_path().join("version").exists() {
        true => Some(world.open_root()?),
        false => None,
    };
    let images = |name: &ImageName, platform: &Platform| {
        let root = root.as_ref()?;
        let found = images::find(root, &name.to_string()).ok()?;
        let image = images::open(root, found.target(), Some(platform)).ok()?;
        let config = image.config.value();
        Some(ImageFacts {
            env: config.config.env.clone(),
            has_shell: !config.config.shell.is_empty(),
            platform: (!config.os.is_empty()).then(|| config.platform()),
            triggers: config.config.on_build.iter().flat_map(|text| parse_trigger(text)).collect(),
        })
    };
    let source = &subject.dockerfile.source;
    let (mut found, mut unknown) = (Vec::<Finding>::new(), BTreeSet::new());
    for platform in subject.platforms {
        let options = PlanOptions { platform: platform.clone(), ..subject.options.clone() };
        let question = Question {
            dockerfile: subject.dockerfile,
            options: &options,
            all_stages: options.target.is_none(),
            context: subject.context,
            images: &images,
        };
        let looked = look(&question)
            .map_err(|problem| Failure::verbatim(render(source, subject.file_name, &problem)))?;
        unknown.extend(looked.unknown);
        for finding in looked.found {
            if !found.iter().any(|other| other.warning == finding.warning) {
                found.push(finding);
            }
        }
    }
    for name in unknown {
        report::note(&format!(
            "note: {} is not on this machine: what depends on its variables was not checked",
            name.familiar()
        ));
    }
    let found: Vec<Finding> = found.into_iter().filter(|finding| finding.is_sure).collect();
    match format {
        Format::Text => text(subject, &found)?,
        Format::Json => output::json(&json::report(source, subject.file_name, &found, None))?,
        Format::Sarif => output::json(&sarif::report(source, subject.file_name, &found, None))?,
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn text(subject: &Subject<'_>, found: &[Finding]) -> Result<()> {
    for finding in found {
        let diagnostic = finding.diagnostic();
        output::line(&render(&subject.dockerfile.source, subject.file_name, &diagnostic))?;
    }
    output::line(&match found.len() {
        0 => "Check complete, no warnings found.".to_owned(),
        1 => "Check complete, 1 warning has been found!".to_owned(),
        count => format!("Check complete, {count} warnings have been found!"),
    })
}

/// Tells why a Dockerfile cannot be read.
fn unreadable(errors: &SyntaxErrors, file_name: &str, format: Format) -> Result<ExitCode> {
    match format {
        Format::Text => return Err(Failure::verbatim(errors.render(file_name))),
        Format::Json => {
            output::json(&json::report(&errors.source, file_name, &[], Some(errors)))?;
        }
        Format::Sarif => {
            output::json(&sarif::report(&errors.source, file_name, &[], Some(errors)))?;
        }
    }
    Ok(ExitCode::from(FAILED))
}

/// Returns the Dockerfile's bytes, its path where it has one, and the context.
fn read(args: &Args) -> Result<(Vec<u8>, Option<PathBuf>, PathBuf)> {
    if args.file.as_deref() == Some(Path::new("-")) {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read stdin")?;
        return Ok((bytes, None, args.path.clone()));
    }
    let is_file = args.path.is_file();
    let (file, context) = match &args.file {
        Some(file) => (file.clone(), args.path.clone()),
        None if is_file => {
            let parent = args.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            (args.path.clone(), parent.unwrap_or(Path::new(".")).to_path_buf())
        }
        None => {
            let names = ["Dockerfile", "dockerfile"].map(|name| args.path.join(name));
            let found = names.iter().find(|path| path.exists()).unwrap_or(&names[0]);
            (found.clone(), args.path.clone())
        }
    };
    let bytes = fs_err::read(&file).map_err(|error| {
        Failure::new("cannot read the Dockerfile").because(error).hint("-f names another file")
    })?;
    // What was found in the current directory is shown without a `./`.
    let shown = file.strip_prefix(".").map_or_else(|_| file.clone(), Path::to_path_buf);
    Ok((bytes, Some(shown), context))
}
