//! The instructions that change a configuration without a build: those of `docker import --change`.
//!
//! They mean what they mean in a Dockerfile, but variables are not expanded, and there are no
//! continued lines.

use boatyard_oci::image_config::{Empty, RunConfig};
use thiserror::Error;

/// Why an instruction cannot be applied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ChangeError {
    /// It needs a build, or is none.
    #[error(
        "`{0}` cannot be applied to an image that is imported: use CMD, ENTRYPOINT, ENV, LABEL, \
         EXPOSE, USER, WORKDIR, VOLUME or STOPSIGNAL"
    )]
    Unknown(String),
    /// Nothing stands behind it.
    #[error("{0} needs an argument")]
    Empty(String),
    /// A word without `=`.
    #[error("`{word}` of {instruction} is not of the form name=value")]
    Pair {
        /// Which instruction.
        instruction: String,
        /// Which word.
        word: String,
    },
    /// A quote has no end.
    #[error("a quote in {0} has no end")]
    Quote(String),
    /// Not a port.
    #[error("`{0}` is not a port: write it as 80, 80/tcp or 80/udp")]
    Port(String),
}

/// Applies instructions such as `CMD ["sh"]` or `ENV A=1 B="two words"` in their order.
///
/// # Errors
/// On the first one that cannot be applied.
pub fn apply_changes(config: &mut RunConfig, changes: &[String]) -> Result<(), ChangeError> {
    changes.iter().try_for_each(|change| apply(config, change.trim()))
}

fn apply(config: &mut RunConfig, change: &str) -> Result<(), ChangeError> {
    let (word, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let (instruction, rest) = (word.to_ascii_uppercase(), rest.trim());
    if rest.is_empty() {
        return Err(match instruction.as_str() {
            "" => ChangeError::Unknown(change.to_owned()),
            _ => ChangeError::Empty(instruction),
        });
    }
    match instruction.as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (name, value) in pairs(&instruction, rest)? {
                set_variable(&mut config.env, &name, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(&instruction, rest)?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                config.exposed_ports.insert(parse_port(port)?, Empty {});
            }
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = directory(&config.working_dir, rest),
        "VOLUME" => {
            let volumes =
                json(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            config.volumes.extend(volumes.into_iter().map(|volume| (volume, Empty {})));
        }
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        _ => return Err(ChangeError::Unknown(word.to_owned())),
    }
    Ok(())
}

/// A list of words as JSON, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    json(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn json(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// Sets a variable in its place, or at the end.
fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    let set = format!("{name}={value}");
    let is_same = |other: &&mut String| other.split('=').next() == Some(name);
    match env.iter_mut().find(is_same) {
        Some(other) => *other = set,
        None => env.push(set),
    }
}

/// `name=value` words, or one name and the rest of the line.
fn pairs(instruction: &str, text: &str) -> Result<Vec<(String, String)>, ChangeError> {
    let words = words(instruction, text)?;
    if let Some((name, value)) = text.split_once(char::is_whitespace)
        && !name.contains('=')
    {
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ChangeError::Pair { instruction: instruction.to_owned(), word }),
    };
    words.into_iter().map(pair).collect()
}

/// Splits at blanks that are neither quoted nor escaped.
fn words(instruction: &str, text: &str) -> Result<Vec<String>, ChangeError> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), close) if open == close => quote = None,
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().extend(characters.next());
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    if quote.is_some() {
        return Err(ChangeError::Quote(instruction.to_owned()));
    }
    Ok(words)
}

fn parse_port(text: &str) -> Result<String, ChangeError> {
    let wrong = || ChangeError::Port(text.to_owned());
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = number.parse().map_err(|_| wrong())?;
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    Ok(format!("{number}/{protocol}"))
}

/// A relative directory is one within the last.
fn directory(last: &str, next: &str) -> String {
    match next.strip_prefix('/') {
        Some(_) => next.to_owned(),
        None => format!("{}/{next}", last.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<RunConfig, ChangeError> {
        let mut config = RunConfig::default();
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        apply_changes(&mut config, &changes)?;
        Ok(config)
    }

    #[test]
    fn means_what_a_dockerfile_means() {
        let config = changed(&[
            r#"CMD ["sh", "-l"]"#,
            "entrypoint exec app",
            r#"ENV A=1 B="two words" C=a\ b"#,
            "ENV A 3 and more",
            "LABEL a.b='x y'",
            "EXPOSE 80 53/UDP",
            "USER app:app",
            "WORKDIR /srv",
            "WORKDIR www",
            "VOLUME /data /log",
            "STOPSIGNAL SIGINT",
        ])
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["sh", "-l"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec app"]);
        assert_eq!(config.env, ["A=3 and more", "B=two words", "C=a b"]);
        assert_eq!(config.labels["a.b"], "x y");
        assert_eq!(config.exposed_ports.into_keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app:app", "/srv/www"));
        assert_eq!(config.volumes.len(), 2);
        assert_eq!(config.stop_signal.unwrap(), "SIGINT");
    }

    #[test]
    fn refuses_what_it_does_not_do() {
        let table = [
            ("RUN make", ChangeError::Unknown("RUN".into())),
            ("", ChangeError::Unknown(String::new())),
            ("CMD", ChangeError::Empty("CMD".into())),
            ("ENV A='x", ChangeError::Quote("ENV".into())),
            ("EXPOSE 99999", ChangeError::Port("99999".into())),
            ("LABEL a", ChangeError::Pair { instruction: "LABEL".into(), word: "a".into() }),
        ];
        for (change, expected) in table {
            assert_eq!(changed(&[change]).unwrap_err(), expected, "{change}");
        }
    }
}
