//! The variables of a stage: ENV and ARG in the order in which they were declared.

use crate::dockerfile::expansion::Variables;

/// What RUN and expansions see.
///
/// The later declaration of a name wins: an ARG behind an ENV shadows it while building, though
/// the image keeps the ENV.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: Vec<(String, String)>,
    /// The arguments that were declared, for the history of RUN: in order, each name once.
    arguments: Vec<(String, Option<String>)>,
}

impl Environment {
    /// Takes the variables of an image's configuration, unless it knows the names already.
    pub(crate) fn inherit(&mut self, env: &[String]) {
        for pair in env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if self.get(name).is_none() {
                self.set(name, value);
            }
        }
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.variables.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => value.clone_into(own),
            None => self.variables.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Declares an argument; one without a value only has a name.
    pub(crate) fn declare(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(name, value);
        }
        let value = value.map(str::to_owned);
        match self.arguments.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => *own = value,
            None => self.arguments.push((name.to_owned(), value)),
        }
    }

    /// Returns the variables, for a command.
    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// Says whether an ARG declared a variable.
    pub(crate) fn is_argument(&self, name: &str) -> bool {
        self.arguments.iter().any(|(own, _)| own == name)
    }

    /// Returns the names of the variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    /// Returns what stands before a command in the history: `|2 a=1 b=2 `, or nothing.
    pub(crate) fn history_prefix(&self) -> String {
        if self.arguments.is_empty() {
            return String::new();
        }
        let pairs = self.arguments.iter().map(|(name, declared)| {
            let value = self.get(name).or_else(|| declared.clone()).unwrap_or_default();
            format!(" {name}={value}")
        });
        format!("|{}{} ", self.arguments.len(), pairs.collect::<String>())
    }
}

impl Variables for Environment {
    fn get(&self, name: &str) -> Option<String> {
        Variables::get(&self.variables, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_declaration_wins() {
        let mut environment = Environment::default();
        environment.inherit(&["a=base".to_owned(), "PATH=/bin".to_owned()]);
        environment.declare("a", Some("arg"));
        assert_eq!(environment.get("a").as_deref(), Some("arg"));
        environment.set("a", "env");
        environment.inherit(&["a=base".to_owned()]);
        assert_eq!(environment.get("a").as_deref(), Some("env"));
    }

    #[test]
    fn the_history_names_the_arguments_in_order() {
        let mut environment = Environment::default();
        assert_eq!(environment.history_prefix(), "");
        environment.declare("b", Some("2"));
        environment.declare("a", None);
        environment.declare("b", Some("3"));
        assert_eq!(environment.history_prefix(), "|2 b=3 a= ");
    }
}
