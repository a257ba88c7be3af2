//! The environment that a command starts with.

use super::spec::{Spec, User};

/// The `PATH` of an image that names none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the environment of a step's command, secrets among it.
pub(super) fn of_step(spec: &Spec) -> Vec<(String, String)> {
    let secrets = spec.secret_env.iter();
    let secrets = secrets.map(|(name, value)| (name.clone(), value.reveal().to_owned()));
    let given: Vec<_> = spec.env.iter().cloned().chain(secrets).collect();
    complete(&given, &spec.user)
}

/// Returns `given` with each name once, and with `PATH` and `HOME` if it lacks them.
///
/// Of a name given twice the last value counts, at the place of the first.
#[must_use]
pub fn complete(given: &[(String, String)], user: &User) -> Vec<(String, String)> {
    let mut complete: Vec<(String, String)> = Vec::with_capacity(given.len() + 2);
    for (name, value) in given {
        match complete.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => old.clone_from(value),
            None => complete.push((name.clone(), value.clone())),
        }
    }
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", &user.home)] {
        if !complete.iter().any(|(known, _)| known == name) {
            complete.push((name.to_owned(), value.to_owned()));
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(given: &[(&str, &str)]) -> String {
        let given: Vec<_> =
            given.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let complete = complete(&given, &User { home: "/home/ada".to_owned(), ..User::root() });
        complete.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn adds_what_is_missing() {
        assert_eq!(completed(&[]), format!("PATH={DEFAULT_PATH} HOME=/home/ada"));
        assert_eq!(completed(&[("HOME", ""), ("PATH", "/x")]), "HOME= PATH=/x");
    }

    #[test]
    fn the_last_value_of_a_name_counts() {
        let given = [("A", "1"), ("B", "2"), ("A", "3"), ("PATH", "/x"), ("HOME", "/")];
        assert_eq!(completed(&given), "A=3 B=2 PATH=/x HOME=/");
    }
}
