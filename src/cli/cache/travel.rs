//! `boatyard cache export`, `import` and `explain`: caches of many machines, without a build.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boatyard_builder::cache::shared::solved::of_machine;
use boatyard_builder::cache::shared::{Depot, Imports, Ledger};
use boatyard_builder::progress::{Progress, StepEnd, StepId, Stream};
use boatyard_builder::solve::Explanation;
use boatyard_content::Root;
use clap::{Args as _, FromArgMatches as _};
use jiff::Timestamp;

use crate::cli::{build, runtime};
use crate::output;
use crate::report::{Context as _, Failure, Result, warn};
use crate::shared_cache::Exchange;
use crate::shared_cache::options::{read_from, read_to};
use crate::world::World;

/// Add all that this machine's builds keep to a shared cache.
///
/// A build does so by itself with --cache or --cache-to, for its own steps.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The cache: REGISTRY/NAME:TAG, or type=registry|local with ref= or dest=, as --cache-to has it
    cache: String,
}

/// Fetch a shared cache, with all its layers, into what this machine's builds keep.
///
/// A build with --cache or --cache-from needs none of it: it fetches what it uses. After this, builds
/// find it without a network.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The cache: REGISTRY/NAME:TAG, or type=registry|local with ref= or src=, as --cache-from has it
    cache: String,
}

/// Say which steps of a build a shared cache has, and why it does not have the others.
///
/// Nothing runs, and what this machine's builds keep is not looked at: this is what a machine would
/// find that has built nothing yet. Steps above one that is not found are not known before that ran.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The cache: REGISTRY/NAME:TAG, or type=registry|local with ref= or src=, as --cache-from has it
    cache: String,
    /// The build context
    #[arg(default_value = ".")]
    context: PathBuf,
    /// The Dockerfile [default: Dockerfile in the context]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set a build argument, as the build does
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// The platform of the build [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// Exports.
pub fn export(args: &ExportArgs, world: &World, root: &Arc<Root>) -> Result<()> {
    let to = read_to(&args.cache)?;
    let lease = root.lease().context("cannot begin a lease")?;
    let runtime = runtime()?;
    let exchange = Exchange::new(world, runtime.handle(), root, &lease);
    let layers = world.open_layers(root, &lease)?;
    let mut added = |_: &Ledger, _: &dyn Depot| {
        let told = of_machine(root, &lease, &layers, threads(), Timestamp::now());
        told.context("cannot read the build cache")
    };
    let exported = exchange.export(&to, &Imports::default(), &[], &mut added)?;
    let (steps, bytes) = (exported.records, output::size(exported.bytes));
    output::line(&format!("{}: {steps} steps, {bytes} sent", to.place))
}

/// Imports.
pub fn import(args: &ImportArgs, world: &World, root: &Arc<Root>) -> Result<()> {
    let place = read_from(&args.cache)?;
    let lease = root.lease().context("cannot begin a lease")?;
    let runtime = runtime()?;
    let exchange = Exchange::new(world, runtime.handle(), root, &lease);
    let source = exchange.import(&place)?;
    let source = source.ok_or_else(|| Failure::new(format!("there is no cache {place}")))?;
    let steps = source.ledger.records.len();
    let layers = world.open_layers(root, &lease)?;
    let brought = Imports::new(vec![source]).bring_all(root, layers.tables(), threads());
    let bytes = brought.context(format!("cannot import the cache {place}"))?;
    output::line(&format!("{place}: {steps} steps, {}", output::size(bytes)))
}

/// Explains.
pub fn explain(args: &ExplainArgs, world: &World) -> Result<()> {
    let place = read_from(&args.cache)?;
    let build = build_args(args)?;
    let watched = Watched::default();
    let explanations = Mutex::new(Vec::new());
    let explain = |why: Explanation| lock(&explanations).push(why);
    build::dry(world, &build, &place, &watched, &explain)?;
    let explanations = lock(&explanations);
    let mut found = 0;
    for name in lock(&watched.steps).values().filter_map(|step| step.found()) {
        found += 1;
        output::line(&format!("found      {name}"))?;
    }
    for why in explanations.iter() {
        let told = why.to_string().replacen(" ran: ", ": ", 1);
        output::line(&format!("not found  {}", told.replace('\n', "\n         ")))?;
    }
    let missed = explanations.len();
    output::line(&match missed {
        0 => format!("All {found} steps are in {place}"),
        _ => format!(
            "{found} steps are in {place}, {missed} are not, and decide what lies above them"
        ),
    })
}

/// Returns the build that is asked about.
fn build_args(args: &ExplainArgs) -> Result<build::Args> {
    let mut words: Vec<OsString> = vec!["build".into()];
    let mut option = |name: &str, value: Option<OsString>| {
        words.extend(value.into_iter().flat_map(|value| [name.into(), value]));
    };
    option("--file", args.file.clone().map(Into::into));
    option("--target", args.target.clone().map(Into::into));
    option("--platform", args.platform.clone().map(Into::into));
    for pair in &args.build_args {
        option("--build-arg", Some(pair.into()));
    }
    words.extend(["--".into(), args.context.clone().into()]);
    let command = build::Args::augment_args(clap::Command::new("build"));
    let failed = "cannot read the options of the build";
    let matches = command.try_get_matches_from(words).context(failed)?;
    build::Args::from_arg_matches(&matches).context(failed)
}

/// What a build told of its steps.
#[derive(Default)]
struct Watched {
    steps: Mutex<BTreeMap<StepId, Seen>>,
}

struct Seen {
    name: String,
    end: Option<StepEnd>,
}

impl Seen {
    /// Returns the step's name, if it was found and is one of the Dockerfile that makes a layer.
    fn found(&self) -> Option<&str> {
        let is_step = self.name.starts_with('[') && !self.name.contains("] FROM ");
        (is_step && self.end == Some(StepEnd::Cached)).then_some(self.name.as_str())
    }
}

impl Progress for Watched {
    fn begin(&self, step: StepId, name: &str) {
        lock(&self.steps).insert(step, Seen { name: name.to_owned(), end: None });
    }
    fn output(&self, _step: StepId, _stream: Stream, _bytes: &[u8]) {}
    fn status(&self, _step: StepId, _text: &str) {}
    fn end(&self, step: StepId, end: &StepEnd, _took: Duration) {
        if let Some(seen) = lock(&self.steps).get_mut(&step) {
            seen.end = Some(end.clone());
        }
    }
    fn warning(&self, text: &str) {
        warn(text.trim_start_matches("warning: "));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
