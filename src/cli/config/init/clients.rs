//! What each client fetches from, by its own word.

use super::program::{Said, ask, program};
use super::{Answer, apt, cargo};
use crate::world::Environment;

/// Asks all clients.
pub fn all(environment: &Environment) -> Vec<Answer> {
    vec![apt::upstreams(), pip(), npm(), cargo::upstreams(environment), gem(), go()]
}

/// Returns what a client's answer comes to.
pub fn answer(client: &'static str, name: &'static str, said: &Said, urls: Vec<String>) -> Answer {
    let remark = match said {
        Said::Absent => Some("not installed".to_owned()),
        Said::Failed => Some("it does not say where it fetches from".to_owned()),
        Said::Text(_) if urls.is_empty() => Some("it fetches from no server by HTTP".to_owned()),
        Said::Text(_) => None,
    };
    Answer { client, name, urls, remark }
}

/// Returns the addresses among words, each once, in order; what a user is called and his password
/// is stays out of them.
pub fn addresses<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in words {
        let Some((scheme, rest)) = word.split_once("://") else { continue };
        if !matches!(scheme, "http" | "https") {
            continue;
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let address = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
        if !host.is_empty() && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// pip says what is configured, and its help names what is used otherwise.
fn pip() -> Answer {
    let mut absent = true;
    for name in ["pip", "pip3"] {
        let get = |key: &str| ask(program(name, &["config", "get", key]));
        let mut configured = Vec::new();
        for key in ["global.index-url", "install.index-url", "global.extra-index-url"] {
            match get(key) {
                Said::Absent => break,
                Said::Failed => absent = false,
                Said::Text(text) => {
                    absent = false;
                    configured.extend(addresses(text.split_whitespace()));
                }
            }
        }
        if absent {
            continue;
        }
        let said = ask(program(name, &["install", "--help"]));
        if configured.is_empty()
            && let Said::Text(help) = &said
        {
            configured.extend(default_index(help));
        }
        let bases = configured.iter().map(|url| url.trim_end_matches("/simple").to_owned());
        let mut answer = answer("pip", "pypi", &said, bases.collect());
        if !answer.urls.is_empty() {
            answer.remark = Some("the files themselves may lie on another host".to_owned());
        }
        return answer;
    }
    answer("pip", "pypi", &Said::Absent, Vec::new())
}

/// Returns the default in the help's lines about `--index-url`.
fn default_index(help: &str) -> Option<String> {
    let (_, about) = help.split_once("--index-url")?;
    let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, default) = about.split_once("(default ")?;
    addresses(default.split([')', ' ']).take(1)).pop()
}

fn npm() -> Answer {
    let said = ask(program("npm", &["config", "get", "registry"]));
    let urls = match &said {
        Said::Text(text) => addresses(text.split_whitespace()),
        _ => Vec::new(),
    };
    answer("npm", "npm", &said, urls)
}

fn gem() -> Answer {
    let said = ask(program("gem", &["sources", "--list"]));
    let urls = match &said {
        Said::Text(text) => addresses(text.split_whitespace()),
        _ => Vec::new(),
    };
    answer("gem", "gem", &said, urls)
}

fn go() -> Answer {
    let said = ask(program("go", &["env", "GOPROXY"]));
    let urls = match &said {
        // > "a list of module proxy URLs, separated by either comma (,) or pipe (|) characters"
        // > (Go Modules Reference, "Module proxies"); `direct` and `off` are no addresses.
        Said::Text(text) => addresses(text.trim().split([',', '|'])),
        _ => Vec::new(),
    };
    answer("go", "go", &said, urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_among_words() {
        let words = "*** CURRENT https://u:p@gems.example/x/ file:///a http:// direct \
                     https://gems.example/x http://gems.example:81";
        let found = addresses(words.split_whitespace());
        assert_eq!(found, ["https://gems.example/x", "http://gems.example:81"]);
    }

    #[test]
    fn the_help_of_pip_names_its_index() {
        let help = "  -i, --index-url <url>       Base URL of the Python Package Index (default\n    \
                    https://pypi.example/simple). This should point to\n";
        assert_eq!(default_index(help).as_deref(), Some("https://pypi.example/simple"));
        assert_eq!(default_index("nothing of that"), None);
    }
}
