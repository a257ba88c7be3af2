//! A shell text as far as a linter needs it: its simple commands, each a list of words.
//!
//! Not a shell: quotes are taken off, nothing is expanded, and what is inside `$(...)` belongs to the
//! words around it.

use crate::dockerfile::instruction::{Run, RunCommand};

/// How many commands of one text are looked at.
const COMMANDS_MAX: usize = 10_000;
/// Words before a command that are no command themselves.
const PREFIXES: [&str; 8] = ["sudo", "exec", "command", "time", "then", "do", "else", "{"];

/// Returns the simple commands of a RUN.
pub(super) fn commands(run: &Run) -> Vec<Vec<String>> {
    match &run.command {
        RunCommand::Exec(args) => match args.as_slice() {
            [shell, flag, text] if is_shell(shell) && flag.contains('c') => split(text),
            args => vec![args.to_vec()],
        },
        RunCommand::Shell(text) | RunCommand::Script { content: text, .. } => split(text),
    }
}

fn is_shell(program: &str) -> bool {
    matches!(program.rsplit('/').next(), Some("sh" | "bash" | "ash" | "dash"))
}

/// Splits a text at what ends a command.
fn split(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if commands.len() >= COMMANDS_MAX {
            break;
        }
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '\\') => match chars.next() {
                Some('\n') | None => end_word(&mut words, &mut word),
                Some(next) => word.push(next),
            },
            (None, '#') if word.is_empty() => while chars.next_if(|c| *c != '\n').is_some() {},
            (None, '\n' | ';' | '&' | '|' | '(' | ')') => {
                end_word(&mut words, &mut word);
                end_command(&mut commands, &mut words);
            }
            (None, c) if c.is_whitespace() => end_word(&mut words, &mut word),
            (None, c) => word.push(c),
        }
    }
    end_word(&mut words, &mut word);
    end_command(&mut commands, &mut words);
    commands
}

fn end_word(words: &mut Vec<String>, word: &mut String) {
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

fn end_command(commands: &mut Vec<Vec<String>>, words: &mut Vec<String>) {
    let is_prefix = |word: &String| {
        let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        is_assignment || PREFIXES.contains(&word.as_str())
    };
    let skipped = words.iter().take_while(|word| is_prefix(word)).count();
    let command: Vec<String> = words.drain(..).skip(skipped).collect();
    if !command.is_empty() {
        commands.push(command);
    }
}

/// Returns a program's name without its directory, and the words behind it that are no options.
pub(super) fn program(command: &[String]) -> (&str, Vec<&str>) {
    let Some((program, rest)) = command.split_first() else { return ("", Vec::new()) };
    let name = program.rsplit('/').next().unwrap_or(program);
    (name, rest.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fall_into_commands() {
        let joined = |text: &str| -> Vec<String> {
            split(text).iter().map(|command| command.join(" ")).collect()
        };
        let table: [(&str, &[&str]); 6] = [
            ("a b && c;d|e", &["a b", "c", "d", "e"]),
            (
                "set -e; A=1 sudo apt-get  update \\\n && rm -rf '/a b'",
                &["set -e", "apt-get update", "rm -rf /a b"],
            ),
            ("# no\necho \"a && b\" # no", &["echo a && b"]),
            ("if true; then rm x; fi", &["if true", "rm x", "fi"]),
            ("", &[]),
            ("'", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(joined(text), expected, "{text}");
        }
    }
}
