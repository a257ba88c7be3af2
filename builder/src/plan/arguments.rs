//! Arguments: those before the first FROM, those of the platform, those from the command line.

use std::collections::BTreeMap;

use boatyard_oci::Platform;

use super::{PlanOptions, error};
use crate::dockerfile::expansion::Expander;
use crate::dockerfile::{Diagnostic, Dockerfile};

/// The arguments that RUN sees without an ARG, and that are part of no history and no cache key.
pub const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The arguments of a build.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// What an ARG without a default gets in a stage: by name, in no order.
    globals: BTreeMap<String, String>,
    /// `--build-arg`.
    given: BTreeMap<String, String>,
}

impl Arguments {
    /// Computes the global arguments: those of the platform, then each ARG before the first FROM,
    /// whose default may use the ones before it and is replaced by what was given.
    pub(crate) fn new(
        dockerfile: &Dockerfile,
        options: &PlanOptions,
        target: usize,
    ) -> Result<Arguments, Diagnostic> {
        let given = options.build_args.clone();
        let mut globals = platform_arguments(options);
        let target_name = dockerfile.stages[target].name.as_ref();
        let target_name = target_name.map_or("default", |name| name.value.as_str());
        globals.insert("TARGETSTAGE".to_owned(), target_name.to_owned());
        for (name, value) in &mut globals {
            if let Some(own) = given.get(name) {
                value.clone_from(own);
            }
        }
        let expander = Expander::new(dockerfile.directives.escape);
        for item in dockerfile.global_args.iter().flat_map(|arg| &arg.items) {
            let name = &item.name.value;
            let value = match (given.get(name), &item.default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(
                    expander
                        .expand(&default.value, &globals)
                        .map_err(|problem| error(problem.to_string(), default.span))?
                        .text,
                ),
                (None, None) => None,
            };
            match value {
                Some(value) => drop(globals.insert(name.clone(), value)),
                None => drop(globals.entry(name.clone()).or_default()),
            }
        }
        Ok(Arguments { globals, given })
    }

    /// Returns the arguments that FROM can use.
    pub fn globals(&self) -> BTreeMap<String, String> {
        self.globals.clone()
    }

    /// Returns the names of the global arguments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.globals.keys().map(String::as_str)
    }

    /// Returns what was given on the command line.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// Returns the value of a global argument.
    pub fn global(&self, name: &str) -> Option<&str> {
        self.globals.get(name).map(String::as_str)
    }

    /// Returns the proxy settings that were given, for the environment of RUN.
    pub fn proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        PREDEFINED.iter().filter_map(|name| Some((*name, self.given(name)?)))
    }

    /// Returns the arguments that were given.
    pub fn all_given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn platform_arguments(options: &PlanOptions) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &options.build_platform), ("TARGET", &options.platform)] {
        let Platform { os, architecture, variant, os_version, .. } = platform;
        let mut set =
            |name: &str, value: String| arguments.insert(format!("{prefix}{name}"), value);
        set("PLATFORM", platform.to_string());
        set("OS", os.clone());
        set("OSVERSION", os_version.clone().unwrap_or_default());
        set("ARCH", architecture.clone());
        set("VARIANT", variant.clone().unwrap_or_default());
    }
    arguments
}
