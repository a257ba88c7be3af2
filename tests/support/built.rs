//! What a build told: its steps and how each ended, and the digest that came of it.

use std::fmt;

use serde_json::Value;

use super::process::Ran;

/// A build, as `--progress=json` told it.
pub struct Built {
    steps: Vec<(String, String)>,
    /// The digest of the manifest.
    pub digest: String,
    told: String,
}

impl Built {
    /// Reads what a build told.
    #[track_caller]
    pub fn of(ran: &Ran) -> Built {
        let events: Vec<Value> =
            ran.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let end = |step: &Value| {
            let ends = |event: &&Value| event["event"] == "end" && event["step"] == *step;
            let event = events.iter().find(ends);
            event.map_or("running", |event| event["outcome"].as_str().unwrap()).to_owned()
        };
        let steps = events
            .iter()
            .filter(|event| event["event"] == "begin")
            .map(|event| (event["name"].as_str().unwrap().to_owned(), end(&event["step"])))
            .filter(|(name, _)| name.starts_with('[') && !name.starts_with("[internal]"))
            .collect();
        let digest = ran.stderr.lines().find_map(|line| line.strip_prefix("digest "));
        let digest = digest.unwrap_or_default().to_owned();
        Built { steps, digest, told: ran.stderr.clone() }
    }

    /// Returns the instructions of the steps that ended so: `done`, `cached`, `cancelled`, `failed`.
    /// What begins a stage is left out.
    pub fn that_are(&self, end: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .steps
            .iter()
            .filter(|(_, own)| own == end)
            .filter_map(|(name, _)| name.split_once("] ").map(|(_, text)| text.to_owned()))
            .filter(|text| !text.starts_with("FROM "))
            .collect();
        names.sort();
        names
    }

    /// Fails the test unless exactly these instructions ran.
    #[track_caller]
    pub fn ran<const N: usize>(&self, mut expected: [&str; N]) -> &Built {
        expected.sort_unstable();
        assert_eq!(self.that_are("done"), expected, "\n{self}");
        self
    }
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told)
    }
}
