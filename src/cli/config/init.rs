//! `boatyard config init`

mod apt;
mod cargo;
mod clients;
mod program;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::output;
use crate::report::{Context as _, Failure, Result};
use crate::world::Environment;

/// Write a configuration from what the package managers of this machine use.
///
/// It asks apt, pip, npm, cargo, gem and go where they fetch from; no upstream is built in. Clients
/// that are not here, or do not say, are named in a comment. Nothing is fetched.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write it to a file instead of standard output [default: the configuration's usual place]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    write: Option<Option<PathBuf>>,
}

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The client: `apt`.
    client: &'static str,
    /// What its upstreams are called, where their addresses give no name.
    name: &'static str,
    /// Where it fetches from.
    urls: Vec<String>,
    /// Why there is nothing, or something, that people want to know.
    remark: Option<String>,
}

/// Asks, and prints or writes.
pub fn run(args: &Args) -> Result<ExitCode> {
    let environment = Environment::read();
    let text = configuration(&clients::all(&environment));
    let Some(file) = &args.write else {
        output::bytes(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    let usual = || {
        let configs = environment.usual_configs();
        // The system's is the last; a user has one of his own.
        let at = if environment.superuser { configs.len() - 1 } else { 0 };
        configs.into_iter().nth(at)
    };
    let file = file.clone().or_else(usual);
    let file = file.ok_or_else(|| {
        Failure::usage("cannot tell where a configuration is looked for: HOME is not set")
            .hint("name a file: --write=FILE")
    })?;
    write(&file, &text)?;
    output::line(&format!("Wrote {}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn write(file: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let failed = || format!("cannot write {}", file.display());
    if let Some(directory) = file.parent() {
        fs_err::create_dir_all(directory).context(failed())?;
    }
    let created = fs_err::OpenOptions::new().write(true).create_new(true).open(file);
    let mut created = created.map_err(|error| {
        let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let failure = Failure::new(failed()).because(error);
        match is_there {
            true => failure.hint("it stays as it is; print without --write, and merge by hand"),
            false => failure,
        }
    })?;
    created.write_all(text.as_bytes()).context(failed())
}

/// Returns the configuration that fits what clients said.
fn configuration(answers: &[Answer]) -> String {
    let mut text = String::from(
        "# The cache proxy of `boatyard serve`, for what the package managers of this machine use.\n\
         # Made by `boatyard config init`; `boatyard config reference` explains every key.\n\n\
         [proxy]\nlisten = [\"127.0.0.1:3142\"]\n\
         # max_size = \"50GB\"\n\
         # allow_clients = [\"192.168.0.0/16\"]\n",
    );
    let mut names = Vec::new();
    let mut urls = Vec::new();
    for Answer { client, name, urls: theirs, remark } in answers {
        let remark = remark.as_deref().map(output::one_line);
        let title = remark.map_or_else(|| (*client).to_owned(), |said| format!("{client}: {said}"));
        let _ = write!(text, "\n# {title}\n");
        for (at, url) in theirs.iter().enumerate() {
            let url = url.trim_end_matches('/');
            if urls.contains(&url) {
                continue;
            }
            urls.push(url);
            let name = unused(&proposed(client, name, url), &mut names);
            let quoted = toml::Value::String(url.to_owned());
            let gap = if at == 0 { "" } else { "\n" };
            let _ = write!(text, "{gap}[[proxy.upstream]]\nname = \"{name}\"\nurl = {quoted}\n");
            if *client == "apt" {
                text.push_str("ecosystem = \"apt\"\n");
            }
        }
    }
    text
}

/// Returns what an upstream might be called: an archive of apt after its directory.
fn proposed(client: &str, name: &str, url: &str) -> String {
    if client != "apt" {
        return name.to_owned();
    }
    let host_and_path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut parts = host_and_path.split('/');
    let host = parts.next().unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let clean = |text: &str| text.chars().filter(plain).collect::<String>();
    let directory = parts.next_back().map(clean).unwrap_or_default();
    let directory = directory.trim_start_matches('.');
    let host = clean(host.split(':').next().unwrap_or_default());
    match (directory, host.trim_start_matches('.')) {
        ("", "") => name.to_owned(),
        ("", host) => host.to_owned(),
        (directory, _) => directory.to_owned(),
    }
}

fn unused(wanted: &str, names: &mut Vec<String>) -> String {
    let mut name = wanted.to_owned();
    let mut number = 2;
    while names.contains(&name) {
        name = format!("{wanted}-{number}");
        number += 1;
    }
    names.push(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_written_can_be_read() {
        let answer = |client, name, urls: &[&str], remark: Option<&str>| Answer {
            client,
            name,
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            remark: remark.map(str::to_owned),
        };
        let text = configuration(&[
            answer(
                "apt",
                "apt",
                &["http://deb.example/debian/", "http://two.example/debian", "http://deb.example"],
                None,
            ),
            answer("pip", "pypi", &["https://pypi.example/\"x"], None),
            answer("npm", "npm", &["http://deb.example/debian"], Some("two\nlines")),
            answer("go", "go", &[], Some("not installed")),
        ]);
        let config: Config = toml::from_str(&text).unwrap();
        let upstreams = &config.proxy.upstream;
        let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        assert_eq!(names, ["debian", "debian-2", "deb.example", "pypi"]);
        assert_eq!(upstreams[0].url.as_deref(), Some("http://deb.example/debian"));
        assert_eq!(upstreams[0].ecosystem.as_deref(), Some("apt"));
        assert_eq!(upstreams[3].url.as_deref(), Some("https://pypi.example/\"x"));
        assert!(text.contains("\n# npm: two lines\n") && text.contains("\n# go: not installed\n"));
    }
}
